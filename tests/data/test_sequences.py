"""Flat arrays against lists of lists."""

import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidrec.data.sequences import Histories, Sequences, positions_within, user_keys
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


def test_histories_know_their_users_whatever_is_done_to_them():
    sequences = Sequences(np.array([7, 8, 9, 4, 5], np.int32), np.array([0, 3, 5]), ["u", "v"])
    histories = sequences.before(np.array([1, 0, 0]), np.array([1, 2, 3]))
    assert histories.users.tolist() == user_keys(["v", "u", "u"]).tolist()
    assert histories.last(1).take(np.array([2, 0])).users.tolist() == user_keys(["u", "v"]).tolist()
    assert histories.where(histories.rows > 7).users.tolist() == histories.users.tolist()
    assert Histories.of([[1], [2]], ["v", None]).users.tolist() == [user_keys(["v"])[0], -1]
    assert Histories.of([[1], [2]]).last(1).take(slice(0, 1)).users is None
    with pytest.raises(DataError, match="3 users for 2 histories"):
        Histories.of([[1], [2]], ["a", "b", "c"])


def test_keys_of_users_are_the_same_everywhere():
    """The check value of CRC-32, and UTF-8."""
    assert user_keys(["123456789", "ü"]).tolist() == [0xCBF43926, zlib.crc32(b"\xc3\xbc")]


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
