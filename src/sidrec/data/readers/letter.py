"""The JSON triple of LETTER, LC-Rec, GRec and MQL4GRec: interactions, item texts, semantic IDs.

- `X.inter.json`: `{"user": [item, …]}`, oldest first, the whole history.
- `X.item.json` (optional): `{"item": {"title": …, "description": …}}`.
- `X.index.json` (optional): `{"item": ["<a_12>", "<b_3>", …]}`, lower or upper case letters.

Where item ids are the numbers 0 … N-1, the item's row is its id, so that a published `.npy` with row = id fits the
catalogue as it is. There are no timestamps. User preferences and reviews (`X.user.json`) are not read here.
"""

from pathlib import Path
from typing import Literal

import numpy as np
import polars as pl

from sidrec.config import Config
from sidrec.data.columns import Columns
from sidrec.data.files import existing, find_one, parse_json_object
from sidrec.data.index import read_index
from sidrec.data.items import dense_order, read_items
from sidrec.data.raw import RawData, Reader
from sidrec.errors import DataError

__all__ = ["LetterReader"]


class LetterReader(Reader):
    """Reads a folder with the triple, or the `.inter.json` file in it; each file may be gzip'd."""

    prepared = True

    class Config(Config):
        """Settings."""

        kind: Literal["letter"] = "letter"
        index_file: str = "auto"
        """A path from the folder, an ending such as `.index_lemb.json`, `none`; `auto`: `X.index.json`."""
        index_mismatch: Literal["error", "drop"] = "error"
        """When index and items differ: stop, or drop items without codes and codes without item."""

    def sources(self, path: Path) -> list[Path]:
        """The interactions file and whichever of the others are there."""
        inter, items, index = self._files(path)
        return [file for file in (inter, items, index) if file is not None]

    def read(self, path: Path) -> RawData:
        """Interactions in file order; items and codes where there are files."""
        inter, item_file, index_file = self._files(path)
        interactions = _interactions(inter)
        seen = interactions[Columns.ITEM].unique(maintain_order=True)
        items = read_items(item_file) if item_file else None
        known = seen if items is None else pl.concat([seen, items[Columns.ITEM]]).unique(maintain_order=True)
        order = dense_order(known.to_list())
        codes = self._codes(index_file, known, seen) if index_file else None
        if codes is not None and self.config.index_mismatch == "drop":
            coded = set(codes[Columns.ITEM])
            order = order and [item for item in order if item in coded]
            items = items if items is None else items.filter(pl.col(Columns.ITEM).is_in(codes[Columns.ITEM].implode()))
        return RawData(str(inter), interactions.lazy(), items, codes, item_order=order)

    def _files(self, path: Path) -> tuple[Path, Path | None, Path | None]:
        inter = find_one(path, ["*.inter.json"], "interactions file")
        stem, marker, _ = inter.name.partition(".inter.json")
        if not marker:
            raise DataError("this is no interactions file", where=str(inter), expected="a name like 'X.inter.json'")
        folder = inter.parent
        return inter, existing(folder / f"{stem}.item.json"), self._index_file(folder, stem)

    def _index_file(self, folder: Path, stem: str) -> Path | None:
        wanted = self.config.index_file
        if wanted == "none":
            return None
        if wanted == "auto":
            return existing(folder / f"{stem}.index.json")
        for candidate in (folder / wanted, folder / f"{stem}{wanted}"):
            found = existing(candidate)
            if found is not None:
                return found
        names = ", ".join(sorted(file.name for file in folder.glob("*index*"))) or "none"
        raise DataError(f"there is no index file '{wanted}'", where=str(folder), next=f"index files here: {names}")

    def _codes(self, file: Path, known: pl.Series, seen: pl.Series) -> pl.DataFrame:
        codes = read_index(file)
        if self.config.index_mismatch == "drop":
            return codes.filter(pl.col(Columns.ITEM).is_in(known.implode()))
        for ids, other, problem in (
            (codes[Columns.ITEM], known, "in the index, but in neither interactions nor item texts"),
            (seen, codes[Columns.ITEM], "in the interactions, but not in the index"),
        ):
            unknown = ids.filter(~ids.is_in(other.implode()))
            if len(unknown):
                raise DataError(
                    f"{len(unknown)} items are {problem}, the first is '{unknown[0]}'",
                    where=str(file),
                    expected=f"codes for the {len(known)} items of the interactions",
                    next="check that both files belong together, or set index_mismatch: drop",
                )
        return codes


def _interactions(path: Path) -> pl.DataFrame:
    histories = parse_json_object(path)
    for user, history in histories.items():
        if not isinstance(history, list) or not all(type(item) in (int, str) for item in history):
            raise DataError(
                f"the history of user '{user}' is not a list of item ids",
                where=str(path),
                expected=f'"{user}": [1, 2, 3]',
            )
    lengths = [len(history) for history in histories.values()]
    users = pl.Series(list(histories), dtype=pl.String).gather(np.repeat(np.arange(len(lengths)), lengths))
    items = pl.Series([str(item) for history in histories.values() for item in history], dtype=pl.String)
    return pl.DataFrame({Columns.USER: users, Columns.ITEM: items})
