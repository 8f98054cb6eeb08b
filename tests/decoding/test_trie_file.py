"""A trie as a file: the same trie, mapped, and clear words about every other file."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from sidrec.decoding.trie import ItemTrie
from sidrec.errors import DataError

from .test_trie import arrays, table, tables

CODES, SIZES = table(0, 30, (4, 70_000, 2)), (4, 70_000, 2)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "items.trie"
    ItemTrie.build(CODES, SIZES).save(path)
    return path


@given(drawn=tables, seed=st.integers(0, 2**32))
@settings(max_examples=50, deadline=None)
def test_a_loaded_trie_is_the_saved_one(tmp_path_factory, drawn, seed):
    codes, sizes = drawn
    trie, path = ItemTrie.build(codes, sizes), tmp_path_factory.mktemp("trie") / "items.trie"
    trie.save(path)
    loaded = ItemTrie.load(str(path))
    assert (loaded.sizes, loaded.num_rows, loaded.num_nodes) == (trie.sizes, trie.num_rows, trie.num_nodes)
    for ours, theirs in zip(arrays(loaded), arrays(trie), strict=True):
        assert ours.dtype == theirs.dtype
        assert ours.tolist() == theirs.tolist()
    new = table(seed, 5, sizes)
    assert [one.tolist() for one in arrays(loaded.extended(new))] == [
        one.tolist() for one in arrays(trie.extended(new))
    ]


def test_arrays_are_mapped_and_not_copied(path):
    loaded = ItemTrie.load(path)
    for array in arrays(loaded):
        assert not array.flags.owndata
        assert not array.flags.writeable
        while not isinstance(array, np.memmap):
            array = array.base
        assert Path(array.filename) == path


def test_a_file_may_be_replaced_while_it_is_mapped(path):
    before = ItemTrie.load(path)
    rows = before.rows.tolist()
    ItemTrie.build(CODES[::-1], SIZES).save(path)
    assert before.rows.tolist() == rows
    assert ItemTrie.load(path).rows.tolist() != rows
    assert list(path.parent.iterdir()) == [path]


def test_other_programs_can_read_it(path):
    with safe_open(path, framework="numpy") as file:
        assert json.loads(file.metadata()["sizes"]) == list(SIZES)
        assert file.get_tensor("rows").tolist() == ItemTrie.load(path).rows.tolist()


def test_a_file_cut_off_anywhere_is_refused(path):
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(DataError, match=r"(holds no trie|ends too early or is damaged)[\s\S]*items\.trie"):
            ItemTrie.load(path)
    path.write_bytes(whole + b"0")
    with pytest.raises(DataError, match="1 bytes belong to no array"):
        ItemTrie.load(path)


def rewrite(path: Path, facts: dict[str, str] | None = None, **changed: np.ndarray | None) -> None:
    """The file with other arrays (None: without) or other facts."""
    with safe_open(path, framework="numpy") as file:
        facts = file.metadata() | (facts or {})
    arrays = {**load_file(path), **{name.replace("_at_", "."): array for name, array in changed.items()}}
    save_file({name: array for name, array in arrays.items() if array is not None}, path, facts)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"facts": {"kind": "weights"}}, "holds no trie"),
        ({"facts": {"format": "2"}}, r"has format 2[\s\S]*format 1[\s\S]*ItemTrie.save"),
        ({"facts": {"sizes": "many"}}, "its levels cannot be read"),
        ({"facts": {"sizes": "[4]"}}, "pointers for"),
        ({"facts": {"sizes": "[4, 4, 4, 4]"}}, r"no array 'child_ptr.3'"),
        ({"rows": None}, r"no array 'rows'"),
        ({"rows": np.arange(29, dtype=np.int32)}, "31 pointers for 30 nodes and 29 entries"),
        ({"rows": np.arange(30, dtype=np.int64)}, "its header does not fit: 'I64'"),
        ({"codes_at_1": np.zeros((5, 5), np.int32)}, "its header does not fit"),
        ({"child_ptr_at_0": np.array([0, 3], np.int32)}, "2 pointers for 1 nodes and 4 entries"),
        ({"child_ptr_at_0": np.array([1, 4], np.int32)}, "2 pointers for 1 nodes and 4 entries"),
        ({"child_ptr_at_0": np.array([0], np.int32)}, "1 pointers for 1 nodes"),
    ],
)
def test_files_that_do_not_fit_are_refused(path, change, message):
    rewrite(path, **change)
    with pytest.raises(DataError, match=message):
        ItemTrie.load(path)


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "other"
    save_file({"weights": np.zeros(3, np.float32)}, path)
    with pytest.raises(DataError, match="holds no trie"):
        ItemTrie.load(path)
    for content in (b"plain text, and not a short one", b"\x02" + b"\0" * 7 + b"[]", b"\x02" + b"\0" * 7 + b"\xff\xff"):
        path.write_bytes(content)
        with pytest.raises(DataError, match="holds no trie"):
            ItemTrie.load(path)
    with pytest.raises(DataError, match="no such file"):
        ItemTrie.load(tmp_path / "nothing")
    with pytest.raises(DataError, match="no such file"):
        ItemTrie.load(tmp_path)
    with pytest.raises(DataError, match=r"cannot be written[\s\S]*nowhere"):
        ItemTrie.build(CODES, SIZES).save(tmp_path / "nowhere" / "items.trie")
