"""How sure a mean or a difference of means is: percentile bootstrap over users (Efron and Tibshirani, 1993).

Drawing U users with replacement draws a multinomial count for every *distinct* value that users have.
Ranking metrics have few distinct values, so ten thousand resamples of any number of users take
milliseconds and are exactly the textbook bootstrap. Left out: corrections for many comparisons.
"""

from dataclasses import dataclass

import numpy as np

from sidrec.errors import DataError
from sidrec.random import generator
from sidrec.types import FloatArray

__all__ = ["Interval", "bootstrap_mean", "paired_bootstrap"]

CHUNK = 4_000_000
"""Counts held in memory at once."""


@dataclass(frozen=True)
class Interval:
    """A mean with its bootstrap interval."""

    mean: float
    low: float
    high: float

    @property
    def excludes_zero(self) -> bool:
        """Whether 0 lies outside."""
        return self.low > 0 or self.high < 0


def bootstrap_mean(values: FloatArray, seed: int, resamples: int = 10_000, level: float = 0.95) -> Interval:
    """Mean of per-user values and its percentile interval.

    Args:
        values: float[U].
        seed: of the resamples.
        resamples: number of bootstrap samples.
        level: share of the bootstrap means inside the interval.

    Raises:
        DataError: there are no users.

    >>> bootstrap_mean(np.array([0.5, 0.5, 0.5]), seed=0)
    Interval(mean=0.5, low=0.5, high=0.5)
    """
    if not len(values):
        raise DataError("an interval of no users does not exist", expected="at least one user")
    distinct, counts = np.unique(np.asarray(values, dtype=np.float64), return_counts=True)
    share = counts / counts.sum()
    draw = generator(seed, "bootstrap")
    step = max(1, CHUNK // len(distinct))
    means = [
        draw.multinomial(len(values), share, size=min(step, resamples - start)) @ distinct / len(values)
        for start in range(0, resamples, step)
    ]
    low, high = np.quantile(np.concatenate(means), [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(np.mean(values)), float(low), float(high))


def paired_bootstrap(
    values: FloatArray, others: FloatArray, seed: int, resamples: int = 10_000, level: float = 0.95
) -> Interval:
    """Mean of `values - others` over the same users and its percentile interval.

    Args:
        values: float[U] of one recommender.
        others: float[U] of another one, users in the same order.
        seed: of the resamples.
        resamples: number of bootstrap samples.
        level: share of the bootstrap means inside the interval.

    Raises:
        DataError: the two have different numbers of users, or none.
    """
    if len(values) != len(others):
        raise DataError(
            f"{len(values)} and {len(others)} users cannot be paired", expected="the same users in the same order"
        )
    return bootstrap_mean(np.asarray(values, np.float64) - np.asarray(others, np.float64), seed, resamples, level)
