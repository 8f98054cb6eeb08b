import itertools
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ranx import Qrels, Run
from ranx import evaluate as ranx_evaluate

from sidrec.evaluation.ranking import collapse, find_target, has_open_tie, metric_values

K = (1, 2, 3)


def test_four_users_by_hand():
    # Places of the targets: 1, 3, tied over 2-3, nowhere.
    rows = np.array([[5, 1, 2], [3, 1, 5], [0, 5, 2], [1, 2, -1]], np.int32)
    scores = np.array([[0.9, 0.5, 0.1], [0.9, 0.5, 0.1], [0.9, 0.5, 0.5], [0.9, 0.5, -np.inf]], np.float32)
    places = find_target(rows, scores, np.full(4, 5, np.int32))
    values = metric_values(places, K)
    third, second = 1 / np.log2(4), 1 / np.log2(3)

    assert places.ranks.tolist() == [1, 3, 2.5, np.inf]
    assert values["hit@1"].tolist() == [1, 0, 0, 0]
    assert values["hit@2"].tolist() == [1, 0, 0.5, 0]
    assert values["hit@3"].tolist() == [1, 1, 1, 0]
    np.testing.assert_allclose(values["ndcg@2"], [1, 0, second / 2, 0])
    np.testing.assert_allclose(values["ndcg@3"], [1, third, (second + third) / 2, 0])
    np.testing.assert_allclose(values["mrr@2"], [1, 0, 1 / 4, 0])
    np.testing.assert_allclose(values["mrr@3"], [1, 1 / 3, (1 / 2 + 1 / 3) / 2, 0])
    assert np.array_equal(values["recall@2"], values["hit@2"])


def test_listed_rule_takes_the_place_in_the_list():
    rows, scores = np.array([[7, 8, 9]]), np.ones((1, 3), np.float32)
    assert [find_target(rows, scores, np.array([item]), "listed").ranks[0] for item in (7, 8, 9)] == [1, 2, 3]
    assert [find_target(rows, scores, np.array([item])).ranks[0] for item in (7, 8, 9)] == [2, 2, 2]


def test_places_without_an_item_are_no_part_of_a_tie():
    rows = np.array([[4, 6, -1, -1]])
    scores = np.array([[0.5, 0.5, 0.5, 0.5]])  # even if their score were equal
    places = find_target(rows, scores, np.array([6]))
    assert (places.lo[0], places.hi[0]) == (0, 2)


def test_empty_lists_hit_nothing():
    values = metric_values(find_target(np.zeros((2, 0), int), np.zeros((2, 0)), np.array([0, 1])), [5])
    assert all((column == 0).all() for column in values.values())


def lists(draw, unique_scores=False):
    num = draw(st.integers(1, 6))
    levels = st.lists(st.integers(0, 3), min_size=num, max_size=num)
    scores = list(range(num, 0, -1)) if unique_scores else sorted(draw(levels), reverse=True)
    rows = draw(st.permutations(range(8)))[:num]
    return np.array(rows), np.array(scores, dtype=np.float32), draw(st.integers(0, 7))


def orders(scores):
    """All orders of the list that differ only inside groups of equal score, as tuples of positions."""
    groups = [list(group) for _, group in itertools.groupby(range(len(scores)), key=lambda i: scores[i])]
    for choice in itertools.product(*(itertools.permutations(group) for group in groups)):
        yield tuple(itertools.chain(*choice))


def slow_metrics(items, target, k):
    """One list, one target, by loops."""
    hit = ndcg = mrr = 0.0
    for rank, item in enumerate(items[:k], start=1):
        if item == target:
            hit, ndcg, mrr = 1.0, 1 / np.log2(rank + 1), 1 / rank
    return {f"hit@{k}": hit, f"recall@{k}": hit, f"ndcg@{k}": ndcg, f"mrr@{k}": mrr}


@settings(max_examples=80, deadline=None)
@given(st.data(), st.integers(1, 7))
def test_expected_is_the_mean_over_all_orders_of_ties(data, k):
    rows, scores, target = lists(data.draw)
    found = metric_values(find_target(rows[None], scores[None], np.array([target])), [k])
    all_orders = [slow_metrics(rows[list(order)], target, k) for order in orders(scores)]
    for name, column in found.items():
        assert column[0] == pytest.approx(np.mean([values[name] for values in all_orders]), abs=1e-12)


