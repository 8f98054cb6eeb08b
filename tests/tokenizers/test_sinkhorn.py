"""Against the published loop, written out."""

import numpy as np
import torch

from sidrec.tokenizers.sinkhorn import sinkhorn, sinkhorn_codes


def published(distances: np.ndarray, epsilon: float, iterations: int) -> np.ndarray:
    """The algorithm as the papers' code performs it, one division at a time."""
    num_points, num_codes = distances.shape
    middle = (distances.max() + distances.min()) / 2
    plan = np.exp(-((distances - middle) / (distances.max() - middle + 1e-5)) / epsilon)
    plan /= plan.sum()
    for _ in range(iterations):
        for point in range(num_points):
            plan[point] /= plan[point].sum()
            plan[point] /= num_points
        for code in range(num_codes):
            plan[:, code] /= plan[:, code].sum()
            plan[:, code] /= num_codes
    return plan * num_points


def random_distances(points: int, codes: int, seed: int = 0) -> torch.Tensor:
    draw = np.random.default_rng(seed)
    return torch.from_numpy(np.square(draw.normal(size=(points, 1, 32)) - draw.normal(size=(1, codes, 32))).sum(2))


def test_equals_the_published_loop() -> None:
    for epsilon in (0.003, 0.05):
        distances = random_distances(24, 6)
        np.testing.assert_allclose(
            sinkhorn(distances, epsilon, 50).numpy(), published(distances.numpy(), epsilon, 50), rtol=1e-7, atol=1e-12
        )


def test_usage_is_even_on_a_large_batch() -> None:
    distances = random_distances(1024, 256)
    usage = torch.bincount(sinkhorn_codes(distances), minlength=256)
    assert int(usage.min()) >= 3
    assert int(usage.max()) <= 5
    assert int(torch.bincount(distances.argmin(1), minlength=256).max()) > 10, "arg-min would be uneven"


def test_small_epsilon_does_not_overflow() -> None:
    assert torch.isfinite(sinkhorn(random_distances(32, 16), epsilon=0.0005)).all()


def test_identical_rows_get_different_codes() -> None:
    distances = random_distances(1, 16).repeat(6, 1)
    assert sinkhorn_codes(distances).unique().numel() == 1, "the plan alone cannot tell them apart"
    spread = sinkhorn_codes(distances, spread_ties=True)
    assert spread.tolist() == distances[0].argsort()[:6].tolist(), "the nearest codes in turn"


def test_identical_rows_beyond_the_codebook_wrap_around() -> None:
    spread = sinkhorn_codes(random_distances(1, 3).repeat(7, 1), spread_ties=True)
    assert torch.bincount(spread).sort().values.tolist() == [2, 2, 3]
