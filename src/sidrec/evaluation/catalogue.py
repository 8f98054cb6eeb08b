"""What lists do to the catalogue as a whole: coverage, concentration, novelty, and their defects.

All figures are of the first k places in the order of the list.
"""

import numpy as np

from sidrec.data.statistics import gini
from sidrec.types import FloatArray, IntArray

__all__ = ["catalogue_figures", "list_defects", "self_information"]


def catalogue_figures(rows: IntArray, training_counts: IntArray, k: int) -> dict[str, float]:
    """Coverage, Gini coefficient and novelty of the first k places, named `figure@k`.

    - `coverage`: share of the catalogue's items that stand in at least one list.
    - `gini`: inequality of how often items are listed, over the whole catalogue; 0 is even.
    - `novelty`: mean self-information of the listed items in bits (Zhou et al., PNAS 2010).

    Args:
        rows: int32[U, W], items best first; -1 is no item.
        training_counts: int64[N], events of each item in training.
        k: places that count.

    >>> catalogue_figures(np.array([[0, 1], [0, 2]]), np.array([5, 1, 1, 0]), 2)
    {'coverage@2': 0.75, 'gini@2': 0.375, 'novelty@2': 1.66...}
    """
    listed = rows[:, :k]
    listed = listed[listed >= 0]
    times = np.bincount(listed, minlength=len(training_counts))
    bits = self_information(training_counts)
    return {
        f"coverage@{k}": float((times > 0).mean()),
        f"gini@{k}": gini(times),
        f"novelty@{k}": float(bits[listed].mean()) if len(listed) else float("nan"),
    }


def self_information(counts: IntArray) -> FloatArray:
    """float64[N], -log2 p of each item, p = (count + 1) / (all counts + N): finite for unseen items.

    >>> self_information(np.array([2, 0]))
    array([0.415..., 2. ])
    """
    return -np.log2((counts + 1) / (counts.sum() + len(counts)))


def list_defects(rows: IntArray, k: int) -> dict[str, float]:
    """Shares of the first k places that hold no item (`invalid`) or one listed before (`duplicate`).

    >>> list_defects(np.array([[3, 3, 1], [2, -1, -1]]), 2)
    {'invalid@2': 0.25, 'duplicate@2': 0.25}
    """
    listed = rows[:, :k]
    ordered = np.sort(listed, axis=1)
    repeats = (ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0)
    places = max(len(rows) * k, 1)
    missing = len(rows) * (k - listed.shape[1]) + int((listed < 0).sum())
    return {f"invalid@{k}": missing / places, f"duplicate@{k}": float(repeats.sum()) / places}
