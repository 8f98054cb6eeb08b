"""Diverse beams against loops written from the paper, and against the plain beam search."""

import math
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sidrec.config import RunSettings
from sidrec.data.sequences import Histories
from sidrec.decoding.beam import beam_search
from sidrec.decoding.recommendations import BeamConfig
from sidrec.decoding.samples import SamplingConfig

from .oracle import Problem, item_scores, random_problem
from .slow_sampling import Path, children, small_problem
from .test_sampling import as_problem_does, problems, sample

RUN = RunSettings()


def diverse_rows(problem: Problem, user: int, config: SamplingConfig) -> list[int]:
    """Algorithm 1 of the paper with Hamming diversity, one user and one beam at a time."""
    k = problem.request.k
    num_groups = min(config.groups, k)
    sizes = [k // num_groups + (group < k % num_groups) for group in range(num_groups)]
    groups: list[dict[Path, float]] = [{(): 0.0}] * num_groups
    for _ in range(problem.codes.shape[1]):
        taken: Counter[int] = Counter()
        chosen = []
        for beams, size in zip(groups, sizes, strict=True):
            scores = {
                (*path, code): score + logp
                for path, score in beams.items()
                for code, logp in children(problem, user, path, problem.config.normalize).items()
                if logp > -math.inf
            }
            best = sorted(scores, key=lambda path: (config.diversity * taken[path[-1]] - scores[path], path))[:size]
            chosen.append({path: scores[path] for path in best})
            taken.update(path[-1] for path in best)
        groups = chosen
    leaves = {path for beams in groups for path in beams}
    truth = item_scores(problem, user)
    rows = [row for row in truth if tuple(problem.codes[row].tolist()) in leaves]
    return sorted(rows, key=lambda row: (-truth[row], tuple(problem.codes[row].tolist()), row))[:k]


@given(problems, st.integers(1, 5), st.sampled_from([0.0, 0.5, 3.0]))
@example(random_problem(16, "level", 1), 2, 3.0)  # a group that finds fewer children than it has room for
@settings(max_examples=150, deadline=None, derandomize=True)
def test_diverse_beams_equal_the_papers_loops(problem, groups, diversity):
    # Without ties: loops add in another order, so that equal scores come out unequal.
    problem.scorer = replace(problem.scorer, sharpness=0.7, ties=False)
    config = SamplingConfig(kind="diverse", groups=groups, diversity=diversity)
    samples = sample(problem, as_problem_does(problem, config))
    for user in range(len(problem.histories)):
        rows = samples.rows[user]
        assert rows[rows >= 0].tolist() == diverse_rows(problem, user, config)


@given(problems)
@settings(max_examples=150, deadline=None, derandomize=True)
def test_one_group_equals_beam_search(problem):
    k = problem.request.k
    config = as_problem_does(problem, SamplingConfig(kind="diverse", groups=1))
    samples = sample(problem, config)
    beams = BeamConfig(beams=k, normalize=config.normalize)
    found = beam_search(problem.scorer, problem.trie, problem.histories, problem.request, beams, RUN)
    assert (samples.rows == found.rows).all()
    assert (samples.log_probs == found.scores).all()


def test_groups_part_ways_where_one_group_stays_together():
    problem = small_problem(k=3, allowed=np.arange(14) != 13)  # one item a leaf
    problem.histories = Histories.of([[row] for row in range(14)])
    firsts = {
        groups: np.mean([
            len(set(codes[:, 0].tolist()))
            for codes in sample(problem, SamplingConfig(kind="diverse", groups=groups, diversity=50)).codes
        ])
        for groups in (1, 3)
    }  # fmt: skip
    assert firsts[3] == 3
    assert firsts[1] < 3


@pytest.mark.parametrize(("groups", "leaves"), [(1, 4), (3, 2), (4, 1), (100, 1)])
def test_there_are_never_more_groups_than_beams(groups, leaves):
    # Without diversity all groups choose alike: as many leaves as the largest group has beams.
    problem = small_problem(k=4)
    samples = sample(problem, SamplingConfig(kind="diverse", groups=groups, diversity=0))
    assert (samples.rows[0] >= 0).sum() == leaves