def by_ranx(runs, targets, k):
    """Metrics of users by ranx; `runs` are item lists in strict order."""
    qrels = Qrels({f"u{user}": {f"i{target}": 1} for user, target in enumerate(targets)})
    run = Run(
        {f"u{u}": {f"i{item}": float(len(items) - n) for n, item in enumerate(items)} for u, items in enumerate(runs)}
    )
    names = {"hit_rate": "hit", "recall": "recall", "ndcg": "ndcg", "mrr": "mrr"}
    found = ranx_evaluate(qrels, run, [f"{name}@{k}" for name in names], return_mean=False, threads=1)
    # ranx sorts users by their names.
    order = np.argsort(np.argsort([f"u{user}" for user in range(len(runs))]))
    return {f"{ours}@{k}": np.asarray(found[f"{theirs}@{k}"])[order] for theirs, ours in names.items()}


def test_expected_equals_ranx_averaged_over_the_orders_of_random_ties():
    draw = np.random.default_rng(3)
    for _ in range(4):
        rows = draw.permutation(9)[:5]
        scores = np.sort(draw.integers(0, 3, 5))[::-1].astype(np.float32)
        target, k = int(draw.choice(rows)), int(draw.integers(1, 6))
        shuffled = [rows[list(order)] for order in orders(scores)]
        theirs = by_ranx(shuffled, [target] * len(shuffled), k)
        ours = metric_values(find_target(rows[None], scores[None], np.array([target])), [k])
        for name, column in ours.items():
            assert column[0] == pytest.approx(theirs[name].mean(), abs=1e-9), (name, rows, scores, target)


def test_listed_equals_ranx_on_strict_orders():
    draw = np.random.default_rng(4)
    rows = np.array([draw.permutation(30)[:10] for _ in range(40)])
    targets = draw.integers(0, 30, 40)
    scores = np.tile(np.arange(10, 0, -1, dtype=np.float32), (40, 1))
    for k in (1, 5, 10):
        ours = metric_values(find_target(rows, scores, targets, "listed"), [k])
        theirs = by_ranx(rows, targets, k)
        for name, column in ours.items():
            np.testing.assert_allclose(column, theirs[name], atol=1e-9, err_msg=name)


def test_collapse_keeps_the_first_place_of_every_code_tuple():
    group_of = np.array([0, 1, 1, 2, 0])
    rows = np.array([[1, 2, 3, 4, 0], [4, 0, 1, -1, -1]])
    scores = np.array([[5.0, 5, 4, 3, 2], [9.0, 9, 8, -np.inf, -np.inf]])
    tuples, kept = collapse(rows, scores, group_of)
    assert tuples.tolist() == [[1, 2, 0, -1, -1], [0, 1, -1, -1, -1]]
    assert kept[0, :3].tolist() == [5, 4, 3]
    assert kept[1, :2].tolist() == [9, 8]
    assert (kept[tuples < 0] == -np.inf).all()


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.integers(-1, 5), min_size=6, max_size=6), min_size=1, max_size=4), st.integers(0, 2**16))
def test_collapse_equals_a_loop(lists_of_rows, seed):
    group_of = np.random.default_rng(seed).integers(0, 3, 6)
    rows = np.array(lists_of_rows)
    tuples, _ = collapse(rows, -np.arange(rows.size, dtype=float).reshape(rows.shape), group_of)
    for line, found in zip(rows, tuples, strict=True):
        expected = list(dict.fromkeys(int(group_of[row]) for row in line if row >= 0))
        assert found.tolist() == expected + [-1] * (6 - len(expected))


def test_open_ties_are_noticed():
    rows = np.array([[0, 1, 2], [0, 1, 2], [0, 1, -1]])
    scores = np.array([[3.0, 2, 2], [3.0, 2, 1], [3.0, 2, -np.inf]])
    assert has_open_tie(rows, scores, 2).tolist() == [True, False, False]
    assert not has_open_tie(rows, scores, 3).any()


def test_25k_users_take_a_blink():
    draw = np.random.default_rng(0)
    rows = np.argsort(draw.random((25_000, 40)), axis=1)[:, :20].astype(np.int32)
    scores = -np.sort(draw.integers(0, 50, (25_000, 20)), axis=1).astype(np.float32)
    targets = draw.integers(0, 40, 25_000).astype(np.int32)
    seconds = []
    for _ in range(5):
        start = time.process_time()
        metric_values(find_target(rows, scores, targets), (1, 5, 10, 20))
        seconds.append(time.process_time() - start)
    assert min(seconds) < 0.05
