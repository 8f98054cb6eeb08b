"""Evaluation and comparison on the command line: what is printed, and rules that need no training."""

import shutil
from pathlib import Path

import pytest


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
