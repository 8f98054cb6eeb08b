"""Two processes share a training: one model, batches divided, draws of their own."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tests.training.processes import trained

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """What each of two processes drew and ended with."""
    folder = tmp_path_factory.mktemp("processes")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        meeting = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    started = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.training.processes", str(folder / f"{rank}.pt")],
            cwd=ROOT,
            env=os.environ | meeting | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        for process in started:
            _, errors = process.communicate(timeout=300)
            assert process.returncode == 0, errors
            assert "reducer" not in errors, "nobody looks for weights without a part in the step"
    finally:
        for process in started:
            process.kill()
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


def test_processes_draw_for_themselves_and_train_one_model(both):
    first, second = both
    assert len(first["drawn"]) == len(second["drawn"]) > 10
    assert not set(first["drawn"]) & set(second["drawn"])
    assert torch.equal(first["start"], second["start"])
    assert torch.equal(first["weights"], second["weights"])


def test_the_first_process_draws_what_a_process_alone_draws(both, tmp_path):
    """And the step is the same, whoever takes which part of the batch."""
    alone = trained(tmp_path)
    assert alone["drawn"] == both[0]["drawn"]
    torch.testing.assert_close(alone["weights"], both[0]["weights"], rtol=1e-4, atol=1e-5)
    assert alone["digest"] != both[0]["digest"] == both[1]["digest"], "each has checkpoints of its own kind"


def test_the_first_process_decides_which_state_is_kept(both):
    """By the second one's own figures its first state would be the best, and it would stop."""
    assert both[0]["best_step"] == both[1]["best_step"] == 12
