"""Index files of semantic IDs: item id → one token a level, `{"B001": ["<a_17>", "<b_203>", "<c_5>"], …}`.

The JSON of LETTER, LC-Rec, GRec and MiniOneRec, plain or gzip'd. The grammar is strict: level 1 is written with the
letter a or A, level 2 with b or B, and so on. Which items there must be is left to those who read one.
"""

import re
from pathlib import Path

import polars as pl

from sidrec.data.columns import Columns
from sidrec.data.files import parse_json_object
from sidrec.data.raw import CODES
from sidrec.errors import DataError

__all__ = ["read_index"]

EXPECTED = '{"item id": ["<a_17>", "<b_203>", …], …}'
_TOKEN = re.compile(r"<([a-zA-Z])_(\d{1,9})>")


def read_index(path: Path) -> pl.DataFrame:
    """Item ids and their codes (lists of int32 of one length), in file order.

    Raises:
        DataError: not such a file, a repeated item, differing lengths, a malformed token.
    """
    entries = parse_json_object(path)
    first_item, first_tokens = next(iter(entries.items()))
    num_levels = len(first_tokens) if isinstance(first_tokens, list) else 0
    codes: list[list[int]] = []
    for item, tokens in entries.items():
        where = f"{path}, item '{item}'"
        if not isinstance(tokens, list) or not tokens:
            raise DataError(f"an item has {str(tokens)[:80]!r} instead of tokens", where=where, expected=EXPECTED)
        if len(tokens) != num_levels:
            raise DataError(
                f"an item has {len(tokens)} tokens", where=where, expected=f"{num_levels}, as item '{first_item}' has"
            )
        codes.append([_code(token, level, where) for level, token in enumerate(tokens)])
    return pl.DataFrame({Columns.ITEM: list(entries), CODES: pl.Series(codes, dtype=pl.List(pl.Int32))})


def _code(token: object, level: int, where: str) -> int:
    match = _TOKEN.fullmatch(token) if isinstance(token, str) else None
    letter = chr(ord("a") + level)
    if match is None or match[1].lower() != letter:
        raise DataError(
            f"malformed token {token!r}", where=f"{where}, level {level + 1}", expected=f"<{letter}_0>, <{letter}_1>, …"
        )
    return int(match[2])
