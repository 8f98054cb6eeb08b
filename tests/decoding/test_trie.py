"""Code path ↔ rows, against a brute-force look at the table of codes."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sidrec.decoding.trie import ItemTrie
from sidrec.decoding.trie_tensors import TrieTensors
from sidrec.errors import ConstraintError, DataError


def table(seed: int, num_items: int, sizes: tuple[int, ...]) -> np.ndarray:
    draw = np.random.default_rng(seed)
    return np.stack([draw.integers(size, size=num_items) for size in sizes], axis=1).astype(np.int32)


tables = st.builds(
    lambda seed, num_items, sizes: (table(seed, num_items, tuple(sizes)), tuple(sizes)),
    st.integers(0, 2**32),
    st.integers(1, 40),
    st.lists(st.integers(1, 6), min_size=1, max_size=4),
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


@given(tables, st.integers(0, 2**32))
@settings(max_examples=100, deadline=None)
def test_restricted_trie_is_the_trie_of_the_allowed_items(drawn, seed):
    codes, sizes = drawn
    allowed = np.random.default_rng(seed).random(len(codes)) < 0.5
    allowed[0] = True
    trie = ItemTrie.build(codes, sizes).restrict(allowed)
    fresh = ItemTrie.build(codes[allowed], sizes)
    assert trie.num_nodes == fresh.num_nodes
    assert all((a == b).all() for a, b in zip(trie.codes, fresh.codes, strict=True))
    assert all((a == b).all() for a, b in zip(trie.child_ptr, fresh.child_ptr, strict=True))
    assert trie.rows.tolist() == np.flatnonzero(allowed)[fresh.rows].tolist()
    assert trie.num_rows == len(codes)
    for row in range(len(codes)):
        if allowed[row]:
            assert trie.path_of(row).tolist() == codes[row].tolist()
        else:
            with pytest.raises(DataError, match=f"does not hold row {row}"):
                trie.path_of(row)


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
    wanted = np.concatenate([table(seed, 20, sizes), codes])
    for depth in range(len(sizes) + 1):
        prefixes = sorted({tuple(path) for path in codes[:, :depth].tolist()})
        expected = [prefixes.index(path) if path in prefixes else -1 for path in map(tuple, wanted[:, :depth].tolist())]
        assert trie.nodes_of(wanted[:, :depth]).tolist() == expected


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


def test_bad_allow_lists_are_refused():
    trie = ItemTrie.build(table(0, 10, (4, 4)), (4, 4))
    with pytest.raises(DataError, match=r"shape \(9,\) for a catalogue of 10 items"):
        trie.restrict(np.ones(9, np.bool_))
    first_half = np.arange(10) < 5
    with pytest.raises(ConstraintError, match="5 items allowed, 5 in the trie"):
        trie.restrict(first_half).restrict(~first_half)
