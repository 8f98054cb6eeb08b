"""Windows one behind the other in rows of one length: batches with little padding, whatever lengths are in them.

Leaves out which windows there are and how they are written (`next_item`). A row is one sequence to the model but for
the positions, which begin again with every window. By them transformers lets each token attend to the earlier ones of
its own window alone (`masking_utils.find_packed_sequence_indices`), as long as the model is given neither an attention
mask nor a cache; `TokenLoss` asks for no cache.
"""

from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import torch
from torch import Tensor

from sidrec.tasks.next_item import SequenceExamples
from sidrec.training.batches import NO_POSITION
from sidrec.training.objectives import IGNORE
from sidrec.types import IntArray

__all__ = ["PackedExamples", "first_fit"]


@dataclass(frozen=True)
class PackedExamples:
    """One example a window, as in `SequenceExamples`, but a batch of them stands in as few rows as it takes.

    Attributes:
        examples: the windows.
        capacity: tokens of a row; a window with more of them would have a row of its own.
    """

    examples: SequenceExamples
    capacity: int

    @classmethod
    def of(cls, examples: SequenceExamples) -> Self:
        """Rows as long as the longest window."""
        return cls(examples, int(examples.lengths.max(initial=1)))

    def __len__(self) -> int:
        return len(self.examples)

    def in_epoch(self, seed: int, epoch: int) -> Self:
        """The examples as an epoch of a run sees them."""
        return replace(self, examples=self.examples.in_epoch(seed, epoch))

    @property
    def lengths(self) -> IntArray:
        """int64[P], the length of the rows for each: windows of any length share a batch."""
        return np.full(len(self), self.capacity)

    def collate(self, positions: IntArray) -> dict[str, Tensor]:
        """The windows at `positions` as `input_ids`, `position_ids` and `labels`, int64[R, T] each.

        Positions are `NO_POSITION` where the input is padding. The label of a window's first token is `IGNORE`, so that
        nothing is to be predicted at the end of the window before.
        """
        padded = self.examples.collate(positions)
        is_real_BT = padded["attention_mask"].numpy() > 0
        lengths_B = is_real_BT.sum(axis=1)
        rows_B, starts_B = first_fit(lengths_B, self.capacity)
        windows, places = np.nonzero(is_real_BT)
        cells = rows_B[windows], starts_B[windows] + places
        shape = int(rows_B.max()) + 1, int((starts_B + lengths_B).max())

        def packed(values: IntArray, fill: int) -> Tensor:
            out_RT = np.full(shape, fill, dtype=np.int64)
            out_RT[cells] = values
            return torch.from_numpy(out_RT)

        return {
            "input_ids": packed(padded["input_ids"].numpy()[is_real_BT], self.examples.items.pad),
            "position_ids": packed(places, NO_POSITION),
            "labels": packed(padded["labels"].numpy()[is_real_BT], IGNORE),
        }


def first_fit(lengths_B: IntArray, capacity: int) -> tuple[IntArray, IntArray]:
    """Row and first place of each length, int64[B] both: the longest first, each in the first row that has room.

    What is longer than the capacity has a row of its own. At most about 11/9 as many rows as the best packing has
    (Johnson, "Near-optimal bin packing algorithms", 1973).

    >>> rows, starts = first_fit(np.array([2, 6, 3, 4]), capacity=8)
    >>> rows.tolist(), starts.tolist()
    ([0, 0, 1, 1], [6, 0, 4, 0])
    """
    rows_B, starts_B = np.zeros((2, len(lengths_B)), dtype=np.int64)
    filled_R = np.zeros(len(lengths_B), dtype=np.int64)
    for number in np.argsort(-lengths_B, kind="stable").tolist():
        # An empty row always has room.
        row = int(np.argmax((filled_R + lengths_B[number] <= capacity) | (filled_R == 0)))
        rows_B[number], starts_B[number] = row, filled_R[row]
        filled_R[row] += lengths_B[number]
    return rows_B, starts_B
