"""Allow- and deny-lists: what they leave, and the same in the order of a trie."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidrec.decoding.filters import Filters, TrieMasks, combined
from sidrec.decoding.recommendations import Request
from sidrec.decoding.trie import ItemTrie
from sidrec.errors import ConstraintError, DataError

from .oracle import mask_of, random_lists


@given(st.integers(0, 2**32), st.integers(1, 12), st.integers(0, 5))
@settings(max_examples=300, deadline=None)
def test_lists_are_combined_user_by_user(seed, num_items, num_users):
    allowed, denied = random_lists(np.random.default_rng(seed), num_items, num_users)
    found = combined(allowed, denied, num_users, num_items)
    if found is None:
        assert allowed is denied is None
        return
    assert found.of_user.tolist() == [user for user in found.of_user if user < len(found.masks)]
    assert set(found.of_user.tolist()) == set(range(len(found.masks))), "masks that nobody has are kept"
    for user in range(num_users):
        expected = np.ones(num_items, np.bool_)
        if allowed is not None:
            expected &= mask_of(allowed, user)
        if denied is not None:
            expected &= ~mask_of(denied, user)
        assert found.masks[found.of_user[user]].tolist() == expected.tolist()


@given(st.integers(0, 2**32), st.integers(1, 30))
@settings(max_examples=200, deadline=None)
def test_masks_of_a_trie_count_the_allowed_items(seed, num_items):
    draw = np.random.default_rng(seed)
    trie = ItemTrie.build(draw.integers(3, size=(num_items, 3)).astype(np.int32), (3, 3, 3))
    masks = draw.random((2, num_items)) < 0.4
    found = TrieMasks.of(trie, masks)
    for mask in range(2):
        allowed = [place for place, row in enumerate(trie.rows) if masks[mask, row]]
        ends = np.arange(num_items + 1)
        assert found.num_before(np.array(mask), ends).tolist() == [sum(one < end for one in allowed) for end in ends]
        ranks = np.arange(len(allowed) + 1)
        assert found.position(np.array(mask), ranks).tolist() == [*allowed, num_items]
        for depth, held in enumerate(found.held):
            items = trie.node_items[depth]
            under = [trie.rows[items[node] : items[node + 1]] for node in range(trie.num_nodes[depth])]
            assert held[mask].tolist() == [bool(masks[mask, rows].any()) for rows in under]
            assert found.num_held[depth] == held.sum(axis=1).max()


def test_ranks_under_different_masks_are_found_together():
    trie = ItemTrie.build(np.arange(6, dtype=np.int32)[:, None], (6,))
    masks = TrieMasks.of(trie, np.array([[1, 0, 1, 0, 1, 0], [0, 1, 0, 1, 0, 1]], np.bool_))
    assert masks.position(np.array([[1], [0]]), np.array([[0, 2], [0, 2]])).tolist() == [[1, 5], [0, 4]]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Filters(np.ones(3, np.bool_), np.array([0])), r"masks of shape \(3,\) and type bool"),
        (lambda: Filters(np.ones((1, 3)), np.array([0])), r"type float64"),
        (lambda: Filters(np.ones((1, 3), np.bool_), np.array([0.0])), r"shape \(1,\) and type float64"),
        (lambda: Filters(np.ones((2, 3), np.bool_), np.array([0, 2])), r"user 1 has list 2[\s\S]*expected: 0 to 1"),
        (lambda: combined(np.ones((1, 3), np.bool_), None, 1, 3), r"the allow-list of a request is bool\[1, 3\]"),
        (lambda: combined([1, 2], None, 1, 3), r"the allow-list of a request is list\[\][\s\S]*Recommender.recommend"),
        (lambda: combined(None, np.ones(4, np.bool_), 1, 3), r"the deny-list has 4 entries[\s\S]*each of 3 items"),
        (
            lambda: combined(Filters(np.ones((1, 3), np.bool_), np.array([0])), None, 2, 3),
            r"the allow-list is for 1 users[\s\S]*the 2 of the request",
        ),
    ],
)
def test_bad_lists_are_refused(make, message):
    with pytest.raises(DataError, match=message):
        make()


def test_lists_that_leave_nothing_are_refused():
    with pytest.raises(ConstraintError, match=r"leave no item[\s\S]*where: all users"):
        combined(None, np.ones(3, np.bool_), 2, 3)
    with pytest.raises(ConstraintError, match=r"leave no item[\s\S]*where: user 3 of 3"):
        combined(Filters(np.array([[True], [False]]), np.array([0, 0, 1])), None, 3, 1)
    combined(Filters(np.array([[True], [False]]), np.array([0, 0])), None, 2, 1)  # nobody has the empty one
    with pytest.raises(ConstraintError, match="allow-list holds no item"):
        Request(allowed=np.zeros(3, np.bool_))
