"""What is set up around a verb: who may be started in several processes."""

from pathlib import Path

import pytest

ALONE = {
    "run": ("run", "popularity", "--run", "RUN"),
    "tune": ("tune", "tiger-dpo", "--from", "popularity", "--run", "RUN"),
    "tokenize": ("tokenize", "--run", "RUN", "--kind", "random"),
    "embed": ("embed", "--run", "RUN"),
    "compare": ("compare", "RUN"),
    "recommend": ("recommend", "RUN/recommenders/popularity", "--history", "1,2"),
}
TOGETHER = {
    "train": ("train", "popularity", "--run", "RUN"),
    "evaluate": ("evaluate", "RUN/recommenders/popularity"),
    "recommend": ("recommend", "RUN/recommenders/popularity", "--input", "users.parquet", "--output", "top.parquet"),
}


@pytest.fixture
def two(monkeypatch: pytest.MonkeyPatch) -> None:
    """One of two processes, as torchrun tells it, but for where they meet."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    monkeypatch.delenv("MASTER_ADDR", raising=False)


def words(command: tuple[str, ...], run: Path) -> list[str]:
    return [word.replace("RUN", str(run)) for word in command]


@pytest.mark.parametrize("command", ALONE.values(), ids=ALONE)
def test_work_that_is_not_shared_is_refused_in_several_processes(sidrec, prepared: Path, two, command) -> None:
    before = sorted(prepared.rglob("*"))
    done = sidrec(*words(command, prepared))
    assert done.code == 2
    assert "WORLD_SIZE is 2, but only 'train', 'evaluate' and 'recommend --input FILE' share their work" in done.err
    assert sorted(prepared.rglob("*")) == before, "nothing is written"


@pytest.mark.parametrize("command", TOGETHER.values(), ids=TOGETHER)
def test_work_that_is_shared_asks_where_the_processes_meet(sidrec, prepared: Path, two, command) -> None:
    done = sidrec(*words(command, prepared))
    assert done.code == 2
    assert "MASTER_ADDR, MASTER_PORT are not set" in done.err


def test_one_process_of_torchrun_is_alone(sidrec, prepared: Path, two, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert sidrec("run", "popularity", "--run", prepared).code == 0
