"""Files that are whole or not there."""

import multiprocessing
from pathlib import Path

import pytest

from sidrec.atomic import commit


def write_slowly(path: Path, letter: str, rounds: int) -> None:
    for _ in range(rounds):
        commit(path, lambda place: place.write_text(letter * 100_000))


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    def fail(place: Path) -> None:
        place.write_text("half")
        raise OSError("no space")

    path = tmp_path / "file"
    commit(path, lambda place: place.write_text("whole"))
    with pytest.raises(OSError, match="no space"):
        commit(path, fail)
    assert path.read_text() == "whole"
    assert list(tmp_path.iterdir()) == [path]


def test_two_processes_write_one_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    commit(path, lambda place: place.write_text("c" * 100_000))
    context = multiprocessing.get_context("fork")
    both = [context.Process(target=write_slowly, args=(path, letter, 30)) for letter in "ab"]
    for process in both:
        process.start()
    while any(process.is_alive() for process in both):
        text = path.read_text()
        assert text == text[0] * 100_000
    for process in both:
        process.join()
        assert process.exitcode == 0
    assert list(tmp_path.iterdir()) == [path]
