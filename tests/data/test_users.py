"""Files of users: every format says the same, parts are what was asked for, and a bad row is named."""

import gzip
import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidrec.data.users import user_file
from sidrec.errors import DataError

LISTS = [["a", "b"], [], ["it's", 'say "x"', "a, b"], ["ü"], ["a"] * 5]
IDS = ["u1", "u2", "u,3", "u4", "u5"]


def write(path: Path, ids=IDS, lists=LISTS, columns=("user_id", "history")) -> Path:
    """The same users in the format that the name says."""
    user, items = columns
    table = pl.DataFrame({user: ids, items: pl.Series(lists, dtype=pl.List(pl.String))})
    if path.suffix == ".parquet":
        table.write_parquet(path)
    elif ".csv" in path.name:
        cells = [repr(items) if items else "" for items in lists]
        text = pl.DataFrame({user: ids, items: cells}).write_csv(quote_style="necessary")
        path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    else:
        lines = [json.dumps({user: u, items: i, "more": {}}) for u, i in zip(ids, lists, strict=True)]
        text = "\n\n".join(lines) + "\n"
        path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def rows(found) -> list[tuple]:
    """(id, items) of every user of some parts."""
    return [(users.ids[k], users.of(k)) for users in found for k in range(len(users))]


NAMES = ["u.parquet", "u.csv", "u.csv.gz", "u.jsonl", "u.ndjson.gz"]


@pytest.mark.parametrize("name", NAMES)
def test_every_format_says_the_same(tmp_path: Path, name: str) -> None:
    file = user_file(write(tmp_path / name))
    assert file.columns == ("user_id", "history")
    assert file.count() == 5
    parts = dict(file.parts(2, [0, 1, 2]))
    assert {number: len(users) for number, users in parts.items()} == {0: 2, 1: 2, 2: 1}
    assert rows(parts.values()) == list(zip(IDS, LISTS, strict=True))


@pytest.mark.parametrize("name", ["u.parquet", "u.csv", "u.jsonl"])
@given(size=st.integers(1, 7), wanted=st.sets(st.integers(0, 40)), num=st.integers(1, 30))
@settings(max_examples=25, deadline=None)
def test_any_parts_are_slices_of_the_whole(tmp_path_factory, name: str, size: int, wanted: set[int], num: int) -> None:
    ids, lists = [f"u{k}" for k in range(num)], [[str(k)] * (k % 3) for k in range(num)]
    file = user_file(write(tmp_path_factory.mktemp("u") / name, ids, lists))
    there = sorted(n for n in wanted if n * size < num)
    found = dict(file.parts(size, there))
    assert list(found) == there
    for number, users in found.items():
        here = slice(number * size, (number + 1) * size)
        assert rows([users]) == list(zip(ids[here], lists[here], strict=True))


def test_integers_are_ids_too(tmp_path: Path) -> None:
    table = pl.DataFrame({"user": [7, 8], "item_ids": [[3, 1], None]})
    table.write_parquet(tmp_path / "u.parquet")
    (tmp_path / "u.jsonl").write_text('{"user": 7, "item_ids": [3, 1]}\n{"user": 8, "item_ids": null}\n')
    (tmp_path / "u.csv").write_text('\ufeffuser,item_ids,other\n7,"[3, 1]",x\n8,,y\n')
    for name, expected in (("u.parquet", [7, 8]), ("u.jsonl", [7, 8]), ("u.csv", ["7", "8"])):
        assert rows(dict(user_file(tmp_path / name).parts(9, [0])).values()) == [
            (expected[0], ["3", "1"]),
            (expected[1], []),
        ]


def test_ids_have_the_same_type_in_every_part(tmp_path: Path) -> None:
    (tmp_path / "u.jsonl").write_text("".join(f'{{"user": {u}, "items": []}}\n' for u in (-(2**63), 3, 2**63 - 1)))
    (tmp_path / "t.jsonl").write_text("".join(f'{{"user": "{u}", "items": []}}\n' for u in (2**63, 3, 2**64)))
    for name, dtype in (("u.jsonl", pl.Int64), ("t.jsonl", pl.String)):
        parts = dict(user_file(tmp_path / name).parts(1, [0, 1, 2])).values()
        assert [users.ids.dtype for users in parts] == [dtype] * 3


def test_arrays_and_categories_of_parquet(tmp_path: Path) -> None:
    table = pl.DataFrame({"user_id": pl.Series(["a", "b"], dtype=pl.Categorical), "items": np.array([[1, 2], [3, 4]])})
    table.write_parquet(tmp_path / "u.parquet")
    assert rows(dict(user_file(tmp_path / "u.parquet").parts(9, [0])).values()) == [
        ("a", ["1", "2"]),
        ("b", ["3", "4"]),
    ]


