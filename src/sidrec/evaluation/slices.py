"""Groups of users that are reported apart: by length of the history, by popularity of the target."""

import numpy as np

from sidrec.evaluation.protocol import SliceConfig
from sidrec.types import IntArray

__all__ = ["history_slices", "popularity_slices"]

POPULARITY = ("head", "mid", "tail", "cold")


def history_slices(lengths: IntArray, config: SliceConfig) -> tuple[IntArray, list[str]]:
    """Group number int64[U] of each user by the length of its history, and the groups' names.

    >>> groups, names = history_slices(np.array([1, 2, 3, 9]), SliceConfig(history_edges=(2, 5)))
    >>> groups.tolist(), names
    ([0, 0, 1, 2], ['history 1-2', 'history 3', 'history 9'])
    """
    edges = np.asarray(config.history_edges, dtype=np.int64)
    if not len(edges) and len(lengths):
        edges = np.unique(np.quantile(lengths, [0.25, 0.5, 0.75], method="lower"))
    bins = np.searchsorted(edges, lengths, side="left")
    present, groups = np.unique(bins, return_inverse=True)
    names: list[str] = []
    for group in range(len(present)):
        inside = lengths[groups == group]
        low, high = int(inside.min()), int(inside.max())
        names.append(f"history {low}-{high}" if low < high else f"history {low}")
    return groups, names


def popularity_slices(targets: IntArray, counts: IntArray, config: SliceConfig) -> tuple[IntArray, list[str]]:
    """Group number int64[U] of each user by how popular its target is in training, and the groups' names.

    Items seen in training are ordered by falling count (equal counts by row); the first
    `head_share` of them are head, the last `tail_share` tail, the rest mid. Unseen items are cold.

    Args:
        targets: int32[U], target rows.
        counts: int64[N] of `Dataset.training_counts`.
        config: the shares.

    >>> popularity_slices(np.array([0, 2, 3]), np.array([9, 5, 1, 0]), SliceConfig(head_share=0.4, tail_share=0.4))[0]
    array([0, 2, 3])
    """
    order = np.argsort(-counts, kind="stable")
    num_seen = int((counts > 0).sum())
    group_of = np.full(len(counts), POPULARITY.index("cold"))
    num_head = round(config.head_share * num_seen)
    num_tail = min(round(config.tail_share * num_seen), num_seen - num_head)
    group_of[order[:num_seen]] = POPULARITY.index("mid")
    group_of[order[:num_head]] = POPULARITY.index("head")
    group_of[order[num_seen - num_tail : num_seen]] = POPULARITY.index("tail")
    return group_of[targets], [f"target {name}" for name in POPULARITY]
