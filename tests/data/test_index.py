"""Index and info files, good and bad, and back again."""

import gzip
import json
import os
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidrec.data.index import index_text, info_text, item_map_text, read_codes, read_index, read_info, read_item_map
from sidrec.errors import DataError

GOOD = {"z": ["<a_3>", "<b_0>"], "x": ["<a_1>", "<b_20>"], "y": ["<a_1>", "<b_20>"]}


def write(folder: Path, content: object) -> Path:
    path = folder / "index.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_items_and_codes_in_file_order(tmp_path: Path) -> None:
    assert read_index(write(tmp_path, GOOD)).rows() == [("z", [3, 0]), ("x", [1, 20]), ("y", [1, 20])]


def test_upper_case_letters(tmp_path: Path) -> None:
    upper = {item: [token.upper() for token in tokens] for item, tokens in GOOD.items()}
    assert read_index(write(tmp_path, upper)).equals(read_index(write(tmp_path, GOOD)))


def test_zipped(tmp_path: Path) -> None:
    path = tmp_path / "index.json.gz"
    path.write_bytes(gzip.compress(json.dumps(GOOD).encode()))
    assert read_index(path).equals(read_index(write(tmp_path, GOOD)))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"x": [', "not valid JSON"),
        ("[1, 2]", "the file holds a list"),
        ("{}", "holds no entries"),
        ('{"x": ["<a_1>"], "y": ["<a_2>"], "x": ["<a_4>"]}', "the key 'x' occurs twice"),
        ({**GOOD, "y": ["<a_1>"]}, "an item has 1 tokens"),
        ({**GOOD, "y": "<a_1><b_2>"}, "instead of tokens"),
        ({**GOOD, "y": None}, "instead of tokens"),
        ({**GOOD, "y": []}, "instead of tokens"),
        ({**GOOD, "y": ["<a_1>", "b_20"]}, "malformed token 'b_20'"),
        ({**GOOD, "y": ["<b_1>", "<a_20>"]}, "malformed token '<b_1>'"),
        ({**GOOD, "y": ["<a_1>", "<c_20>"]}, "malformed token '<c_20>'"),
        ({**GOOD, "y": ["<aa_1>", "<b_20>"]}, "malformed token '<aa_1>'"),
        ({**GOOD, "y": ["<a_-1>", "<b_20>"]}, "malformed token"),
        ({**GOOD, "y": [1, 2]}, "malformed token 1"),
    ],
)
def test_bad_index_files_are_named(tmp_path: Path, content: object, message: str) -> None:
    path = write(tmp_path, content)
    with pytest.raises(DataError) as error:
        read_index(path)
    assert message in str(error.value)
    assert "index.json" in str(error.value)


INFO = "<a_1><b_20>\tA title, with <tags>\tx\n<a_3><b_0>\t\ty\n"


def info(folder: Path, text: str) -> Path:
    path = folder / "info.txt"
    path.write_text(text, encoding="utf-8")
    return path


def array(table: pl.DataFrame) -> np.ndarray:
    return np.array(table["codes"].to_list(), np.int32)


def test_info_lines(tmp_path: Path) -> None:
    path = info(tmp_path, INFO)
    table = read_info(path)
    assert table.rows() == [("x", "A title, with <tags>", [1, 20]), ("y", "", [3, 0])]
    assert info_text(table["item_id"].to_list(), table["title"].to_list(), array(table)) == INFO
    assert read_codes(path).rows() == [("x", [1, 20]), ("y", [3, 0])]
    assert read_codes(write(tmp_path, GOOD)).equals(read_index(write(tmp_path, GOOD)))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<a_1>\tx\n", "a line has 2 fields"),
        ("<a_1>\tt\tx\n<a_1><b_1>\tt\ty\n", "an item has 2 tokens"),
        ("<a_1>\tt\tx\n<a_2>\tt\tx\n", "the item 'x' occurs twice"),
        ("<a_1>b_2\tt\tx\n", "malformed token 'b_2'"),
        ("<b_1>\tt\tx\n", "malformed token '<b_1>'"),
    ],
)
def test_bad_info_files_are_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError) as error:
        read_info(info(tmp_path, text))
    assert message in str(error.value)
    assert "info.txt" in str(error.value)


@pytest.mark.parametrize("text", ["x 0\n", "x\tzero\n", "x\t0\ny\t0\n", "x\t0\nx\t1\n"])
def test_bad_item_maps_are_named(tmp_path: Path, text: str) -> None:
    with pytest.raises(DataError, match="number"):
        read_item_map(info(tmp_path, text))


TABLES = st.integers(1, 26).flatmap(
    lambda levels: st.dictionaries(
        st.text(st.characters(exclude_categories=("Cs", "Cc", "Zl", "Zp")), min_size=1, max_size=6),
        st.lists(st.integers(0, 999_999_999), min_size=levels, max_size=levels),
        min_size=1,
        max_size=5,
    )
)


@given(table=TABLES, upper=st.booleans())
def test_written_codes_are_read_back(tmp_path_factory: pytest.TempPathFactory, table: dict, upper: bool) -> None:
    folder = tmp_path_factory.mktemp("round")
    items, codes = list(table), np.array(list(table.values()), np.int64)
    back = read_index(write(folder, index_text(items, codes, upper=upper)))
    assert back.rows() == list(table.items())
    titles = [f"title {item}" for item in items]
    back = read_info(info(folder, info_text(items, titles, codes, upper=upper)))
    assert back.rows() == [(item, title, row) for (item, row), title in zip(table.items(), titles, strict=True)]


def test_a_title_stays_on_its_line() -> None:
    assert info_text(["x"], ["two\nlines\tand a tab"], np.array([[1]])) == "<a_1>\ttwo lines and a tab\tx\n"


def test_letters_end_after_26_levels(tmp_path: Path) -> None:
    codes = np.zeros((1, 27), np.int32)
    with pytest.raises(DataError, match="27 levels cannot be written with one letter each"):
        index_text(["x"], codes)
    with pytest.raises(DataError, match="27 levels cannot be written"):
        read_index(write(tmp_path, {"x": [f"<{chr(ord('a') + level)}_0>" for level in range(27)]}))


DATA = os.environ.get("SIDREC_DATA", "")
PUBLISHED = sorted(
    file
    for pattern in ("*/*/*index*.json*", "*/*/indexes/*/*.json*", "grec_public/*/*.json", "*/*/index/*.index.json*")
    for file in (Path(DATA).glob(pattern) if DATA else [])
)


def text_of(path: Path) -> str:
    return (gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()).decode()


@pytest.mark.skipif(not DATA, reason="SIDREC_DATA is not set: the published index files are not checked")
def test_published_files_come_back_letter_for_letter() -> None:
    assert len(PUBLISHED) >= 30
    for path in PUBLISHED:
        text = text_of(path)
        table = read_index(path)
        written = index_text(table["item_id"].to_list(), array(table), upper="<A_" in text)
        assert "".join(written.split()) == "".join(text.split()), path
        # All but MQL4GRec's, which are indented.
        assert written == text or "\n" in text, path
    for path in Path(DATA).glob("minionerec/*/info/*.txt"):
        table = read_info(path)
        assert info_text(table["item_id"].to_list(), table["title"].to_list(), array(table)) == text_of(path)
    for path in Path(DATA).glob("*/*/*.item2id"):
        text = text_of(path)
        item_of = read_item_map(path)
        assert list(item_of) == [str(number) for number in range(len(item_of))]
        assert item_map_text(list(item_of.values())) == text
