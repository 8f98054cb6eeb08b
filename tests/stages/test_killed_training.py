"""kill -9 in the middle of a training: what comes out in the end is the same to the bit."""

import os
import secrets
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from tests.stages.test_train import write_dataset, write_ids
from tests.stages.training_process import AVERAGED, NODES, SETTINGS

from sidrec.artifact import open_artifact
from sidrec.stages.layout import RunFolder
from sidrec.testing.toy import cycle_dataset

ROOT = Path(__file__).parents[2]
LAST = 55
"""A kill must come before the last step, which is 60."""


def start(folder: RunFolder, name: str, settings: list[str]) -> subprocess.Popen:
    words = [sys.executable, "-m", "tests.stages.training_process", str(folder.path), name, *settings]
    return subprocess.Popen(
        words, cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"}, stderr=subprocess.PIPE, text=True
    )


def newest(folder: RunFolder) -> int:
    """The step of the newest whole checkpoint in the run; 0 without one."""
    found = folder.scratch("").glob("killed-*/checkpoints/checkpoint-*")
    return max((int(path.name.rpartition("-")[2]) for path in found), default=0)


def kill_after(process: subprocess.Popen, folder: RunFolder, step: int, seconds: float) -> None:
    """Kill -9 once a checkpoint of that step is there and some time has passed."""
    until = time.monotonic() + 120
    while newest(folder) < step:
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < until, "no checkpoint comes"
        time.sleep(0.002)
    time.sleep(seconds)
    process.kill()
    assert process.wait(timeout=60) == -signal.SIGKILL, "it was over before the kill"


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [SETTINGS, [*SETTINGS, *AVERAGED], NODES],
    ids=["plain", "averaged and accumulated", "item decoder"],
)
def test_killed_three_times_equals_uninterrupted(tmp_path: Path, settings: list[str]) -> None:
    folder, dataset = RunFolder(tmp_path / "run"), cycle_dataset()
    write_dataset(folder, dataset)
    write_ids(folder, dataset)
    whole = start(folder, "whole", settings)
    assert whole.wait(timeout=300) == 0, whole.stderr.read()
    begun = folder.path / "begun"
    assert begun.read_text().split() == ["0"]
    begun.unlink()

    seed = secrets.randbelow(2**32)
    draw = np.random.default_rng(seed)
    told = [0]
    for _ in range(3):
        step, seconds = int(draw.integers(told[-1] + 1, told[-1] + 16)), float(draw.uniform(0, 0.1))
        kill_after(start(folder, "killed", settings), folder, step, seconds)
        told.append(newest(folder))
        assert step <= told[-1] < LAST, f"draw of seed {seed}"
        assert not folder.recommender("killed").exists()
    last = start(folder, "killed", settings)
    assert last.wait(timeout=300) == 0, last.stderr.read()

    assert [int(float(text)) for text in begun.read_text().split()] == told, f"draw of seed {seed}: where each began"
    one, two = (open_artifact(folder.recommender(name), "recommender") for name in ("whole", "killed"))
    weights = [(artifact.path / "model.safetensors").read_bytes() for artifact in (one, two)]
    assert weights[0] == weights[1], f"draw of seed {seed}"
    for figure in ("losses", "best_metric", "best_step", "average_metric", "averaged", "steps"):
        assert one.summary["report"][figure] == two.summary["report"][figure], figure
    assert one.digest == two.digest
    assert not list(folder.scratch("").glob("*"))
