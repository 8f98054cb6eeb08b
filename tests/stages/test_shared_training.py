"""Training and evaluation shared among processes that torchrun starts: the same metrics, every user once."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from safetensors.torch import load_file
from tests.stages.test_train import write_dataset, write_ids

from sidrec.artifact import open_artifact
from sidrec.config import RunSettings
from sidrec.data.dataset import Examples
from sidrec.evaluation.protocol import Protocol
from sidrec.stages.evaluate import LISTS, PER_USER, evaluate
from sidrec.stages.layout import RunFolder
from sidrec.stages.recipe import load_recipe
from sidrec.stages.train import train
from sidrec.testing.toy import cycle_dataset

ROOT = Path(__file__).parents[2]
RUN = RunSettings(device="cpu")
NUM_USERS = 19
TIGER = [
    "recommender.d_model=16",
    "recommender.d_kv=8",
    "recommender.num_heads=2",
    "recommender.d_ff=16",
    "recommender.num_layers=1",
    "recommender.temperature=0.8",
    "training.accumulation=2",
]
COMMON = [
    "recommender.dropout=0",
    "training.max_epochs=3",
    "training.batch_size=16",
    "training.optimizer.lr=0.01",
    "training.validate_every=4",
    "training.validate_users=0",
]
SMALL_DECODER = ["recommender.d_model=16", "recommender.num_heads=2", "recommender.d_ff=16", "recommender.num_layers=1"]
CASES = {
    "tiger": [*TIGER, *COMMON, "training.ema_decay=0.5", "training.average=2"],
    "sasrec": ["recommender.hidden_size=16", *COMMON, "training.select=loss"],
    # Nineteen windows: the second step of an epoch has one, so that one process has none.
    "item-decoder": [
        *SMALL_DECODER,
        *COMMON,
        "recommender.outputs=nodes",
        "recommender.depth_dropout=0",
        "training.batch_size=18",
        "training.select=loss",
    ],
    "decoder": [*SMALL_DECODER, *COMMON, "recommender.packed=true", "training.batch_size=18", "training.select=loss"],
}


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    """113 training examples: the last step of an epoch has one, so that one of two processes has none."""
    folder, dataset = RunFolder(tmp_path / "run"), cycle_dataset(num_users=NUM_USERS)
    train_part = dataset.split.train
    fewer = Examples(train_part.users[:113], train_part.cuts[:113])
    dataset = replace(dataset, split=replace(dataset.split, train=fewer))
    write_dataset(folder, dataset)
    write_ids(folder, dataset)
    return folder


def start(processes: int, *words: object) -> subprocess.Popen:
    """The command line in several processes."""
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    return subprocess.Popen(
        [*launch, "-m", "--", "sidrec", *map(str, words), "--device", "cpu"],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@dataclass(frozen=True)
class Done:
    code: int
    out: str
    err: str


def torchrun(processes: int, *words: object) -> Done:
    """What the command line in several processes says in the end."""
    process = start(processes, *words)
    out, err = process.communicate(timeout=300)
    return Done(process.returncode, out, err)


def check_same_training(folder: RunFolder, recipe: str, processes: int) -> None:
    settings = CASES[recipe]
    alone = train(folder, load_recipe(recipe, settings), RUN, name="alone").artifact
    done = torchrun(processes, "train", recipe, *settings, "--run", folder.path, "--name", "shared")
    assert done.code == 0, done.err
    assert done.err.count("recommenders/shared)") == 1, "only the first process tells"
    shared = open_artifact(folder.recommender("shared"), "recommender")
    one, two = (load_file(artifact.path / "model.safetensors") for artifact in (alone, shared))
    assert one.keys() == two.keys()
    for name, value in one.items():
        assert torch.allclose(value, two[name], atol=2e-5), name
    first, second = (artifact.summary["report"] for artifact in (alone, shared))
    assert second["steps"] == first["steps"] == (24 if recipe == "tiger" else 6)
    for name in ("best_metric", "best_step", "average_metric", "averaged"):
        assert (first[name] or 0) == pytest.approx(second[name] or 0, rel=1e-4), name
    np.testing.assert_allclose(first["losses"], second["losses"], rtol=1e-4)
    assert not list(folder.scratch("").glob("*")), "what was kept for resuming is gone"
    again = torchrun(processes, "train", recipe, *settings, "--run", folder.path, "--name", "shared")
    assert again.code == 0, again.err
    assert "up to date" in again.err


def check_every_user_once(folder: RunFolder, name: str, processes: int) -> None:
    alone = evaluate(folder.recommender(name), "test", Protocol(), RUN).artifact
    one, lists = pl.read_parquet(alone.path / PER_USER), np.load(alone.path / LISTS)
    done = torchrun(processes, "evaluate", folder.recommender(name), "--force")
    assert done.code == 0, done.err
    assert done.out.count("ndcg@10") == 2, "metrics of items and of codes, told by the first process alone"
    shared = open_artifact(folder.evaluation(name, "test"), "evaluation")
    two, others = pl.read_parquet(shared.path / PER_USER), np.load(shared.path / LISTS)
    assert len(two) == NUM_USERS == two["user_id"].n_unique()
    assert one.equals(two)
    assert np.array_equal(lists["rows"], others["rows"])
    np.testing.assert_allclose(lists["scores"], others["scores"], atol=1e-5)
    metrics = [name for name in alone.summary if "@" in name]
    assert [shared.summary[name] for name in metrics] == [alone.summary[name] for name in metrics]


def test_two_processes_train_and_evaluate_as_one(folder: RunFolder) -> None:
    check_same_training(folder, "tiger", 2)
    check_every_user_once(folder, "shared", 2)


@pytest.mark.slow
@pytest.mark.parametrize(("recipe", "processes"), [("sasrec", 2), ("sasrec", 4), ("decoder", 2), ("item-decoder", 2)])
def test_processes_train_as_one_by_loss(folder: RunFolder, recipe: str, processes: int) -> None:
    check_same_training(folder, recipe, processes)


@pytest.mark.slow
@pytest.mark.parametrize("processes", [3])
def test_every_user_counts_once_at_any_world_size(folder: RunFolder, processes: int) -> None:
    """Also where there are more processes than users."""
    train(folder, load_recipe("tiger", CASES["tiger"]), RUN, name="alone")
    check_every_user_once(folder, "alone", processes)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="processes are found in /proc")
@pytest.mark.parametrize("killed", [0, 1])
def test_when_one_of_two_is_killed_the_training_ends_and_goes_on_later(folder: RunFolder, killed: int) -> None:
    settings = [*CASES["tiger"], "training.max_epochs=30"]
    words = ("train", "tiger", *settings, "--run", folder.path, "--name", "shared")
    alone = train(folder, load_recipe("tiger", settings), RUN, name="alone").artifact
    both, until = start(2, *words), time.monotonic() + 120
    while not list(folder.scratch("").glob("shared-*/checkpoints/checkpoint-?*")):
        assert both.poll() is None, both.stderr.read()
        assert time.monotonic() < until
        time.sleep(0.01)
    members = Path(f"/proc/{both.pid}/task/{both.pid}/children").read_text().split()
    os.kill(int(members[killed]), signal.SIGKILL)
    _, err = both.communicate(timeout=120)
    assert both.returncode != 0, err
    assert not folder.recommender("shared").exists()
    done = torchrun(2, *words)
    assert done.code == 0, done.err
    shared = open_artifact(folder.recommender("shared"), "recommender")
    first, second = (artifact.summary["report"] for artifact in (alone, shared))
    assert second["steps"] == first["steps"] == 240
    np.testing.assert_allclose(first["losses"][:100], second["losses"][:100], rtol=1e-2)


def test_batches_that_cannot_be_shared_are_an_error(folder: RunFolder) -> None:
    done = torchrun(2, "train", "tiger", *CASES["tiger"], "training.batch_size=2", "--run", folder.path)
    assert done.code != 0
    assert "training.batch_size: 2 is not a multiple of 4" in done.err
    assert not folder.recommender("tiger").exists()
