"""Work in pieces: a limit in minutes that ends one as Ctrl-C would, and a note of what earlier pieces took.

What was under way goes on at its last checkpoint in the next piece, which is the stages' own doing. The limit needs
SIGALRM, which Windows lacks.
"""

import json
import signal
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, Self

from sidrec.atomic import commit

__all__ = ["INTERRUPTED", "UNFINISHED", "Ledger", "TimeLimit"]

UNFINISHED = 75
"""Exit code where the same command has more to do (EX_TEMPFAIL of sysexits.h)."""
INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells have it."""


class TimeLimit:
    """Presses Ctrl-C once, when so many minutes of its block are over.

    Args:
        minutes: more than 0; None sets no limit.
    """

    def __init__(self, minutes: float | None) -> None:
        self.minutes, self.is_over = minutes, False

    def __enter__(self) -> Self:
        if self.minutes is not None:
            self._before = signal.signal(signal.SIGALRM, self._press)
            signal.setitimer(signal.ITIMER_REAL, 60 * self.minutes)
        return self

    def __exit__(self, *error: object) -> None:
        if self.minutes is not None:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, self._before)

    def _press(self, signum: int, frame: FrameType | None) -> None:
        self.is_over = True
        signal.raise_signal(signal.SIGINT)


class Ledger:
    """What trainings took before their last piece, and on what, by their names, in a small JSON file.

    A piece that was killed outright is not counted.

    Args:
        path: the file; it need not exist.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def seconds(self, name: str) -> list[float]:
        """What each interrupted piece took."""
        return self._entry(name)["pieces"]

    def hardware(self, name: str) -> str:
        """On what it was trained; empty where that was not noted."""
        return self._entry(name)["hardware"]

    @contextmanager
    def piece(self, name: str, hardware: str, is_trained: Callable[[], bool]) -> Generator[None]:
        """Note the hardware of a training, and what the block took where it is interrupted before its end."""
        if not is_trained():
            self._note(name, hardware=hardware)
        began = time.perf_counter()
        try:
            yield
        except KeyboardInterrupt:
            if not is_trained():
                self._note(name, pieces=[*self.seconds(name), time.perf_counter() - began])
            raise

    def _note(self, name: str, **changes: Any) -> None:
        whole = self._read() | {name: self._entry(name) | changes}
        commit(self.path, lambda place: place.write_text(json.dumps(whole), encoding="utf-8"))

    def _entry(self, name: str) -> dict[str, Any]:
        return self._read().get(name, {"pieces": [], "hardware": ""})

    def _read(self) -> dict[str, Any]:
        return json.loads(self.path.read_text(encoding="utf-8")) if self.path.is_file() else {}
