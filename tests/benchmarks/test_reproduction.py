"""Pieces of a long benchmark: stopped in the middle, gone on with, and the same figures in the end."""

import importlib
import json
import re
import shlex
import signal
import time
from pathlib import Path
from types import ModuleType

import pytest

from sidrec.cli.interrupts import listening
from sidrec.progress import Silent
from sidrec.stages.recipe import load_recipe
from sidrec.training import trainer

ROOT = Path(__file__).parents[2]
ROW = "letter-tiger-published Beauty"
TINY = [
    "recommender.d_model=16",
    "recommender.d_kv=8",
    "recommender.num_heads=2",
    "recommender.d_ff=16",
    "recommender.num_layers=1",
    "training.max_steps=6",
    "training.batch_size=32",
    "training.validate_every=2",
]


@pytest.fixture
def reproduction(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    return importlib.import_module("reproduction")


@pytest.fixture
def pieces(reproduction: ModuleType) -> ModuleType:
    return importlib.import_module("pieces")


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twelve items in a ring, in the files and the folders of LETTER's Beauty."""
    folder = tmp_path / "data" / "letter" / "Beauty"
    folder.mkdir(parents=True)
    events = {str(user): [(user + step) % 12 for step in range(7)] for user in range(24)}
    index = {str(item): [f"<a_{item // 4}>", f"<b_{item % 4}>"] for item in range(12)}
    (folder / "Beauty.inter.json").write_text(json.dumps(events))
    (folder / "Beauty.index.json").write_text(json.dumps(index))
    monkeypatch.setenv("SIDREC_DATA", str(tmp_path / "data"))


def words(run: Path, out: Path, *more: str) -> list[str]:
    return [
        "--rows",
        ROW,
        "--run",
        str(run),
        "--out",
        str(out),
        "--device",
        "cpu",
        "--threads",
        "0",
        *more,
        "--set",
        *TINY,
    ]


def figures(out: Path) -> dict[str, float]:
    rows = json.loads((out / "reproduction.json").read_text())["rows"]
    assert {row["variant"] for row in rows} == {" ".join([ROW.split()[0], *TINY])}
    return {row["unit"]: row["value"] for row in rows}


def test_a_row_in_pieces_equals_a_row_at_once(
    reproduction: ModuleType, pieces: ModuleType, data: None, tmp_path: Path, monkeypatch, capsys
) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    monkeypatch.setattr("sidrec.training.watch.CHECKPOINT_SECONDS", 0.0)
    assert reproduction.main(words(whole, whole)) == 0
    with monkeypatch.context() as patch:
        # The time is over right after the first checkpoint of each piece.
        patch.setattr(trainer, "keep_only", lambda _: signal.raise_signal(signal.SIGALRM))
        spent = [0.0]
        for piece in (1, 2):
            capsys.readouterr()
            assert reproduction.main(words(cut, cut, "--minutes", "60")) == pieces.UNFINISHED
            said = capsys.readouterr().out
            minutes = float(re.search(r": (\S+) min so far", said).group(1))
            assert minutes // 60 == piece - 1
            assert f"last checkpoint: step {piece}\n" in said
            (checkpoint,) = (cut / "Beauty" / ".scratch").glob(f"*/checkpoints/checkpoint-{piece}")
            record = json.loads((checkpoint / "record.json").read_text())
            assert record["seconds"] > spent[-1]
            spent.append(record["seconds"])
            # An hour more, which must be in the sum.
            (checkpoint / "record.json").write_text(json.dumps(record | {"seconds": record["seconds"] + 3600}))
            spent[-1] += 3600
            assert not (cut / "reproduction.json").exists(), "only finished rows are figures"
    name = reproduction.recommender_name(ROW.split()[0], TINY, 0)
    assert reproduction.main(words(cut, cut, "--minutes", "60")) == 0
    one, other = figures(whole), figures(cut)
    assert other.pop("s training") > spent[-1] > 7200
    assert one.pop("s training") < 3600
    assert one == other
    assert "training.max_steps=6" in (cut / "reproduction.md").read_text()
    weights = [
        (folder / "Beauty" / "recommenders" / name / "model.safetensors").read_bytes() for folder in (whole, cut)
    ]
    assert weights[0] == weights[1]


def sources(monkeypatch: pytest.MonkeyPatch, letter: str, is_changed: bool, cpu: str) -> None:
    """Later rows come from such sources, on such a machine."""
    state = {"commit": letter * 40, "dirty": is_changed}
    monkeypatch.setattr("sidrec.artifact._source_state", lambda: state)
    monkeypatch.setattr(importlib.import_module("harness"), "hardware", lambda: {"cpu": cpu})


def test_each_row_names_what_made_it(reproduction: ModuleType, data: None, tmp_path: Path, monkeypatch) -> None:
    def rows(seed: int) -> list[dict[str, object]]:
        found = json.loads((tmp_path / "reproduction.json").read_text())["rows"]
        return [row for row in found if row["case"].endswith(f"seed {seed}")]

    command = words(tmp_path / "run", tmp_path)
    sources(monkeypatch, "a", True, "old")
    assert reproduction.main([*command, "--seeds", "0"]) == 0
    before = rows(0)
    assert {(row["trained"], row["scored"], row["hardware"]["cpu"]) for row in before} == {
        ("a" * 40 + "+dirty", "a" * 40 + "+dirty", "old")
    }
    assert all(row["versions"]["torch"] for row in before)
    assert "`, by sources with uncommitted changes |" in (tmp_path / "reproduction.md").read_text()
    sources(monkeypatch, "b", False, "new")
    assert reproduction.main([*command, "--seeds", "0", "1"]) == 0
    assert rows(0) == before, "what stood already was not made by the sources of today"
    assert {(row["trained"], row["scored"], row["hardware"]["cpu"]) for row in rows(1)} == {("b" * 40, "b" * 40, "new")}
    (tmp_path / "reproduction.json").unlink()
    assert reproduction.main([*command, "--seeds", "0"]) == 0
    again = rows(0)
    assert {row["trained"] for row in again} == {"a" * 40 + "+dirty"}
    assert all(not row["hardware"] and list(row["versions"]) == ["sidrec"] for row in again), "nobody noted them"


def test_finished_rows_outlive_whatever_ends_the_call(
    reproduction: ModuleType, data: None, tmp_path: Path, monkeypatch
) -> None:
    whole = reproduction.one

    def one(*given):
        if given[-1].seed == 1:
            raise MemoryError
        return whole(*given)

    monkeypatch.setattr(reproduction, "one", one)
    with pytest.raises(MemoryError):
        reproduction.main([*words(tmp_path / "run", tmp_path), "--seeds", "0", "1"])
    curve = {f"loss on validation users after {step} steps" for step in (2, 4, 6)}
    assert set(figures(tmp_path)) == {*reproduction.METRICS, "s training"} | curve
    assert "| 1 | 0 min |" in (tmp_path / "reproduction.md").read_text()


def test_a_piece_that_gets_nowhere_does_not_ask_for_another(
    reproduction: ModuleType, pieces: ModuleType, data: None, tmp_path: Path, monkeypatch, capsys
) -> None:
    monkeypatch.setattr(reproduction, "one", lambda *_: signal.raise_signal(signal.SIGALRM))
    command = words(tmp_path / "run", tmp_path, "--minutes", "60")
    assert reproduction.main(command) == pieces.UNFINISHED, "the data were read"
    assert reproduction.main(command) == 1
    assert "give more --minutes" in capsys.readouterr().err


def test_ctrl_c_is_told_from_the_end_of_the_time(
    reproduction: ModuleType, pieces: ModuleType, data: None, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setattr(reproduction, "one", lambda *_: signal.raise_signal(signal.SIGINT))
    assert reproduction.main(words(tmp_path / "run", tmp_path, "--minutes", "60")) == pieces.INTERRUPTED


def test_the_time_ends_its_block_and_nothing_after_it(pieces: ModuleType) -> None:
    before = signal.getsignal(signal.SIGALRM)
    limit = pieces.TimeLimit(0.002)
    with pytest.raises(KeyboardInterrupt), listening(Silent()), limit:
        time.sleep(60)
    assert limit.is_over
    with listening(Silent()), pieces.TimeLimit(0.002) as short, pieces.TimeLimit(None):
        pass
    time.sleep(0.2)
    assert not short.is_over
    assert signal.getsignal(signal.SIGALRM) is before


def test_pieces_need_a_folder_and_some_time(reproduction: ModuleType, tmp_path: Path, capsys) -> None:
    for given, message in ((["--minutes", "9"], "--run"), (["--minutes", "0", "--run", str(tmp_path)], "more than 0")):
        with pytest.raises(SystemExit):
            reproduction.arguments(given)
        assert message in capsys.readouterr().err


def test_rows_that_take_a_gpu_are_run_only_when_named(reproduction: ModuleType) -> None:
    quick = reproduction.arguments([]).rows
    assert "letter-tiger-published Beauty" not in quick
    assert quick.index("ensemble-amazon Beauty") > max(
        map(quick.index, ("sasrec-amazon Beauty", "item-decoder-amazon Beauty"))
    )
    assert reproduction.arguments(["--rows", ROW]).rows == [ROW]


def test_a_wrong_setting_is_one_message(reproduction: ModuleType, data: None, tmp_path: Path, capsys) -> None:
    code = reproduction.main([*words(tmp_path / "run", tmp_path), "training.max_stepps=3"])
    assert code == 2
    assert "did you mean 'max_steps'?" in capsys.readouterr().err
    assert not (tmp_path / "reproduction.json").exists()


def test_the_table_of_the_documentation_is_that_of_the_results(reproduction: ModuleType) -> None:
    assert reproduction.PAGE.read_text(encoding="utf-8") == reproduction.table(reproduction.earlier())


def test_a_cost_names_the_gpu(reproduction: ModuleType) -> None:
    rows = [
        reproduction.Made("Beauty, test, seed 0", "mine", "", 0.5, unit, None, None) for unit in reproduction.METRICS
    ]
    rows.append(reproduction.Made("Beauty, test, seed 0", "mine", "", 120.0, "s training, NVIDIA L4", None, None))
    line = next(line for line in reproduction.table(rows).splitlines() if "`mine`" in line)
    assert line == "| Beauty | `mine` | 0.5000 | 0.5000 | 0.5000 | 0.5000 | 1 | 2 min, NVIDIA L4 |"


def test_documented_commands_exist(reproduction: ModuleType) -> None:
    page = (ROOT / "docs" / "reproduction.md").read_text(encoding="utf-8").replace("\\\n", " ")
    commands = re.findall(r"python benchmarks/reproduction\.py([^;\n]*)", page)
    assert len(commands) >= 5
    for command in commands:
        wanted = reproduction.arguments(shlex.split(command))
        for row in wanted.rows:
            load_recipe(reproduction.ROWS[row][0], wanted.set)


def test_the_curve_of_a_training_stands_below_the_table_in_its_order(reproduction):
    steps = {20: 0.3, 100: 0.1, 10: 0.25}
    rows = [
        reproduction.Made(
            "Beauty, validation, seed 0", "mine", "", value, f"hit@10 on validation users after {step} steps", 1.0, 0.0
        )
        for step, value in steps.items()
    ]
    last = reproduction.table(rows).splitlines()[-1]
    assert (
        last == "`mine`, Beauty, validation, seed 0: hit@10 0.2500 after 10, 0.3000 after 20, 0.1000 after 100 steps."
    )


def test_without_data_nothing_seems_to_be_finished(
    reproduction: ModuleType, tmp_path: Path, monkeypatch, capsys
) -> None:
    command = words(tmp_path / "run", tmp_path)
    for folder in (None, str(tmp_path)):
        if folder is None:
            monkeypatch.delenv("SIDREC_DATA", raising=False)
        else:
            monkeypatch.setenv("SIDREC_DATA", folder)
        assert reproduction.main(command) == 2
        assert "next: set SIDREC_DATA to the folder that holds" in capsys.readouterr().err
    assert reproduction.main([]) == 2, "a folder without the data was named"
    monkeypatch.delenv("SIDREC_DATA")
    assert reproduction.main([]) == 0
    assert "SKIPPED" in capsys.readouterr().out
