"""The verb `tune` on the toy data."""

import pytest


@pytest.fixture
def run(sidrec, toy, tmp_path, small):
    folder = tmp_path / "run"
    assert sidrec("prepare", "--reader", "letter", "--path", toy, "--run", folder).code == 0
    assert sidrec("train", "sasrec", "--run", folder, *small).code == 0
    return folder


def test_tune_says_what_was_kept_and_by_which_figures(sidrec, run) -> None:
    settings = ["algorithm.pairs.ranks=4", "algorithm.pairs.hard=2"]
    done = sidrec("tune", "sasrec-dpo", "--run", run, "--from", "sasrec", *settings)
    assert done.code == 0, done.err
    assert "validation ndcg@10: 0." in done.err
    assert "before" in done.err
    assert "kept" in done.err
    again = sidrec("tune", "sasrec-dpo", "--run", run, "--from", "sasrec", "--json", *settings)
    assert again.json["skipped"]
    assert again.json["stage"] == "tune"
    assert again.json["summary"]["gate"]["kept"] in ("start", "tuned")
    shown = sidrec("inspect", run / "recommenders" / "sasrec-dpo")
    assert "start:" in shown.out
    assert "gate.kept" in shown.out


def test_wrong_use(sidrec, run) -> None:
    done = sidrec("tune", "sasrec-dpo", "--run", run)
    assert done.code == 2
    assert "--from" in done.err
    done = sidrec("tune", "sasrec", "--run", run, "--from", "sasrec")
    assert done.code == 2
    assert "algorithm.kind=dpo" in done.err
    done = sidrec("tune", "sasrec-dpo", "--run", run, "--from", "sasrec", "training.max_epochs=1")
    assert done.code == 2
    assert "training.max_epochs=1: tuning reads algorithm and evaluation alone" in done.err
    assert "algorithm.training" in done.err
