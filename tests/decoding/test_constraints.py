"""Dead nodes and ranks among allowed items, against loops over all items."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from sidrec.data.sequences import Histories
from sidrec.decoding.constraints import Exclusions
from sidrec.decoding.trie import ItemTrie


def problem(seed: int) -> tuple[ItemTrie, Histories]:
    draw = np.random.default_rng(seed)
    num_items, levels = int(draw.integers(1, 25)), int(draw.integers(1, 4))
    codes = draw.integers(3, size=(num_items, levels)).astype(np.int32)
    trie = ItemTrie.build(codes, (3,) * levels)
    if draw.random() < 0.5:
        allowed = draw.random(num_items) < 0.6
        allowed[0] = True
        trie = trie.restrict(allowed)
    lists = [draw.integers(num_items, size=draw.integers(0, 2 * num_items)) for _ in range(draw.integers(1, 5))]
    return trie, Histories.of(lists)


@given(st.integers(0, 2**32))
@settings(max_examples=200, deadline=None)
def test_a_node_is_dead_when_all_its_items_are_seen(seed):
    trie, histories = problem(seed)
    seen = Exclusions.of_seen(trie, histories)
    for depth in range(trie.num_levels + 1):
        items = trie.node_items[depth]
        expected = [
            (user, node)
            for user in range(len(histories))
            for node in range(trie.num_nodes[depth])
            if set(trie.rows[items[node] : items[node + 1]]) <= set(histories[user])
        ]
        assert list(zip(*map(np.ndarray.tolist, seen.dead_nodes(depth)), strict=True)) == expected


@given(st.integers(0, 2**32))
@settings(max_examples=200, deadline=None)
def test_ranks_count_the_allowed_items(seed):
    trie, histories = problem(seed)
    seen = Exclusions.of_seen(trie, histories)
    for user in range(len(histories)):
        allowed = [place for place, row in enumerate(trie.rows) if row not in set(histories[user])]
        users, places = np.full(len(trie.rows) + 1, user), np.arange(len(trie.rows) + 1)
        counted = [sum(place < end for place in allowed) for end in places]
        assert seen.num_allowed_before(users, places).tolist() == counted
        found = seen.allowed_position(users[: len(allowed)], np.arange(len(allowed)))
        assert found.tolist() == allowed


@given(st.integers(0, 2**32))
@settings(max_examples=100, deadline=None)
def test_taking_users_equals_starting_from_their_histories(seed):
    trie, histories = problem(seed)
    chosen = np.random.default_rng(seed).integers(len(histories), size=3)
    taken = Exclusions.of_seen(trie, histories).take(chosen)
    fresh = Exclusions.of_seen(trie, histories.take(chosen))
    assert taken.users.tolist() == fresh.users.tolist()
    assert taken.positions.tolist() == fresh.positions.tolist()
    assert taken.num_users == 3


def test_nothing_is_dead_without_exclusions():
    trie, _ = problem(0)
    none = Exclusions.none(trie, 2)
    assert [len(array) for array in none.dead_nodes(1)] == [0, 0]
    assert none.num_allowed_before(np.array([0, 1]), np.array([1, 0])).tolist() == [1, 0]
    assert none.take(np.array([1])).num_users == 1
