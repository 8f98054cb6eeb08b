"""Flat arrays against lists of lists."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidrec.data.sequences import Histories, Sequences, positions_within
from sidrec.errors import DataError

LISTS = st.lists(st.lists(st.integers(0, 9), max_size=5), max_size=6)


@given(st.lists(st.integers(0, 5), max_size=8))
def test_positions_within_equal_a_loop(counts):
    expected = [place for count in counts for place in range(count)]
    assert positions_within(np.array(counts, dtype=np.int64)).tolist() == expected


@given(LISTS)
def test_owners_equal_a_loop(lists):
    assert Histories.of(lists).owners.tolist() == [user for user, items in enumerate(lists) for _ in items]


@given(LISTS, st.integers(0, 4), st.randoms())
def test_taking_and_cutting_equal_lists(lists, newest, random):
    histories = Histories.of(lists)
    index = [random.randrange(len(lists)) for _ in range(4)] if lists else []
    taken = histories.take(np.array(index, dtype=np.int64))
    assert [items.tolist() for items in taken] == [lists[position] for position in index]
    assert [items.tolist() for items in histories.last(newest)] == [items[-newest:] for items in lists]


def test_before_and_targets():
    sequences = Sequences(np.array([7, 8, 9, 4, 5], np.int32), np.array([0, 3, 5]), ["u", "v"])
    users, cuts = np.array([0, 1, 0]), np.array([2, 1, 1])
    assert [items.tolist() for items in sequences.before(users, cuts)] == [[7, 8], [4], [7]]
    assert [items.tolist() for items in sequences.before(users, cuts, 1)] == [[8], [4], [7]]
    assert sequences.owners.tolist() == [0, 0, 0, 1, 1]
    assert sequences.targets(users, cuts).tolist() == [9, 5, 8]


@given(LISTS)
def test_padding_equals_a_loop(lists):
    width = max(map(len, lists), default=0)
    assert Histories.of(lists).padded(-1).tolist() == [items + [-1] * (width - len(items)) for items in lists]


def test_offsets_that_do_not_fit_are_refused():
    with pytest.raises(DataError, match="do not cut the rows"):
        Histories(np.array([1, 2], np.int32), np.array([0, 1]))
    with pytest.raises(DataError, match="a user has no interactions"):
        Sequences(np.array([1], np.int32), np.array([0, 1, 1]), ["u", "v"])
