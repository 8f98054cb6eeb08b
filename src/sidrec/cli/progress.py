"""Progress on stderr: bars on a terminal, a plain line now and then elsewhere; nothing under two seconds."""

import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import TextIO

from rich.console import Console, RenderableType
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from sidrec.progress import Advance
from sidrec.progress import Progress as ProgressProtocol

__all__ = ["Bars", "Lines", "open_progress"]

PATIENCE = 2.0
"""Seconds after which a piece of work is shown."""
INTERVAL = 10.0
"""Seconds between the lines of one piece of work where there is no terminal."""


class _LateBars(Progress):
    """Shows a task only when it has lasted a while, so that quick work leaves no flicker."""

    def get_renderables(self) -> Iterator[RenderableType]:
        yield self.make_tasks_table([task for task in self.tasks if (task.elapsed or 0) > PATIENCE])


class Bars:
    """Bars with an estimate of the time left; pieces of work may lie inside each other."""

    def __init__(self, bars: Progress) -> None:
        self._bars = bars

    @contextmanager
    def __call__(self, task: str, total: float | None) -> Generator[Advance]:
        """Open one piece of work."""
        bar = self._bars.add_task(task, total=total, note="")

        def advance(steps: float = 1, note: str = "") -> None:
            self._bars.advance(bar, steps)
            if note:
                self._bars.update(bar, note=note)

        try:
            yield advance
        finally:
            self._bars.remove_task(bar)


class Lines:
    """Plain lines for logs: `train: 120 of 400, 31 s, about 72 s left`.

    Args:
        stream: where they go.
        interval: seconds between two lines of one piece of work.
    """

    def __init__(self, stream: TextIO, interval: float = INTERVAL) -> None:
        self._stream, self._interval = stream, interval

    @contextmanager
    def __call__(self, task: str, total: float | None) -> Generator[Advance]:
        """Open one piece of work."""
        start = shown = time.monotonic()
        done = 0.0

        def advance(steps: float = 1, note: str = "") -> None:
            nonlocal done, shown
            done += steps
            now = time.monotonic()
            if now - shown >= self._interval:
                shown = now
                line = progress_line(task, done, total, now - start)
                self._stream.write(line + (f", {note}" if note else "") + "\n")
                self._stream.flush()

        yield advance


def progress_line(task: str, done: float, total: float | None, seconds: float) -> str:
    """One line about a piece of work.

    >>> progress_line("train", 100, 400, 30.0)
    'train: 100 of 400, 30 s, about 90 s left'
    """
    text = f"{task}: {done:,.0f}"
    if total is None or done <= 0:
        return f"{text}, {seconds:.0f} s"
    left = seconds * max(total - done, 0) / done
    return f"{text} of {total:,.0f}, {seconds:.0f} s, about {left:.0f} s left"


@contextmanager
def open_progress(stream: TextIO) -> Generator[ProgressProtocol]:
    """The display that fits the stream, closed and wiped at the end."""
    if not stream.isatty():
        yield Lines(stream)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with _LateBars(*columns, console=Console(file=stream), transient=True) as bars:
        yield Bars(bars)
