"""The catalogue: which items exist, in which order, and what is said about them."""

from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import polars as pl

from sidrec.artifact import digest_of
from sidrec.data.columns import Columns
from sidrec.errors import DataError, nearest
from sidrec.types import IntArray, ItemId

__all__ = ["Catalog"]

FILE = "catalog.parquet"


class Catalog:
    """Items in row order: ids, text fields, image paths. Frozen once made.

    Args:
        items: a table with a string column `item_id` and any number of text columns; the position
            of a line is the item's row.

    Raises:
        DataError: no items, an empty or repeated id.

    >>> catalog = Catalog(pl.DataFrame({"item_id": ["a", "b"], "title": ["Alpha", "Beta"]}))
    >>> catalog.rows(["b", "a"]).tolist(), catalog.ids_of([1])
    ([1, 0], ['b'])
    """

    def __init__(self, items: pl.DataFrame) -> None:
        if Columns.ITEM not in items.columns:
            raise DataError(
                f"the item table has no column '{Columns.ITEM}'",
                expected=nearest(Columns.ITEM, items.columns),
                next=f"name the column of item ids '{Columns.ITEM}'",
            )
        ids = items[Columns.ITEM].cast(pl.String)
        if not len(ids):
            raise DataError(
                "the catalogue is empty", expected="at least one item", next="loosen the filters or check the files"
            )
        if ids.null_count() or (ids == "").any():
            row = int(np.flatnonzero((ids.is_null() | (ids == "")).to_numpy())[0])
            raise DataError(
                "an item has no id", where=f"item table, row {row + 1}", next="give it one or remove the row"
            )
        if ids.n_unique() != len(ids):
            twice = ids.filter(ids.is_duplicated()).unique(maintain_order=True)
            raise DataError(
                f"{len(twice)} item ids occur more than once, the first is '{twice[0]}'",
                where="item table",
                expected="one line an item",
                next="remove the repeated lines",
            )
        self.items = items.with_columns(ids)

    def __len__(self) -> int:
        return self.items.height

    @cached_property
    def ids(self) -> list[ItemId]:
        """Item ids in row order."""
        return self.items[Columns.ITEM].to_list()

    @cached_property
    def digest(self) -> str:
        """Hash of the ids in their order: what rows mean. Text is not part of it."""
        return digest_of(self.ids)

    def begins_with(self, count: int, digest: str) -> bool:
        """Whether the first `count` items are, in order, those of the catalogue with this digest."""
        return digest_of(self.ids[:count]) == digest

    def extended(self, items: pl.DataFrame, where: str = "item table") -> "Catalog":
        """This catalogue with new items behind its own, whose rows stay as they are.

        Args:
            items: `item_id` and all text fields of this catalogue; other columns are left out.
            where: where they were found, for messages.

        Raises:
            DataError: no item, a text field is missing, or an id occurs twice or is here already.

        >>> Catalog(pl.DataFrame({"item_id": ["a"]})).extended(pl.DataFrame({"item_id": ["b"]})).ids
        ['a', 'b']
        """
        missing = [name for name in (Columns.ITEM, *self.text_fields) if name not in items.columns]
        if missing or not items.height:
            raise DataError(
                f"the new items have no column '{missing[0]}'" if missing else "there are no new items",
                where=where,
                expected=f"one line an item, with the columns {', '.join([Columns.ITEM, *self.text_fields])}",
                next="name the columns as in the catalogue; a text may be empty" if missing else "",
            )
        new = Catalog(items)
        known = [item for item in new.ids if self.knows(item)]
        if known:
            raise DataError(
                f"{len(known)} of the new items are in the catalogue already, the first is '{known[0]}'",
                where=where,
                expected="items that the catalogue does not hold",
                next="remove their lines",
            )
        columns = [_as_here(new.items, name, dtype, where) for name, dtype in self.items.schema.items()]
        return Catalog(pl.concat([self.items, pl.DataFrame(columns)]))

    def tail(self, first: int) -> "Catalog":
        """The items from row `first` on as a catalogue of their own."""
        return Catalog(self.items[first:])

    @cached_property
    def text_fields(self) -> list[str]:
        """Names of the columns that describe an item, apart from its id and image."""
        return [name for name in self.items.columns if name not in (Columns.ITEM, Columns.IMAGE)]

    @cached_property
    def _row_of(self) -> dict[str, int]:
        return {item: row for row, item in enumerate(self.ids)}

    def rows(self, ids: Iterable[str], where: str = "") -> IntArray:
        """Rows int32[...] of item ids; the inverse of `ids_of`.

        Args:
            ids: item ids.
            where: where they were found, for messages.

        Raises:
            DataError: an id is not in the catalogue.
        """
        wanted = list(ids)
        rows = self.find(wanted)
        if (rows < 0).any():
            unknown = [item for item, row in zip(wanted, rows, strict=True) if row < 0]
            raise DataError(
                f"{len(unknown)} item ids are not in the catalogue, the first is '{unknown[0]}'",
                where=where or f"catalogue of {len(self)} items",
                expected="ids such as " + ", ".join(f"'{item}'" for item in self.ids[:3]),
                next="check that the ids are written as in the data that the dataset was prepared from",
            )
        return rows

    def find(self, ids: Iterable[str]) -> IntArray:
        """Rows int32[...] of item ids, -1 for those that the catalogue does not hold.

        >>> Catalog(pl.DataFrame({"item_id": ["a", "b"]})).find(["b", "x"]).tolist()
        [1, -1]
        """
        row_of = self._row_of.get
        return np.fromiter((row_of(item, -1) for item in ids), np.int32)

    def knows(self, item: str) -> bool:
        """Whether an id is in the catalogue."""
        return item in self._row_of

    def ids_of(self, rows: Sequence[int] | IntArray) -> list[ItemId]:
        """Item ids of rows; the inverse of `rows`."""
        return [self.ids[int(row)] for row in rows]

    def titles_of(self, rows: Sequence[int] | IntArray) -> list[str]:
        """Readable names of rows: the title where there is one, else the id."""
        if Columns.TITLE not in self.items.columns:
            return [str(item) for item in self.ids_of(rows)]
        titles = self.items[Columns.TITLE]
        return [titles[int(row)] or str(self.ids[int(row)]) for row in rows]

    def save(self, directory: Path) -> None:
        """Write `catalog.parquet` into a directory."""
        self.items.write_parquet(directory / FILE)

    @classmethod
    def load(cls, directory: Path) -> "Catalog":
        """Read `catalog.parquet` from a directory."""
        return cls(pl.read_parquet(directory / FILE))


def _as_here(items: pl.DataFrame, name: str, dtype: pl.DataType, where: str) -> pl.Series:
    """A column of new items in the form that the catalogue has; nothing where they lack it."""
    if name not in items.columns:
        return pl.Series(name, [None] * items.height, dtype=dtype)
    try:
        column = items[name].cast(dtype)
    except pl.exceptions.PolarsError as error:
        raise DataError(
            f"the column '{name}' holds {items[name].dtype}", where=where, expected=f"{dtype}, as in the catalogue"
        ) from error
    return column.fill_null("") if dtype == pl.String else column