def test_the_columns_of_the_original_and_columns_by_name(tmp_path: Path) -> None:
    path = tmp_path / "test.csv"
    path.write_text('user_id,history_item_id,history_item_title\n1,"[12, 5]","[\'A\', ""it\'s""]"\n')
    assert user_file(path).columns == ("user_id", "history_item_id")
    file = user_file(path, items="history_item_title")
    assert rows(dict(file.parts(9, [0])).values()) == [("1", ["A", "it's"])]


def test_a_list_longer_than_the_csv_parser_allows(tmp_path: Path) -> None:
    path = write(tmp_path / "u.csv", ["u"], [["item"] * 40_000])
    assert path.stat().st_size > 131_072
    assert rows(dict(user_file(path).parts(9, [0])).values()) == [("u", ["item"] * 40_000)]


BAD = {
    "no json": ("u.jsonl", '{"user_id": "a", "history": []}\n\nnope\n', ["u.jsonl, line 3", "not valid JSON"]),
    "no list": ("u.jsonl", '{"user_id": "a", "history": "b"}\n', ["line 1", "'history'", '"b"']),
    "no item": ("u.jsonl", '{"user_id": "a", "history": [null]}\n', ["line 1", "'history'"]),
    "bool item": ("u.jsonl", '{"user_id": "a", "history": [true]}\n', ["line 1", "'history'"]),
    "no key": ("u.jsonl", '{"user_id": "a", "history": []}\n{"user_id": "b"}\n', ["line 2", "key is missing"]),
    "no id": ("u.jsonl", '{"user_id": null, "history": []}\n', ["line 1", "'user_id'", "null"]),
    "other id": (
        "u.jsonl",
        '{"user_id": 1, "history": []}\n{"user_id": "b", "history": []}\n',
        ["line 2", "an integer, as in the first line"],
    ),
    "large id": (
        "u.jsonl",
        '{"user_id": 1, "history": []}\n{"user_id": 9223372036854775808, "history": []}\n',
        ["line 2", "'user_id'", "64 bits", '"9223372036854775808"'],
    ),
    "larger id": ("u.jsonl", '{"user_id": 18446744073709551616, "history": []}\n', ["line 1", "64 bits"]),
    "call": ("u.csv", "user_id,history\na,[1]\nb,\"__import__('os')\"\n", ["u.csv, line 3", "'history'"]),
    "torn": ("u.csv", 'user_id,history\na,"[1, 2"\n', ["line 2", "'history'"]),
    "cells": ("u.csv", "user_id,history\na,[1],2\n", ["line 2", "3 cells"]),
    "quote": ("u.csv", 'user_id,history\na,"[1]\n', ["line 2", "not valid CSV"]),
    "empty id": ("u.csv", "user_id,history\n,[1]\n", ["line 2", "'user_id'"]),
    "empty": ("u.csv", "", ["no column holds the user ids"]),
    "columns": ("u.csv", "id,history\na,[1]\n", ["no column holds the user ids", "id, history", "--user-column"]),
    "unclear": ("u.csv", "user_id,history,items\na,[1],[2]\n", ["several", "history, items", "--items-column"]),
    "ending": ("u.txt", "x", ["u.txt", ".parquet, .csv"]),
    "latin": ("u.csv", b"user_id,history\n\xe9,[1]\n", ["u.csv", "UTF-8"]),
    "no parquet": ("u.parquet", "nope", ["u.parquet"]),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_wrong_is_named_with_its_row(tmp_path: Path, case: str) -> None:
    name, content, words = BAD[case]
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError) as error:
        for _ in user_file(tmp_path / name).parts(9, [0]):
            pass
    for word in words:
        assert word in str(error.value)


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"user_id": ["a", None], "history": [["x"], ["y"]]}, ["row 2", "no id"]),
        ({"user_id": ["a", "b", "c"], "history": [["x"], [], ["y", None]]}, ["row 3", "'history'"]),
        ({"user_id": ["a"], "history": ["[1]"]}, ["'history' holds String", "lists of text"]),
        ({"user_id": [1.5], "history": [["x"]]}, ["'user_id' holds Float64"]),
        ({"user_id": ["a"], "history": [[[1]]]}, ["'history' holds List"]),
    ],
)
def test_wrong_parquet(tmp_path: Path, columns: dict, words: list[str]) -> None:
    pl.DataFrame(columns).write_parquet(tmp_path / "u.parquet")
    with pytest.raises(DataError) as error:
        list(user_file(tmp_path / "u.parquet").parts(2, [0, 1]))
    for word in words:
        assert word in str(error.value)


def test_what_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        user_file(tmp_path / "u.parquet")
    (tmp_path / "d.csv").mkdir()
    with pytest.raises(DataError, match="a folder"):
        user_file(tmp_path / "d.csv")
