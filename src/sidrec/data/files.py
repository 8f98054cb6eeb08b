"""Files from outside: finding, opening and parsing them, with errors that name file and line.

Plain and gzip'd files look the same to a reader. What the columns mean is each reader's business.
"""

import gzip
import json
import zlib
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

import polars as pl

from sidrec.errors import DataError, nearest

__all__ = [
    "existing",
    "find_one",
    "json_lines",
    "json_object",
    "open_text",
    "parse_json_object",
    "read_csv",
    "reading",
    "require",
]


@contextmanager
def reading(path: Path | str) -> Generator[None]:
    """Turn what can go wrong in reading a file into a `DataError` that names it.

    Raises:
        DataError: missing, unreadable, empty, truncated, not UTF-8, or not a table.
    """
    try:
        yield
    except (EOFError, zlib.error, OSError) as error:
        problem = _file_problem(error, str(path))
        if problem is None:
            raise
        raise problem from error
    except UnicodeDecodeError as error:
        what = f"byte {error.start} is not UTF-8 text"
        raise DataError(what, where=str(path), next="convert the file to UTF-8") from error
    except pl.exceptions.NoDataError as error:
        raise _empty(str(path)) from error
    except pl.exceptions.PolarsError as error:
        # polars does not say which line of JSON is broken; the slow parser does.
        if Path(str(path).removesuffix(".gz")).suffix in (".json", ".jsonl", ".ndjson"):
            for _ in json_lines(Path(path)):
                pass
        what = f"the table cannot be read: {str(error).strip().splitlines()[0]}"
        raise DataError(what, where=str(path), expected="one row a line") from error


def _file_problem(error: Exception, where: str) -> DataError | None:
    """The message for a file that cannot be opened or read to its end; None for other trouble of the machine."""
    if isinstance(error, FileNotFoundError | IsADirectoryError):
        return DataError("there is no such file", where=where, next="check the path")
    if isinstance(error, PermissionError):
        return DataError("the file cannot be read", where=where, next="check its permissions")
    # polars reports a damaged gzip stream as an OSError without a number.
    if isinstance(error, EOFError | gzip.BadGzipFile | zlib.error) or getattr(error, "errno", None) is None:
        return _damaged(where, error)
    return None


def _damaged(where: str, error: Exception) -> DataError:
    return DataError(
        f"the file ends too early or is damaged ({str(error) or type(error).__name__})",
        where=where,
        expected="a whole file",
        next="download or copy it again",
    )


def _empty(where: str) -> DataError:
    return DataError("the file is empty", where=where, expected="at least one interaction", next="check the path")


@contextmanager
def open_text(path: Path, encoding: str = "utf-8") -> Generator[TextIO]:
    """A text file, gzip'd or not; failures while it is open become `DataError`."""
    with reading(path):
        if path.suffix == ".gz":
            with gzip.open(path, "rt", encoding=encoding) as file:
                yield file
        else:
            with path.open(encoding=encoding) as file:
                yield file


def parse_json_object(path: Path) -> dict[str, Any]:
    """The one JSON object in a file, keys in file order.

    Raises:
        DataError: not JSON (with line and column), not an object, or a key occurs twice.
    """
    with open_text(path) as file:
        text = file.read()
    if not text.strip():
        raise _empty(str(path))

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        out = dict(pairs)
        if len(out) < len(pairs):
            seen: set[str] = set()
            twice = next(key for key, _ in pairs if key in seen or seen.add(key))
            raise DataError(f"the key '{twice}' occurs twice in one object", where=str(path), expected="unique ids")
        return out

    try:
        value = json.loads(text, object_pairs_hook=unique)
    except json.JSONDecodeError as error:
        where = f"{path}, line {error.lineno}, column {error.colno}"
        raise DataError(f"not valid JSON: {error.msg}", where=where, next="download or write the file again") from error
    if not isinstance(value, dict):
        raise DataError(f"the file holds a {type(value).__name__}", where=str(path), expected="one JSON object")
    if not value:
        raise DataError("the file holds no entries", where=str(path), expected="at least one id")
    return value


def json_lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Line number (from 1) and object of every non-blank line of a JSON Lines file.

    Raises:
        DataError: a line is not a JSON object, or there is none.
    """
    number = 0
    with open_text(path) as file:
        for line_number, line in enumerate(file, 1):
            if not line.strip():
                continue
            number += 1
            yield line_number, json_object(line, f"{path}, line {line_number}")
    if not number:
        raise _empty(str(path))


def json_object(line: str, where: str) -> dict[str, Any]:
    """The object that a line of a JSON Lines file holds.

    Raises:
        DataError: it is something else; the message says `where` it stands.
    """
    try:
        value: Any = json.loads(line)
    except (json.JSONDecodeError, RecursionError) as error:
        column = f", column {error.colno}" if isinstance(error, json.JSONDecodeError) else ""
        reason = error.msg if isinstance(error, json.JSONDecodeError) else "nested too deeply"
        raise DataError(f"not valid JSON: {reason}", where=where + column, expected="one object a line") from error
    if not isinstance(value, dict):
        raise DataError(f"the line holds a {type(value).__name__}", where=where, expected="one object a line")
    return value


def read_csv(path: Path, required: Sequence[str], separator: str = ",", quote: str | None = '"') -> pl.DataFrame:
    """A small delimited file with a header, all columns as text.

    Raises:
        DataError: empty, damaged, or a required column is missing.
    """
    with reading(path):
        table = pl.read_csv(path, separator=separator, quote_char=quote, infer_schema=False)
    require(required, table.columns, path)
    if not table.height:
        raise _empty(str(path))
    return table


def require(wanted: Iterable[str], columns: Sequence[str], path: Path | str) -> None:
    """Raise `DataError` for every wanted column that a table lacks."""
    missing = [name for name in wanted if name not in columns]
    if missing:
        raise DataError(
            f"the column{'s' if len(missing) > 1 else ''} {', '.join(repr(name) for name in missing)} "
            f"{'are' if len(missing) > 1 else 'is'} missing",
            where=f"{path}, header",
            expected=nearest(missing[0], columns),
            next="name the columns in the reader's settings",
        )


def existing(path: Path) -> Path | None:
    """`path`, or the same with `.gz`, whichever is there."""
    for candidate in (path, path.with_name(path.name + ".gz")):
        if candidate.is_file():
            return candidate
    return None


def find_one(path: Path, patterns: Sequence[str], what: str, setting: str = "--path") -> Path:
    """The file itself, or the only one in a folder that matches the first pattern with any match.

    Args:
        path: a file or a folder.
        patterns: glob patterns, best first; gzip'd files are matched too. Without any, `path` must be the file.
        what: the file's role, for messages.
        setting: what gave `path`, for messages.

    Raises:
        DataError: there is none, or several.
    """
    file = existing(path)
    if file is not None:
        return file
    if not path.is_dir():
        raise DataError(
            f"there is no such file{' or folder' * bool(patterns)}",
            where=str(path),
            expected=f"the {what}",
            next=f"check {setting}",
        )
    for pattern in patterns:
        found = sorted({*path.glob(pattern), *path.glob(pattern + ".gz")})
        if len(found) > 1:
            names = ", ".join(file.name for file in found[:8])
            raise DataError(
                f"{len(found)} files could be the {what}: {names}", where=str(path), next="give the path of one file"
            )
        if found:
            return found[0]
    names = ", ".join(sorted(file.name for file in path.iterdir())[:12]) or "nothing"
    raise DataError(
        f"there is no {what}",
        where=str(path),
        expected=" or ".join(patterns) or "a file, not a folder",
        next=f"check {setting}; the folder holds: {names}",
    )
