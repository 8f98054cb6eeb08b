"""Draws against the exact distribution, and what every kind of search promises."""

from collections import Counter

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sidrec.config import RunSettings
from sidrec.data.sequences import Histories
from sidrec.decoding.recommendations import Request
from sidrec.decoding.samples import Samples, SamplingConfig
from sidrec.decoding.sampling import sample_items
from sidrec.errors import ConstraintError, DataError
from sidrec.testing.scorers import TableScorer

from .oracle import Problem, item_scores, random_problem
from .slow_sampling import leaf_probabilities, small_problem

RUN = RunSettings(seed=4)
KINDS = ("sample", "gumbel", "diverse")
SETTINGS = [
    SamplingConfig(),
    SamplingConfig(temperature=0.6),
    SamplingConfig(temperature=2.5),
    SamplingConfig(top_k=2),
    SamplingConfig(top_p=0.7),
    SamplingConfig(temperature=1.7, top_k=2, top_p=0.8),
]
problems = st.builds(
    random_problem, st.integers(0, 2**40), st.sampled_from(["vocabulary", "level", "children"]), st.just(1)
)
configs = st.one_of(
    st.builds(
        SamplingConfig,
        kind=st.sampled_from(["sample", "gumbel"]),
        temperature=st.sampled_from([0.3, 1.0, 2.0]),
        top_k=st.sampled_from([None, 1, 3]),
        top_p=st.sampled_from([0.4, 1.0]),
    ),
    st.builds(
        SamplingConfig, kind=st.just("diverse"), groups=st.integers(1, 5), diversity=st.sampled_from([0.0, 0.5, 9.0])
    ),
)


def sample(
    problem: Problem, config: SamplingConfig, run: RunSettings = RUN, users: np.ndarray | None = None
) -> Samples:
    return sample_items(problem.scorer, problem.trie, problem.histories, problem.request, config, run, users)


def as_problem_does(problem: Problem, config: SamplingConfig, users_per_batch: int = 32) -> SamplingConfig:
    return config.model_copy(update={"normalize": problem.config.normalize, "users_per_batch": users_per_batch})


def paths_of(samples: Samples, user: int = 0) -> list[tuple[int, ...]]:
    return [tuple(path) for path in samples.codes[user].tolist()]


def assert_frequencies(counts: Counter, probabilities: dict) -> None:
    """Chi-square, with leaves that are expected fewer than 5 times put together."""
    assert set(counts) <= set(probabilities)
    drawn = sum(counts.values())
    rare = {path for path, chance in probabilities.items() if chance * drawn < 5}
    cells = [(counts[path], chance * drawn) for path, chance in probabilities.items() if path not in rare]
    if rare:
        cells.append((sum(counts[path] for path in rare), sum(probabilities[path] for path in rare) * drawn))
    found, expected = zip(*cells, strict=True)
    assert len(cells) > 1
    assert scipy.stats.chisquare(found, expected).pvalue > 0.001


@pytest.mark.parametrize("config", SETTINGS, ids=lambda config: str(config.model_dump(exclude_defaults=True)))
def test_frequencies_equal_exact_probabilities(config):
    problem = small_problem(users=2, k=8000)
    problem.histories = Histories.of([[3], [0, 7, 13]])
    samples = sample(problem, config)
    for user in range(2):
        exact = leaf_probabilities(problem, user, config)
        assert sum(exact.values()) == pytest.approx(1)
        assert_frequencies(Counter(paths_of(samples, user)), exact)
        expected = np.log([exact[path] for path in paths_of(samples, user)])
        np.testing.assert_allclose(samples.draw_log_probs[user], expected, atol=1e-5)


