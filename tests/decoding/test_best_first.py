"""What goes on after the beams: leaves that are merged, and exactness however few prefixes are expanded at once."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sidrec.decoding import beam, best_first
from sidrec.decoding.best_first import Leaves
from sidrec.decoding.expansion import Prefixes
from sidrec.errors import DataError
from sidrec.testing.scorers import TableScorer

from .oracle import item_scores
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
