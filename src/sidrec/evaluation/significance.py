"""How sure a mean or a difference of means is: percentile bootstrap over users (Efron and Tibshirani, 1993).

Users are drawn with replacement, each with all of its examples (a cluster bootstrap; Davison and Hinkley,
1997, section 3.8): a user's examples under a temporal split are not independent. With one example a user
this is the plain bootstrap.

Drawing users draws a multinomial count for every *distinct* user, so users whose examples sum up alike
are drawn together: ranking metrics have few distinct values, and ten thousand resamples of any number
of users take milliseconds. Left out: corrections for many comparisons.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

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


def bootstrap_mean(
    values: FloatArray,
    seed: int,
    resamples: int = 10_000,
    level: float = 0.95,
    users: npt.NDArray[Any] | None = None,
) -> Interval:
    """Mean over examples and its percentile interval over users.

    Args:
        values: float[E], one an example.
        seed: of the resamples.
        resamples: number of bootstrap samples.
        level: share of the bootstrap means inside the interval.
        users: [E], whose example it is (numbers or names); None means that each is another user's.

    Raises:
        DataError: there are no users.

    >>> bootstrap_mean(np.array([0.5, 0.5, 0.5]), seed=0)
    Interval(mean=0.5, low=0.5, high=0.5)
    """
    if not len(values):
        raise DataError("an interval of no users does not exist", expected="at least one user")
    values = np.asarray(values, dtype=np.float64)
    sums, sizes = (values, np.ones(len(values))) if users is None else _by_user(values, users)
    distinct, counts = np.unique(np.stack([sums, sizes], axis=1), axis=0, return_counts=True)
    draw = generator(seed, "bootstrap")
    step = max(1, CHUNK // len(distinct))
    means: list[FloatArray] = []
    for start in range(0, resamples, step):
        times = draw.multinomial(len(sums), counts / len(sums), size=min(step, resamples - start))
        total, examples = (times @ distinct).T
        means.append(total / examples)
    low, high = np.quantile(np.concatenate(means), [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(np.mean(values)), float(low), float(high))


def paired_bootstrap(
    values: FloatArray,
    others: FloatArray,
    seed: int,
    resamples: int = 10_000,
    level: float = 0.95,
    users: npt.NDArray[Any] | None = None,
) -> Interval:
    """Mean of `values - others` over the same examples and its percentile interval over users.

    Args:
        values: float[E] of one recommender.
        others: float[E] of another one, examples in the same order.
        seed: of the resamples.
        resamples: number of bootstrap samples.
        level: share of the bootstrap means inside the interval.
        users: [E], whose example it is; None means that each is another user's.

    Raises:
        DataError: the two have different numbers of examples, or none.
    """
    if len(values) != len(others):
        raise DataError(
            f"{len(values)} and {len(others)} users cannot be paired", expected="the same users in the same order"
        )
    difference = np.asarray(values, np.float64) - np.asarray(others, np.float64)
    return bootstrap_mean(difference, seed, resamples, level, users)


def _by_user(values: FloatArray, users: npt.NDArray[Any]) -> tuple[FloatArray, FloatArray]:
    """Sum and number of each user's examples."""
    owner = np.unique(users, return_inverse=True)[1]
    sums, sizes = np.bincount(owner, weights=values), np.bincount(owner)
    return sums.astype(np.float64), sizes.astype(np.float64)
