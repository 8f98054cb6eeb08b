"""Files that are whole or not there, whenever the process that writes them is killed."""

import os
from collections.abc import Callable
from pathlib import Path

__all__ = ["commit"]


def commit(path: Path, write: Callable[[Path], object]) -> None:
    """Let a file be written beside its place, and put it there when it is whole and on the disk.

    Several processes may write the same file at once: each has a name of its own, and the last one stays.

    Args:
        path: where the file is to be; its folder is there.
        write: is given the place to write at, which has another ending.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        write(partial)
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
