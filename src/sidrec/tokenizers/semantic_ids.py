"""The table of semantic IDs: row ↔ codes, with the digest that ties it to its catalogue."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import polars as pl

from sidrec.artifact import digest_of
from sidrec.data.catalog import Catalog
from sidrec.data.columns import Columns
from sidrec.errors import DataError
from sidrec.types import IntArray

__all__ = ["SemanticIds"]

TABLE, META = "semantic_ids.parquet", "semantic_ids.json"


@dataclass(frozen=True)
class SemanticIds:
    """A tuple of L codes for every item. Several items may share one tuple (a collision).

    Attributes:
        codes: int32[N, L]; row = catalogue row.
        sizes: (K1, …, KL), number of codes in each level; `0 ≤ codes[:, l] < sizes[l]`.
        catalog_digest: digest of the catalogue whose rows these are.
        version: raised by one each time new items are appended; old items keep their codes.

    >>> ids = SemanticIds(np.array([[0, 1], [0, 2]], np.int32), (1, 3), "digest")
    >>> ids.text(1), ids.rows_of([0, 2]).tolist(), ids.num_collided
    ('<a_0><b_2>', [1], 0)
    """

    codes: IntArray
    sizes: tuple[int, ...]
    catalog_digest: str
    version: int = 1

    def __post_init__(self) -> None:
        if self.codes.ndim != 2 or self.codes.shape[1] != len(self.sizes) or not self.codes.size:
            raise DataError(f"codes of shape {self.codes.shape} do not fit {len(self.sizes)} levels")
        wrong = (self.codes < 0) | (self.codes >= np.asarray(self.sizes))
        if wrong.any():
            row, level = (int(i[0]) for i in np.nonzero(wrong))
            raise DataError(
                f"code {self.codes[row, level]} is outside its level",
                where=f"row {row}, level {level + 1}",
                expected=f"0 to {self.sizes[level] - 1}",
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
        return digest_of([self.codes.tolist(), self.sizes, self.catalog_digest, self.version])

    @cached_property
    def group_of(self) -> IntArray:
        """int64[N]; items with equal codes have equal numbers (0 … G-1, in order of the codes)."""
        return np.unique(self.codes, axis=0, return_inverse=True)[1].reshape(-1)

    @cached_property
    def num_collided(self) -> int:
        """Number of items that share their codes with another item."""
        return int((np.bincount(self.group_of)[self.group_of] > 1).sum())

    @cached_property
    def largest_group(self) -> int:
        """Number of items behind the fullest tuple of codes."""
        return int(np.bincount(self.group_of).max())

    def rows_of(self, codes: Sequence[int] | IntArray) -> IntArray:
        """int64[…], rows of the items with these codes; empty if there is none."""
        return np.flatnonzero((self.codes == np.asarray(codes)).all(axis=1))

    def text(self, row: int) -> str:
        """The codes of a row as people read them: `<a_12><b_3><c_200>`."""
        return "".join(f"<{chr(ord('a') + level)}_{code}>" for level, code in enumerate(self.codes[row]))

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
        columns = {f"code_{level + 1}": self.codes[:, level] for level in range(self.num_levels)}
        pl.DataFrame({Columns.ITEM: catalog.ids, **columns}).write_parquet(directory / TABLE)
        meta = {"sizes": self.sizes, "catalog_digest": self.catalog_digest, "version": self.version}
        (directory / META).write_text(json.dumps(meta, indent=1), encoding="utf-8")

    @classmethod
    def load(cls, directory: Path) -> "SemanticIds":
        """Read the table from a directory."""
        meta = json.loads((directory / META).read_text(encoding="utf-8"))
        codes = pl.read_parquet(directory / TABLE).drop(Columns.ITEM).to_numpy().astype(np.int32)
        return cls(codes, tuple(meta["sizes"]), meta["catalog_digest"], meta["version"])
