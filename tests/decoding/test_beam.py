"""The search against the sum of log-probabilities of every item, and what it promises."""

from collections import Counter
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sidrec.config import RunSettings
from sidrec.data.sequences import Histories
from sidrec.decoding import beam, exhaustive
from sidrec.decoding.beam import beam_search
from sidrec.decoding.exhaustive import exhaustive_ranking
from sidrec.decoding.filters import Filters
from sidrec.decoding.recommendations import BeamConfig, Recommendations, Request
from sidrec.decoding.trie import ItemTrie
from sidrec.errors import ConstraintError, DataError
from sidrec.testing.scorers import TableScorer, TableState

from .oracle import Problem, item_scores, random_problem

RUN = RunSettings()
TOLERANCE = 1e-4

problems = st.builds(
    random_problem,
    st.integers(0, 2**40),
    st.sampled_from(["vocabulary", "level", "children"]),
    st.integers(1, 8),
)


def search(problem: Problem, *, exact: bool = False) -> Recommendations:
    request = replace(problem.request, exact=exact)
    return beam_search(problem.scorer, problem.trie, problem.histories, request, problem.config, RUN)


def is_top_k(rows: np.ndarray, scores: np.ndarray, truth: dict[int, float]) -> bool:
    """Whether a list holds the best items, up to items of (nearly) equal score."""
    best = sorted(truth.values(), reverse=True)[: len(rows)]
    listed = rows[rows >= 0].tolist()
    return (
        len(listed) == len(best)
        and np.allclose(scores[: len(best)], best, atol=TOLERANCE)
        and np.allclose([truth[row] for row in listed], best, atol=TOLERANCE)
    )


def check_legal(found: Recommendations, problem: Problem, truths: list[dict[int, float]]) -> None:
    """Every list holds wanted items once, sorted, each with its own score; missing places are marked."""
    for rows, scores, truth in zip(found.rows, found.scores, truths, strict=True):
        listed = rows[rows >= 0].tolist()
        assert rows.tolist() == listed + [-1] * (problem.request.k - len(listed))
        assert len(set(listed)) == len(listed)
        assert set(listed) <= set(truth)
        assert np.allclose(scores[: len(listed)], [truth[row] for row in listed], atol=TOLERANCE)
        assert (scores[len(listed) :] == -np.inf).all()
        assert (np.diff(scores[: len(listed)]) <= 0).all()
        for place, (row, following) in enumerate(pairwise(listed)):
            if (problem.codes[row] == problem.codes[following]).all():
                assert row < following
                assert scores[place] == scores[place + 1]


@given(problems)
@settings(max_examples=1000, deadline=None, derandomize=True)
def test_the_certificate_is_never_wrong_and_exact_search_is_exact(problem):
    check_certificates(problem)


@pytest.mark.slow
def test_ten_thousand_certificates():
    for seed in range(10_000):
        normalize = ("vocabulary", "level", "children")[seed % 3]
        check_certificates(random_problem(10**9 + seed, normalize, beams=1 + seed % 8))


def check_certificates(problem: Problem) -> None:
    """No list is called exact that is not, and exact search gives the true lists."""
    truths = [item_scores(problem, user) for user in range(len(problem.histories))]
    found, exact = search(problem), search(problem, exact=True)
    check_legal(found, problem, truths)
    check_legal(exact, problem, truths)
    assert exact.exact.all()
    for user, truth in enumerate(truths):
        if not problem.scorer.impossible:
            assert (found.rows[user] >= 0).sum() == min(problem.request.k, len(problem.wanted(user)))
        if found.exact[user]:
            assert is_top_k(found.rows[user], found.scores[user], truth)
            assert (exact.rows[user] == found.rows[user]).all()
        assert is_top_k(exact.rows[user], exact.scores[user], truth)


