import json

import pytest
from benchmarks.harness import Benchmark, Timing, compare, measure


def test_variants_take_turns_and_warm_ups_do_not_count():
    calls = []
    found = compare({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, "a", repeats=2, warmup=1)
    assert calls == ["a", "b"] * 3
    assert set(found) == {"a", "b"}


def test_an_unknown_baseline_is_refused():
    with pytest.raises(KeyError, match="'c' is not among"):
        compare({"a": lambda: None}, "c")


def test_cpu_seconds_do_not_count_sleep():
    import time

    timing = measure(lambda: time.sleep(0.05), repeats=1, warmup=0)
    assert timing.median_s >= 0.05
    assert timing.cpu_s < 0.04


def test_result_file_has_the_agreed_form(tmp_path, capsys):
    benchmark = Benchmark("sums")
    benchmark.timings("ten", {"slow": Timing(2.0, 1.0, 0.1), "fast": Timing(0.5, 0.5, 0.2)}, "slow")
    benchmark.row("ten", "fast", value=7, unit="MB")
    found = json.loads(benchmark.save(tmp_path).read_text())
    assert set(found) == {"name", "commit", "hardware", "versions", "rows"}
    assert set(found["hardware"]) == {"cpu", "cores", "memory_gb", "gpu"}
    assert {"python", "torch", "transformers", "numpy", "polars", "sidrec"} == set(found["versions"])
    assert found["rows"][2] == {
        "case": "ten", "variant": "fast", "baseline": "slow", "value": 0.5, "unit": "s", "ratio": 4.0, "spread": 0.2,
    }  # fmt: skip
    assert found["rows"][3]["ratio"] == 2.0
    assert found["rows"][4]["unit"] == "MB"
    assert "slow" in capsys.readouterr().out
