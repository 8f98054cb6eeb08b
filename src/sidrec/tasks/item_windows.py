"""Examples for models that read an item a position: a window of history, and the codes of what follows each item.

Beside `SequenceExamples`, where codes are read and learnt one after the other, what is learnt here stands in arrays
of its own, a row a target. Leaves out how the model spells codes.
"""

from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import torch
from torch import Tensor

from sidrec.data.sequences import Histories
from sidrec.tasks.augmentation import WHOLE, Augmentation
from sidrec.tasks.next_item import ItemTokens
from sidrec.tasks.windows import Windows
from sidrec.types import IntArray

__all__ = ["ItemWindowExamples"]


@dataclass(frozen=True)
class ItemWindowExamples:
    """One example a window of a user's history: every event but the last is read, targets among them are learnt.

    Attributes:
        windows: which events, and which of them are learnt.
        items: how items are written and read.
        codes_NL: int[N, L], the codes of every item.
        augmentation: what is left out of the events before a window's last one, as in `SequenceExamples`.
    """

    windows: Windows
    items: ItemTokens
    codes_NL: IntArray
    augmentation: Augmentation = WHOLE

    def __len__(self) -> int:
        return len(self.windows)

    def in_epoch(self, seed: int, epoch: int) -> Self:
        """The examples as an epoch of a run sees them."""
        return replace(self, augmentation=self.augmentation.in_epoch(seed, epoch))

    @property
    def lengths(self) -> IntArray:
        """int64[P], positions of each example."""
        return self.augmentation.num_kept(self.windows.sizes - 1) + self._head

    @property
    def _head(self) -> int:
        """Positions before the first item."""
        return 1 + (self.items.num_users > 0)

    def collate(self, positions: IntArray) -> dict[str, Tensor]:
        """The windows at `positions`: `input_ids` and `attention_mask` of what is read, and M targets of all of them.

        `places` int64[M] says behind which position of the flattened batch each target stands; `codes` int64[M, L] are
        its codes, which are read and, as `labels`, learnt.
        """
        batch = self.windows.batch(positions)
        if self.augmentation.is_on:
            batch = batch.where(self.augmentation.kept(positions, self.windows.sizes[positions] - 1))
        # The last event of a window is nobody's history.
        is_read_BT = batch.inside_BT.copy()
        is_read_BT[:, :-1] &= batch.inside_BT[:, 1:]
        is_read_BT[:, -1] = False
        offsets = np.concatenate([[0], np.cumsum(is_read_BT.sum(axis=1))])
        histories = Histories(batch.rows_BT[is_read_BT], offsets, self.windows.users[positions])
        prompts = self.items.prompts(histories, begin=True)
        rows, events = np.nonzero(batch.learnt_BT)
        # Event 1 is predicted where event 0 was read, which stands behind the head.
        places = rows * prompts.tokens_BT.shape[1] + self._head + events - 1
        codes = torch.from_numpy(self.codes_NL[batch.rows_BT[rows, events]].astype(np.int64))
        return {
            "input_ids": prompts.tokens_BT,
            "attention_mask": prompts.mask_BT,
            "places": torch.from_numpy(places),
            "codes": codes,
            "labels": codes,
        }
