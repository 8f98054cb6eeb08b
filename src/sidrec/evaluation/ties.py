"""Close the tied groups that a list of k items cuts, by asking for more items where that is needed.

Counts tie often: at the k-th place of a popularity list there may be hundreds of items of the same
count, and the target has the same chance at each of their places only if all of them are known. Left
out: items that tie because they share their codes; lists of such recommenders are long enough from
the start (`sidrec.evaluation.evaluator`).
"""

from collections.abc import Callable, Iterator

import numpy as np

from sidrec.data.sequences import Histories
from sidrec.decoding.recommendations import Recommendations
from sidrec.evaluation.ranking import Places, find_target, has_open_tie
from sidrec.progress import Progress
from sidrec.types import BoolArray, IntArray

__all__ = ["close_ties"]

DEEPENING = 4
"""Factor by which the lists of users with an open tie grow."""
PLACES_AT_ONCE = 2**22
"""Places of deeper lists held at once (32 MiB of rows and scores)."""


def close_ties(
    rank: Callable[[Histories, int], Recommendations],
    histories: Histories,
    targets: IntArray,
    recommended: Recommendations,
    k: int,
    num_items: int,
    progress: Progress,
) -> Places:
    """The places that each user's target may take, tied groups counted to their end.

    Users whose place k ties with the last item of their list are ranked again, deeper each time, until
    their group ends or all items are listed. Those whose target stands before the group need it not.

    Args:
        rank: gives lists of the asked length, deterministic.
        histories: of the U users.
        targets: int32[U], one target a user.
        recommended: lists of more than k items.
        k: largest cut-off.
        num_items: items of the catalogue.
        progress: told of the users that are ranked again.
    """
    places = find_target(recommended.rows, recommended.scores, targets)
    lo, hi = places.lo.copy(), places.hi.copy()
    width = recommended.rows.shape[1]
    pending = np.flatnonzero(_needs_more(recommended, targets, k))
    with progress("close ties", len(pending)) as advance:
        while len(pending) and width < num_items:
            width = min(width * DEEPENING, num_items)
            still_open: list[IntArray] = []
            for users in _chunks(pending, width):
                deeper = rank(histories.take(users), width)
                found = find_target(deeper.rows, deeper.scores, targets[users])
                lo[users], hi[users] = found.lo, found.hi
                is_open = _needs_more(deeper, targets[users], k) & (width < num_items)
                still_open.append(users[is_open])
                advance(int((~is_open).sum()))
            pending = np.concatenate(still_open)
    return Places(lo, hi)


def _needs_more(recommended: Recommendations, targets: IntArray, k: int) -> BoolArray:
    """bool[U], whether the list's tie at place k is open and the target may belong to it."""
    rows, scores = recommended.rows, recommended.scores
    stands_before = ((rows == targets[:, None]) & (scores > scores[:, -1:])).any(axis=1)
    return has_open_tie(rows, scores, k) & ~stands_before


def _chunks(users: IntArray, width: int) -> Iterator[IntArray]:
    size = max(1, PLACES_AT_ONCE // width)
    for first in range(0, len(users), size):
        yield users[first : first + size]
