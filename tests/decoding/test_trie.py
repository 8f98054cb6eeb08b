"""Code path ↔ rows, against a brute-force look at the table of codes."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sidrec.decoding.trie import ItemTrie
from sidrec.decoding.trie_tensors import TrieTensors
from sidrec.errors import DataError


def table(seed: int, num_items: int, sizes: tuple[int, ...]) -> np.ndarray:
    draw = np.random.default_rng(seed)
    return np.stack([draw.integers(size, size=num_items) for size in sizes], axis=1).astype(np.int32)


tables = st.builds(
    lambda seed, num_items, sizes: (table(seed, num_items, tuple(sizes)), tuple(sizes)),
    st.integers(0, 2**32),
    st.integers(1, 40),
    st.lists(st.integers(1, 6), min_size=1, max_size=8),
)


@given(tables)
@settings(max_examples=200, deadline=None)
def test_paths_and_rows_are_inverse(drawn):
    codes, sizes = drawn
    trie = ItemTrie.build(codes, sizes)
    assert sorted(trie.rows.tolist()) == list(range(len(codes)))
    for row, path in enumerate(codes):
        assert trie.path_of(row).tolist() == path.tolist()
        for length in range(len(sizes) + 1):
            expected = np.flatnonzero((codes[:, :length] == path[:length]).all(axis=1))
            assert trie.rows_of(path[:length]).tolist() == expected.tolist()


@given(tables)
@settings(max_examples=100, deadline=None)
def test_nodes_are_the_distinct_prefixes_in_order(drawn):
    codes, sizes = drawn
    trie = ItemTrie.build(codes, sizes)
    prefixes = [sorted({tuple(path[:depth]) for path in codes.tolist()}) for depth in range(len(sizes) + 1)]
    assert trie.num_nodes == tuple(len(level) for level in prefixes)
    for depth, level in enumerate(prefixes[:-1]):
        ptr = trie.child_ptr[depth]
        for node, prefix in enumerate(level):
            children = [(*prefix, int(trie.codes[depth][child])) for child in range(ptr[node], ptr[node + 1])]
            assert children == [path for path in prefixes[depth + 1] if path[:depth] == prefix]
            assert ptr[node + 1] - ptr[node] <= trie.max_children[depth]
            first, last = trie.node_items[depth][node : node + 2]
            assert {tuple(codes[row, :depth]) for row in trie.rows[first:last]} == {prefix}


def arrays(trie):
    return [*trie.child_ptr, *trie.codes, trie.item_ptr, trie.rows]


@given(tables, st.integers(0, 2**32), st.integers(0, 12), st.integers(0, 3))
@settings(max_examples=300, deadline=None)
def test_an_extended_trie_is_the_trie_of_all_items(drawn, seed, num_new, growth):
    codes, sizes = drawn
    grown = (*sizes[:-1], sizes[-1] + growth)
    new = table(seed, num_new, grown)
    extended = ItemTrie.build(codes, sizes).extended(new, grown)
    fresh = ItemTrie.build(np.concatenate([codes, new]), grown)
    assert (extended.sizes, extended.num_rows) == (grown, len(codes) + num_new)
    for ours, theirs in zip(arrays(extended), arrays(fresh), strict=True):
        assert ours.dtype == theirs.dtype
        assert ours.tolist() == theirs.tolist()


@given(tables, st.integers(0, 2**32))
@settings(max_examples=100, deadline=None)
def test_nodes_of_paths(drawn, seed):
    codes, sizes = drawn
    trie = ItemTrie.build(codes, sizes)
    outside = np.random.default_rng(seed).integers(-(2**31), 2**31, size=(3, len(sizes))).astype(np.int32)
    wanted = np.concatenate([table(seed, 20, sizes), codes, outside])
    for depth in range(len(sizes) + 1):
        prefixes = sorted({tuple(path) for path in codes[:, :depth].tolist()})
        expected = [prefixes.index(path) if path in prefixes else -1 for path in map(tuple, wanted[:, :depth].tolist())]
        assert trie.nodes_of(wanted[:, :depth]).tolist() == expected
        # Few paths are searched for one level after the other, many are looked up in a table first.
        assert [int(trie.nodes_of(wanted[place : place + 1, :depth])[0]) for place in range(len(wanted))] == expected


@given(tables)
@settings(max_examples=100, deadline=None)
def test_parents_of_nodes(drawn):
    trie = ItemTrie.build(*drawn)
    for depth, ptr in enumerate(trie.child_ptr):
        parents = np.repeat(np.arange(trie.num_nodes[depth]), np.diff(ptr))
        assert trie.parents_of(depth + 1, np.arange(trie.num_nodes[depth + 1])).tolist() == parents.tolist()


def test_a_level_may_outgrow_its_type():
    trie = ItemTrie.build(np.array([[0], [2]], np.int32), (3,))
    extended = trie.extended(np.array([[2**17], [1]], np.int32), (2**18,))
    assert extended.codes[0].tolist() == [0, 1, 2, 2**17]
    assert extended.rows.tolist() == [0, 3, 1, 2]


def test_extensions_that_do_not_fit_are_refused():
    trie = ItemTrie.build(np.array([[0, 0]], np.int32), (2, 2))
    with pytest.raises(DataError, match=r"levels of \(2, 2\) codes cannot become \(2, 1\)"):
        trie.extended(np.array([[0, 0]], np.int32), (2, 1))
    with pytest.raises(DataError, match="outside its level"):
        trie.extended(np.array([[0, 2]], np.int32))


def test_worked_example():
    trie = ItemTrie.build(np.array([[2, 1], [0, 3], [2, 0], [0, 3]], np.int32), (3, 4))
    assert [ptr.tolist() for ptr in trie.child_ptr] == [[0, 2], [0, 1, 3]]
    assert [codes.tolist() for codes in trie.codes] == [[0, 2], [3, 0, 1]]
    assert trie.item_ptr.tolist() == [0, 2, 3, 4]
    assert trie.rows.tolist() == [1, 3, 2, 0]
    assert trie.rows_of([2]).tolist() == [0, 2]
    assert trie.rows_of([1]).size == trie.rows_of([2, 3]).size == 0
    assert trie.max_children == (2, 2)


def test_more_paths_than_an_integer_holds():
    sizes = (2**31 - 1,) * 3
    codes = np.array([[5, 2**31 - 2, 1], [5, 7, 9], [0, 0, 0], [5, 7, 9]], np.int32)
    trie = ItemTrie.build(codes, sizes)
    assert trie.rows.tolist() == [2, 1, 3, 0]
    assert trie.path_of(0).tolist() == codes[0].tolist()


@given(tables, st.integers(0, 2**32))
@settings(max_examples=100, deadline=None)
def test_paths_beyond_one_integer_are_sorted_alike(drawn, seed):
    codes, sizes = drawn
    # The same codes in levels so large that no two or three of them fit one integer.
    large = np.random.default_rng(seed).choice([2**20, 2**31], size=len(sizes)).tolist()
    wide, plain = ItemTrie.build(codes, large), ItemTrie.build(codes, sizes)
    assert [one.tolist() for one in arrays(wide)] == [one.tolist() for one in arrays(plain)]


def test_numbers_that_do_not_fit_are_refused():
    with pytest.raises(DataError, match=r"1,073,741,825 items[\s\S]*at most 1,073,741,824"):
        ItemTrie.build(np.broadcast_to(np.zeros((1, 1), np.int32), (2**30 + 1, 1)), (1,))
    with pytest.raises(DataError, match=r"at most 2,147,483,648 a level"):
        ItemTrie.build(np.zeros((1, 1), np.int64), (2**31 + 1,))


def test_tensors_of_a_device_are_made_once_and_padded():
    trie = ItemTrie.build(table(0, 30, (4, 4)), (4, 4))
    tensors = TrieTensors.of(trie, "cpu")
    assert TrieTensors.of(trie, torch.device("cpu")) is tensors
    assert [ptr.tolist() for ptr in tensors.child_ptr] == [
        [*ptr, ptr[-1]] for ptr in map(np.ndarray.tolist, trie.child_ptr)
    ]
    assert [codes.tolist() for codes in tensors.codes] == [codes.tolist() for codes in trie.codes]


def test_million_items_fit_in_forty_megabytes():
    trie = ItemTrie.build(table(0, 1_000_000, (256,) * 4), (256,) * 4)
    trie.positions, trie.node_items  # noqa: B018 - what a search adds
    assert trie.nbytes + trie.positions.nbytes + sum(array.nbytes for array in trie.node_items[:-1]) < 40e6


@pytest.mark.parametrize(
    ("codes", "sizes", "message"),
    [
        (np.empty((0, 2), np.int32), (2, 2), "shape .0, 2. do not fit 2 levels"),
        (np.zeros((3, 2), np.int32), (2,), "shape .3, 2. do not fit 1 levels"),
        (np.array([[0, 2]], np.int32), (2, 2), "outside its level"),
        (np.array([[0, -1]], np.int32), (2, 2), "outside its level"),
    ],
)
def test_bad_codes_are_refused(codes, sizes, message):
    with pytest.raises(DataError, match=message):
        ItemTrie.build(codes, sizes)
