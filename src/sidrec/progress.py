"""Progress of long work: rooms report steps, the caller decides what is shown.

Library code never prints. It asks the run for a `Progress`; the command line passes one that draws
a bar with an estimate on stderr, everybody else gets silence.
"""

from collections.abc import Generator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

__all__ = ["Advance", "Progress", "Silent"]


class Advance(Protocol):
    """Called with the number of steps just finished and, if useful, a short note."""

    def __call__(self, steps: float = 1, note: str = "") -> None:
        """Report finished steps."""
        ...


class Progress(Protocol):
    """Opens one piece of work: `with progress("encode items", total=n) as advance: advance(64)`."""

    def __call__(self, task: str, total: float | None) -> AbstractContextManager[Advance]:
        """Begin a task of `total` steps (None: unknown)."""
        ...


class Silent:
    """A `Progress` that shows nothing."""

    @contextmanager
    def __call__(self, task: str, total: float | None) -> Generator[Advance]:
        """Begin a task that nobody watches."""

        def advance(steps: float = 1, note: str = "") -> None:
            return None

        yield advance