@given(problems)
@settings(max_examples=200, deadline=None, derandomize=True)
def test_all_beams_equal_exhaustive_ranking(problem):
    problem.config = problem.config.model_copy(update={"beams": len(problem.codes)})
    truths = [item_scores(problem, user) for user in range(len(problem.histories))]
    found = search(problem)
    scored = exhaustive_ranking(problem.scorer, problem.trie, problem.histories, problem.request, problem.config, RUN)
    assert found.exact.all()
    assert scored.exact.all()
    check_legal(scored, problem, truths)
    assert all(is_top_k(*lists) for lists in zip(scored.rows, scored.scores, truths, strict=True))
    if problem.config.normalize == "children":  # sums over children are rounded differently
        assert np.allclose(found.scores, scored.scores, atol=TOLERANCE)
    else:
        assert (found.rows == scored.rows).all()
        assert (found.scores == scored.scores).all()


@given(problems)
@settings(max_examples=200, deadline=None, derandomize=True)
def test_lists_equal_the_search_among_their_items_alone(problem):
    """Every user alone, on a catalogue of the items that the user may get: the same items, whatever is normalised."""
    problem.config = problem.config.model_copy(update={"beams": len(problem.codes)})
    found = search(problem)
    for user in range(len(problem.histories)):
        wanted = np.array(problem.wanted(user), np.int64)
        if not len(wanted):
            assert (found.rows[user] == -1).all()
            continue
        alone, history = ItemTrie.build(problem.codes[wanted], problem.scorer.level_sizes), problem.histories[user]
        scorer = OfHistory(problem.scorer, Histories.of([history]))
        request = Request(problem.request.k, exclude_seen=False)
        expected = beam_search(scorer, alone, Histories.of([[]]), request, problem.config, RUN)
        listed = expected.rows[0] >= 0
        rows = np.where(listed, wanted[np.where(listed, expected.rows[0], 0)], -1)
        assert np.allclose(found.scores[user], expected.scores[0], atol=TOLERANCE)
        if problem.config.normalize != "children":  # there, sums of another length are rounded differently
            assert found.rows[user].tolist() == rows.tolist()


class OfHistory:
    """A scorer that reads the same histories whatever it is given: rows may have other numbers in another trie."""

    def __init__(self, scorer: TableScorer, histories: Histories) -> None:
        self.level_sizes, self.has_end, self.step = scorer.level_sizes, scorer.has_end, scorer.step
        self.start = lambda _: scorer.start(histories)


def test_the_certificate_is_given_and_withheld():
    """The property above would hold of a search that never certifies, or of one that always could."""
    counts = Counter()
    for seed in range(150):
        problem = random_problem(seed, "level", beams=2)
        problem.request = Request(k=1)
        found = search(problem)
        for user in range(len(problem.histories)):
            truth = item_scores(problem, user)
            counts[bool(found.exact[user]), is_top_k(found.rows[user], found.scores[user], truth)] += 1
    assert counts[True, False] == 0
    assert counts[True, True] > 50
    assert counts[False, False] > 5


@given(problems, st.integers(0, 2**32), st.integers(1, 5), st.booleans())
@settings(max_examples=100, deadline=None, derandomize=True)
def test_order_and_batch_of_users_do_not_matter(problem, seed, users_per_batch, exact):
    found = search(problem, exact=exact)
    order = np.random.default_rng(seed).permutation(len(problem.histories))
    problem.keep_users(order)
    problem.config = problem.config.model_copy(update={"users_per_batch": users_per_batch})
    again = search(problem, exact=exact)
    assert (again.rows == found.rows[order]).all()
    assert (again.scores == found.scores[order]).all()
    assert (again.exact == found.exact[order]).all()


def large_problem(**request: object) -> Problem:
    draw = np.random.default_rng(3)
    codes = draw.integers(8, size=(700, 3)).astype(np.int32)
    histories = Histories.of(draw.integers(700, size=length) for length in (0, 30, 5, 5, 80))
    scorer = TableScorer((8, 8, 8), has_end=True)
    return Problem(codes, scorer, histories, Request(**{"k": 10, **request}), BeamConfig(beams=10, users_per_batch=2))


