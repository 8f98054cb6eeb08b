"""Stretches of histories in which every training target stands exactly once.

What models that learn all positions at once are trained on. Leaves out how items are written: rows come
out, not tokens.
"""

from dataclasses import dataclass

import numpy as np

from sidrec.data.dataset import Examples
from sidrec.data.sequences import Sequences, positions_within
from sidrec.types import BoolArray, IntArray

__all__ = ["WindowBatch", "Windows"]


@dataclass(frozen=True)
class WindowBatch:
    """Some windows side by side, filled up on the right.

    Attributes:
        rows_BT: int32[B, T] item rows; 0 where there is no event.
        inside_BT: bool[B, T], whether there is an event.
        learnt_BT: bool[B, T], whether the event is a target that this window learns; never the first one.
    """

    rows_BT: IntArray
    inside_BT: BoolArray
    learnt_BT: BoolArray

    def where(self, kept: BoolArray) -> "WindowBatch":
        """The windows without some of the events before their last ones.

        Args:
            kept: bool[sum of (events - 1)], which of those events stay, one window after the other.
        """
        sizes = self.inside_BT.sum(axis=1)
        place = np.arange(self.inside_BT.shape[1])
        stays_BT = self.inside_BT.copy()
        stays_BT[place < sizes[:, None] - 1] = kept
        # A stable order of "stays" before "goes" moves what stays to the left.
        order = np.argsort(~stays_BT, axis=1, kind="stable")[:, : int(stays_BT.sum(axis=1).max(initial=0))]
        inside_BT = np.take_along_axis(stays_BT, order, axis=1)
        learnt_BT = np.take_along_axis(self.learnt_BT, order, axis=1) & inside_BT
        learnt_BT[:, :1] = False
        rows_BT = np.where(inside_BT, np.take_along_axis(self.rows_BT, order, axis=1), 0)
        return WindowBatch(rows_BT, inside_BT, learnt_BT)


@dataclass(frozen=True)
class Windows:
    """Stretches of the users' histories with all training targets in them.

    A user with at most `max_items + 1` events up to the last target is one window. A longer history is
    cut into windows of that size which overlap by half; a target is learnt in exactly one, the first that
    holds it, so it is seen with at least half of the context that serving gives.

    Attributes:
        rows: int32[T], item rows of all users one after the other.
        is_target: bool[T], whether the event is learnt.
        starts: int64[P], place in `rows` where each window begins.
        sizes: int64[P], events in each window, the last target included.
        seen: int64[P], leading events of each window that give context only.
        users: int64[P], key of each window's user (`user_keys`).
    """

    rows: IntArray
    is_target: BoolArray
    starts: IntArray
    sizes: IntArray
    seen: IntArray
    users: IntArray

    @classmethod
    def of(cls, sequences: Sequences, examples: Examples, max_items: int) -> "Windows":
        """Windows that hold every target of `examples` once.

        Args:
            sequences: the users' histories.
            examples: which events are targets; nothing after a user's last target is read.
            max_items: items of history that the model reads when it serves; 0 means no limit.

        >>> eight = Sequences(np.arange(8, dtype=np.int32), np.array([0, 8]), ["u"])
        >>> windows = Windows.of(eight, Examples(np.zeros(7, np.int32), np.arange(1, 8, dtype=np.int32)), max_items=3)
        >>> windows.starts.tolist(), windows.sizes.tolist(), windows.seen.tolist()
        ([0, 2, 4], [4, 4, 4], [0, 2, 2])
        """
        is_target = np.zeros(len(sequences.rows), dtype=np.bool_)
        is_target[sequences.offsets[examples.users] + examples.cuts] = True
        used = np.zeros(len(sequences), dtype=np.int64)
        np.maximum.at(used, examples.users, examples.cuts.astype(np.int64) + 1)
        size = max_items + 1 if max_items > 0 else max(int(used.max(initial=1)), 1)
        users, ends, seen = _cover(used, size)
        sizes = np.minimum(ends, size)
        starts = sequences.offsets[users] + ends - sizes
        before = np.concatenate([[0], np.cumsum(is_target)])
        useful = before[starts + sizes] > before[starts + seen]
        keys = sequences.user_keys[users]
        return cls(sequences.rows, is_target, starts[useful], sizes[useful], seen[useful], keys[useful])

    def __len__(self) -> int:
        return len(self.starts)

    def batch(self, positions: IntArray) -> WindowBatch:
        """The windows at `positions`, side by side."""
        starts, sizes, seen = self.starts[positions], self.sizes[positions], self.seen[positions]
        place = np.arange(sizes.max(initial=0))
        inside_BT = place < sizes[:, None]
        events_BT = np.where(inside_BT, starts[:, None] + place, 0)
        learnt_BT = inside_BT & (place >= seen[:, None]) & self.is_target[events_BT]
        return WindowBatch(np.where(inside_BT, self.rows[events_BT], 0), inside_BT, learnt_BT)


def _cover(used: IntArray, size: int) -> tuple[IntArray, IntArray, IntArray]:
    """Windows that cover the first `used[u]` events of each user: (user, end, events already covered).

    The first one covers `size` events, each later one half as many new events.
    """
    step = max(size // 2, 1)
    counts = np.where(used > 0, 1 + np.maximum(-(-(used - size) // step), 0), 0)
    users = np.repeat(np.arange(len(used)), counts)
    number = positions_within(counts)
    ends = np.minimum(size + number * step, used[users])
    new_from = np.where(number > 0, size + (number - 1) * step, 0)
    return users, ends, new_from - (ends - np.minimum(ends, size))
