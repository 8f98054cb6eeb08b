"""The toy scorer keeps the contract that it checks in others."""

import numpy as np
import pytest
import torch

from sidrec.data.sequences import Histories
from sidrec.testing.scorers import TableScorer

HISTORIES = Histories.of([[1, 2], [2, 1], [], [1, 2]])


def test_log_probabilities_are_normalised_as_told():
    level = TableScorer((4, 5))
    assert torch.allclose(level.step(level.start(HISTORIES), 0, None, None).exp().sum(-1), torch.ones(4, 1))
    vocabulary = TableScorer((4, 5), over="vocabulary")
    assert (vocabulary.step(vocabulary.start(HISTORIES), 0, None, None).exp().sum(-1) < 1).all()


def test_numbers_depend_on_the_history_in_its_order_and_on_the_whole_prefix():
    scorer = TableScorer((4, 4, 4))
    state = scorer.start(HISTORIES)
    root = scorer.step(state, 0, None, None)
    assert (root[0] == root[3]).all()
    assert (root[0] != root[1]).all()
    scorer.step(state, 1, torch.zeros(4, 2, dtype=torch.long), torch.tensor([[0, 1]] * 4))
    last = scorer.step(state, 2, torch.tensor([[1, 2]] * 4), torch.tensor([[3, 3]] * 4))
    assert (last[:, 0] != last[:, 1]).all()


def test_a_selected_state_is_fresh_and_equal():
    scorer = TableScorer((4, 4), has_end=True)
    state = scorer.start(HISTORIES)
    root = scorer.step(state, 0, None, None)
    again = state.select(torch.tensor([2, 0]))
    assert (scorer.step(again, 0, None, None) == root[[2, 0]]).all()
    with pytest.raises(AssertionError, match="step 2 continues a node of another length"):
        scorer.step(again, 2, torch.zeros(2, 1, dtype=torch.long), torch.zeros(2, 1, dtype=torch.long))
    scorer.step(state, 1, torch.zeros(4, 3, dtype=torch.long), torch.zeros(4, 3, dtype=torch.long))
    end = scorer.step(state, 2, torch.ones(4, 3, dtype=torch.long), torch.zeros(4, 3, dtype=torch.long))
    assert end.shape == (4, 3, 1)
    assert (end < 0).all()


def test_options_shape_the_table():
    flat = TableScorer((8,), sharpness=0.0)
    assert np.allclose(flat.step(flat.start(HISTORIES), 0, None, None), -np.log(8))
    holes = TableScorer((64,), impossible=0.5)
    gone = (holes.step(holes.start(HISTORIES), 0, None, None) == -torch.inf).float().mean()
    assert 0.3 < gone < 0.7
    tied = TableScorer((64,), ties=True)
    assert len(tied.step(tied.start(HISTORIES), 0, None, None)[0, 0].unique()) < 16
    assert (TableScorer((8,), seed=1).start(HISTORIES).users_U != flat.start(HISTORIES).users_U).all()
