"""A toy dataset on disk and the command in-process."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from sidrec.cli.main import main

NUM_ITEMS, NUM_USERS, LENGTH = 12, 24, 7
SMALL = ["training.max_steps=3", "training.batch_size=16", "training.validate_users=8"]
TINY_TIGER = [
    "recommender.d_model=16",
    "recommender.d_kv=8",
    "recommender.num_heads=2",
    "recommender.d_ff=16",
    "recommender.num_layers=1",
    "tokenizer.codebook_size=4",
    *SMALL,
]


@dataclass(frozen=True)
class Done:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Command = Callable[..., Done]


def write_triple(folder: Path) -> Path:
    """Item k is followed by item k+1: the cycle dataset in the layout of LETTER."""
    folder.mkdir(parents=True)
    events = {str(u): [(u + t) % NUM_ITEMS for t in range(LENGTH)] for u in range(NUM_USERS)}
    colours = ("red", "green", "blue", "grey")
    items = {
        str(k): {"title": f"Part {k}", "description": f"{colours[k % 4]} piece number {k} of the ring"}
        for k in range(NUM_ITEMS)
    }
    (folder / "Toy.inter.json").write_text(json.dumps(events))
    (folder / "Toy.item.json").write_text(json.dumps(items))
    return folder


@pytest.fixture(scope="session")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_triple(tmp_path_factory.mktemp("data") / "Toy")


@pytest.fixture
def sidrec(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    monkeypatch.setattr("sidrec.cli.session.quiet_libraries", lambda: None)

    def call(*arguments: object) -> Done:
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return Done(code, captured.out, captured.err)

    return call


@pytest.fixture(scope="session")
def small() -> list[str]:
    """Settings that make any training a matter of a second."""
    return SMALL


@pytest.fixture(scope="session")
def tiny_tiger() -> list[str]:
    """Settings that make TIGER fit the toy data."""
    return TINY_TIGER


@pytest.fixture(scope="session")
def trained(toy: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with the dataset, semantic IDs, a TIGER and its evaluation; for tests that only read."""
    run = tmp_path_factory.mktemp("trained") / "run"
    source = ["--reader", "letter", "--path", str(toy)]
    assert main(["run", "tiger", "--run", str(run), *source, *TINY_TIGER]) == 0
    return run


@pytest.fixture
def prepared(sidrec: Command, toy: Path, tmp_path: Path) -> Path:
    run = tmp_path / "run"
    assert sidrec("prepare", "--reader", "letter", "--path", toy, "--run", run).code == 0
    return run
