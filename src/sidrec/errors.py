"""One root class for everything a user can get wrong, and one shape for its message.

Every message says what is wrong, where, what was expected and what to do next. Programming errors
of our own stay `AssertionError` or the interpreter's own classes.
"""

import difflib
import errno
from collections.abc import Iterable, Sequence
from typing import ClassVar

__all__ = [
    "ArtifactError",
    "ConfigError",
    "ConstraintError",
    "DataError",
    "MissingExtraError",
    "SidrecError",
    "TrainingError",
    "is_disk_full",
    "nearest",
]


class SidrecError(Exception):
    """Root of all errors that a user can mend.

    Args:
        what: what is wrong, one sentence.
        where: file, row, key or artefact in which it was found.
        expected: what would have been right.
        next: the command or edit to try next.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, what: str, *, where: str = "", expected: str = "", next: str = "") -> None:
        self.what, self.where, self.expected, self.next = what, where, expected, next
        parts = [("where", where), ("expected", expected), ("next", next)]
        super().__init__("\n".join([what, *(f"  {name}: {text}" for name, text in parts if text)]))


class ConfigError(SidrecError):
    """A recipe or an override is wrong; all problems are reported at once.

    Args:
        problems: one line a problem, each beginning with its key path.
        where: the file or command line that was read.
        next: what to try next.
    """

    exit_code = 2

    def __init__(self, problems: str | Sequence[str], *, where: str = "", next: str = "") -> None:
        lines = [problems] if isinstance(problems, str) else list(problems)
        self.problems = lines
        what = lines[0] if len(lines) == 1 else "\n  ".join([f"{len(lines)} problems:", *lines])
        super().__init__(what, where=where, next=next)


class DataError(SidrecError):
    """Data from outside, or two objects that should fit each other, are wrong."""


class ArtifactError(SidrecError):
    """An artefact is missing, damaged, of another kind, or could not be written."""


class ConstraintError(SidrecError):
    """No item satisfies the request: everything is excluded, the allow-list is empty, or a prefix leads to none."""


class TrainingError(SidrecError):
    """Training cannot go on: the loss is no longer a number."""


class MissingExtraError(SidrecError):
    """An optional dependency is needed and not installed.

    Args:
        feature: what needs it.
        extra: the extra of this package that brings it.
    """

    def __init__(self, feature: str, extra: str) -> None:
        super().__init__(
            f"{feature} needs an optional dependency that is not installed",
            next=f"pip install 'sidrec[{extra}]'",
        )


FULL_DISK = ("No space left on device", "os error 28", "Disk quota exceeded", "os error 122")


def is_disk_full(error: BaseException) -> bool:
    """Whether a write failed for want of space; safetensors and polars say so only in their text.

    >>> is_disk_full(RuntimeError("I/O error: No space left on device (os error 28)"))
    True
    """
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    return any(words in str(error) for words in FULL_DISK)


def nearest(name: str, known: Iterable[str]) -> str:
    """The likeliest intention behind a wrong name, before a list of what exists, which may be long.

    >>> nearest("tigre", ["tiger", "sasrec"])
    "did you mean 'tiger'? available: sasrec, tiger"
    """
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f"did you mean '{close[0]}'? " if close else ""
    return f"{hint}available: {', '.join(names) or 'none'}"
