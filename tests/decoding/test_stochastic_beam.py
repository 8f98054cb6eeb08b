"""Draws without replacement against exact enumeration, and the estimator that they are for."""

import math
from collections import Counter
from itertools import combinations, permutations

import numpy as np
import pytest
import scipy.stats
import torch

from sidrec.decoding.recommendations import Request
from sidrec.decoding.samples import SamplingConfig
from sidrec.decoding.stochastic_beam import _log1mexp, _with_maximum

from .slow_sampling import leaf_probabilities, small_problem
from .test_sampling import assert_frequencies, paths_of, sample

USERS = 6000
CONFIG = SamplingConfig(kind="gumbel", users_per_batch=3000)


def in_turn(exact: dict, k: int) -> dict:
    """Probability of every k leaves in order, drawn one after the other from those that are left."""
    out = {}
    for leaves in permutations(exact, k):
        chance, left = 1.0, 1.0
        for leaf in leaves:
            chance, left = chance * exact[leaf] / left, left - exact[leaf]
        out[leaves] = chance
    return out


@pytest.mark.parametrize("fields", [{}, {"temperature": 2.0}, {"temperature": 2.0, "top_k": 2, "top_p": 0.9}])
def test_leaves_are_drawn_as_if_one_after_the_other_without_replacement(fields):
    config = CONFIG.model_copy(update=fields)
    problem = small_problem(USERS, k=3)
    samples = sample(problem, config)
    exact = in_turn(leaf_probabilities(problem, 0, config), 3)
    assert sum(exact.values()) == pytest.approx(1)
    drawn = Counter(tuple(paths_of(samples, user)) for user in range(USERS))
    assert_frequencies(drawn, exact)
    for leaf in {leaf for leaves in exact for leaf in leaves}:
        inclusion = sum(chance for leaves, chance in exact.items() if leaf in leaves)
        found = sum(count for leaves, count in drawn.items() if leaf in leaves)
        assert scipy.stats.binomtest(found, USERS, min(inclusion, 1)).pvalue > 0.001


def test_perturbed_scores_of_all_leaves_are_independent_gumbels():
    problem = small_problem(USERS, k=12)
    samples = sample(problem, CONFIG)
    order = samples.codes @ [9, 3, 1]
    noise = np.take_along_axis(samples.perturbed - samples.draw_log_probs, order.argsort(axis=1), axis=1)
    assert (samples.thresholds == -np.inf).all(), "no leaf is left"
    for column in noise.T:
        assert scipy.stats.kstest(column, "gumbel_r").pvalue > 0.001
    assert max(abs(np.corrcoef(left, right)[0, 1]) for left, right in combinations(noise.T, 2)) < 0.05
    assert (np.diff(samples.perturbed, axis=1) <= 0).all()


def test_more_than_there_are_give_all_leaves_once():
    problem = small_problem(users=3, k=20)
    samples = sample(problem, SamplingConfig(kind="gumbel", temperature=0.2))
    exact = leaf_probabilities(problem, 0, SamplingConfig(temperature=0.2))
    for user in range(3):
        assert sorted(paths_of(samples, user)[:12]) == sorted(exact)
        expected = [np.log(exact[path]) for path in paths_of(samples, user)[:12]]
        np.testing.assert_allclose(samples.draw_log_probs[user, :12], expected, atol=1e-4)
    assert (samples.rows[:, 12:] == -1).all()
    for scores in (samples.log_probs, samples.draw_log_probs, samples.perturbed):
        assert (scores[:, 12:] == -np.inf).all()


@pytest.mark.parametrize("k", [1, 2, 5])
def test_the_weighted_sum_is_an_unbiased_estimate_of_a_mean(k):
    problem = small_problem(USERS, k=k)
    samples, exact = sample(problem, CONFIG), leaf_probabilities(problem, 0, CONFIG)
    value = {path: np.sin(3 * path[0] + path[1]) + path[2] for path in exact}
    values = np.array([[value[path] for path in paths_of(samples, user)] for user in range(USERS)])
    truth = sum(chance * value[path] for path, chance in exact.items())
    for estimates, expected in (
        ((samples.weights() * values).sum(1), truth),
        (samples.weights().sum(1), 1.0),
    ):
        error = estimates.std() / np.sqrt(USERS)
        assert error < 0.03
        assert abs(estimates.mean() - expected) < 3 * error


def test_weights_of_all_leaves_are_their_probabilities():
    problem = small_problem(k=20)
    samples = sample(problem, SamplingConfig(kind="gumbel"))
    assert samples.weights().sum() == pytest.approx(1)
    assert (samples.weights()[0, 12:] == 0).all()


def test_sharp_models_and_low_temperatures_stay_numbers():
    problem = small_problem(users=50)
    problem.request = Request(k=12)
    samples = sample(problem, SamplingConfig(kind="gumbel", temperature=1e-3))
    assert np.isfinite(samples.perturbed).all()
    assert samples.draw_log_probs.min() < -1000
    assert (np.diff(samples.perturbed, axis=1) < 0).all()
    noise = samples.perturbed - samples.draw_log_probs
    assert scipy.stats.kstest(noise[samples.draw_log_probs > -100], "gumbel_r").pvalue > 0.001


def test_conditional_maximum_by_hand_and_at_the_edges():
    # Equation of the paper, -log(exp(-T) - exp(-Z) + exp(-G)), where it does not overflow.
    scores = torch.tensor([[[0.3, -1.0, -2.5, -torch.inf]]], dtype=torch.double)
    found = _with_maximum(scores, torch.tensor([[1.7]], dtype=torch.double))[0, 0].tolist()
    expected = [-math.log(math.exp(-1.7) - math.exp(-0.3) + math.exp(-score)) for score in (0.3, -1.0, -2.5)]
    np.testing.assert_allclose(found[:3], expected, rtol=1e-12)
    assert found[0] == 1.7
    assert found[3] == -math.inf
    far = _with_maximum(scores - 5000, torch.tensor([[800.0]], dtype=torch.double))[0, 0].tolist()
    # There exp(-T) is nothing beside exp(-G), except for the largest itself.
    rest = [-5000 - math.log(math.exp(-score) - math.exp(-0.3)) for score in (-1.0, -2.5)]
    np.testing.assert_allclose(far[:3], [800, *rest], rtol=1e-12)
    nothing = _with_maximum(torch.full((1, 1, 2), -torch.inf).double(), torch.full((1, 1), -torch.inf).double())
    assert (nothing == -torch.inf).all()


def test_log_of_one_minus_exp_loses_nothing():
    x = torch.tensor([0.0, -1e-20, -0.5, -1.0, -50.0], dtype=torch.double)
    expected = [-math.inf, math.log(1e-20), math.log(1 - math.exp(-0.5)), math.log(1 - math.exp(-1)), -math.exp(-50)]
    np.testing.assert_allclose(_log1mexp(x).numpy(), expected, rtol=1e-12)