@pytest.mark.parametrize("normalize", ["level", "children"])
def test_exact_search_falls_back_on_scoring_everything_in_chunks(monkeypatch, normalize):
    monkeypatch.setattr(beam, "LIMIT", 0)
    monkeypatch.setattr(exhaustive, "CHUNK_LEAVES", 37)
    calls = []
    whole = beam.rank_all
    monkeypatch.setattr(beam, "rank_all", lambda *args: calls.append(1) or whole(*args))
    problem = large_problem()
    problem.config = problem.config.model_copy(update={"normalize": normalize})
    plain, found = search(problem), search(problem, exact=True)
    assert (~plain.exact).any()
    assert calls
    assert found.exact.all()
    for user in range(len(problem.histories)):
        assert is_top_k(found.rows[user], found.scores[user], item_scores(problem, user))


def test_exact_search_goes_on_only_for_who_needs_it():
    class Counting(TableScorer):
        def start(self, histories: Histories) -> TableState:
            started.append(len(histories))
            return super().start(histories)

        def step(self, state, level, parents_UW, codes_UW):
            scored.append(len(state.users_U) * (1 if parents_UW is None else parents_UW.shape[1]))
            return super().step(state, level, parents_UW, codes_UW)

    started, scored = [], []
    problem = large_problem()
    problem.scorer = Counting((8, 8, 8), sharpness=1.4)
    problem.config = BeamConfig(beams=10, users_per_batch=5)
    lacking = (~search(problem).exact).sum()
    assert 0 < lacking < len(problem.histories)
    plain = sum(scored)
    started.clear()
    scored.clear()
    assert search(problem, exact=True).exact.all()
    assert sum(started) == len(problem.histories)
    assert plain < sum(scored) < 2 * plain


def test_excluded_items_never_hold_a_beam():
    # All but one item of the best branch are seen; one beam must still find the best unseen item.
    problem = large_problem(k=1)
    problem.config = BeamConfig(beams=1)
    best = search(problem).rows[0, 0]
    problem.histories = Histories.of([np.setdiff1d(np.arange(700), [best])])
    found = search(problem)
    assert found.rows.tolist() == [[best]]
    assert found.exact.all()


def test_who_has_seen_everything_gets_an_empty_list():
    problem = large_problem(k=3)
    problem.histories = Histories.of([np.arange(700), [1]])
    found = search(problem)
    assert found.rows[0].tolist() == [-1, -1, -1]
    assert (found.scores[0] == -np.inf).all()
    assert found.exact[0]
    assert (found.rows[1] >= 0).all()


def test_seen_items_may_be_recommended_when_asked():
    problem = large_problem(k=700, exclude_seen=False)
    assert sorted(search(problem).rows[4].tolist()) == list(range(700))


def test_fewer_items_than_asked():
    problem = large_problem(k=5, allowed=np.isin(np.arange(700), [10, 20, 30]))
    problem.histories = Histories.of([[10], []])
    found = search(problem)
    assert set(found.rows[0].tolist()) == {20, 30, -1}
    assert found.rows[0].tolist()[2:] == [-1, -1, -1]
    assert set(found.rows[1].tolist()[:3]) == {10, 20, 30}
    assert found.exact.all()


def test_users_of_one_batch_have_lists_of_their_own():
    masks = np.stack([np.arange(700) % 7 == market for market in range(3)])
    of_user = np.array([2, 0, 0, 1, 2])
    for denied in (None, np.arange(700) % 2 == 0):
        problem = large_problem(allowed=Filters(masks, of_user), denied=denied)
        problem.config = BeamConfig(beams=10, users_per_batch=5)
        found = search(problem)
        assert (found.rows >= 0).all()
        assert (found.rows % 7 == of_user[:, None]).all()
        assert denied is None or (found.rows % 2 == 1).all()
        for user, market in enumerate(of_user):
            problem.request = Request(10, allowed=masks[market], denied=denied)
            assert (search(problem).rows[user] == found.rows[user]).all()


