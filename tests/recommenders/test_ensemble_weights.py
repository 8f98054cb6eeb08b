"""The search for the members' weights, followed by hand."""

import numpy as np
import pytest

from sidrec.recommenders.ensemble_weights import find_weights

BEST = np.array([0.5, 0.3, 0.2])


def after_turns(turns):
    """Weights after such members, one after the other, were given their shares of the best."""
    weights = np.full(3, 1 / 3)
    for member in turns:
        weights *= (1 - BEST[member]) / (1 - weights[member])
        weights[member] = BEST[member]
    return weights


def test_three_members_take_turns_for_three_rounds():
    # The score falls with the square of the distance, so the best share of a member is the one that it has in the best.
    found = find_weights(3, lambda weights: -float(np.square(weights - BEST).sum()))
    assert np.allclose(found.weights, after_turns([0, 1, 2] * 3), rtol=0, atol=1e-12)
    assert np.allclose(found.weights, BEST, atol=1e-3), "near the best, which one round misses by more"
    # (1/6)² + (1/30)² + (2/15)².
    assert found.start == pytest.approx(-42 / 900)
    assert found.value == -float(np.square(found.weights - BEST).sum())


def test_one_round_by_hand():
    assert np.allclose(after_turns([0]), [1 / 2, 1 / 4, 1 / 4])
    assert np.allclose(after_turns([0, 1]), [7 / 15, 3 / 10, 7 / 30])
    assert np.allclose(after_turns([0, 1, 2]), [56 / 115, 36 / 115, 1 / 5])
