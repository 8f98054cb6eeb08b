"""Files of users to recommend for: one row a user, with an id and a list of item ids, oldest first.

Parquet, CSV with lists as Python prints them, and JSON Lines, the last two gzip'd or not. A file is read in parts
of equal size, and only those that are asked for are parsed: memory does not grow with the number of users, and
several readers can share a file. Lists in text are parsed, never evaluated.
"""

import csv
import json
from abc import ABC, abstractmethod
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, groupby
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np
import polars as pl

from sidrec.data.columns import Columns
from sidrec.data.files import json_object, open_text, reading, require
from sidrec.data.literals import parse_list
from sidrec.errors import DataError
from sidrec.types import IntArray

__all__ = ["ITEM_COLUMNS", "USER_COLUMNS", "UserFile", "Users", "user_file"]

USER_COLUMNS = (Columns.USER, "user")
"""Names by which the column of user ids is known."""
ITEM_COLUMNS = (Columns.HISTORY, "history_item_id", "item_ids", Columns.ITEMS)
"""Names by which the column of item lists is known."""
PARTS_AT_ONCE = 8
"""Parts of a Parquet file that are read together: each reading decodes the pages before it once more."""

Record = TypeVar("Record")


@dataclass(frozen=True)
class Users:
    """Some consecutive users of a file.

    Attributes:
        ids: U user ids, text or integers.
        items: item ids of all their lists one after the other.
        lengths: int64[U], items of each user.
        numbers: U numbers of rows or lines in the file, from 1.
        place: what the numbers count, for messages: `users.csv, line`.
    """

    ids: pl.Series
    items: list[str]
    lengths: IntArray
    numbers: Sequence[int]
    place: str

    def __len__(self) -> int:
        return len(self.ids)

    def where(self, user: int) -> str:
        """Where a user stands, for messages."""
        return f"{self.place} {self.numbers[user]}"

    def of(self, user: int) -> list[str]:
        """The item ids of one user."""
        end = int(self.lengths[: user + 1].sum())
        return self.items[end - int(self.lengths[user]) : end]


class UserFile(ABC):
    """A file of users whose two columns are known.

    Args:
        path: the file.
        user: column of user ids; None takes the one with a usual name.
        items: column of item lists, likewise.

    Attributes:
        columns: names of both columns.

    Raises:
        DataError: the file cannot be read, or a column is missing or not clear.
    """

    unit: ClassVar[str] = "line"
    """What the numbers in messages count."""

    def __init__(self, path: Path, user: str | None = None, items: str | None = None) -> None:
        self.path = path
        names = self.names()
        self.columns = (
            _column(user, USER_COLUMNS, names, path, "user ids", "--user-column"),
            _column(items, ITEM_COLUMNS, names, path, "item lists", "--items-column"),
        )

    @abstractmethod
    def names(self) -> list[str]:
        """All columns of the file."""

    @abstractmethod
    def count(self) -> int:
        """Number of users."""

    @abstractmethod
    def parts(self, size: int, wanted: Sequence[int]) -> Iterator[tuple[int, Users]]:
        """(number, users) of the wanted parts, in rising order; part n begins with user n × size.

        Raises:
            DataError: a row of a wanted part has no user id or no list of item ids; it is named.
        """

    @property
    def place(self) -> str:
        """What row numbers count, for messages."""
        return f"{self.path}, {self.unit}"

    def wrong(self, what: str, number: int, column: int, expected: str) -> DataError:
        """The error of a cell; `column` is 0 for the user id and 1 for the list."""
        where = f"{self.place} {number}, column '{self.columns[column]}'"
        return DataError(what, where=where, expected=expected)


def user_file(path: Path, user: str | None = None, items: str | None = None) -> UserFile:
    """The reader of a file of users, by the ending of its name.

    Raises:
        DataError: the ending is unknown, there is no such file, or a column is missing or not clear.
    """
    ending = Path(path.name.removesuffix(".gz")).suffix.lower()
    if ending not in FORMATS or (ending == ".parquet" and path.suffix == ".gz"):
        raise DataError(
            f"'{path.name}' has an ending that says nothing of its format",
            where=str(path),
            expected=", ".join(FORMATS) + ("; all but Parquet may be gzip'd" if path.suffix == ".gz" else ""),
            next="rename the file",
        )
    if path.exists() and not path.is_file():
        what = "this is a folder" if path.is_dir() else "this is no regular file, and it is read more than once"
        raise DataError(what, where=str(path), expected="a file of users")
    return FORMATS[ending](path, user, items)


