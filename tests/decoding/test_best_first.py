"""What goes on after the beams: leaves that are merged, and exactness however few prefixes are expanded at once."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sidrec.data.sequences import Histories
from sidrec.decoding import beam, best_first
from sidrec.decoding.best_first import Leaves
from sidrec.decoding.expansion import Prefixes
from sidrec.decoding.recommendations import BeamConfig
from sidrec.errors import DataError
from sidrec.testing.scorers import TableScorer

from .oracle import Problem, item_scores
from .test_beam import check_legal, is_top_k, large_problem, problems, search


def leaves_of(nodes: list[int], scores: list[float]) -> Prefixes:
    nodes_UW = torch.tensor([nodes])
    return Prefixes(nodes_UW, torch.tensor([scores]), nodes_UW, nodes_UW)


def test_merged_leaves_are_the_best_of_both_and_the_lower_node_of_equal_ones():
    found = leaves_of([2, 5, 9], [-3.0, -1.0, -torch.inf])
    best = Leaves.best(found, found.scores_UW, k=2)
    assert best.nodes_UK.tolist() == [[5, 2]]
    assert best.scores_UK.tolist() == [[-1, -3]]
    more = leaves_of([1, 4, 9], [-3.0, -1.0, -torch.inf])
    merged = best.merged(more, more.scores_UW, k=3)
    assert merged.nodes_UK.tolist() == [[4, 5, 1]]
    assert merged.scores_UK.tolist() == [[-1, -1, -3]]


@given(problems, st.integers(1, 4))
@settings(max_examples=300, deadline=None, derandomize=True)
def test_lists_are_exact_however_few_prefixes_are_expanded_at_once(problem, at_once):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(best_first, "AT_ONCE", at_once)
        patch.setattr(beam, "rank_all", None)  # nothing is left to it
        found = search(problem, exact=True)
    assert found.exact.all()
    truths = [item_scores(problem, user) for user in range(len(problem.histories))]
    check_legal(found, problem, truths)
    assert all(is_top_k(*lists) for lists in zip(found.rows, found.scores, truths, strict=True))


@pytest.mark.parametrize("has_end", [False, True])
def test_scores_that_are_no_numbers_are_refused_behind_the_beams_too(has_end):
    class BrokenLater(TableScorer):
        def step(self, state, level, parents_UW, codes_UW):
            is_later = level == 2 and level in state.depths
            logp = super().step(state, level, parents_UW, codes_UW)
            return logp * torch.nan if is_later else logp

    problem = large_problem()
    problem.scorer = BrokenLater((8, 8, 8), has_end=has_end, sharpness=0.3)
    assert not search(problem).exact.all()
    with pytest.raises(DataError, match="not numbers"):
        search(problem, exact=True)


def test_the_limit_leaves_out_only_users_that_lack_the_certificate(monkeypatch):
    monkeypatch.setattr(beam, "LIMIT", 0)
    left = []
    whole = beam.rank_all
    monkeypatch.setattr(beam, "rank_all", lambda *args: left.append(args[2].num_users) or whole(*args))
    problem = large_problem()
    problem.scorer = replace(problem.scorer, has_end=False, sharpness=1.4)
    lacking = int((~search(problem).exact).sum())
    assert 0 < lacking < len(problem.histories)
    assert search(problem, exact=True).exact.all()
    assert sum(left) == lacking


def test_exact_search_expands_only_prefixes_above_the_last_leaf():
    """Every prefix that it scored beyond the beam is above the k-th score that it began with."""
    expanded = []

    class Watching(TableScorer):
        def step(self, state, level, parents_UW, codes_UW):
            logp = super().step(state, level, parents_UW, codes_UW)
            expanded.append((level, None if parents_UW is None else state.nodes_UM[0, -parents_UW.shape[1] :].tolist()))
            return logp

    problem = large_problem(exclude_seen=False)
    problem.histories, problem.config = Histories.of([[3, 4]]), BeamConfig(beams=10)
    problem.scorer = Watching((8, 8, 8), sharpness=0.5)
    worst = search(problem).scores[0, -1]
    beam_steps = len(expanded)
    expanded.clear()
    best = search(problem, exact=True).scores[0, -1]
    beyond = [(level, node) for level, nodes in expanded[beam_steps:] for node in nodes]
    assert beyond
    assert len(beyond) == len(set(beyond))
    scores = prefix_scores(problem)
    assert all(scores[node] > worst for _, node in beyond)
    wanted = {node for node, score in scores.items() if score > best}
    assert wanted <= {node for _, nodes in expanded for node in nodes or []}


def prefix_scores(problem: Problem) -> dict[int, float]:
    """Score of every prefix of one and of two codes of the catalogue, by the hash that stands for it."""
    scorer, scores = TableScorer(problem.scorer.level_sizes, sharpness=problem.scorer.sharpness), {}
    state = scorer.start(problem.histories)
    first = scorer.step(state, 0, None, None)[0, 0]
    ones = sorted({int(path[0]) for path in problem.codes})
    second = scorer.step(state, 1, torch.zeros(1, len(ones), dtype=torch.long), torch.tensor([ones]))[0]
    hashes = state.nodes_UM[0].tolist()
    for place, code in enumerate(ones):
        scores[hashes[1 + place]] = float(first[code])
    twos = sorted({(int(path[0]), int(path[1])) for path in problem.codes})
    parents = torch.tensor([[1 + ones.index(one) for one, _ in twos]])
    scorer.step(state, 2, parents, torch.tensor([[two for _, two in twos]]))
    for (one, two), name in zip(twos, state.nodes_UM[0, -len(twos) :].tolist(), strict=True):
        scores[name] = float(first[one] + second[ones.index(one), two])
    return scores
