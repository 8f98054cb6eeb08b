"""Work in pieces: a limit in minutes that ends one as Ctrl-C would, and a note of what a piece ran on.

What was under way goes on at its last checkpoint in the next piece, which is the stages' own doing. The limit needs
SIGALRM, which Windows lacks.
"""

import json
import signal
from pathlib import Path
from types import FrameType
from typing import Self

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
    """On what trainings ran, by their names, in a small JSON file.

    Args:
        path: the file; it need not exist.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def hardware(self, name: str) -> str:
        """On what it was trained; empty where that was not noted."""
        return self._read().get(name, {}).get("hardware", "")

    def note(self, name: str, hardware: str) -> None:
        """Note on what a piece of a training runs."""
        whole = self._read() | {name: {"hardware": hardware}}
        commit(self.path, lambda place: place.write_text(json.dumps(whole), encoding="utf-8"))

    def _read(self) -> dict[str, dict[str, str]]:
        return json.loads(self.path.read_text(encoding="utf-8")) if self.path.is_file() else {}
