"""Scores of given paths: those that searching gives, whatever stands beside them."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sidrec.config import RunSettings
from sidrec.data.sequences import Histories
from sidrec.decoding import paths
from sidrec.decoding.beam import beam_search
from sidrec.decoding.paths import path_scores
from sidrec.decoding.recommendations import BeamConfig, Request
from sidrec.decoding.trie import ItemTrie
from sidrec.errors import DataError
from sidrec.testing.scorers import TableScorer

SIZES = (3, 2, 4)
CODES = np.array([[0, 0, 1], [0, 1, 3], [2, 0, 0], [2, 0, 2], [1, 1, 1], [2, 0, 2]], np.int32)
TRIE = ItemTrie.build(CODES, SIZES)
HISTORIES = Histories.of([[1], [], [3, 4]])
ALL = np.tile(np.arange(6), (3, 1))


def scores_of(scorer, rows_UM, normalize="level", histories=HISTORIES):
    return path_scores(scorer, scorer.start(histories), TRIE, CODES[rows_UM], normalize).numpy()


@given(
    seed=st.integers(0, 99),
    has_end=st.booleans(),
    over=st.sampled_from(["level", "vocabulary"]),
    children=st.booleans(),
    impossible=st.sampled_from([0.0, 0.4]),
)
def test_equal_the_scores_of_a_search_for_all_items(seed, has_end, over, children, impossible):
    scorer = TableScorer(SIZES, has_end, seed, over=over, impossible=impossible)
    normalize = "children" if children else over
    config = BeamConfig(beams=20, normalize=normalize)
    found = beam_search(scorer, TRIE, HISTORIES, Request(k=6, exclude_seen=False), config, RunSettings())
    scores = scores_of(scorer, ALL, normalize)
    for user in range(3):
        listed = found.rows[user] >= 0
        assert np.allclose(scores[user][found.rows[user][listed]], found.scores[user][listed], atol=1e-5)
        assert listed.sum() == np.isfinite(scores[user]).sum()


def test_by_hand():
    scorer = TableScorer(SIZES)
    state = scorer.start(HISTORIES)
    first = scorer.step(state, 0, None, None)
    second = scorer.step(state, 1, torch.zeros(3, 1, dtype=torch.long), torch.full((3, 1), 2))
    third = scorer.step(state, 2, torch.ones(3, 1, dtype=torch.long), torch.zeros(3, 1, dtype=torch.long))
    expected = (first[:, 0, 2] + second[:, 0, 0] + third[:, 0, 2]).numpy()
    assert np.allclose(scores_of(scorer, np.full((3, 1), 3))[:, 0], expected, atol=1e-6)


def test_each_user_has_own_paths_and_neighbours_change_nothing(monkeypatch):
    scorer = TableScorer(SIZES, has_end=True)
    everything = scores_of(scorer, ALL)
    rows = np.array([[5, 0, 3, 3], [1, 2, 4, 0], [0, 0, 0, 0]])
    assert np.array_equal(scores_of(scorer, rows), np.take_along_axis(everything, rows, axis=1))
    monkeypatch.setattr(paths, "PATHS_AT_ONCE", 4)
    assert np.array_equal(scores_of(scorer, ALL), everything)
    alone = scores_of(scorer, ALL[:1], histories=HISTORIES.take(slice(2, 3)))
    assert np.array_equal(alone[0], everything[2])
    assert scores_of(scorer, ALL[:, :0]).shape == (3, 0)


def test_items_of_equal_codes_tie_to_the_last_bit():
    class Uneven(TableScorer):
        """Rounds each place of a call otherwise, as a processor may."""

        def step(self, *arguments):
            logp_UWK = super().step(*arguments)
            return logp_UWK * (1 + 1e-4 * torch.arange(logp_UWK.shape[1])[:, None])

    found = scores_of(Uneven(SIZES), ALL)
    assert np.array_equal(found[:, 3], found[:, 5])


def test_the_state_stays_as_it_was():
    scorer = TableScorer(SIZES)
    state = scorer.start(HISTORIES)
    once, twice = (path_scores(scorer, state, TRIE, CODES[ALL], "level") for _ in range(2))
    assert torch.equal(once, twice)


def test_what_is_no_number_is_refused():
    class Broken(TableScorer):
        def step(self, *arguments):
            return super().step(*arguments) * torch.nan

    with pytest.raises(DataError, match="not numbers"):
        scores_of(Broken(SIZES), ALL)
