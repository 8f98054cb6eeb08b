"""Progress of long work: rooms report steps, the caller decides what is shown.

Library code never prints. It asks the run for a `Progress`; the command line passes one that draws
a bar with an estimate on stderr, everybody else gets silence.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

__all__ = ["Advance", "Progress", "Silent"]


class Advance(Protocol):
    """Called with the number of steps just finished and, if useful, a short note."""

    def __call__(self, steps: float = 1, note: str = "") -> None: ...


class Progress(Protocol):
    """Opens one piece of work: `with progress("encode items", total=n) as advance: advance(64)`."""

    def __call__(self, task: str, total: float | None) -> "_Context": ...


class _Context(Protocol):
    def __enter__(self) -> Advance: ...
    def __exit__(self, *exc: object) -> bool | None: ...


class Silent:
    """A `Progress` that shows nothing."""

    @contextmanager
    def __call__(self, task: str, total: float | None) -> Iterator[Advance]:
        def advance(steps: float = 1, note: str = "") -> None:
            return None

        yield advance
