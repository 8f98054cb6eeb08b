"""CSV with one user a row and Python lists in the cells: `u1,"[3, 5]","['Title', 'Other']"`.

The position in the list is the order in time. Lists are parsed, never evaluated. Item titles come from a parallel
list: the first non-empty title of an id counts, and several ids may share a title.
"""

from pathlib import Path
from typing import Literal

import polars as pl

from sidrec.config import Config
from sidrec.data.columns import Columns
from sidrec.data.files import find_one, read_csv
from sidrec.data.literals import parse_list
from sidrec.data.raw import RawData, Reader
from sidrec.errors import DataError

__all__ = ["ListCsvReader"]


class ListCsvReader(Reader):
    """Reads one CSV file, which may be gzip'd."""

    prepared = True

    class Config(Config):
        """Settings."""

        kind: Literal["list-csv"] = "list-csv"
        user: str = "user_id"
        """Column of users, one row each."""
        items: str = "history_item_id"
        """Column of lists of item ids, oldest first."""
        titles: str | None = "history_item_title"
        """Column of lists of titles beside the ids; None or not there: no item text."""
        target: str | None = None
        """Column of one item id that follows the list, if any."""

    def sources(self, path: Path) -> list[Path]:
        """The CSV file."""
        return [find_one(path, ["*.csv"], "CSV file")]

    def read(self, path: Path) -> RawData:
        """The events of all lists, row after row."""
        file = self.sources(path)[0]
        required = [self.config.user, self.config.items, *([self.config.target] if self.config.target else [])]
        table = read_csv(file, required)
        _one_row_a_user(table[self.config.user], file)
        name = self.config.items
        lists = [parse_list(cell, _cell(file, row, name)) for row, cell in enumerate(table[name])]
        titles = self._titles(table, lists, file)
        if self.config.target:
            lists = [
                items + [target] * (target is not None)
                for items, target in zip(lists, table[self.config.target], strict=True)
            ]
        events = pl.DataFrame(
            {Columns.USER: table[self.config.user], Columns.ITEM: pl.Series(lists, dtype=pl.List(pl.String))}
        ).explode(Columns.ITEM)
        items = None
        if titles is not None:
            ids = events[Columns.ITEM].drop_nulls().unique(maintain_order=True).to_list()
            items = pl.DataFrame({Columns.ITEM: ids, Columns.TITLE: [titles.get(item, "") for item in ids]})
        return RawData(str(file), events.lazy(), items)

    def _titles(self, table: pl.DataFrame, lists: list[list[str]], file: Path) -> dict[str, str] | None:
        name = self.config.titles
        if name is None or name not in table.columns:
            return None
        out: dict[str, str] = {}
        for row, (items, cell) in enumerate(zip(lists, table[name], strict=True)):
            titles = parse_list(cell, _cell(file, row, name))
            if len(titles) != len(items):
                raise DataError(
                    f"{len(items)} items and {len(titles)} titles",
                    where=_cell(file, row, name),
                    expected="one title an item",
                )
            for item, title in zip(items, titles, strict=True):
                if title and not out.get(item):
                    out[item] = title
        return out


def _cell(file: Path, row: int, column: str) -> str:
    """Where a cell stands, for messages; rows count from 1, without the header."""
    return f"{file}, row {row + 1}, column '{column}'"


def _one_row_a_user(users: pl.Series, file: Path) -> None:
    if users.drop_nulls().n_unique() < len(users.drop_nulls()):
        twice = users.filter(users.is_duplicated() & users.is_not_null())[0]
        rows = [str(row + 1) for row in (users == twice).arg_true().to_list()[:3]]
        raise DataError(
            f"user '{twice}' has several rows",
            where=f"{file}, rows {', '.join(rows)}",
            expected="one row a user, so that the order of events is known",
            next="join the rows of each user",
        )
