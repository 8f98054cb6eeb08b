"""From lists of items to numbers: one rank a user, every cut-off from it. Integers are compared, never text.

Each user has one target, so recall equals hit; both names are reported because papers use both.

Ties. Items of equal score form a group that owns the places lo … hi-1 of its list. Under the rule
"expected" the target stands with equal chance at each of them, and a metric is its mean over these
places, which is the mean over all orders of the group. Under "listed" it stands where the list has it.

Left out: sampled negatives (the whole catalogue is ranked) and several targets a user.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from sidrec.types import BoolArray, FloatArray, IntArray

__all__ = ["Places", "TieRule", "collapse", "find_target", "has_open_tie", "metric_values"]

TieRule = Literal["expected", "listed"]


@dataclass(frozen=True)
class Places:
    """Where the target may stand in each list, counted from 0.

    Attributes:
        lo: int64[U], first place of its tied group.
        hi: int64[U], one past the last place; `hi == lo` where the target is not in the list.
    """

    lo: IntArray
    hi: IntArray

    @property
    def ranks(self) -> FloatArray:
        """float64[U], mean rank counted from 1; inf where the target is not in the list."""
        return np.where(self.hi > self.lo, (self.lo + self.hi + 1) / 2, np.inf)


def find_target(rows: IntArray, scores: FloatArray, targets: IntArray, ties: TieRule = "expected") -> Places:
    """The places that each user's target may take in its list.

    Args:
        rows: int32[U, k], items best first; -1 is no item. A repeated item counts at its first place.
        scores: float32[U, k], falling.
        targets: int32[U], one target a user.
        ties: what happens to items of equal score.

    >>> rows, scores = np.array([[4, 7, 2]]), np.array([[0.5, 0.5, 0.1]])
    >>> find_target(rows, scores, np.array([7])).ranks, find_target(rows, scores, np.array([7]), "listed").ranks
    (array([1.5]), array([2.]))
    """
    if not rows.shape[1]:
        nowhere = np.zeros(len(rows), dtype=np.int64)
        return Places(nowhere, nowhere)
    match = rows == targets[:, None]
    place = match.argmax(axis=1)
    user = np.arange(len(rows))
    found = match[user, place]
    if ties == "listed":
        return Places(place, place + found)
    score = scores[user, place][:, None]
    lo = np.count_nonzero(scores > score, axis=1)
    hi = np.count_nonzero((scores >= score) & (rows >= 0), axis=1)
    return Places(lo, np.where(found, hi, lo))


def metric_values(places: Places, k: Sequence[int]) -> dict[str, FloatArray]:
    """Hit, recall, NDCG and MRR of every user at every cut-off, as `metric@k` → float64[U].

    Hit@k is the chance that the target is among the first k; NDCG@k is 1/log2(1 + rank) and MRR@k is
    1/rank if rank ≤ k, else 0 (the ideal list has its one target first, so its DCG is 1).

    >>> values = metric_values(Places(np.array([0, 2, 9]), np.array([1, 4, 9])), [3])
    >>> values["hit@3"], values["mrr@3"].round(4)
    (array([1. , 0.5, 0. ]), array([1.    , 0.1667, 0.    ]))
    """
    largest = max(k)
    rank = np.arange(1, largest + 1)
    # sums[m] is the gain of all places before m, so a group's gain is a difference of two entries.
    gains = {"ndcg": 1 / np.log2(1 + rank), "mrr": 1 / rank}
    sums = {name: np.concatenate([[0.0], np.cumsum(gain)]) for name, gain in gains.items()}
    size = np.maximum(places.hi - places.lo, 1)
    out: dict[str, FloatArray] = {}
    for cut in sorted(set(k)):
        lo, hi = np.minimum(places.lo, cut), np.minimum(places.hi, cut)
        out[f"hit@{cut}"] = (hi - lo) / size
        out[f"recall@{cut}"] = out[f"hit@{cut}"]
        for name, total in sums.items():
            out[f"{name}@{cut}"] = (total[hi] - total[lo]) / size
    return out


def collapse(rows: IntArray, scores: FloatArray, group_of: IntArray) -> tuple[IntArray, FloatArray]:
    """Lists of items as lists of code tuples, each tuple kept at its first place.

    Args:
        rows: int32[U, k] items; -1 is no item.
        scores: float32[U, k].
        group_of: int[N], number of the code tuple of each item.

    Returns:
        tuples int64[U, k] filled up with -1, and their scores filled up with -inf.

    >>> tuples, _ = collapse(np.array([[0, 1, 2, -1]]), np.array([[0.9, 0.9, 0.1, -np.inf]]), np.array([5, 5, 6]))
    >>> tuples.tolist()
    [[5, 6, -1, -1]]
    """
    groups = np.where(rows >= 0, group_of[rows], -1)
    order = np.argsort(groups, axis=1, kind="stable")
    ordered = np.take_along_axis(groups, order, axis=1)
    repeated = np.zeros_like(groups, dtype=np.bool_)
    np.put_along_axis(repeated, order[:, 1:], ordered[:, 1:] == ordered[:, :-1], axis=1)
    keep = ~repeated & (groups >= 0)
    # A stable sort by "dropped" moves what is kept to the front without changing its order.
    front = np.argsort(~keep, axis=1, kind="stable")
    kept = np.take_along_axis(keep, front, axis=1)
    return (
        np.where(kept, np.take_along_axis(groups, front, axis=1), -1),
        np.where(kept, np.take_along_axis(scores, front, axis=1), -np.inf),
    )


def has_open_tie(rows: IntArray, scores: FloatArray, k: int) -> BoolArray:
    """bool[U], whether place k ties with the last item listed, so that more of its group may follow.

    Args:
        rows: int32[U, W] with W > k, else no list counts.
        scores: float32[U, W], falling.
        k: largest cut-off.

    >>> has_open_tie(np.array([[0, 1, 2], [0, 1, 2]]), np.array([[3.0, 2, 2], [3.0, 2, 1]]), 2).tolist()
    [True, False]
    """
    if rows.shape[1] <= k:
        return np.zeros(len(rows), dtype=np.bool_)
    return (rows[:, -1] >= 0) & (scores[:, k - 1] == scores[:, -1])
