"""Files of semantic IDs made elsewhere or for use elsewhere: readers, each beside its inverse.

- The **index** of LETTER, LC-Rec, GRec, MQL4GRec and MiniOneRec is JSON, plain or gzip'd: item id → one token a level,
  `{"B001": ["<a_17>", "<b_203>", "<c_5>"], …}`. The grammar is strict: level 1 is written with the letter a or A,
  level 2 with b or B, and so on.
- The **info** file of MiniOneRec has lines `<a_17><b_203><c_5>`, title, item id, separated by tabs.
- The **item map** of LC-Rec has lines of the item's own id and the number that stands for it in the other files.

Which items there must be is left to those who read one. The published files come back letter for letter, but for the
white space in JSON.
"""

import json
import re
from collections.abc import Sequence
from pathlib import Path

import polars as pl

from sidrec.data.columns import Columns
from sidrec.data.files import open_text, parse_json_object
from sidrec.data.raw import CODES
from sidrec.errors import DataError
from sidrec.types import IntArray

__all__ = ["index_text", "info_text", "item_map_text", "read_codes", "read_index", "read_info", "read_item_map"]

EXPECTED = '{"item id": ["<a_17>", "<b_203>", …], …}'
INFO_ENDING = ".txt"
"""Ending of an info file; everything else is taken for an index."""
LETTERS = "abcdefghijklmnopqrstuvwxyz"
_TOKEN = re.compile(r"<([a-zA-Z])_(\d{1,9})>")


def read_codes(path: Path) -> pl.DataFrame:
    """Item ids and their codes of an index or info file, told apart by the ending.

    Raises:
        DataError: see `read_index` and `read_info`.
    """
    if path.name.removesuffix(".gz").endswith(INFO_ENDING):
        return read_info(path).select(Columns.ITEM, CODES)
    return read_index(path)


def read_index(path: Path) -> pl.DataFrame:
    """Item ids and their codes (lists of int32 of one length), in file order; the inverse of `index_text`.

    Raises:
        DataError: not such a file, a repeated item, differing lengths, a malformed token.
    """
    entries = parse_json_object(path)
    for item, tokens in entries.items():
        if not isinstance(tokens, list) or not tokens:
            raise DataError(
                f"an item has {str(tokens)[:80]!r} instead of tokens",
                where=f"{path}, item '{item}'",
                expected=EXPECTED,
            )
    items = list(entries)
    return pl.DataFrame({Columns.ITEM: items, CODES: _codes(list(entries.values()), items, path)})


def read_info(path: Path) -> pl.DataFrame:
    """Item ids, titles and codes of MiniOneRec's info file, in file order; the inverse of `info_text`.

    Raises:
        DataError: a line has other than three fields, a repeated item, differing lengths, a malformed token.
    """
    rows: list[tuple[str, str]] = []
    tokens: list[list[str]] = []
    with open_text(path) as file:
        for number, line in enumerate(file, 1):
            fields = line.rstrip("\r\n").split("\t")
            if len(fields) != 3:
                raise DataError(
                    f"a line has {len(fields)} fields",
                    where=f"{path}, line {number}",
                    expected=f"{CODES}, title, number separated by tabs",
                )
            rows.append((fields[2], fields[1]))
            tokens.append(re.findall(r"<[^>]*>|[^<]+", fields[0]))
    table = pl.DataFrame(rows, schema={Columns.ITEM: pl.String, Columns.TITLE: pl.String}, orient="row")
    if table[Columns.ITEM].n_unique() < table.height:
        twice = table.filter(pl.col(Columns.ITEM).is_duplicated())[Columns.ITEM][0]
        raise DataError(f"the item '{twice}' occurs twice", where=str(path), expected="one line an item")
    return table.with_columns(_codes(tokens, table[Columns.ITEM].to_list(), path).alias(CODES))