def test_successive_draws_and_users_are_independent():
    problem = small_problem(users=3000, k=2)
    samples = sample(problem, SamplingConfig(users_per_batch=1000))
    exact = leaf_probabilities(problem, 0, SamplingConfig())
    pairs = {(one, other): exact[one] * exact[other] for one in exact for other in exact}
    assert_frequencies(Counter(tuple(paths_of(samples, user)) for user in range(3000)), pairs)
    neighbours = zip(samples.codes[:-1, 0].tolist(), samples.codes[1:, 0].tolist(), strict=True)
    assert_frequencies(Counter((tuple(one), tuple(other)) for one, other in neighbours), pairs)


def test_one_child_a_level_is_greedy():
    problem = small_problem(k=20)
    samples = sample(problem, SamplingConfig(top_k=1, temperature=3.0))
    tiny = sample(problem, SamplingConfig(top_p=1e-9, temperature=3.0))
    (path,) = leaf_probabilities(problem, 0, SamplingConfig(top_k=1))
    assert paths_of(samples) == paths_of(tiny) == [path] * 20
    assert (samples.draw_log_probs == 0).all()
    assert (samples.log_probs < 0).all()


def test_items_of_a_leaf_are_drawn_alike_and_seen_ones_never():
    problem = small_problem(k=4000)
    samples = sample(problem, SamplingConfig())
    at_leaf = [row for row, path in zip(samples.rows[0], paths_of(samples), strict=True) if path == (2, 0, 0)]
    counts = Counter(at_leaf)
    assert set(counts) == {7, 13}
    assert scipy.stats.binomtest(counts[7], len(at_leaf)).pvalue > 0.01
    problem.histories = Histories.of([[7]])
    samples = sample(problem, SamplingConfig())
    assert {row for row, path in zip(samples.rows[0], paths_of(samples), strict=True) if path == (2, 0, 0)} == {13}


@given(problems, configs)
@settings(max_examples=300, deadline=None, derandomize=True)
def test_every_drawn_item_is_wanted_and_has_the_models_log_probability(problem, config):
    samples = sample(problem, as_problem_does(problem, config))
    for user in range(len(problem.histories)):
        truth = item_scores(problem, user)
        rows = samples.rows[user]
        drawn = rows >= 0
        assert set(rows[drawn].tolist()) <= set(truth)
        np.testing.assert_allclose(samples.log_probs[user, drawn], [truth[row] for row in rows[drawn]], atol=1e-4)
        assert (samples.log_probs[user, ~drawn] == -np.inf).all()
        assert (samples.codes[user, drawn] == problem.codes[rows[drawn]]).all()
        assert (samples.codes[user, ~drawn] == -1).all()
        if truth and not problem.scorer.impossible:
            assert drawn.all() if config.kind == "sample" else drawn[0]
        if config.kind == "gumbel":
            assert len(set(paths_of(samples, user))) == len(rows) - max(0, (~drawn).sum() - 1)
        if config.kind == "diverse":
            assert len(set(rows[drawn].tolist())) == drawn.sum()
            assert (samples.log_probs[user, :-1] >= samples.log_probs[user, 1:]).all()


@given(problems, configs, st.integers(0, 2**32), st.integers(1, 5))
@settings(max_examples=150, deadline=None, derandomize=True)
def test_batch_order_and_number_of_users_do_not_matter(problem, config, seed, users_per_batch):
    users = np.array([5, 900, 2**40])[: len(problem.histories)]
    samples = sample(problem, as_problem_does(problem, config), users=users)
    draw = np.random.default_rng(seed)
    some = draw.permutation(len(users))[: draw.integers(1, len(users) + 1)]
    problem.keep_users(some)
    again = sample(problem, as_problem_does(problem, config, users_per_batch), users=users[some])
    for found, expected in zip(vars(again).values(), vars(samples.take(some)).values(), strict=True):
        assert (found is expected is None) or np.array_equal(found, expected)


@pytest.mark.parametrize("kind", ["sample", "gumbel"])
def test_more_draws_begin_with_the_same_draws(kind):
    problem = small_problem(users=4, k=9)
    many = sample(problem, SamplingConfig(kind=kind))
    problem.request = Request(k=3)
    few = sample(problem, SamplingConfig(kind=kind))
    assert (few.rows == many.rows[:, :3]).all()
    if kind == "gumbel":
        assert (few.thresholds == many.perturbed[:, 3]).all()


