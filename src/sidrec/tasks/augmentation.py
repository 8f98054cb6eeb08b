"""Histories that training sees a little differently in every epoch: items left out, a later start.

What is drawn depends on the run's seed, the epoch and the number of the example, on nothing else: not on the order of
batches, how they are cut, or where a resumed run begins. Serving and validation read whole histories.
"""

from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from sidrec.data.sequences import positions_within
from sidrec.random import numbered_uniforms, torch_seed
from sidrec.types import BoolArray, IntArray

__all__ = ["WHOLE", "Augmentation"]

AT_ONCE = 65_536
"""Examples whose items are drawn together where only their number is wanted."""


@dataclass(frozen=True)
class Augmentation:
    """How the histories of training examples are thinned.

    Attributes:
        history_dropout: probability with which each item is left out.
        subsequences: begin each history at an item drawn evenly, so that every suffix of it is equally likely.
        draw: which numbers are drawn; None leaves histories as they are.

    The newest item stays where nothing else would.

    >>> drawn = Augmentation(history_dropout=0.5).in_epoch(seed=1, epoch=0)
    >>> drawn.kept(np.array([7]), np.array([6])).tolist() == drawn.kept(np.array([8, 7]), np.array([2, 6]))[2:].tolist()
    True
    """

    history_dropout: float = 0.0
    subsequences: bool = False
    draw: int | None = None

    @property
    def is_on(self) -> bool:
        """Whether it ever changes a history."""
        return self.history_dropout > 0 or self.subsequences

    def in_epoch(self, seed: int, epoch: int) -> Self:
        """The same with the draws of an epoch of a run."""
        return replace(self, draw=torch_seed(seed, "augmentation", str(epoch)))

    def kept(self, examples_P: IntArray, lengths_P: IntArray) -> BoolArray:
        """bool[sum of lengths], which items of the examples' histories stay, one history after the other.

        Args:
            examples_P: int64[P], numbers of the examples.
            lengths_P: int64[P], items of their histories, oldest first.
        """
        place = positions_within(lengths_P)
        kept = np.ones(len(place), dtype=np.bool_)
        if self.draw is None or not self.is_on:
            return kept
        if self.subsequences:
            # Column 0 is the start's; items have those after it.
            starts_P = (numbered_uniforms(self.draw, examples_P, np.zeros(1, np.int64)) * lengths_P).astype(np.int64)
            kept &= place >= np.repeat(starts_P, lengths_P)
        if self.history_dropout:
            kept &= numbered_uniforms(self.draw, np.repeat(examples_P, lengths_P), place + 1) >= self.history_dropout
        lasts = np.cumsum(lengths_P)[lengths_P > 0] - 1
        before = np.concatenate([[0], np.cumsum(kept)])
        is_empty = before[lasts + 1] == before[lasts + 1 - lengths_P[lengths_P > 0]]
        kept[lasts[is_empty]] = True
        return kept

    def num_kept(self, lengths_P: IntArray) -> IntArray:
        """int64[P], items that stay of the histories of examples 0, 1, …."""
        if self.draw is None or not self.is_on:
            return lengths_P
        out = np.zeros(len(lengths_P), dtype=np.int64)
        for first in range(0, len(lengths_P), AT_ONCE):
            numbers = np.arange(first, min(first + AT_ONCE, len(lengths_P)))
            lengths = lengths_P[numbers]
            owners = np.repeat(numbers - first, lengths)
            out[numbers] = np.bincount(owners[self.kept(numbers, lengths)], minlength=len(numbers))
        return out


WHOLE = Augmentation()
"""Leaves histories as they are."""
