"""Weights of an ensemble's members by a search over shares. Leaves out how a choice of weights is scored."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from sidrec.types import FloatArray

__all__ = ["FoundWeights", "find_weights"]

STEPS, MAX_ROUNDS = 10, 3
"""A member's share is a multiple of one tenth; the members take turns so many times at most."""


@dataclass(frozen=True)
class FoundWeights:
    """The best weights that a search has seen.

    Attributes:
        weights: float64[J], not negative, of sum 1.
        value: what they scored.
        start: what equal weights scored.
    """

    weights: FloatArray
    value: float
    start: float


def find_weights(num_members: int, score: Callable[[FloatArray], float]) -> FoundWeights:
    """Weights of J members, at least two, that score best; deterministic, and equal ones unless others are better.

    From equal weights on, one member after the other is given every share 0, 0.1 … 1 while the others divide the
    rest as they did; the best is kept, until a round changes nothing or three have passed. Of two members, one
    sweep tries all there is.

    >>> find_weights(2, lambda weights: -abs(weights[0] - 0.72)).weights.round(3).tolist()
    [0.7, 0.3]
    """
    seen: dict[tuple[float, ...], float] = {}

    def value_of(weights: FloatArray) -> float:
        key = tuple(weights.round(12).tolist())
        if key not in seen:
            seen[key] = score(weights)
        return seen[key]

    best = np.full(num_members, 1 / num_members)
    start = top = value_of(best)
    turns = range(1 if num_members == 2 else num_members)
    for _ in range(1 if num_members == 2 else MAX_ROUNDS):
        before = top
        for member in turns:
            # All shares of a member are tried against the same weights of the others.
            for trial in [_with_share(best, member, step / STEPS) for step in range(STEPS + 1)]:
                value = value_of(trial)
                if value > top:
                    best, top = trial, value
        if top == before:
            break
    return FoundWeights(best, top, start)


def _with_share(weights: FloatArray, member: int, share: float) -> FloatArray:
    """One member's share as given; the others divide the rest as before, or equally where they had nothing.

    >>> _with_share(np.array([0.5, 0.4, 0.1]), 0, 0.0).round(3).tolist()
    [0.0, 0.8, 0.2]
    >>> _with_share(np.array([1.0, 0.0, 0.0]), 0, 0.5).tolist()
    [0.5, 0.25, 0.25]
    """
    others = weights.copy()
    others[member] = 0.0
    if not others.any():
        others[:] = 1.0
        others[member] = 0.0
    out = others / others.sum() * (1 - share)
    out[member] = share
    return out
