"""Index files, good and bad."""

import gzip
import json
from pathlib import Path

import pytest

from sidrec.data.index import read_index
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
