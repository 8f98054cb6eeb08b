"""Evaluation and comparison on the command line: what is printed, and rules that need no training."""

import shutil
from pathlib import Path

import pytest

from sidrec.cli.output import column_groups


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    return shutil.copytree(trained, tmp_path / "run")


def test_more_beams_need_no_training_and_are_printed(sidrec, run: Path) -> None:
    tiger = run / "recommenders" / "tiger"
    made = (tiger / "artifact.json").read_bytes()
    before = sidrec("evaluate", tiger)
    assert "search: 20 beams, normalize: level" in before.err
    after = sidrec("evaluate", tiger, "search.beams=100")
    assert after.code == 0, after.err
    assert "search: 100 beams, normalize: level" in after.err
    assert (tiger / "artifact.json").read_bytes() == made
    assert "search: 100 beams" in sidrec("evaluate", tiger).err, "the last rules hold until others are given"


def test_what_bears_on_trust_is_printed(sidrec, run: Path) -> None:
    done = sidrec("evaluate", run / "recommenders" / "tiger")
    for text in ("certified exact", "targets in their own history", "fewer than k different codes"):
        assert text in done.out
    assert done.out.split()[-2:] == ["examples", "24"]


def test_lists_that_are_not_exact_say_how_to_make_them_so(sidrec, run: Path) -> None:
    narrow = ("search.beams=1", "k=[1]", "primary=hit@1")
    done = sidrec("evaluate", run / "recommenders" / "tiger", *narrow)
    assert "exact=true" in done.err
    share = float(next(line for line in done.out.splitlines() if "certified exact" in line).split()[-1])
    assert share < 1
    compared = sidrec("compare", run)
    assert "exact=true" in compared.err
    assert f"{100 * share:.1f}" in compared.out
    exact = sidrec("compare", run, "exact=true")
    assert exact.code == 0, exact.err
    assert "exact=true" not in exact.err
    assert "k = 1 ·" in exact.err, "settings are laid over the rules that stand"
    assert "certified exact" in exact.err
    assert "1 beams, level" in exact.out


def test_run_prints_the_rules_too(sidrec, run: Path) -> None:
    assert sidrec("run", "popularity", "--run", run).err.count("history: all earlier events") == 1


def test_wide_tables_are_cut_not_folded_on_a_narrow_terminal() -> None:
    columns = ["recommender", "ndcg@10", "95 % interval", "certified (%)"]
    lines = [["popularity", "0.0100", "0.0090 to 0.0110", "100.0"], ["tiger", "0.0200", "0.0190 to 0.0210", "97.5"]]
    assert column_groups(columns, lines, width=400) == [[0, 1, 2, 3]]
    assert column_groups(columns, lines, width=50) == [[0, 1, 2], [0, 3]]
    assert column_groups(columns, lines, width=5) == [[0, 1], [0, 2], [0, 3]], "every table shows a column at least"
