"""Semantic IDs made elsewhere: an index file, or the codes that came with the dataset.

Collisions in it stay unless a counting level is asked for: other policies would need the vectors behind the codes.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import SerializeAsAny, field_validator

from sidrec.artifact import file_digest
from sidrec.config import Config, RunSettings, slot
from sidrec.data.catalog import Catalog
from sidrec.data.columns import Columns
from sidrec.data.dataset import Dataset
from sidrec.data.files import existing
from sidrec.data.index import read_codes
from sidrec.data.raw import CODES
from sidrec.errors import DataError
from sidrec.registry import load_class
from sidrec.tokenizers.base import ImportingTokenizer, TokenizerConfig
from sidrec.types import IntArray

__all__ = ["Given"]


class Given(ImportingTokenizer):
    """Imports codes of an index file, or those that came with the dataset."""

    class Config(TokenizerConfig):
        """Codes from an index file or from the dataset."""

        kind: Literal["given"] = "given"
        collisions: Annotated[SerializeAsAny[Config], slot("collision")] = "keep"  # type: ignore[assignment]  # As in the base.
        """What happens to items with equal codes: keep or append_level."""
        path: str = ""
        """An index file, or an info file of MiniOneRec (.txt); empty means the codes that came with the dataset."""
        sizes: tuple[int, ...] = ()
        """Codes in each level; empty means up to the highest code that occurs."""

        @field_validator("collisions")
        @classmethod
        def _works_without_vectors(cls, value: Any) -> Any:
            if load_class("collision", value.kind).needs_vectors:
                raise ValueError("imported codes have no vectors to compare; use keep or append_level")
            return value

    def sources(self) -> dict[str, str]:
        """The digest of the index file, if there is one."""
        path = self.config.path
        return {"index": file_digest(_existing(path))} if path else {}

    def codes(self, dataset: Dataset, run: RunSettings = RunSettings()) -> tuple[IntArray, tuple[int, ...]]:
        """Codes int32[N, L] of the dataset's items as they were given, and the sizes of the levels.

        Raises:
            DataError: there are none, they do not fit the catalogue, or a token is malformed.
        """
        if self.config.path:
            codes, where = _from_file(_existing(self.config.path), dataset.catalog), self.config.path
        elif dataset.given_codes is not None:
            codes, where = dataset.given_codes.astype(np.int32), "codes that came with the dataset"
        else:
            raise DataError(
                "no semantic IDs came with this dataset",
                expected="an index file beside the interactions",
                next="name one with tokenizer.path=FILE, or use a tokenizer of kind 'rqkmeans'",
            )
        if len(codes) != len(dataset.catalog):
            raise DataError(f"{len(codes)} items have codes, the catalogue has {len(dataset.catalog)}", where=where)
        return codes, _sizes(codes, self.config.sizes, where)


def _from_file(path: Path, catalog: Catalog) -> IntArray:
    """Codes int32[N, L] of an index file, in catalogue order."""
    index = read_codes(path)
    _check_items(index[Columns.ITEM].to_list(), catalog, path)
    codes = np.array(index[CODES].to_list(), dtype=np.int32)
    ordered = np.empty_like(codes)
    ordered[catalog.rows(index[Columns.ITEM])] = codes
    return ordered


def _existing(path: str) -> Path:
    found = existing(Path(path))
    if found is None:
        raise DataError("there is no such index file", where=path, next="check tokenizer.path")
    return found


def _check_items(items: Sequence[str], catalog: Catalog, path: Path) -> None:
    named = set(items)
    unknown = [item for item in items if not catalog.knows(item)]
    missing = [item for item in catalog.ids if item not in named]
    for problem, found in (("unknown to the catalogue", unknown), ("missing", missing)):
        if found:
            raise DataError(
                f"{len(found)} items of the index are {problem}, the first is '{found[0]}'",
                where=str(path),
                expected=f"each of the {len(catalog)} items of the catalogue once",
                next="prepare the dataset from the data that the index was made for",
            )


def _sizes(codes: IntArray, configured: tuple[int, ...], where: str) -> tuple[int, ...]:
    highest = codes.max(axis=0)
    if not configured:
        return tuple(int(code) + 1 for code in highest)
    if len(configured) != len(highest) or (highest >= np.asarray(configured)).any():
        raise DataError(
            f"the highest codes are {highest.tolist()}, which do not fit sizes {list(configured)}",
            where=where,
            expected="one size a level, larger than its highest code",
            next="leave tokenizer.sizes empty",
        )
    return configured
