"""Windows hold every target once, with context, and nothing that must not be read."""

from collections import Counter

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from sidrec.data.dataset import Examples
from sidrec.data.sequences import Sequences
from sidrec.tasks.windows import Windows


def pairs(*items: tuple[int, int]) -> Examples:
    return Examples(*(np.array(column, np.int32) for column in zip(*items, strict=True)))


def sequences_of(lengths: list[int]) -> Sequences:
    """Items are numbered by their place, so that a row names its event."""
    offsets = np.cumsum([0, *lengths])
    return Sequences(np.arange(offsets[-1], dtype=np.int32), offsets, [str(user) for user in range(len(lengths))])


def test_a_long_history_by_hand():
    # Nine events, targets 1, 5 and 7, at most 3 items of context: windows of 4 events, 2 new ones each.
    windows = Windows.of(sequences_of([9]), pairs((0, 1), (0, 5), (0, 7)), max_items=3)
    assert windows.starts.tolist() == [0, 2, 4]
    batch = windows.batch(np.array([1, 0, 2]))
    assert batch.rows_BT.tolist() == [[2, 3, 4, 5], [0, 1, 2, 3], [4, 5, 6, 7]]
    assert [np.flatnonzero(row).tolist() for row in batch.learnt_BT] == [[3], [1], [3]]


def test_short_windows_are_filled_up_on_the_right():
    batch = Windows.of(sequences_of([4, 3]), pairs((0, 3), (1, 1)), max_items=0).batch(np.array([0, 1]))
    # Of the second user the event after the last target is not read.
    assert batch.rows_BT.tolist() == [[0, 1, 2, 3], [4, 5, 0, 0]]
    assert batch.inside_BT.tolist() == [[True] * 4, [True, True, False, False]]
    assert batch.learnt_BT.tolist() == [[False, False, False, True], [False, True, False, False]]


def test_windows_without_a_target_are_left_out():
    assert len(Windows.of(sequences_of([2, 2]), pairs((1, 1)), max_items=5)) == 1
    # The middle window of the three of the test above holds no new target.
    assert Windows.of(sequences_of([9]), pairs((0, 1), (0, 7)), max_items=3).starts.tolist() == [0, 4]


@settings(deadline=None)
@given(st.data())
def test_every_target_is_learnt_exactly_once_with_context(data):
    lengths = data.draw(st.lists(st.integers(2, 40), min_size=1, max_size=5))
    max_items = data.draw(st.integers(0, 12))
    dense, draw = data.draw(st.booleans()), np.random.default_rng(data.draw(st.integers(0, 1000)))
    targets = [
        (user, cut)
        for user, length in enumerate(lengths)
        for cut in range(1, length)
        if dense or draw.random() < 0.3 or (user, cut) == (0, 1)
    ]
    sequences = sequences_of(lengths)
    windows = Windows.of(sequences, pairs(*targets), max_items)
    batch = windows.batch(np.arange(len(windows)))
    found = Counter(batch.rows_BT[batch.learnt_BT].tolist())
    assert found == Counter(int(sequences.offsets[user]) + cut for user, cut in targets)
    assert batch.learnt_BT.any(1).all()
    last = dict(targets)
    for rows, inside, learnt in zip(batch.rows_BT, batch.inside_BT, batch.learnt_BT, strict=True):
        events = rows[inside]
        assert (np.diff(events) == 1).all()
        assert max_items == 0 or len(events) <= max_items + 1
        user = int(np.searchsorted(sequences.offsets, events[0], side="right")) - 1
        first = sequences.offsets[user]
        # Nothing of another user, nothing after the last target, at least half of the context.
        assert events[-1] <= first + last[user]
        for place in np.flatnonzero(learnt):
            assert events[0] == first or place >= (max_items + 1) // 2
            assert place > 0


def test_windows_without_some_of_their_events_by_hand():
    # Events 0 to 4 of the first user, of which 1, 2 and 4 are targets; 5 to 7 of the second, 6 and 7 are.
    targets = pairs((0, 1), (0, 2), (0, 4), (1, 1), (1, 2))
    batch = Windows.of(sequences_of([5, 3]), targets, max_items=9).batch(np.array([0, 1]))
    thinned = batch.where(np.array([False, False, True, True, False, True]))
    assert thinned.rows_BT.tolist() == [[2, 3, 4], [6, 7, 0]]
    assert thinned.inside_BT.tolist() == [[True, True, True], [True, True, False]]
    # Events 2 and 6 are targets, but now stand first.
    assert thinned.learnt_BT.tolist() == [[False, False, True], [False, True, False]]
