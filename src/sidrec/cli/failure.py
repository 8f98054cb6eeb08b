"""Every failure becomes one message on stderr and an exit code; tracebacks go to a file."""

import os
import sys
import tempfile
import traceback
from pathlib import Path

import typer

from sidrec.errors import SidrecError, is_disk_full

__all__ = ["report"]

INTERRUPTED = "interrupted; finished stages are kept, run the same command again to go on"


def report(error: BaseException, *, debug: bool) -> int:
    """Say what went wrong on stderr and return the exit code.

    Args:
        error: what ended the command.
        debug: show the traceback instead of writing it to a file.
    """
    if isinstance(error, BrokenPipeError):
        # The reader of our output went away (`sidrec … | head`); nothing may be written there any more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    if debug:
        traceback.print_exception(error, file=sys.stderr)
    typer.echo(_message(error, debug), err=True)
    return error.exit_code if isinstance(error, SidrecError) else 1


def _message(error: BaseException, debug: bool) -> str:
    if isinstance(error, SidrecError):
        return f"error: {error}"
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED
    if isinstance(error, MemoryError):
        return (
            "error: out of memory; finished stages are kept\n"
            "  next: use a smaller training.batch_size or a machine with more memory, then run the same command again"
        )
    if is_disk_full(error):
        return "error: the disk is full; finished stages are kept\n  next: free space and run the same command again"
    if isinstance(error, OSError) and error.filename is not None:
        return f"error: {error.strerror}\n  where: {error.filename}"
    where = "" if debug else _traceback_file(error)
    what = str(error).strip().partition("\n")[0] or "no details"
    return f"error: unexpected {type(error).__name__}: {what}{where}"


def _traceback_file(error: BaseException) -> str:
    text = "".join(traceback.format_exception(error))
    try:
        handle, name = tempfile.mkstemp(prefix="sidrec-error-", suffix=".txt")
        os.close(handle)
        Path(name).write_text(text, encoding="utf-8")
    except OSError:
        return "\n  next: run 'sidrec --debug …' to see the traceback"
    return f"\n  where: the traceback is in {name}\n  next: report it with that file, or run 'sidrec --debug …'"
