"""Progress: bars on a terminal, seldom lines elsewhere, nothing for quick work."""

import io
import time

import pytest
from rich.console import Console

from sidrec.cli import progress
from sidrec.cli.progress import Bars, Lines, open_progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_lines_come_at_intervals_with_an_estimate(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 4.0, 11.0, 12.0, 22.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    stream = io.StringIO()
    with Lines(stream)("train", 100) as advance:
        advance(10)
        advance(10, "loss 3.1")
        advance(5)
        advance(15)
    assert stream.getvalue().splitlines() == [
        "train: 20 of 100, 11 s, about 44 s left, loss 3.1",
        "train: 40 of 100, 22 s, about 33 s left",
    ]


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


def test_unknown_totals_have_no_estimate() -> None:
    assert progress.progress_line("read", 1200, None, 4.0) == "read: 1,200, 4 s"
