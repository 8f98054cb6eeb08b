"""Progress on stderr: bars on a terminal, a plain line after two seconds and now and then elsewhere."""

import threading
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

    They come by the clock, so that a step of many minutes is seen to be alive.

    Args:
        stream: where they go.
        patience: seconds before the first line of a piece of work.
        interval: seconds between its later lines.
    """

    def __init__(self, stream: TextIO, patience: float = PATIENCE, interval: float = INTERVAL) -> None:
        self._stream, self._patience, self._interval = stream, patience, interval

    @contextmanager
    def __call__(self, task: str, total: float | None) -> Generator[Advance]:
        """Open one piece of work."""
        start = time.monotonic()
        done, remark, ended = 0.0, "", threading.Event()

        def advance(steps: float = 1, note: str = "") -> None:
            nonlocal done, remark
            done, remark = done + steps, note or remark

        def tell() -> None:
            pause = self._patience
            while not ended.wait(pause):
                line = progress_line(task, done, total, time.monotonic() - start)
                self._stream.write(line + (f", {remark}" if remark else "") + "\n")
                self._stream.flush()
                pause = self._interval

        teller = threading.Thread(target=tell, name=f"progress of {task}", daemon=True)
        teller.start()
        try:
            yield advance
        finally:
            ended.set()
            teller.join()


def progress_line(task: str, done: float, total: float | None, seconds: float) -> str:
    """One line about a piece of work.

    >>> progress_line("train", 100, 400, 30.0)
    'train: 100 of 400, 30 s, about 90 s left'
    >>> progress_line("read", 0, None, 4.0)
    'read: 4 s'
    """
    if total is None:
        return f"{task}: {done:,.0f}, {seconds:.0f} s" if done else f"{task}: {seconds:.0f} s"
    text = f"{task}: {done:,.0f} of {total:,.0f}, {seconds:.0f} s"
    return f"{text}, about {seconds * max(total - done, 0) / done:.0f} s left" if done > 0 else text


@contextmanager
def open_progress(stream: TextIO) -> Generator[ProgressProtocol]:
    """The display that fits the stream, closed and wiped at the end."""
    if not stream.isatty():
        yield Lines(stream, PATIENCE, INTERVAL)
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
