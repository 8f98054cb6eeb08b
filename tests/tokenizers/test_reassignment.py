"""Moves by vectors: cheapest by brute force, crowds, metrics, and the published repair as loops."""

from itertools import permutations

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from sidrec.tokenizers.collisions import settle_codes
from sidrec.tokenizers.placement import Quantized
from sidrec.tokenizers.reassignment import NearestFree, SinkhornReassign

from .problems import matrix, on_a_line, quantized_of, random_problem, residual, table


def test_the_nearest_item_keeps_its_code() -> None:
    settled = settle_codes(NearestFree.Config(), on_a_line([0.4, 0.1, 0.2], [0.0, 1.0, 2.0, 9.0]))
    assert settled.codes[1].tolist() == [0, 0]
    assert sorted(settled.codes[:, 1].tolist()) == [0, 1, 2]
    assert (settled.num_moved, settled.num_far) == (2, 0)


@pytest.mark.parametrize("seed", range(20))
def test_moves_are_the_cheapest(seed: int) -> None:
    draw = np.random.default_rng(seed)
    book = np.sort(draw.normal(size=6)).tolist()
    quantized = on_a_line((book[2] + draw.normal(size=4) * 1e-3).tolist(), book)
    settled = settle_codes(NearestFree.Config(), quantized)
    points = quantized.latents[:, 0]
    keeper = int(np.argmin(np.abs(points - book[2])))
    movers = [row for row in range(4) if row != keeper]
    free = [code for code in range(6) if code != 2]
    best = min(
        sum((points[row] - book[code]) ** 2 for row, code in zip(movers, chosen, strict=True))
        for chosen in permutations(free, 3)
    )
    cost = sum((points[row] - book[settled.codes[row, 1]]) ** 2 for row in movers)
    assert settled.codes[keeper, 1] == 2
    assert cost == pytest.approx(best, rel=1e-4)


def test_what_is_near_depends_on_the_metric() -> None:
    # Both points are nearest to code 0; the second one, which must move, points along code 1 and lies near code 2.
    book = np.array([[1.0, 0.0], [3.0, 3.0], [1.0, 1.5], [0.0, 9.0]], np.float32)
    books = [np.zeros((1, 2), np.float32), book]
    latents = np.array([[1.0, 0.0], [1.0, 1.0]], np.float32)
    codes = np.array([[0, 0], [0, 0]], np.int32)
    chosen = {}
    for metric in ("l2", "cosine", "dot"):
        settled = settle_codes(NearestFree.Config(), Quantized(codes, (1, 4), latents, books, metric))
        assert settled.codes[0].tolist() == [0, 0]
        chosen[metric] = int(settled.codes[1, 1])
    assert chosen == {"l2": 2, "cosine": 1, "dot": 3}


def test_a_full_prefix_sends_the_rest_to_the_nearest_prefix() -> None:
    books = [np.array([[0.0], [10.0], [100.0]], np.float32), np.array([[-1.0], [1.0]], np.float32)]
    latents = np.array([[-1.0], [1.0], [1.2], [100.0]], np.float32)
    settled = settle_codes(NearestFree.Config(), quantized_of(latents, books))
    assert settled.codes.tolist() == [[0, 0], [0, 1], [1, 0], [2, 0]]
    assert (settled.num_moved, settled.num_far) == (1, 1)


@pytest.mark.parametrize("seed", range(5))
def test_a_crowd_shares_the_free_codes_as_cheaply_as_can_be(seed: int) -> None:
    draw = np.random.default_rng(seed)
    books = [np.array([[0.0, 0.0], [50.0, 0.0]], np.float32), draw.normal(size=(80, 2)).astype(np.float32)]
    latents = (books[1][0] + draw.normal(size=(150, 2)) * 0.02).astype(np.float32)
    codes = np.zeros((150, 2), np.int32)
    quantized = Quantized(codes, (2, 80), latents, books)
    settled = settle_codes(NearestFree.Config(), quantized)
    assert table(settled).num_collided == 0
    assert (settled.num_moved, settled.num_far, settled.num_crowded) == (149, 70, 1)
    here = np.flatnonzero(settled.codes[:, 0] == 0)
    costs = matrix(latents, books[1])
    keeper = int(costs[:, 0].argmin())
    movers = np.delete(np.arange(150), keeper)
    best = costs[movers][:, 1:][linear_sum_assignment(costs[movers][:, 1:])].sum()
    assert settled.codes[keeper].tolist() == [0, 0]
    assert costs[here, settled.codes[here, 1]].sum() - costs[keeper, 0] == pytest.approx(best)


def test_moves_fewer_and_loses_less_than_sinkhorn() -> None:
    quantized = random_problem(3, 60, (2, 2, 64), 1.0, round_to=2)
    near, spread = (settle_codes(config, quantized) for config in (NearestFree.Config(), SinkhornReassign.Config()))
    costs = np.stack([matrix(residual(quantized, row)[None], quantized.codebooks[-1])[0] for row in range(60)])
    lost = [costs[np.arange(60), settled.codes[:, -1]].sum() for settled in (near, spread)]
    assert near.num_moved == 60 - len(np.unique(quantized.codes, axis=0)) < spread.num_moved
    assert lost[0] < lost[1]


def plain_sinkhorn(cost: np.ndarray, epsilon: float, iterations: int) -> np.ndarray:
    """As the originals compute it, matrix and all."""
    middle = (cost.max() + cost.min()) / 2
    plan = np.exp(-((cost - middle) / (cost.max() - middle + 1e-5)).astype(np.float64) / epsilon)
    plan /= plan.sum()
    for _ in range(iterations):
        plan = plan / plan.sum(axis=1, keepdims=True) / len(plan)
        plan = plan / plan.sum(axis=0, keepdims=True) / plan.shape[1]
    return plan


@pytest.mark.parametrize("seed", range(10))
def test_faithful_is_the_originals_loop(seed: int) -> None:
    quantized = random_problem(seed, 40, (2, 2, 16), 1.0, round_to=2)
    config = SinkhornReassign.Config(faithful=True, rounds=3, epsilon=0.05)
    codes = [tuple(code) for code in quantized.codes.tolist()]
    for _ in range(config.rounds):
        groups = [[row for row, code in enumerate(codes) if code == one] for one in sorted(set(codes))]
        for rows in groups:
            if len(rows) > 1:
                points = np.stack([residual(quantized, row) for row in rows])
                plan = plain_sinkhorn(matrix(points, quantized.codebooks[-1]).astype(np.float32), 0.05, 50)
                for row, code in zip(rows, plan.argmax(axis=1).tolist(), strict=True):
                    codes[row] = (*codes[row][:-1], code)
    settled = settle_codes(config, quantized)
    assert settled.codes.tolist() == [list(code) for code in codes]
    assert settled.num_moved > 0


def test_faithful_leaves_copies_together() -> None:
    quantized = on_a_line([0.1] * 3, [0.0, 1.0, 5.0, 9.0])
    settled = settle_codes(SinkhornReassign.Config(faithful=True), quantized)
    assert len(np.unique(settled.codes, axis=0)) == 1
    assert settled.num_copies == 2


def test_sinkhorn_spreads_identical_items() -> None:
    settled = settle_codes(SinkhornReassign.Config(rounds=1), on_a_line([0.1] * 3, [0.0, 1.0, 5.0, 9.0]))
    assert sorted(settled.codes[:, 1].tolist()) == [0, 1, 2]
