"""Examples for models that read an item a position: a window of history, and the codes of what follows each item.

Beside `SequenceExamples`, where codes are read and learnt one after the other, what is learnt here stands in arrays
of its own, a row a target. Leaves out how the model spells codes.
"""

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from sidrec.tasks.next_item import WindowExamples
from sidrec.types import IntArray

__all__ = ["ItemWindowExamples"]


@dataclass(frozen=True)
class ItemWindowExamples(WindowExamples):
    """Windows of which every event but the last is read, and targets among them are learnt.

    Attributes:
        codes_NL: int[N, L], the codes of every item.
    """

    codes_NL: IntArray = field(kw_only=True)

    @property
    def lengths(self) -> IntArray:
        """int64[P], positions of each example."""
        return self.augmentation.num_kept(self.windows.sizes - 1) + self.items.num_extra

    def collate(self, positions: IntArray) -> dict[str, Tensor]:
        """The windows at `positions`: `input_ids` and `attention_mask` of what is read, and M targets of all of them.

        `places` int64[M] says behind which position of the flattened batch each target stands; `codes` int64[M, L] are
        its codes, which are read and, as `labels`, learnt.
        """
        batch = self.batch(positions)
        # The last event of a window is nobody's history.
        is_read_BT = batch.inside_BT.copy()
        is_read_BT[:, :-1] &= batch.inside_BT[:, 1:]
        is_read_BT[:, -1] = False
        prompts = self.prompts(positions, batch, is_read_BT)
        rows, events = np.nonzero(batch.learnt_BT)
        # Event 1 is predicted where event 0 was read, which stands behind the extra tokens.
        places = rows * prompts.tokens_BT.shape[1] + self.items.num_extra + events - 1
        codes = torch.from_numpy(self.codes_NL[batch.rows_BT[rows, events]].astype(np.int64))
        return {
            "input_ids": prompts.tokens_BT,
            "attention_mask": prompts.mask_BT,
            "places": torch.from_numpy(places),
            "codes": codes,
            "labels": codes,
        }
