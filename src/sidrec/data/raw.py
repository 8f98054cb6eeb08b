"""What a reader hands over: tables with one set of column names, whatever the files looked like.

Nothing is filtered, sorted, numbered or split here; that is the same for all formats and happens later.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import polars as pl

from sidrec.config import Part
from sidrec.data.columns import Columns
from sidrec.errors import DataError

__all__ = ["CODES", "RawData", "Reader"]

CODES = "codes"
"""Column of `RawData.codes`: a list of whole numbers of each item, one a level."""


@dataclass(frozen=True)
class RawData:
    """Interactions, items and perhaps codes or ready-made examples, as they stand in the files.

    Attributes:
        source: the file or folder, for messages.
        interactions: a lazy table, one event a row in file order, with `user_id`, `item_id` and where the format
            has them `timestamp` (a number) and `rating`. None where the files hold examples only.
        items: `item_id` and text columns such as `title`, `description`, `brand`, `categories`; ids unique.
        codes: `item_id` and `codes`, semantic IDs that came with the data.
        examples: `user_id`, `history` (list of ids, oldest first), `target`, `part`: a split that is given.
        item_order: ids of the whole catalogue, where the format fixes which item has which row.
        first_line: number of the line on which the first interaction stands, for messages; 0 if it is not a table.
    """

    source: str
    interactions: pl.LazyFrame | None = None
    items: pl.DataFrame | None = None
    codes: pl.DataFrame | None = None
    examples: pl.DataFrame | None = None
    item_order: Sequence[str] | None = None
    first_line: int = 0

    def __post_init__(self) -> None:
        if self.interactions is None and self.examples is None:
            raise DataError("there are neither interactions nor examples", where=self.source)
        for name, table in (("item table", self.items), ("index", self.codes)):
            if table is None:
                continue
            ids = table[Columns.ITEM]
            if ids.n_unique() < len(ids):
                twice = ids.filter(ids.is_duplicated())
                raise DataError(
                    f"the item id '{twice[0]}' occurs {int((ids == twice[0]).sum())} times",
                    where=f"{self.source}, {name}",
                    expected="one line an item",
                    next="remove the repeated lines",
                )


class Reader(Part, ABC):
    """Reads one file format. Its `Config` says which files and columns; it never filters events."""

    prepared: ClassVar[bool] = False
    """Whether files of this format are filtered already, so that filters set to `auto` leave them alone."""

    @abstractmethod
    def sources(self, path: Path) -> list[Path]:
        """The files that will be read; their digests decide whether a dataset is up to date.

        Raises:
            DataError: a file that must be there is not.
        """

    @abstractmethod
    def read(self, path: Path) -> RawData:
        """The content of the files; tables of events stay lazy.

        Raises:
            DataError: a file is missing, damaged or not of this format.
        """
