"""Items behind the same first codes: numbered groups of every depth, and a few of them with titles to look at."""

from collections.abc import Sequence

import numpy as np

from sidrec.data.catalog import Catalog
from sidrec.tokenizers.semantic_ids import codes_text
from sidrec.types import IntArray, Json

__all__ = ["largest_groups", "prefix_groups", "shared_prefixes"]

SHOWN = 5
"""Titles shown of one group."""


def prefix_groups(codes_NL: IntArray) -> list[IntArray]:
    """For depth 1 … L the group int64[N] of each item: 0 … G-1 in order of the first `depth` codes.

    >>> [groups.tolist() for groups in prefix_groups(np.array([[1, 0], [0, 5], [1, 2]]))]
    [[1, 0, 1], [1, 0, 2]]
    """
    groups = np.zeros(len(codes_NL), np.int64)
    out: list[IntArray] = []
    for codes_N in codes_NL.T.astype(np.int64):
        # One integer a prefix sorts ten times faster than rows of codes.
        groups = np.unique(groups * (int(codes_N.max()) + 1) + codes_N, return_inverse=True)[1].reshape(-1)
        out.append(groups)
    return out


def largest_groups(codes_NL: IntArray, catalog: Catalog, count: int = SHOWN) -> list[Json]:
    """The largest groups of items with equal codes: `codes`, number of `items`, some `titles`; largest first.

    Args:
        codes_NL: of all items, in catalogue order.
        catalog: the items.
        count: how many groups.
    """
    groups = prefix_groups(codes_NL)[-1]
    sizes = np.bincount(groups)
    largest = np.argsort(-sizes, kind="stable")[:count]
    return [_described(groups, int(group), codes_NL, catalog) for group in largest if sizes[group] > 1]


def shared_prefixes(codes_NL: IntArray, catalog: Catalog, depth: int, count: int = SHOWN) -> list[Json]:
    """Prefixes behind which several items stand, evenly spread over all of them in order of their codes.

    The same fields as `largest_groups`, `codes` being the prefix.

    Args:
        codes_NL: of all items, in catalogue order.
        catalog: the items.
        depth: codes in a prefix.
        count: how many prefixes.
    """
    groups = prefix_groups(codes_NL[:, :depth])[-1]
    several = np.flatnonzero(np.bincount(groups) > 1)
    chosen = several[np.unique(np.linspace(0, len(several) - 1, min(count, len(several))).astype(np.int64))]
    return [_described(groups, int(group), codes_NL[:, :depth], catalog) for group in chosen]


def _described(groups: IntArray, group: int, codes: IntArray, catalog: Catalog) -> Json:
    rows = np.flatnonzero(groups == group)
    return {
        "codes": codes_text(codes[rows[0]].tolist()),
        "items": len(rows),
        "titles": catalog.titles_of(_spread(rows)),
    }


def _spread(rows: IntArray) -> Sequence[int]:
    """Some of the rows, the first and the last among them."""
    return rows[np.linspace(0, len(rows) - 1, min(SHOWN, len(rows))).astype(np.int64)].tolist()
