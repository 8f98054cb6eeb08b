"""The table of semantic IDs: row ↔ codes, with the digest that ties it to its catalogue."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import polars as pl

from sidrec.artifact import digest_of
from sidrec.data.catalog import Catalog
from sidrec.data.columns import Columns
from sidrec.decoding.trie import ItemTrie
from sidrec.errors import DataError
from sidrec.types import IntArray

__all__ = ["SemanticIds", "codes_text"]

TABLE, META = "semantic_ids.parquet", "semantic_ids.json"


@dataclass(frozen=True)
class SemanticIds:
    """A tuple of L codes for every item. Several items may share one tuple (a collision).

    Attributes:
        codes: int32[N, L]; row = catalogue row.
        sizes: (K1, …, KL), number of codes in each level; `0 ≤ codes[:, l] < sizes[l]`.
        catalog_digest: digest of the catalogue whose rows these are.
        version: raised by one each time new items are appended; old items keep their codes.
        earlier: the tree of the first items where others were appended; that of all is then made from it in a
            fraction of the time.

    >>> ids = SemanticIds(np.array([[0, 1], [0, 2]], np.int32), (1, 3), "digest")
    >>> ids.text(1), ids.rows_of([0, 2]).tolist(), ids.num_collided
    ('<a_0><b_2>', [1], 0)
    """

    codes: IntArray
    sizes: tuple[int, ...]
    catalog_digest: str
    version: int = 1
    earlier: ItemTrie | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.codes.ndim != 2 or self.codes.shape[1] != len(self.sizes) or not self.codes.size:
            raise DataError(f"codes of shape {self.codes.shape} do not fit {len(self.sizes)} levels")
        for level, size in enumerate(self.sizes):
            column = self.codes[:, level]
            if column.min() < 0 or column.max() >= size:
                row = int(((column < 0) | (column >= size)).argmax())
                raise DataError(
                    f"code {column[row]} is outside its level",
                    where=f"row {row}, level {level + 1}",
                    expected=f"0 to {size - 1}",
                )

    def __len__(self) -> int:
        return len(self.codes)

    @property
    def num_levels(self) -> int:
        """L."""
        return len(self.sizes)

    @cached_property
    def digest(self) -> str:
        """Hash of codes, sizes, catalogue and version."""
        about = digest_of([self.codes.shape, self.sizes, self.catalog_digest, self.version])
        found = hashlib.sha256(about.encode())
        found.update(np.ascontiguousarray(self.codes, "<i4").data)
        return found.hexdigest()

    @cached_property
    def trie(self) -> ItemTrie:
        """The prefix tree of these codes: the same table in order of the codes."""
        if self.earlier is None:
            return ItemTrie.build(self.codes, self.sizes)
        return self.earlier.extended(self.codes[self.earlier.num_rows :], self.sizes)

    @cached_property
    def _items_per_code(self) -> IntArray:
        """int32[G], items behind each tuple of codes that occurs, in order of the codes."""
        return np.diff(self.trie.item_ptr)

    @cached_property
    def group_of(self) -> IntArray:
        """int64[N]; items with equal codes have equal numbers (0 … G-1, in order of the codes)."""
        out = np.empty(len(self), np.int64)
        out[self.trie.rows] = np.repeat(np.arange(len(self._items_per_code)), self._items_per_code)
        return out

    @cached_property
    def num_collided(self) -> int:
        """Number of items that share their codes with another item."""
        return int(self._items_per_code[self._items_per_code > 1].sum())

    @cached_property
    def largest_group(self) -> int:
        """Number of items behind the fullest tuple of codes."""
        return int(self._items_per_code.max())

    def rows_of(self, codes: Sequence[int] | IntArray) -> IntArray:
        """int64[…], rows of the items with these codes; empty if there is none."""
        return np.flatnonzero((self.codes == np.asarray(codes)).all(axis=1))

    def text(self, row: int) -> str:
        """The codes of a row as people read them: `<a_12><b_3><c_200>`."""
        return codes_text(self.codes[row].tolist())

    def check_fits(self, catalog: Catalog) -> None:
        """Raise `DataError` unless these are the semantic IDs of exactly this catalogue."""
        if len(self) != len(catalog) or self.catalog_digest != catalog.digest:
            raise DataError(
                f"catalogue and semantic IDs disagree: {len(catalog)} items of catalogue {catalog.digest[:12]}, "
                f"{len(self)} semantic IDs made for catalogue {self.catalog_digest[:12]}",
                next="make the semantic IDs again with 'sidrec tokenize'",
            )

    def check_extends(self, earlier: "SemanticIds", catalog: Catalog) -> None:
        """Raise `DataError` unless these are earlier semantic IDs with those of new items behind them.

        Args:
            earlier: the semantic IDs before new items were added.
            catalog: the catalogue of these; its ids prove that the first items are still the same.
        """
        self.check_fits(catalog)
        count = len(earlier)
        if not catalog.begins_with(count, earlier.catalog_digest):
            what = f"the catalogue of {len(catalog)} items does not begin with the {count} items that were there before"
        elif self.num_levels != earlier.num_levels or not np.array_equal(self.codes[:count], earlier.codes):
            what = f"the first {count} items do not have the codes that they had before"
        else:
            return
        raise DataError(
            what,
            where=f"semantic IDs of version {self.version}, earlier ones of version {earlier.version}",
            expected="the same items with the same codes, and new ones behind them",
            next="make them with 'sidrec tokenize --extend NEW' from the semantic IDs that were there before",
        )

    def save(self, directory: Path, catalog: Catalog) -> None:
        """Write the table and its description into a directory."""
        columns = [pl.Series(name, self.codes[:, level]) for level, name in enumerate(_columns(self.num_levels))]
        catalog.items.select(Columns.ITEM).with_columns(columns).write_parquet(directory / TABLE)
        meta = {"sizes": self.sizes, "catalog_digest": self.catalog_digest, "version": self.version}
        (directory / META).write_text(json.dumps(meta, indent=1), encoding="utf-8")

    @staticmethod
    def item_ids(directory: Path) -> list[str]:
        """Ids of the items of the table in a directory, in row order."""
        return pl.read_parquet(directory / TABLE, columns=[Columns.ITEM])[Columns.ITEM].to_list()

    @classmethod
    def load(cls, directory: Path) -> "SemanticIds":
        """Read the table from a directory."""
        meta = json.loads((directory / META).read_text(encoding="utf-8"))
        table = pl.read_parquet(directory / TABLE, columns=_columns(len(meta["sizes"])))
        codes = table.to_numpy().astype(np.int32, order="C")
        return cls(codes, tuple(meta["sizes"]), meta["catalog_digest"], meta["version"])


def _columns(num_levels: int) -> list[str]:
    return [f"code_{level + 1}" for level in range(num_levels)]


def codes_text(codes: Sequence[int]) -> str:
    """Codes of an item, or the first of them, as people read them.

    >>> codes_text([12, 3])
    '<a_12><b_3>'
    """
    return "".join(f"<{chr(ord('a') + level)}_{code}>" for level, code in enumerate(codes))
