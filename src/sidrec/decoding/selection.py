"""Picking the best: deterministic top-k of prefixes, and the items behind the best leaves."""

import numpy as np
import torch
from torch import Tensor

from sidrec.decoding.constraints import Exclusions
from sidrec.errors import DataError
from sidrec.types import FloatArray, IntArray

__all__ = ["list_items", "refuse_nan", "top_candidates"]


def top_candidates(scores_UM: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """The best candidates of every user, best first; of equal scores the lower index wins.

    `torch.topk` leaves the order of equal scores open. Here score and index are packed into one
    integer, so no two keys are equal and the result is the same on every device and batch size.

    Args:
        scores_UM: float32[U, M]; no NaN.
        width: candidates wanted.

    Returns:
        indices int64[U, W] and scores float32[U, W] with W = min(width, M).

    >>> top_candidates(torch.tensor([[-2.0, -1.0, -1.0, -3.0]]), 3)[0].tolist()
    [[1, 2, 0]]
    """
    num_candidates = scores_UM.shape[1]
    # Adding 0 turns -0.0 into 0.0. Negative floats compare in reverse as integers: flip their magnitude.
    bits = (scores_UM + 0.0).contiguous().view(torch.int32)
    ordered = bits ^ ((bits >> 31) & 0x7FFFFFFF)
    reversed_index = torch.arange(num_candidates - 1, -1, -1, device=scores_UM.device)
    keys = ordered.long() * 2**32 + reversed_index
    best = keys.topk(min(width, num_candidates), dim=1).values
    indices = num_candidates - 1 - (best & 0xFFFFFFFF)
    return indices, scores_UM.gather(1, indices)


def refuse_nan(found: Tensor) -> None:
    """Raise `DataError` if a scorer was found to give NaN, bool[]; a list would mean nothing."""
    if found:
        raise DataError(
            "the model gives scores that are not numbers",
            expected="log-probabilities",
            next="train it again, with a lower learning rate or in float32",
        )


def list_items(
    leaves_UW: IntArray, scores_UW: FloatArray, k: int, exclusions: Exclusions
) -> tuple[IntArray, FloatArray]:
    """The k best items behind leaves that are sorted best first.

    Items of one leaf share its score and come in row order; excluded ones are passed over.

    Args:
        leaves_UW: int64[U, W] leaf numbers; anything where there is no leaf.
        scores_UW: float32[U, W], -inf where there is no leaf.
        k: items a user.
        exclusions: what each user must not get.

    Returns:
        rows int32[U, k], -1 where a user has fewer items, and scores float32[U, k], -inf there.
    """
    trie = exclusions.trie
    num_users, width = leaves_UW.shape
    users = np.arange(num_users)[:, None]
    exists = scores_UW > -np.inf
    leaves = np.where(exists, leaves_UW, 0)
    ranks = exclusions.num_allowed_before(users, trie.item_ptr[leaves].astype(np.int64))
    ends = exclusions.num_allowed_before(users, trie.item_ptr[leaves + 1].astype(np.int64))
    ends = np.cumsum(np.where(exists, ends - ranks, 0), axis=1)
    stride = int(ends[:, -1].max(initial=0)) + k + 1
    places = np.arange(k)[None, :]
    beams = np.searchsorted((ends + users * stride).reshape(-1), places + users * stride, side="right") - users * width
    listed = places < ends[:, -1:]
    beams = np.where(listed, beams, 0)
    before = np.where(beams > 0, np.take_along_axis(ends, np.maximum(beams - 1, 0), axis=1), 0)
    positions = exclusions.allowed_position(users, np.take_along_axis(ranks, beams, axis=1) + places - before)
    rows = np.where(listed, trie.rows[np.where(listed, positions, 0)], -1).astype(np.int32)
    scores = np.where(listed, np.take_along_axis(scores_UW, beams, axis=1), -np.inf).astype(np.float32)
    return rows, scores
