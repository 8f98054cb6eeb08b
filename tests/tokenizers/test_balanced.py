"""Balanced assignment against the optimum, its bounds whatever the input, and k-means built on it."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from sidrec.errors import DataError
from sidrec.testing.tokenizer_contract import blobs
from sidrec.tokenizers import balanced
from sidrec.tokenizers.balanced import _Auction, balanced_codes, balanced_kmeans, size_bounds
from sidrec.tokenizers.kmeans import kmeans
from sidrec.tokenizers.residual import nearest_codes, squared_distances


def least_cost(distances: np.ndarray, min_size: int, max_size: int) -> float:
    """The optimum by linear assignment: a code is `max_size` seats, of which dummies may not take the first ones."""
    points, codes = distances.shape
    seats = np.repeat(np.arange(codes), max_size)
    must_be_taken = np.tile(np.arange(max_size) < min_size, codes)
    cost = np.zeros((len(seats), len(seats)))
    cost[:points] = distances[:, seats]
    cost[points:, must_be_taken] = 1e6
    rows, columns = linear_sum_assignment(cost)
    return float(cost[rows, columns].sum())


@st.composite
def problems(draw: st.DrawFn) -> tuple[np.ndarray, int, int]:
    codes = draw(st.integers(1, 7))
    points = draw(st.integers(codes, 40))
    least = draw(st.integers(0, points // codes))
    most = draw(st.integers(max(1, -(-points // codes)), points))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    around = rng.normal(size=(points, 2))
    if draw(st.booleans()):
        around = np.round(around)  # many equal points
    offset = draw(st.sampled_from([0.0, 100.0, -100.0]))
    centres = rng.normal(size=(codes, 2)) * draw(st.sampled_from([0.0, 0.1, 1.0]))
    return (np.square(around[:, None] - centres).sum(2) + offset).astype(np.float32), least, most


def excess(distances: np.ndarray, codes: np.ndarray, least: int, most: int) -> float:
    """Cost above the optimum, a point, as a share of the spread of the distances."""
    cost = distances[np.arange(len(codes)), codes].sum(dtype=np.float64)
    above = cost - least_cost(distances, least, most) - 1e-3
    return max(0.0, above) / (len(codes) * max(float(distances.max() - distances.min()), 1e-9))


@settings(max_examples=150, deadline=None)
@given(problems())
def test_bounds_hold_and_the_cost_is_near_the_optimum(problem: tuple[np.ndarray, int, int]) -> None:
    distances, least, most = problem
    codes = balanced_codes(torch.from_numpy(distances), least, most).numpy()
    counts = np.bincount(codes, minlength=distances.shape[1])
    assert counts.min() >= least
    assert counts.max() <= most
    # The steps grow so that auctions end, so the worst case has no tight bound: a search for one finds 0.008.
    assert excess(distances, codes, least, most) <= 0.05


def test_the_cost_is_usually_the_optimum() -> None:
    draw, found = np.random.default_rng(0), []
    for _ in range(300):
        size = int(draw.integers(2, 8))
        points = int(draw.integers(size, 41))
        least, most = int(draw.integers(0, points // size + 1)), int(draw.integers(-(-points // size), points + 1))
        around = draw.normal(size=(points, 2)).round(int(draw.integers(0, 5)))
        distances = np.square(around[:, None] - draw.normal(size=(size, 2))).sum(2).astype(np.float32)
        codes = balanced_codes(torch.from_numpy(distances), least, most).numpy()
        found.append(excess(distances, codes, least, most))
    assert np.mean(np.array(found) > 0) <= 0.02
    assert max(found) <= 0.005


@settings(max_examples=50, deadline=None)
@given(problems(), st.integers(0, 3))
def test_bounds_hold_even_when_the_rounds_run_out(problem: tuple[np.ndarray, int, int], rounds: int) -> None:
    distances, least, most = problem
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(balanced, "ROUNDS", rounds)
        codes = balanced_codes(torch.from_numpy(distances), least, most)
    counts = codes.bincount(minlength=distances.shape[1])
    assert counts.min() >= least
    assert counts.max() <= most


@pytest.mark.parametrize(("least", "most"), [(3, 3), (0, 3), (2, 6), (0, 18)])
def test_equal_points_are_shared_out(least: int, most: int) -> None:
    counts = balanced_codes(torch.ones(18, 6), least, most).bincount(minlength=6)
    assert counts.min() >= least
    assert counts.max() <= most


def test_without_bounds_the_nearest_code_wins() -> None:
    distances = torch.rand(50, 7, generator=torch.Generator().manual_seed(0))
    assert torch.equal(balanced_codes(distances, 0, 50), distances.argmin(1))


def test_as_many_codes_as_points_is_the_assignment_problem() -> None:
    distances = torch.rand(30, 30, generator=torch.Generator().manual_seed(1))
    codes = balanced_codes(distances, 1, 1)
    assert sorted(codes.tolist()) == list(range(30))
    best = linear_sum_assignment(distances.numpy())[1]
    assert distances[range(30), codes].sum() <= 1.01 * distances[range(30), best].sum()


def test_impossible_bounds_are_refused() -> None:
    with pytest.raises(DataError, match="10 points cannot be shared out to 3 codes with 1 to 3 points each"):
        balanced_codes(torch.rand(10, 3), 1, 3)


@given(st.integers(1, 10**7), st.integers(1, 5000), st.integers(1, 100), st.integers(1, 8))
def test_bounds_are_always_feasible(points: int, clusters: int, most: int, ratio: int) -> None:
    least, largest = size_bounds(points, clusters, most=most, ratio=ratio)
    assert 0 <= clusters * least <= points <= clusters * largest


def test_bounds_are_those_of_letter() -> None:
    assert size_bounds(10_000, 256) == (10_000 // 512, 4 * (10_000 // 512))
    assert size_bounds(256, 10, most=10, ratio=6) == (10, 60)


def test_clusters_are_bounded_and_their_error_is_near_that_of_free_ones() -> None:
    points = torch.from_numpy(blobs(1000, 8, clusters=7, seed=2))
    centres, codes = balanced_kmeans(points, 20, min_size=25, max_size=100)
    counts = codes.bincount(minlength=20)
    assert centres.shape == (20, 8)
    assert counts.min() >= 25
    assert counts.max() <= 100
    inertia = (points - centres[codes]).square().sum()
    free = nearest_codes(points, kmeans(points, 20))[1].sum()
    assert inertia < 1.1 * free


def test_centres_are_the_means_of_their_clusters_and_equal_seeds_give_equal_bits() -> None:
    points = torch.from_numpy(blobs(300, 4, seed=5))
    centres, codes = balanced_kmeans(points, 12, min_size=20, max_size=30, seed=3)
    for code, centre in enumerate(centres):
        torch.testing.assert_close(centre, points[codes == code].mean(0))
    again = balanced_kmeans(points, 12, min_size=20, max_size=30, seed=3)
    assert torch.equal(again[0], centres)
    assert torch.equal(again[1], codes)
    assert not torch.equal(balanced_kmeans(points, 12, min_size=20, max_size=30, seed=4)[0], centres)


def test_more_clusters_than_distinct_points() -> None:
    points = torch.tensor([[1.0, 2.0]] * 9 + [[5.0, 5.0]] * 3)
    centres, codes = balanced_kmeans(points, 4, min_size=2, max_size=4)
    assert len(centres) == 4
    counts = codes.bincount(minlength=4)
    assert counts.min() >= 2
    assert counts.max() <= 4


def test_one_cluster_and_a_cluster_for_every_point() -> None:
    points = torch.from_numpy(blobs(10, 3))
    centres, codes = balanced_kmeans(points, 1, min_size=10, max_size=10)
    torch.testing.assert_close(centres[0], points.mean(0))
    assert codes.tolist() == [0] * 10
    centres, codes = balanced_kmeans(points, 10, min_size=1, max_size=1)
    torch.testing.assert_close(centres[codes], points)


def test_an_iteration_ends_where_lloyd_with_the_optimal_assignment_ends() -> None:
    """One step by hand: distances, optimum, means."""
    points = torch.tensor([[0.0], [0.1], [0.2], [10.0]])
    centres, codes = balanced_kmeans(points, 2, min_size=2, max_size=2)
    assert least_cost(squared_distances(points, centres).numpy(), 2, 2) == pytest.approx(
        float((points - centres[codes]).square().sum()), rel=1e-5
    )
    assert sorted(round(centre, 3) for centre in centres[:, 0].tolist()) == [0.05, 5.1]


def test_many_equal_points_end_the_auction_early() -> None:
    points = torch.from_numpy(np.random.default_rng(0).normal(size=(600, 4)).astype(np.float32))
    points[:300] = points[0]
    rounds = 0
    shed, attract = _Auction._shed, _Auction._attract

    def counted(step: Any) -> Any:
        def run(self: _Auction, epsilon: float) -> int:
            nonlocal rounds
            rounds += 1
            return step(self, epsilon)

        return run

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(balanced, "STALE_WORK", 0)  # As in a problem of millions of distances.
        patch.setattr(_Auction, "_shed", counted(shed))
        patch.setattr(_Auction, "_attract", counted(attract))
        codes = balanced_codes(torch.cdist(points, points[300:320]).square(), 15, 60)
    assert rounds < 150
    sizes = torch.bincount(codes, minlength=20)
    assert sizes.min() >= 15
    assert sizes.max() <= 60
