"""Plain tables whose columns are declared: CSV, TSV, Parquet, JSON Lines; all but Parquet may be gzip'd.

Everything else about the table is ignored. Nested columns are not read.
"""

from pathlib import Path
from typing import Literal

import polars as pl

from sidrec.config import Config
from sidrec.data.columns import Columns
from sidrec.data.files import find_one, reading, require
from sidrec.data.raw import RawData, Reader
from sidrec.errors import DataError

__all__ = ["TableReader"]

JSON_ENDINGS = (".jsonl", ".ndjson")
PATTERNS = [f"*{ending}" for ending in (".parquet", ".csv", ".tsv", *JSON_ENDINGS)]


class TableReader(Reader):
    """Reads one table of interactions and, if named, one of items."""

    class Config(Config):
        """Settings."""

        kind: Literal["table"] = "table"
        user: str = Columns.USER
        """Column of users."""
        item: str = Columns.ITEM
        """Column of items."""
        time: str | None = None
        """Column of times (numbers, or dates in Parquet); None: the order of the file counts."""
        rating: str | None = None
        """Column of ratings."""
        separator: str | None = None
        """Between columns; None: a tab for .tsv, else a comma."""
        items: str | None = None
        """Item table, a path from the folder of the interactions."""
        items_id: str | None = None
        """Column of ids in the item table; None: the same name as in the interactions."""
        item_columns: dict[str, str] | None = None
        """Columns of the item table to keep, name there → name here; None: all, as they are."""

    def sources(self, path: Path) -> list[Path]:
        """The interactions and the item table."""
        events, items = self._files(path)
        return [events, *([items] if items else [])]

    def read(self, path: Path) -> RawData:
        """A lazy table of events with the declared columns."""
        events, items = self._files(path)
        table = self._scan(events)
        with reading(events):
            columns = table.collect_schema().names()
        roles = {Columns.USER: self.config.user, Columns.ITEM: self.config.item}
        roles |= {Columns.TIME: self.config.time} if self.config.time else {}
        roles |= {Columns.RATING: self.config.rating} if self.config.rating else {}
        require(roles.values(), columns, events)
        wanted = table.select(pl.col(name).alias(role) for role, name in roles.items())
        first_line = 2 if _format(events) in (".csv", ".tsv") else 1
        return RawData(str(events), wanted, self._items(items) if items else None, first_line=first_line)

    def _files(self, path: Path) -> tuple[Path, Path | None]:
        events = find_one(path, PATTERNS, "interactions table")
        if self.config.items is None:
            return events, None
        return events, find_one(events.parent / self.config.items, [], "item table", "reader.items")

    def _scan(self, path: Path) -> pl.LazyFrame:
        ending = _format(path)
        with reading(path):
            if ending == ".parquet":
                return pl.scan_parquet(path)
            if ending in JSON_ENDINGS:
                return pl.scan_ndjson(path, infer_schema_length=10_000)
            separator = self.config.separator or ("\t" if ending == ".tsv" else ",")
            return pl.scan_csv(path, separator=separator, infer_schema=False)

    def _items(self, path: Path) -> pl.DataFrame:
        with reading(path):
            table = self._scan(path).collect()
        key = self.config.items_id or self.config.item
        chosen = self.config.item_columns
        names = {name: name for name in table.columns if name != key} if chosen is None else chosen
        require((key, *names), table.columns, path)
        nested = [name for name in names if table[name].dtype.is_nested()]
        if nested:
            raise DataError(
                f"the column '{nested[0]}' holds {table[nested[0]].dtype}",
                where=str(path),
                expected="text or numbers",
                next="name the columns to keep in 'item_columns'",
            )
        columns = [pl.col(name).cast(pl.String).fill_null("").alias(new) for name, new in names.items()]
        return table.select(pl.col(key).cast(pl.String).alias(Columns.ITEM), *columns)


def _format(path: Path) -> str:
    """The ending that says what a file is, `.gz` aside."""
    ending = Path(path.name.removesuffix(".gz")).suffix.lower()
    if ending not in (".parquet", ".csv", ".tsv", ".txt", *JSON_ENDINGS):
        raise DataError(
            f"'{path.name}' has an ending that says nothing of its format",
            where=str(path),
            expected=", ".join(PATTERNS),
            next="rename the file",
        )
    return ".csv" if ending == ".txt" else ending
