"""Lists from scores of every item, and the report of counting: shared by the plain recommenders.

Leaves out where scores come from. Scores of all users at once (U × N) are never held in memory.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from sidrec.config import RunSettings
from sidrec.data.sequences import Histories
from sidrec.decoding.recommendations import Recommendations, Request
from sidrec.training.config import TrainReport
from sidrec.types import BoolArray

__all__ = ["counted_report", "rank_scores"]

SCORES_AT_ONCE = 2**23
"""Scores held at once (32 MiB of float32), which sets how many users are ranked together."""
USERS_AT_ONCE = 512


def rank_scores(
    score: Callable[[Histories], Tensor], num_items: int, histories: Histories, request: Request, run: RunSettings
) -> Recommendations:
    """The k best items of every user, by scores of all items; equal scores stand in row order.

    Users are scored in batches of similar history length. Every list is exact: nothing was pruned.

    Args:
        score: gives float32[B, N], finite, for a batch of histories; may be changed in place.
        num_items: N.
        histories: whole histories; all their items count as seen.
        request: k, exclusions.
        run: whose progress is told.

    Raises:
        DataError: a list is not for these users and items.
        ConstraintError: a user's allow- and deny-lists leave no item.
    """
    filters = request.filters(len(histories), num_items)
    k = min(request.k, num_items)
    rows = np.full((len(histories), request.k), -1, dtype=np.int32)
    scores = np.full((len(histories), request.k), -np.inf, dtype=np.float32)
    order = np.argsort(histories.lengths, kind="stable")
    size = max(1, min(USERS_AT_ONCE, SCORES_AT_ONCE // num_items))
    with run.progress("rank users", len(order)) as advance:
        for start in range(0, len(order), size):
            users = order[start : start + size]
            batch = histories.take(users)
            allowed_BN = None if filters is None else filters.of_users(users)
            best_scores, best_rows = _best(_masked(score(batch), batch, request.exclude_seen, allowed_BN), k)
            scores[users, :k] = best_scores.cpu().numpy()
            rows[users, :k] = np.where(np.isneginf(scores[users, :k]), -1, best_rows.cpu().numpy())
            advance(len(users))
    return Recommendations(rows, scores, np.ones(len(histories), dtype=np.bool_))


def _masked(scores_BN: Tensor, histories: Histories, exclude_seen: bool, allowed_BN: BoolArray | None) -> Tensor:
    """Scores with -inf for what may not be recommended; one mask may stand for all users."""
    if exclude_seen and len(histories.rows):
        index = torch.from_numpy(np.stack([histories.owners, histories.rows.astype(np.int64)])).to(scores_BN.device)
        scores_BN[index[0], index[1]] = -torch.inf
    if allowed_BN is not None:
        scores_BN.masked_fill_(torch.from_numpy(~allowed_BN).to(scores_BN.device), -torch.inf)
    return scores_BN


def _best(scores_BN: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k best scores and their rows, ties in row order.

    `topk` leaves open which of equal items it takes. It decides only at the k-th place, so users with a
    tie there (few, except for counts) get a stable sort of all items; the others one of their k. The item behind
    the k-th tells of the tie: to count the items with its score would take longer than all the rest.
    """
    top, rows = scores_BN.topk(min(k + 1, scores_BN.shape[1]), dim=1)
    tied = (top[:, k:] == top[:, k - 1 : k]).any(dim=1)
    top, rows = top[:, :k], rows[:, :k]
    by_row = rows.argsort(dim=1)
    top, rows = top.gather(1, by_row), rows.gather(1, by_row)
    by_score = top.argsort(dim=1, descending=True, stable=True)
    top, rows = top.gather(1, by_score), rows.gather(1, by_score)
    if tied.any():
        full = scores_BN[tied].sort(dim=1, descending=True, stable=True)
        top[tied], rows[tied] = full.values[:, :k], full.indices[:, :k]
    return top, rows


def counted_report(num_examples: int, seconds: float) -> TrainReport:
    """The report of a recommender that counts instead of taking gradient steps."""
    return TrainReport(
        steps=0,
        seconds=seconds,
        examples_per_second=num_examples / max(seconds, 1e-9),
        padding_share=0.0,
        best_metric=None,
        best_step=0,
        losses=(),
    )