def test_only_some_items_of_a_leaf_are_allowed():
    codes = np.array([[0], [1], [0], [0], [1], [0]], np.int32)  # leaf 0: rows 0, 2, 3, 5
    request = Request(k=4, allowed=np.isin(np.arange(6), [1, 2, 3, 5]), denied=np.arange(6) == 3)
    for rank in (beam_search, exhaustive_ranking):
        found = rank(
            TableScorer((2,)), ItemTrie.build(codes, (2,)), Histories.of([[5], []]), request, BeamConfig(), RUN
        )
        assert [sorted(rows) for rows in found.rows.tolist()] == [[-1, -1, 1, 2], [-1, 1, 2, 5]]


def test_items_with_equal_codes_are_all_listed_in_row_order():
    codes = np.array([[1, 1], [0, 0], [1, 1], [1, 1], [0, 1]], np.int32)
    scorer = TableScorer((2, 2))
    found = beam_search(
        scorer, ItemTrie.build(codes, (2, 2)), Histories.of([[2]]), Request(k=4), BeamConfig(beams=8), RUN
    )
    assert sorted(found.rows[0].tolist()) == [0, 1, 3, 4]
    place = found.rows[0].tolist().index(0)
    assert found.rows[0, place + 1] == 3
    assert found.scores[0, place + 1] == found.scores[0, place]


def test_equal_scores_go_to_the_lower_codes():
    codes = np.array([[1, 1], [0, 1], [1, 0], [0, 0]], np.int32)
    scorer = TableScorer((2, 2), sharpness=0.0)
    found = beam_search(scorer, ItemTrie.build(codes, (2, 2)), Histories.of([[]]), Request(k=4), BeamConfig(), RUN)
    assert found.rows.tolist() == [[3, 1, 2, 0]]


def test_no_users():
    problem = large_problem()
    problem.histories = Histories.of([])
    for found in (
        search(problem),
        exhaustive_ranking(problem.scorer, problem.trie, problem.histories, problem.request, problem.config, RUN),
    ):
        assert found.rows.shape == found.scores.shape == (0, 10)
        assert found.exact.shape == (0,)


def test_progress_counts_users():
    class Counter:
        def __init__(self) -> None:
            self.total, self.done = 0.0, 0.0

        def __call__(self, task, total):
            self.total = total
            return self

        def __enter__(self):
            return self.advance

        def __exit__(self, *exc):
            return None

        def advance(self, steps=1, note=""):
            self.done += steps

    counter, problem = Counter(), large_problem()
    beam_search(
        problem.scorer, problem.trie, problem.histories, problem.request, problem.config, RunSettings(progress=counter)
    )
    assert counter.total == counter.done == 5


@pytest.mark.parametrize("rank", [beam_search, exhaustive_ranking])
def test_bad_input_is_refused(rank):
    class Broken(TableScorer):
        def step(self, state, level, parents_UW, codes_UW):
            logp = super().step(state, level, parents_UW, codes_UW)
            return logp * torch.nan if level == 2 else logp

    problem = large_problem()
    rest = (problem.request, problem.config, RUN)
    with pytest.raises(DataError, match=r"levels \(8, 8\), the trie \(8, 8, 8\)"):
        rank(TableScorer((8, 8)), problem.trie, problem.histories, *rest)
    with pytest.raises(DataError, match="names row 700"):
        rank(problem.scorer, problem.trie, Histories.of([[700]]), *rest)
    with pytest.raises(DataError, match="not numbers"):
        rank(Broken((8, 8, 8)), problem.trie, problem.histories, *rest)
    half = np.arange(700) < 350
    with pytest.raises(ConstraintError, match="no item that can be recommended"):
        rank(problem.scorer, problem.trie, problem.histories, Request(allowed=half, denied=half), *rest[1:])
    with pytest.raises(DataError, match=r"the allow-list has 350 entries"):
        rank(problem.scorer, problem.trie, problem.histories, Request(allowed=half[:350]), *rest[1:])
