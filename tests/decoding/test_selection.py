"""Deterministic top-k, and items behind leaves."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sidrec.data.sequences import Histories
from sidrec.decoding.constraints import Exclusions
from sidrec.decoding.selection import list_items, refuse_nan, top_candidates
from sidrec.decoding.trie import ItemTrie
from sidrec.errors import DataError

scores = st.sampled_from([0.0, -0.0, -1.0, -1.5, -(2.0**-100), -(2.0**127), -float("inf"), 2.5])


@given(st.lists(st.lists(scores, min_size=7, max_size=7), min_size=1, max_size=3), st.integers(1, 9))
@settings(max_examples=300, deadline=None)
def test_equal_scores_go_to_the_lower_index(lists, width):
    index, best = top_candidates(torch.tensor(lists), width)
    expected = [sorted(range(7), key=lambda place: (-row[place], place))[:width] for row in lists]
    assert index.tolist() == expected
    assert best.tolist() == [[row[place] for place in places] for row, places in zip(lists, expected, strict=True)]


def test_items_of_a_leaf_share_its_score_in_row_order_and_excluded_ones_are_passed_over():
    codes = np.array([[1], [0], [1], [1], [0], [2]], np.int32)  # leaf 0: rows 1, 4; leaf 1: 0, 2, 3; leaf 2: 5
    trie = ItemTrie.build(codes, (3,))
    seen = Exclusions.of_seen(trie, Histories.of([[], [2, 1]]))
    leaves = np.array([[1, 0, 2], [1, 0, 3]])
    found = np.array([[-1.0, -2.0, -3.0], [-0.5, -4.0, -np.inf]], np.float32)
    rows, listed = list_items(leaves, found, 4, seen)
    assert rows.tolist() == [[0, 2, 3, 1], [0, 3, 4, -1]]
    assert listed.tolist() == [[-1.0, -1.0, -1.0, -2.0], [-0.5, -0.5, -4.0, -np.inf]]
    assert rows.dtype == np.int32
    assert listed.dtype == np.float32


def test_scores_that_are_not_numbers_are_refused():
    refuse_nan(torch.tensor(False))
    with pytest.raises(DataError, match="not numbers"):
        refuse_nan(torch.tensor(True))