def _column(wanted: str | None, usual: Sequence[str], names: list[str], path: Path, role: str, option: str) -> str:
    if wanted is not None:
        require([wanted], names, path)
        return wanted
    found = [name for name in usual if name in names]
    if len(found) == 1:
        return found[0]
    what = f"several columns could hold the {role}: {', '.join(found)}" if found else f"no column holds the {role}"
    raise DataError(
        what,
        where=f"{path}, which has the columns {', '.join(names) or 'none'}",
        expected=" or ".join(f"'{name}'" for name in usual),
        next=f"name the column with {option}",
    )


class ParquetUsers(UserFile):
    """Lists are a column of lists, of text or integers; no list is an empty history."""

    unit = "row"

    def names(self) -> list[str]:
        """All columns of the file."""
        with reading(self.path):
            return self._file.collect_schema().names()

    @cached_property
    def _file(self) -> pl.LazyFrame:
        return pl.scan_parquet(self.path)

    def count(self) -> int:
        """Number of rows."""
        with reading(self.path):
            return int(self._file.select(pl.len()).collect().item())

    def parts(self, size: int, wanted: Sequence[int]) -> Iterator[tuple[int, Users]]:
        """The wanted parts."""
        self._check_types()
        for _, some in groupby(wanted, lambda number: number // PARTS_AT_ONCE):
            numbers = list(some)
            first, end = numbers[0] * size, (numbers[-1] + 1) * size
            with reading(self.path):
                table = self._file.select(self.columns).slice(first, end - first).collect()
            for number in numbers:
                start = number * size
                yield number, self._users(table.slice(start - first, size), start)

    def _check_types(self) -> None:
        user, items = (self._file.collect_schema()[name] for name in self.columns)
        if not _is_id(user):
            raise self._wrong_type(0, user, "text or integers")
        if not isinstance(items, pl.List | pl.Array) or not _is_id(items.inner):
            raise self._wrong_type(1, items, "lists of text or integers")

    def _wrong_type(self, column: int, found: pl.DataType, expected: str) -> DataError:
        name = self.columns[column]
        return DataError(f"the column '{name}' holds {found}", where=str(self.path), expected=expected)

    def _users(self, table: pl.DataFrame, first: int) -> Users:
        ids, lists = (table[name] for name in self.columns)
        if isinstance(lists.dtype, pl.Array):
            lists = lists.arr.to_list()
        ids = ids if ids.dtype.is_integer() else ids.cast(pl.String)
        nameless = (ids.is_null() if ids.dtype.is_integer() else ids.is_null() | (ids == "")).arg_true()
        if len(nameless):
            raise self.wrong("a user has no id", first + int(nameless[0]) + 1, 0, "an id a row")
        lengths = lists.list.len().fill_null(0).to_numpy().astype(np.int64)
        # An empty list would come out as one missing item.
        items = lists.filter(pl.Series(lengths > 0)).explode().cast(pl.String)
        missing = items.is_null().arg_true()
        if len(missing):
            row = int(np.searchsorted(np.cumsum(lengths), int(missing[0]), side="right"))
            raise self.wrong("an item of the list has no id", first + row + 1, 1, "an id for each item")
        return Users(ids, items.to_list(), lengths, range(first + 1, first + len(table) + 1), self.place)


def _is_id(dtype: Any) -> bool:
    return dtype.is_integer() or dtype in (pl.String, pl.Categorical) or isinstance(dtype, pl.Enum)


class TextUsers(UserFile, Generic[Record]):
    """A file of records that are found line by line and parsed one by one."""

    @abstractmethod
    def records(self) -> Iterator[tuple[int, Record]]:
        """Line number, from 1, and text of every record."""

    @property
    def id_type(self) -> type[pl.DataType]:
        """Of the user ids, the same in every part."""
        return pl.String

    @abstractmethod
    def parsed(self, number: int, record: Record) -> tuple[str | int, list[str]]:
        """User id and item ids of a record.

        Raises:
            DataError: it holds something else.
        """

    def count(self) -> int:
        """Number of records."""
        return sum(1 for _ in self.records())

    def parts(self, size: int, wanted: Sequence[int]) -> Iterator[tuple[int, Users]]:
        """The wanted parts; other records are passed over unread."""
        left = set(wanted)
        for part, some in groupby(enumerate(self.records()), lambda entry: entry[0] // size):
            if part not in left:
                continue
            left.remove(part)
            yield part, self._users([record for _, record in some])
            if not left:
                return

    def _users(self, records: list[tuple[int, Record]]) -> Users:
        ids, lists = zip(*(self.parsed(number, record) for number, record in records), strict=True)
        lengths = np.fromiter(map(len, lists), np.int64, len(lists))
        numbers = [number for number, _ in records]
        return Users(pl.Series(ids, dtype=self.id_type), list(chain.from_iterable(lists)), lengths, numbers, self.place)


class CsvUsers(TextUsers[list[str]]):
    """Lists are cells such as `[3, 5]` or `['a', 'b']`; an empty cell is an empty history."""

    def names(self) -> list[str]:
        """The header."""
        return next(self._rows(), (0, []))[1]

    def records(self) -> Iterator[tuple[int, list[str]]]:
        """The cells of each row behind the header, and the line on which it ends."""
        rows = self._rows()
        next(rows, None)
        return rows

    def _rows(self) -> Iterator[tuple[int, list[str]]]:
        with open_text(self.path, "utf-8-sig") as file, _cells_of_any_length():
            rows = csv.reader(file, strict=True)
            while True:
                try:
                    for row in rows:
                        if row:
                            yield rows.line_num, row
                    return
                except csv.Error as error:
                    where = f"{self.path}, line {rows.line_num}"
                    raise DataError(f"not valid CSV: {error}", where=where, expected="one row a user") from error

    @cached_property
    def _indices(self) -> tuple[int, int, int]:
        names = self.names()
        return names.index(self.columns[0]), names.index(self.columns[1]), len(names)

    def parsed(self, number: int, record: list[str]) -> tuple[str | int, list[str]]:
        """User id and item ids of a row."""
        user, items, width = self._indices
        if len(record) != width:
            what = f"the row has {len(record)} cells"
            raise DataError(what, where=f"{self.place} {number}", expected=f"{width}, as the header has")
        if not record[user]:
            raise self.wrong("a user has no id", number, 0, "an id a row")
        return record[user], parse_list(record[items], f"{self.place} {number}, column '{self.columns[1]}'")


@contextmanager
def _cells_of_any_length() -> Generator[None]:
    """The CSV parser's limit of a cell is one for the whole process; long lists would be refused."""
    before = csv.field_size_limit(2**31 - 1)
    try:
        yield
    finally:
        csv.field_size_limit(before)


class JsonlUsers(TextUsers[str]):
    """One object a line; user ids are all text or all integers of 64 bits, as in the first line."""

    def names(self) -> list[str]:
        """The keys of the first object."""
        return list(self._first)

    @cached_property
    def _first(self) -> dict[str, Any]:
        for number, line in self.records():
            return json_object(line, f"{self.place} {number}")
        return {}

    def records(self) -> Iterator[tuple[int, str]]:
        """The lines that are not blank."""
        with open_text(self.path, "utf-8-sig") as file:
            for number, line in enumerate(file, 1):
                if not line.isspace():
                    yield number, line

    @property
    def id_type(self) -> type[pl.DataType]:
        """Integers of 64 bits where the first line has one."""
        return pl.Int64 if type(self._first[self.columns[0]]) is int else pl.String

    def parsed(self, number: int, record: str) -> tuple[str | int, list[str]]:
        """User id and item ids of a line."""
        value = json_object(record, f"{self.place} {number}")
        for column, name in enumerate(self.columns):
            if name not in value:
                raise self.wrong("the key is missing", number, column, "the same keys in every line")
        user, items = (value[name] for name in self.columns)
        kind = int if self.id_type is pl.Int64 else str
        if type(user) is not kind or user == "":
            kinds = "an integer, as in the first line" if kind is int else "text"
            raise self.wrong(f"the user id is {json.dumps(user)}", number, 0, kinds)
        if isinstance(user, int) and not -(2**63) <= user < 2**63:
            kinds = f'one of 64 bits with a sign; quote larger ones in all lines: "{user}"'
            raise self.wrong(f"the user id is {user}", number, 0, kinds)
        if items is not None and not (isinstance(items, list) and all(type(item) in (str, int) for item in items)):
            raise self.wrong(
                f"the key holds {json.dumps(items)[:60]}", number, 1, '["first item id", "second item id"]'
            )
        return user, [str(item) for item in items or ()]


FORMATS: dict[str, type[UserFile]] = {
    ".parquet": ParquetUsers,
    ".csv": CsvUsers,
    ".jsonl": JsonlUsers,
    ".ndjson": JsonlUsers,
}
