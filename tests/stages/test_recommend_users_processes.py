"""Batch runs in processes of their own: killed, and several at once."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import pytest
from tests.stages.batch_users import SETTINGS, parts_of, prepare

from sidrec import team
from sidrec.errors import ConfigError
from sidrec.stages.recommend_users import recommend_users
from sidrec.team import Team, TeamError, launched

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Holds a recommender, users, and what one uninterrupted process makes of them."""
    folder = tmp_path_factory.mktemp("batch")
    recommender, users = prepare(folder)
    recommend_users(recommender, users, folder / "whole.parquet", SETTINGS)
    return folder


def start(folder: Path, output: Path, *kill_after: int, **environment: object) -> subprocess.Popen:
    words = [sys.executable, "-m", "tests.stages.batch_users", folder, output, *kill_after]
    return subprocess.Popen(
        [str(word) for word in words],
        cwd=ROOT,
        env=os.environ | {name: str(value) for name, value in environment.items()},
        stderr=subprocess.PIPE,
        text=True,
    )


def start_two(folder: Path, output: Path, kill_after: tuple[int | None, int | None] = (None, None)):
    """Two processes with what `torchrun` tells them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        meeting = {"WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free.getsockname()[1]}
    return [
        start(folder, output, *([] if parts is None else [parts]), RANK=rank, **meeting)
        for rank, parts in enumerate(kill_after)
    ]


def go_on(folder: Path, output: Path) -> int:
    """Make what is missing in this process; returns how many users were there already."""
    report = recommend_users(folder / "run/recommenders/cycle", folder / "users.parquet", output, SETTINGS)
    assert report is not None
    return report.resumed


def test_a_killed_run_loses_a_part_and_ends_in_the_same_file(folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "top.parquet"
    killed = start(folder, output, 3)
    assert killed.wait(timeout=120) == -signal.SIGKILL
    assert parts_of(output).done() == {0, 1, 2}
    assert not output.exists()
    assert go_on(folder, output) == 3 * SETTINGS.part_size
    assert output.read_bytes() == (folder / "whole.parquet").read_bytes()
    assert [path.name for path in tmp_path.glob(".*")] == []


def test_two_processes_make_the_same_file(folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "top.parquet"
    both = start_two(folder, output)
    for process in both:
        assert process.wait(timeout=120) == 0, process.stderr.read()
    assert output.read_bytes() == (folder / "whole.parquet").read_bytes()


@pytest.mark.parametrize("killed", [0, 1])
def test_when_one_of_two_is_killed_the_other_ends_and_one_can_go_on(folder: Path, tmp_path: Path, killed: int) -> None:
    output = tmp_path / "top.parquet"
    both = start_two(folder, output, (1, None) if killed == 0 else (None, 1))
    assert both[killed].wait(timeout=120) == -signal.SIGKILL
    started = time.monotonic()
    assert both[1 - killed].wait(timeout=120) == 1
    assert time.monotonic() - started < 60
    assert "another of the 2 processes has ended" in both[1 - killed].stderr.read()
    assert not output.exists()
    assert parts_of(output).done() == ({0, 1, 3, 5} if killed == 0 else {0, 1, 2, 4, 6})
    assert go_on(folder, output) > 0
    assert output.read_bytes() == (folder / "whole.parquet").read_bytes()


def test_a_process_alone_needs_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with launched() as alone:
        assert alone == Team(0, 1)
        assert alone.leads
        assert alone.told([3, 1]) == [3, 1]
        alone.meet()


def test_an_environment_without_a_meeting_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    with pytest.raises(ConfigError, match="MASTER_ADDR"), launched():
        pass


def test_nobody_waits_for_ever_for_a_process_that_never_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    from datetime import timedelta

    monkeypatch.setattr(team, "MEETING", timedelta(seconds=1))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    for name, value in (("WORLD_SIZE", "2"), ("RANK", "0"), ("MASTER_ADDR", "127.0.0.1"), ("MASTER_PORT", str(port))):
        monkeypatch.setenv(name, value)
    with pytest.raises(TeamError, match="do not meet"), launched():
        pass


GROWTH = """
import sys
from pathlib import Path
from tests.stages.batch_users import SETTINGS, Parts, recommend_users

def peak():
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines["VmHWM"].split()[0]) / 1024

folder, source, settings = Path(sys.argv[1]), Path(sys.argv[2]), SETTINGS.model_copy(update={"part_size": 2048})
model, few = folder / "run/recommenders/cycle", source.with_name("few-" + source.name)
recommend_users(model, few, source.with_name("few.parquet"), settings)
before = peak()
recommend_users(model, source, source.with_name("many.parquet"), settings)
print(peak() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="peak memory is read from /proc")
@pytest.mark.parametrize("name", ["users.parquet", "users.jsonl"])
def test_memory_does_not_grow_with_the_number_of_users(folder: Path, tmp_path: Path, name: str) -> None:
    history = [f"item-{step % 24}" for step in range(25)]
    for label, count in (("few-", 20_000), ("", 100_000)):
        table = pl.DataFrame({"user_id": range(count), "history": [history] * count})
        write = table.write_parquet if name.endswith("parquet") else table.write_ndjson
        write(tmp_path / f"{label}{name}")
    words = [sys.executable, "-c", GROWTH, str(folder), str(tmp_path / name)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True)
    # The item ids of all users, each a text of its own, would take more than 100 MB.
    assert float(done.stdout) < 40
