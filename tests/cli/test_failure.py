"""Every failure is one message on stderr and an exit code, never a traceback."""

import errno
import subprocess
import sys
from pathlib import Path

import pytest
from polars.exceptions import ComputeError
from safetensors import SafetensorError

from sidrec.cli.failure import INTERRUPTED, report
from sidrec.errors import ConfigError, DataError


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (
            DataError("no such item", where="row 3", next="look"),
            1,
            ["error: no such item", "where: row 3", "next: look"],
        ),
        (ConfigError(["a: wrong", "b: wrong"]), 2, ["2 problems", "a: wrong", "b: wrong"]),
        (KeyboardInterrupt(), 1, [INTERRUPTED]),
        (MemoryError(), 1, ["out of memory", "next:"]),
        (OSError(errno.ENOSPC, "No space left on device"), 1, ["disk is full", "next:"]),
        (SafetensorError("I/O error: No space left on device (os error 28)"), 1, ["disk is full", "next:"]),
        (ComputeError("could not write: No space left on device (os error 28)"), 1, ["disk is full", "next:"]),
        (FileNotFoundError(errno.ENOENT, "No such file", "gone.csv"), 1, ["No such file", "gone.csv"]),
    ],
)
def test_messages(capsys, error: BaseException, code: int, words: list[str]) -> None:
    assert report(error, debug=False) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "Traceback" not in captured.err
    for word in words:
        assert word in captured.err


def test_unexpected_errors_leave_their_traceback_in_a_file(capsys, monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(ZeroDivisionError) as caught:
        _ = 1 // int("0")
    assert report(caught.value, debug=False) == 1
    text = capsys.readouterr().err
    assert "ZeroDivisionError: " in text
    (file,) = tmp_path.iterdir()
    assert str(file) in text
    assert "Traceback" in file.read_text()


def test_debug_shows_the_traceback(capsys) -> None:
    with pytest.raises(ZeroDivisionError) as caught:
        _ = 1 // int("0")
    report(caught.value, debug=True)
    assert "Traceback" in capsys.readouterr().err


def test_a_reader_that_goes_away_is_no_error() -> None:
    code = "import sys, time; from sidrec.cli.main import main\ntime.sleep(0.2); sys.exit(main(['recipes', 'ls']))"
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert child.stdout is not None
    assert child.stderr is not None
    child.stdout.close()
    errors = child.stderr.read().decode()
    child.stderr.close()
    child.wait(timeout=60)
    assert errors == ""
