"""Ctrl-C that cannot get lost: where Python swallows the interrupt, the next reported step raises it again.

An exception raised while the interpreter runs a destructor or a weak reference's callback is dropped.
Training spends enough time there that one Ctrl-C in many would do nothing.
"""

import signal
import sys
import threading
from collections.abc import Generator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Protocol

from sidrec.progress import Advance, Progress

__all__ = ["Interrupts", "listening"]


class _Unraisable(Protocol):
    """What the interpreter says about an exception that it dropped."""

    exc_type: type[BaseException]
    exc_value: BaseException | None
    exc_traceback: TracebackType | None


class Interrupts:
    """Remembers that Ctrl-C was pressed.

    Args:
        progress: the display whose steps are watched.
    """

    def __init__(self, progress: Progress) -> None:
        self.progress, self.pressed = progress, False

    def press(self, signum: int = signal.SIGINT, frame: FrameType | None = None) -> None:
        """Note the interrupt and raise it; the handler of SIGINT."""
        self.pressed = True
        raise KeyboardInterrupt

    @contextmanager
    def __call__(self, task: str, total: float | None) -> Generator[Advance]:
        """Open one piece of work that stops at its next step once Ctrl-C was pressed."""
        with self.progress(task, total) as show:

            def advance(steps: float = 1, note: str = "") -> None:
                if self.pressed:
                    raise KeyboardInterrupt
                show(steps, note)

            yield advance


@contextmanager
def listening(progress: Progress) -> Generator[Progress]:
    """A display that no Ctrl-C escapes as long as the block lasts; off the main thread, the display as it is."""
    if threading.current_thread() is not threading.main_thread():
        yield progress
        return
    interrupts = Interrupts(progress)
    handler, hook = signal.signal(signal.SIGINT, interrupts.press), sys.unraisablehook

    def quiet(dropped: _Unraisable) -> None:
        if not issubclass(dropped.exc_type, KeyboardInterrupt):
            hook(dropped)  # type: ignore[arg-type]  # the interpreter's own class has these three fields and more

    sys.unraisablehook = quiet  # type: ignore[assignment]  # as above
    try:
        yield interrupts
    finally:
        signal.signal(signal.SIGINT, handler)
        sys.unraisablehook = hook