def _codes(entries: Sequence[Sequence[object]], items: Sequence[str], path: Path) -> pl.Series:
    """Codes of all items, which have equally many."""
    num_levels = len(entries[0]) if entries else 0
    codes: list[list[int]] = []
    for tokens, item in zip(entries, items, strict=True):
        where = f"{path}, item '{item}'"
        if len(tokens) != num_levels:
            expected = f"{num_levels}, as item '{items[0]}' has"
            raise DataError(f"an item has {len(tokens)} tokens", where=where, expected=expected)
        codes.append([_code(token, level, where) for level, token in enumerate(tokens)])
    return pl.Series(codes, dtype=pl.List(pl.Int32))


def _code(token: object, level: int, where: str) -> int:
    match = _TOKEN.fullmatch(token) if isinstance(token, str) else None
    if level >= len(LETTERS):
        raise _too_many(level + 1, where)
    if match is None or match[1].lower() != LETTERS[level]:
        raise DataError(
            f"malformed token {token!r}",
            where=f"{where}, level {level + 1}",
            expected=f"<{LETTERS[level]}_0>, <{LETTERS[level]}_1>, …",
        )
    return int(match[2])


def index_text(items: Sequence[str], codes_NL: IntArray, *, upper: bool = False) -> str:
    """The text of an index file; the inverse of `read_index`.

    Args:
        items: item ids.
        codes_NL: their codes.
        upper: letters as in `<A_17>`, which MQL4GRec uses for codes of images.

    Raises:
        DataError: there are more levels than letters.

    >>> import numpy as np
    >>> index_text(["x"], np.array([[3, 0]]))
    '{"x": ["<a_3>", "<b_0>"]}'
    """
    return json.dumps(dict(zip(items, _tokens(codes_NL, upper), strict=True)), ensure_ascii=False)


def info_text(items: Sequence[str], titles: Sequence[str], codes_NL: IntArray, *, upper: bool = False) -> str:
    """The text of an info file; the inverse of `read_info` for titles without tab or line break, which become spaces.

    Args:
        items: item ids.
        titles: of the same items.
        codes_NL: their codes.
        upper: letters as in `<A_17>`.

    Raises:
        DataError: there are more levels than letters.
    """
    one_line = [re.sub(r"[\t\r\n]+", " ", title) for title in titles]
    lines = zip(map("".join, _tokens(codes_NL, upper)), one_line, items, strict=True)
    return "".join("\t".join(fields) + "\n" for fields in lines)


def item_map_text(items: Sequence[str]) -> str:
    r"""The text of an item map: the id of every item and its number; the inverse of `read_item_map`.

    >>> item_map_text(["B001", "B0AX"])
    'B001\t0\nB0AX\t1\n'
    """
    return "".join(f"{item}\t{number}\n" for number, item in enumerate(items))


def read_item_map(path: Path) -> dict[str, str]:
    """Number → item id of an item map, both as text, in file order; the inverse of `item_map_text`.

    Raises:
        DataError: a line has other than two fields, or a number or id occurs twice.
    """
    item_of: dict[str, str] = {}
    with open_text(path) as file:
        for line_number, line in enumerate(file, 1):
            item, separator, number = line.rstrip("\r\n").partition("\t")
            if not separator or not number.isdecimal() or number in item_of:
                raise DataError(
                    f"the line {line.strip()!r} gives no item a number of its own",
                    where=f"{path}, line {line_number}",
                    expected="item id and number separated by a tab, each number once",
                )
            item_of[number] = item
    if len(set(item_of.values())) < len(item_of):
        raise DataError("an item has two numbers", where=str(path), expected="one line an item")
    return item_of


def _tokens(codes_NL: IntArray, upper: bool) -> list[list[str]]:
    num_levels = codes_NL.shape[1]
    if num_levels > len(LETTERS):
        raise _too_many(num_levels, "semantic IDs")
    letters = LETTERS.upper() if upper else LETTERS
    return [
        [f"<{letter}_{code}>" for letter, code in zip(letters[:num_levels], codes, strict=True)]
        for codes in codes_NL.tolist()
    ]


def _too_many(num_levels: int, where: str) -> DataError:
    return DataError(
        f"{num_levels} levels cannot be written with one letter each",
        where=where,
        expected=f"at most {len(LETTERS)} levels",
        next="use a tokenizer with fewer levels",
    )
