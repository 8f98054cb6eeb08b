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
from sidrec.data.index import read_codes, read_item_map
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
        """What happens to items with equal codes: keep, append_level or hashed_round_robin."""
        path: str = ""
        """An index file, or an info file of MiniOneRec (.txt); empty means the codes that came with the dataset."""
        item_map: str = ""
        """LC-Rec's map of item ids to numbers (.item2id), if the file names items by number and the catalogue by id."""
        sizes: tuple[int, ...] = ()
        """Codes in each level; empty means up to the highest code that occurs."""

        @field_validator("collisions")
        @classmethod
        def _works_without_vectors(cls, value: Any) -> Any:
            if load_class("collision", value.kind).needs_vectors:
                raise ValueError(
                    "imported codes have no vectors to compare; use keep, append_level or hashed_round_robin"
                )
            return value

    def sources(self) -> dict[str, str]:
        """The digests of the index file and of the item map, if there are any."""
        files = {"index": self.config.path, "item map": self.config.item_map}
        return {role: file_digest(_existing(path)) for role, path in files.items() if path}

    def codes(self, dataset: Dataset, run: RunSettings = RunSettings()) -> tuple[IntArray, tuple[int, ...]]:
        """Codes int32[N, L] of the dataset's items as they were given, and the sizes of the levels.

        Raises:
            DataError: there are none, they do not fit the catalogue, or a token is malformed.
        """
        if self.config.path:
            codes, where = self._from_file(dataset.catalog), self.config.path
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

    def _from_file(self, catalog: Catalog) -> IntArray:
        """Codes int32[N, L] of the index file, in catalogue order."""
        path = _existing(self.config.path)
        index = read_codes(path)
        items = index[Columns.ITEM].to_list()
        if self.config.item_map:
            items = _mapped(items, _existing(self.config.item_map), path)
        _check_items(items, catalog, path)
        codes = np.array(index[CODES].to_list(), dtype=np.int32)
        ordered = np.empty_like(codes)
        ordered[catalog.rows(items)] = codes
        return ordered


def _existing(path: str) -> Path:
    found = existing(Path(path))
    if found is None:
        raise DataError("there is no such index file", where=path, next="check tokenizer.path and tokenizer.item_map")
    return found


def _mapped(numbers: Sequence[str], item_map: Path, path: Path) -> list[str]:
    item_of = read_item_map(item_map)
    unknown = [number for number in numbers if number not in item_of]
    if unknown:
        raise DataError(
            f"{len(unknown)} items of the index have no line in the item map, the first is '{unknown[0]}'",
            where=f"{path}, {item_map}",
            next="check that the files belong together",
        )
    return [item_of[number] for number in numbers]


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
