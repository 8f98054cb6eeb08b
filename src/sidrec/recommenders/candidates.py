"""Items that several recommenders put forward, what each of them says about all, and lists from weighted sums.

Whether a list is the best of the whole catalogue is told by the threshold of Fagin, Lotem and Naor (2003), *Optimal
aggregation algorithms for middleware*: what nobody put forward scores, with each member, at most what the last item of
that member's list does. Leaves out where lists and log-probabilities come from.

Legend: U users · C candidates of a user · M items of a member's list · J members.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from sidrec.decoding.recommendations import Recommendations
from sidrec.decoding.selection import refuse_nan, top_candidates
from sidrec.types import BoolArray, FloatArray, IntArray

__all__ = ["SLACK", "Candidates", "lowest", "union"]

SLACK = 1e-3
"""What rounding may add to a log-probability between a member's ranking and its second answer."""


@dataclass(frozen=True)
class Candidates:
    """Items of some users and the members' log-probabilities of them.

    Attributes:
        rows_UC: int32[U, C], each user's item rows, rising; -1 where there is none.
        logps: for each member float32[U, C], its log-probabilities; anything where the row is -1.
        bounds_JU: float64[J, U], what an item that is not among a user's scores at most with each member; 0 where
            nothing is known.
        complete_U: bool[U], whether no other item may be recommended.
    """

    rows_UC: IntArray
    logps: Sequence[FloatArray]
    bounds_JU: FloatArray
    complete_U: BoolArray

    def ranked(self, weights_J: FloatArray, k: int) -> Recommendations:
        """The k items with the largest weighted sums, ties by row; exact where no other item could be among them.

        >>> candidates = Candidates(
        ...     rows_UC=np.array([[2, 5, 7]]),
        ...     logps=[np.log([[0.5, 0.4, 0.1]]), np.log([[0.1, 0.4, 0.3]])],
        ...     bounds_JU=np.log([[0.1], [0.1]]),
        ...     complete_U=np.array([False]),
        ... )
        >>> found = candidates.ranked(np.array([0.5, 0.5]), k=2)
        >>> found.rows.tolist(), (100 * np.exp(2 * found.scores)).round().tolist(), found.exact.tolist()
        ([[5, 2]], [[16.0, 5.0]], [True])

        Raises:
            DataError: a member's log-probability is not a number.
        """
        total_UC = np.zeros(self.rows_UC.shape)
        for weight, logp_UC in zip(weights_J, self.logps, strict=True):
            total_UC += weight * logp_UC
        total_UC[self.rows_UC < 0] = -np.inf
        scores_UC = torch.from_numpy(total_UC.astype(np.float32))
        refuse_nan(scores_UC.isnan().any())
        best, scores = (part.numpy() for part in top_candidates(scores_UC, k))
        rows = np.where(np.isneginf(scores), -1, np.take_along_axis(self.rows_UC, best, axis=1)).astype(np.int32)
        if rows.shape[1] < k:
            behind = ((0, 0), (0, k - rows.shape[1]))
            rows, scores = np.pad(rows, behind, constant_values=-1), np.pad(scores, behind, constant_values=-np.inf)
        others_U = weights_J @ self.bounds_JU + SLACK
        return Recommendations(rows, scores, self.complete_U | (scores[:, -1] >= others_U))


def union(lists: Sequence[IntArray]) -> IntArray:
    """int32[U, C], the rows of any of some lists of each user, each once, rising; -1 behind them.

    >>> union([np.array([[3, 1], [2, -1]]), np.array([[1, 0], [2, -1]])]).tolist()
    [[0, 1, 3], [2, -1, -1]]
    """
    beyond = np.iinfo(np.int32).max
    rows_UC = np.sort(np.where((every := np.concatenate(lists, axis=1)) < 0, beyond, every), axis=1)
    rows_UC[:, 1:][rows_UC[:, 1:] == rows_UC[:, :-1]] = beyond
    rows_UC.sort(axis=1)
    width = int((rows_UC < beyond).sum(axis=1).max(initial=0))
    return np.where(rows_UC < beyond, rows_UC, -1)[:, :width].astype(np.int32)


def lowest(rows_UM: IntArray, rows_UC: IntArray, logp_UC: FloatArray) -> FloatArray:
    """float64[U], the smallest log-probability of each user's listed items; 0 of none.

    Args:
        rows_UM: rows of a list, -1 where it is short.
        rows_UC: candidates of `union`, all of the list among them.
        logp_UC: log-probabilities of the candidates.

    >>> logps = np.array([[-3.0, -1.0, -2.0]])
    >>> lowest(np.array([[5, 4, -1]]), np.array([[2, 4, 5]]), logps).tolist()
    [-2.0]
    """
    stride = 1 + int(rows_UC.max(initial=0))
    first_U1 = np.arange(len(rows_UC), dtype=np.int64)[:, None] * (stride + 1)
    keys = (first_U1 + np.where(rows_UC < 0, stride, rows_UC)).reshape(-1)
    place_UM = np.searchsorted(keys, first_U1 + np.maximum(rows_UM, 0))
    # A row that is not listed may be looked up beyond the end.
    taken_UM = np.append(logp_UC.reshape(-1), 0.0)[place_UM]
    return np.where(rows_UM < 0, 0.0, taken_UM).min(axis=1, initial=0.0)
