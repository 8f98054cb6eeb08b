"""Semantic IDs made elsewhere: an index file, or the codes that came with the dataset.

Reads the JSON index of LETTER, LC-Rec, GRec and MiniOneRec: item id → one token a level, such as
`["<a_17>", "<b_203>", "<c_5>"]`. Collisions in it stay unless a counting level is asked for: other
policies would need the vectors behind the codes.
"""

import json
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import SerializeAsAny, field_validator

from sidrec.artifact import file_digest
from sidrec.config import Config, slot
from sidrec.data.catalog import Catalog
from sidrec.data.dataset import Dataset
from sidrec.errors import DataError
from sidrec.registry import load_class
from sidrec.tokenizers.base import ImportingTokenizer, TokenizerConfig
from sidrec.types import IntArray

__all__ = ["Given", "read_index"]

TOKEN = re.compile(r"<([a-zA-Z])_(\d{1,9})>")
EXPECTED = '{"item id": ["<a_17>", "<b_203>", …], …}'


class Given(ImportingTokenizer):
    """Imports codes of an index file, or those that came with the dataset."""

    class Config(TokenizerConfig):
        """Codes from an index file or from the dataset."""

        kind: Literal["given"] = "given"
        collisions: Annotated[SerializeAsAny[Config], slot("collision")] = "keep"  # type: ignore[assignment]  # As in the base.
        """What happens to items with equal codes: keep or append_level."""
        path: str = ""
        """The index file; empty means the codes that came with the dataset."""
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
        return {"index": file_digest(_existing(Path(path)))} if path else {}

    def codes(self, dataset: Dataset) -> tuple[IntArray, tuple[int, ...]]:
        """Codes int32[N, L] of the dataset's items as they were given, and the sizes of the levels.

        Raises:
            DataError: there are none, they do not fit the catalogue, or a token is malformed.
        """
        if self.config.path:
            codes, where = read_index(Path(self.config.path), dataset.catalog), self.config.path
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


def read_index(path: Path, catalog: Catalog) -> IntArray:
    """Codes int32[N, L] of an index file, in catalogue order.

    Raises:
        DataError: not such a file, unknown, missing or repeated items, differing lengths, malformed tokens.
    """
    pairs = _pairs(_existing(path))
    _check_items([item for item, _ in pairs], catalog, path)
    first_item, first_tokens = pairs[0]
    num_levels = len(first_tokens) if isinstance(first_tokens, list) else 0
    rows = catalog.rows(item for item, _ in pairs)
    codes = np.empty((len(catalog), num_levels), np.int32)
    for row, (item, tokens) in zip(rows, pairs, strict=True):
        where = f"{path}, item '{item}'"
        if not isinstance(tokens, list) or not tokens:
            raise DataError(f"an item has {tokens!r} instead of tokens", where=where, expected=EXPECTED)
        if len(tokens) != num_levels:
            raise DataError(
                f"an item has {len(tokens)} tokens", where=where, expected=f"{num_levels}, as item '{first_item}' has"
            )
        codes[row] = [_code(token, level, where) for level, token in enumerate(tokens)]
    return codes


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise DataError("there is no such index file", where=str(path), next="check tokenizer.path")
    return path


def _pairs(path: Path) -> list[tuple[str, Any]]:
    """Item and tokens as they stand in the file, repeated items included."""
    try:
        pairs = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=lambda pairs: pairs)
    except ValueError as error:
        raise DataError(f"the index is not JSON: {error}", where=str(path), expected=EXPECTED) from error
    if not isinstance(pairs, list) or not pairs or not all(isinstance(pair, tuple) for pair in pairs):
        raise DataError("the index is not an object with items", where=str(path), expected=EXPECTED)
    return pairs


def _check_items(items: Sequence[str], catalog: Catalog, path: Path) -> None:
    named = set(items)
    unknown = [item for item in items if not catalog.knows(item)]
    missing = [item for item in catalog.ids if item not in named]
    repeated = [item for item, times in Counter(items).items() if times > 1]
    for problem, found in (("unknown to the catalogue", unknown), ("missing", missing), ("repeated", repeated)):
        if found:
            raise DataError(
                f"{len(found)} items of the index are {problem}, the first is '{found[0]}'",
                where=str(path),
                expected=f"each of the {len(catalog)} items of the catalogue once",
                next="prepare the dataset from the data that the index was made for",
            )


def _code(token: object, level: int, where: str) -> int:
    match = TOKEN.fullmatch(token) if isinstance(token, str) else None
    letter = chr(ord("a") + level)
    if match is None or match[1].lower() != letter:
        raise DataError(
            f"malformed token {token!r}", where=f"{where}, level {level + 1}", expected=f"<{letter}_0>, <{letter}_1>, …"
        )
    return int(match[2])


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
