"""Dead nodes and ranks among allowed items, against loops over all items."""

from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from sidrec.data.sequences import Histories
from sidrec.decoding.constraints import Exclusions
from sidrec.decoding.filters import Filters
from sidrec.decoding.recommendations import Request
from sidrec.decoding.trie import ItemTrie

from .oracle import mask_of


@dataclass
class Problem:
    trie: ItemTrie
    histories: Histories
    exclusions: Exclusions
    gone: list[set[int]]
    """Rows that each user must not get."""
    listed: list[set[int]]
    """Rows that the lists of each user allow."""


def problem(seed: int) -> Problem:
    draw = np.random.default_rng(seed)
    num_items, levels = int(draw.integers(1, 25)), int(draw.integers(1, 4))
    codes = draw.integers(3, size=(num_items, levels)).astype(np.int32)
    trie = ItemTrie.build(codes, (3,) * levels)
    lists = [draw.integers(num_items, size=draw.integers(0, 2 * num_items)) for _ in range(draw.integers(1, 5))]
    masks, of_user = draw.random((2, num_items)) < draw.choice([0.3, 0.6, 1.0]), draw.integers(2, size=len(lists))
    masks[:, 0] = True
    request = Request(allowed=[None, masks[0], Filters(masks, of_user)][draw.integers(3)])
    exclusions = Exclusions.of_lists(trie, request, len(lists)).and_seen(Histories.of(lists))
    every = np.arange(num_items)
    allowed = [
        every if request.allowed is None else every[mask_of(request.allowed, user)] for user in range(len(lists))
    ]
    gone = [set(seen) | set(every) - set(rows) for seen, rows in zip(lists, allowed, strict=True)]
    return Problem(trie, Histories.of(lists), exclusions, gone, [set(rows) for rows in allowed])


@given(st.integers(0, 2**32))
@settings(max_examples=300, deadline=None)
def test_a_node_is_dead_when_all_its_allowed_items_are_seen(seed):
    one = problem(seed)
    trie, exclusions = one.trie, one.exclusions
    for depth in range(trie.num_levels + 1):
        ranges = pairwise(trie.node_items[depth])
        under = [set(trie.rows[first:last].tolist()) for first, last in ranges]
        pairs = [(user, node) for user in range(len(one.histories)) for node in range(len(under))]
        unheld = [(user, node) for user, node in pairs if not under[node] & one.listed[user]]
        dead = [(user, node) for user, node in pairs if under[node] <= one.gone[user]]
        if exclusions.masks is None:
            assert not unheld
        else:
            held = exclusions.masks.held[depth][exclusions.mask_of]
            assert list(zip(*map(np.ndarray.tolist, np.nonzero(~held)), strict=True)) == unheld
        found = list(zip(*map(np.ndarray.tolist, exclusions.dead_nodes(depth)), strict=True))
        assert found == sorted(set(dead) - set(unheld))


@given(st.integers(0, 2**32))
@settings(max_examples=300, deadline=None)
def test_ranks_count_the_items_that_a_user_may_get(seed):
    one = problem(seed)
    trie, exclusions = one.trie, one.exclusions
    for user in range(len(one.histories)):
        allowed = [place for place, row in enumerate(trie.rows) if row not in one.gone[user]]
        users, places = np.full(len(trie.rows) + 1, user), np.arange(len(trie.rows) + 1)
        counted = [sum(place < end for place in allowed) for end in places]
        assert exclusions.num_allowed_before(users, places).tolist() == counted
        found = exclusions.allowed_position(users[: len(allowed)], np.arange(len(allowed)))
        assert found.tolist() == allowed


@given(st.integers(0, 2**32))
@settings(max_examples=100, deadline=None)
def test_taking_users_before_or_after_their_histories_is_the_same(seed):
    one = problem(seed)
    chosen = np.random.default_rng(seed).integers(len(one.histories), size=3)
    taken = one.exclusions.take(chosen)
    fresh = replace(one.exclusions.take(np.arange(0)), num_users=3, mask_of=taken.mask_of)
    fresh = fresh.and_seen(one.histories.take(chosen))
    assert taken.users.tolist() == fresh.users.tolist()
    assert taken.positions.tolist() == fresh.positions.tolist()
    assert taken.num_users == 3
    if one.exclusions.masks is not None:
        assert taken.mask_of.tolist() == one.exclusions.mask_of[chosen].tolist()


def test_a_list_of_all_items_costs_nothing():
    trie = problem(0).trie
    everything = np.ones(trie.num_rows, np.bool_)
    assert Exclusions.of_lists(trie, Request(allowed=everything), 2).masks is None
    assert Exclusions.of_lists(trie, Request(denied=~everything), 2).masks is None


def test_nothing_is_dead_without_exclusions():
    trie = problem(0).trie
    none = Exclusions.none(trie, 2)
    assert [len(array) for array in none.dead_nodes(1)] == [0, 0]
    assert none.num_allowed_before(np.array([0, 1]), np.array([1, 0])).tolist() == [1, 0]
    assert none.take(np.array([1])).num_users == 1
