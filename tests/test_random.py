"""Streams are keyed by seed and name."""

import numpy as np

from sidrec.random import generator, numbered_uniforms, torch_seed


def test_streams_differ_by_seed_and_name_and_repeat() -> None:
    draws = {key: generator(*key).integers(10**9) for key in [(0, "a"), (0, "b"), (1, "a"), (0, "a", "b")]}
    assert len(set(draws.values())) == 4
    assert generator(0, "a").integers(10**9) == draws[0, "a"]
    assert 0 <= torch_seed(0, "x") < 2**63


def test_numbered_uniforms_are_spread_evenly_and_independent_of_their_neighbours() -> None:
    numbers = numbered_uniforms(3, np.arange(400)[:, None], np.arange(50))
    assert numbers.shape == (400, 50)
    assert 0 <= numbers.min() < 1e-3
    assert 1 - 1e-3 < numbers.max() < 1
    # 20,000 numbers in ten cells: a cell holds 2,000 ± 42.
    assert np.abs(np.bincount((numbers.ravel() * 10).astype(int), minlength=10) - 2000).max() < 200
    for one, other in ((numbers[1:], numbers[:-1]), (numbers[:, 1:], numbers[:, :-1])):
        assert abs(np.corrcoef(one.ravel(), other.ravel())[0, 1]) < 0.03
    assert len(np.unique(numbers)) == numbers.size


def test_numbered_uniforms_depend_on_seed_and_numbers_alone() -> None:
    order = np.random.default_rng(0).permutation(30)
    drawn = numbered_uniforms(5, np.arange(30))
    assert (numbered_uniforms(5, order) == drawn[order]).all()
    assert (numbered_uniforms(6, np.arange(30)) != drawn).all()
    assert numbered_uniforms(2**63 - 1, np.array([0])) != numbered_uniforms(0, np.array([0]))