@pytest.mark.parametrize("kind", ["sample", "gumbel"])
def test_seeds_decide_and_global_random_state_does_not(kind):
    problem, config = small_problem(users=20), SamplingConfig(kind=kind)
    first = sample(problem, config)
    torch.manual_seed(123)
    before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].copy()
    again, other = sample(problem, config), sample(problem, config, RunSettings(seed=5))
    assert (torch.get_rng_state() == before).all()
    assert (np.random.get_state()[1] == numpy_before).all()
    assert (again.rows == first.rows).all()
    assert (other.rows != first.rows).any()
    assert (first.rows[0] != first.rows[1]).any(), "users have noise of their own"
    same = sample(problem, config, users=np.full(20, 7))
    assert (same.rows == same.rows[0]).all(), "unless they are called the same"


@pytest.mark.parametrize("kind", KINDS)
def test_a_prefix_is_scored_once_a_user_however_many_draws_share_it(kind):
    class Counting(TableScorer):
        def step(self, state, level, parents_UW, codes_UW):
            if parents_UW is not None:
                widths.append(parents_UW.shape[1])
            return super().step(state, level, parents_UW, codes_UW)

    widths: list[int] = []
    problem = small_problem(users=3, k=500)
    problem.scorer = Counting((3, 3, 3), has_end=True)
    sample(problem, SamplingConfig(kind=kind))
    # The missing ones, if any, share one place.
    assert len(widths) == 3
    assert all(width <= nodes + 1 for width, nodes in zip(widths, problem.trie.num_nodes[1:], strict=True))


@pytest.mark.parametrize("kind", KINDS)
def test_allowed_items_only_and_nothing_for_who_has_seen_all(kind):
    problem = small_problem(k=60, allowed=np.isin(np.arange(14), [2, 7, 11, 13]))
    problem.histories = Histories.of([[7], [2, 7, 11, 13], []])
    samples = sample(problem, SamplingConfig(kind=kind))
    listed = [set(rows[rows >= 0].tolist()) for rows in samples.rows]
    # Without replacement leaves are drawn, so one of the two items of leaf 200.
    assert listed[0] == {2, 11, 13}
    assert listed[1] == set()
    assert listed[2] in ([{2, 7, 11, 13}] if kind != "gumbel" else [{2, 7, 11}, {2, 11, 13}])


@pytest.mark.parametrize("kind", KINDS)
def test_no_users(kind):
    problem = small_problem(users=0)
    samples = sample(problem, SamplingConfig(kind=kind))
    assert samples.rows.shape == samples.log_probs.shape == (0, 5)
    assert samples.codes.shape == (0, 5, 3)
    assert (samples.draw_log_probs is None) == (kind == "diverse")
    assert (samples.thresholds is None) == (kind != "gumbel")


@pytest.mark.parametrize("kind", KINDS)
def test_bad_input_is_refused(kind):
    class Broken(TableScorer):
        def step(self, state, level, parents_UW, codes_UW):
            logp = super().step(state, level, parents_UW, codes_UW)
            return logp * torch.nan if level == 1 else logp

    problem, config = small_problem(users=2), SamplingConfig(kind=kind, **({} if kind == "diverse" else {"top_p": 0.5}))
    with pytest.raises(DataError, match=r"users of shape \(3,\) for 2 histories"):
        sample(problem, config, users=np.arange(3))
    half = np.arange(14) < 7
    with pytest.raises(ConstraintError, match="no item that can be recommended"):
        sample_items(problem.scorer, problem.trie, problem.histories, Request(allowed=half, denied=half), config, RUN)
    problem.scorer = Broken((3, 3, 3))
    with pytest.raises(DataError, match="not numbers"):
        sample(problem, config)
    problem.scorer = TableScorer((3, 3))
    with pytest.raises(DataError, match="levels"):
        sample(problem, config)
