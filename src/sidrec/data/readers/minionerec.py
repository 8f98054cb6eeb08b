"""MiniOneRec's folder: `train/`, `valid/`, `test/` CSV files with Python lists, `index/` and `info/`.

A row is an example: user, a history of at most the last ten items, a target. The split is given (by time over all
users), so one user may have examples in several parts. Parts whose file is missing stay empty. Rows take the order of
the item numbers, so that a published `.npy` fits.
"""

from pathlib import Path
from typing import Literal

import polars as pl

from sidrec.config import Config
from sidrec.data.columns import Columns
from sidrec.data.dataset import PARTS
from sidrec.data.files import find_one, read_csv
from sidrec.data.index import read_index, read_info
from sidrec.data.items import dense_order, read_items
from sidrec.data.literals import parse_list, parse_literal
from sidrec.data.raw import CODES, RawData, Reader
from sidrec.errors import DataError

__all__ = ["MiniOneRecReader"]


class MiniOneRecReader(Reader):
    """Reads the folder that holds `train`, `valid` and `test`."""

    prepared = True

    class Config(Config):
        """Settings."""

        kind: Literal["minionerec"] = "minionerec"
        category: str = ""
        """Beginning of the file names, where a folder holds several categories."""

    def sources(self, path: Path) -> list[Path]:
        """The files of the parts, then index, item texts and info file."""
        parts, others = self._files(path)
        return [*parts.values(), *others.values()]

    def read(self, path: Path) -> RawData:
        """Examples of all parts; codes and texts by item number."""
        parts, others = self._files(path)
        examples = pl.concat([_examples(file, part) for part, file in parts.items()])
        items = self._items(others)
        codes = self._codes(others)
        ids = None if items is None else items[Columns.ITEM].to_list()
        if codes is not None and ids is not None:
            known = set(ids)
            unknown = [item for item in codes[Columns.ITEM].to_list() if item not in known]
            if unknown:
                raise DataError(
                    f"{len(unknown)} items of the index are not in the item table, the first is '{unknown[0]}'",
                    where=str(others["index" if "index" in others else "info"]),
                    next="check that the files belong together",
                )
        return RawData(str(path), None, items, codes, examples, dense_order(ids) if ids else None)

    def _files(self, path: Path) -> tuple[dict[str, Path], dict[str, Path]]:
        if not path.is_dir():
            raise DataError("there is no such folder", where=str(path), expected="a folder with train, valid, test")
        wanted = {part: (part, "*.csv") for part in PARTS}
        wanted |= {"index": ("index", "*.index.json"), "items": ("index", "*.item.json"), "info": ("info", "*.txt")}
        found: dict[str, Path] = {}
        for role, (folder, pattern) in wanted.items():
            pattern = f"{self.config.category}{pattern}"
            if any((path / folder).glob(pattern)) or any((path / folder).glob(pattern + ".gz")):
                found[role] = find_one(path / folder, [pattern], f"{role} file")
        parts = {part: found[part] for part in PARTS if part in found}
        if not parts:
            raise DataError(
                "there are no examples",
                where=str(path),
                expected="train/*.csv, valid/*.csv or test/*.csv",
                next="check the path and the reader's 'category'",
            )
        return parts, {role: file for role, file in found.items() if role not in parts}

    def _items(self, others: dict[str, Path]) -> pl.DataFrame | None:
        if "items" in others:
            items = read_items(others["items"])
            return items.with_columns(
                pl.Series(name, [_unlisted(text) for text in items[name]], dtype=pl.String)
                for name in items.columns
                if name != Columns.ITEM
            )
        return read_info(others["info"]).drop(CODES) if "info" in others else None

    def _codes(self, others: dict[str, Path]) -> pl.DataFrame | None:
        if "index" in others:
            return read_index(others["index"])
        return read_info(others["info"]).drop(Columns.TITLE) if "info" in others else None


def _unlisted(text: str) -> str:
    """Text that may be a printed list: its entries joined by a space."""
    if not (text.startswith("[") and text.endswith("]")):
        return text
    try:
        value = parse_literal(text)
    except DataError:
        return text
    return " ".join(str(part) for part in value if part is not None)


def _examples(path: Path, part: str) -> pl.DataFrame:
    history, target = "history_item_id", "item_id"
    table = read_csv(path, ("user_id", history, target))
    lists = [parse_list(cell, f"{path}, row {row + 1}, column '{history}'") for row, cell in enumerate(table[history])]
    return table.select(
        pl.col("user_id").alias(Columns.USER),
        pl.Series(Columns.HISTORY, lists, dtype=pl.List(pl.String)),
        pl.col(target).alias(Columns.TARGET),
        pl.lit(part).alias(Columns.PART),
    )
