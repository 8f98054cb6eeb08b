"""Progress: bars on a terminal, lines by the clock elsewhere, nothing for quick work."""

import io
import re
import threading
import time
from pathlib import Path

import pytest
from rich.console import Console

from sidrec.cli import progress
from sidrec.cli.progress import Bars, Lines, open_progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_the_first_line_comes_soon_and_the_later_ones_at_intervals() -> None:
    stream = io.StringIO()
    with Lines(stream, patience=0.05, interval=0.3)("train", 100) as advance:
        advance(10)
        advance(10, "loss 3.1")
        time.sleep(0.2)
        assert stream.getvalue().startswith("train: 20 of 100, 0 s, about ")
        assert stream.getvalue().endswith(" s left, loss 3.1\n")
        assert stream.getvalue().count("\n") == 1
        advance(20)
        time.sleep(0.3)
    assert stream.getvalue().splitlines()[1].startswith("train: 40 of 100")
    assert stream.getvalue().count("\n") == 2


def test_a_step_without_reports_is_seen_to_be_alive_and_leaves_no_thread() -> None:
    stream, before = io.StringIO(), threading.active_count()

    def interrupted() -> None:
        with Lines(stream, patience=0.02, interval=0.05)("read", None):
            time.sleep(0.2)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert stream.getvalue().count("read: 0 s") >= 2
    assert threading.active_count() == before


def test_real_work_reports_what_is_left(
    sidrec, prepared: Path, small: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lines of a real training, as a log file would hold them."""
    monkeypatch.setattr(progress, "PATIENCE", 0.0)
    monkeypatch.setattr(progress, "INTERVAL", 0.02)
    done = sidrec("train", "sasrec", "--run", prepared, *small, "training.max_steps=40")
    assert done.code == 0
    assert re.search(r"^train: \d+ of 40, \d+ s", done.err, re.MULTILINE)


def test_quick_work_leaves_nothing() -> None:
    for stream in (io.StringIO(), Terminal()):
        with open_progress(stream) as show, show("quick", 2) as advance:
            advance()
        assert "quick" not in stream.getvalue()


def test_bars_show_what_lasts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "PATIENCE", -1.0)
    stream = Terminal()
    with open_progress(stream) as show:
        assert isinstance(show, Bars)
        with show("train", 10) as advance, show("validate", None) as inner:
            advance(4, "ndcg 0.1")
            inner()
            time.sleep(0.3)  # the display refreshes ten times a second
    text = stream.getvalue()
    assert "train" in text
    assert "ndcg 0.1" in text
    assert "validate" in text
    assert Console(file=stream).is_terminal


def test_lines_say_what_is_known() -> None:
    assert progress.progress_line("read", 1200, None, 4.0) == "read: 1,200, 4 s"
    assert progress.progress_line("read", 0, 10, 4.0) == "read: 0 of 10, 4 s"
