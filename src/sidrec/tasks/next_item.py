"""Next-item examples: histories of rows become token arrays, for training, validation and serving.

The one place where prompts are built, so that what a model reads when it serves is what it read
when it learnt. Items become tokens by one array look-up; no strings are made. `PrefixExamples` is
for encoder-decoders (one target an example), `SequenceExamples` for causal models (all targets of a
window of a user's history in one forward pass). Text prompts and other tasks are not here.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sidrec.data.dataset import Examples
from sidrec.data.sequences import Histories, Sequences
from sidrec.tasks.windows import Windows
from sidrec.training.objectives import IGNORE
from sidrec.types import IntArray

__all__ = ["ItemTokens", "PrefixExamples", "Prompts", "SequenceExamples"]


@dataclass(frozen=True)
class Prompts:
    """A batch of prompts, padded on the right; models that are searched read padding on either side.

    Attributes:
        tokens_BT: int64[B, T] token ids.
        mask_BT: int64[B, T], 1 where a token is real and 0 where it is padding.
    """

    tokens_BT: Tensor
    mask_BT: Tensor


@dataclass(frozen=True)
class ItemTokens:
    """How items are written in a model's vocabulary.

    Attributes:
        table_NL: int64[N, L], the token ids of every item.
        pad: padding token.
        eos: end token.
        bos: begin token.

    >>> items = ItemTokens(np.array([[3, 6], [4, 5]]), pad=0, eos=1, bos=2)
    >>> items.prompts(Histories.of([[1, 0], []]), end=True).tokens_BT.tolist()
    [[4, 5, 3, 6, 1], [1, 0, 0, 0, 0]]
    """

    table_NL: IntArray
    pad: int
    eos: int
    bos: int

    @property
    def num_levels(self) -> int:
        """L, tokens an item."""
        return self.table_NL.shape[1]

    def prompts(self, histories: Histories, *, max_items: int = 0, begin: bool = False, end: bool = False) -> Prompts:
        """The newest items of each history, oldest first, as token ids.

        Args:
            histories: item rows; an empty history gives only the begin and end tokens.
            max_items: items kept of each history; 0 keeps all.
            begin: put the begin token first.
            end: put the end token last.
        """
        histories = histories.last(max_items)
        rows_BT = histories.padded(0)
        batch, width = len(rows_BT), rows_BT.shape[1] * self.num_levels
        lengths = int(begin) + histories.lengths * self.num_levels + int(end)
        tokens = np.full((batch, int(begin) + width + int(end)), self.pad, dtype=np.int64)
        tokens[:, int(begin) : int(begin) + width] = self.table_NL[rows_BT].reshape(batch, width)
        real = np.arange(tokens.shape[1]) < lengths[:, None]
        tokens[~real] = self.pad
        if begin:
            tokens[:, 0] = self.bos
        if end:
            tokens[np.arange(batch), lengths - 1] = self.eos
        return Prompts(torch.from_numpy(tokens), torch.from_numpy(real.astype(np.int64)))


@dataclass(frozen=True)
class PrefixExamples:
    """One example a (user, cut): the history before the cut, the item at the cut.

    Attributes:
        sequences: the users' histories.
        examples: which items are targets.
        items: how items are written.
        max_items: newest items of a history that are read; 0 reads all.
    """

    sequences: Sequences
    examples: Examples
    items: ItemTokens
    max_items: int

    def __len__(self) -> int:
        return len(self.examples)

    @property
    def lengths(self) -> IntArray:
        """int64[P], prompt tokens of each example."""
        kept = self.examples.cuts.astype(np.int64)
        if self.max_items > 0:
            kept = np.minimum(kept, self.max_items)
        return kept * self.items.num_levels + 1

    def collate(self, positions: IntArray) -> dict[str, Tensor]:
        """The examples at `positions` as `input_ids`, `attention_mask`, `decoder_input_ids` and `labels`.

        Labels are codes and the end token; before each of them the decoder has read padding and the codes so far.
        """
        users, cuts = self.examples.users[positions], self.examples.cuts[positions]
        prompts = self.items.prompts(self.sequences.before(users, cuts, self.max_items), end=True)
        targets_BL = self.items.table_NL[self.sequences.targets(users, cuts)]
        labels = np.pad(targets_BL, ((0, 0), (0, 1)), constant_values=self.items.eos)
        begun = np.pad(targets_BL, ((0, 0), (1, 0)), constant_values=self.items.pad)
        return {
            "input_ids": prompts.tokens_BT,
            "attention_mask": prompts.mask_BT,
            "decoder_input_ids": torch.from_numpy(begun.astype(np.int64)),
            "labels": torch.from_numpy(labels.astype(np.int64)),
        }


@dataclass(frozen=True)
class SequenceExamples:
    """One example a window of a user's history, with all training targets in it.

    Attributes:
        windows: which events, and which of them are learnt.
        items: how items are written.
    """

    windows: Windows
    items: ItemTokens

    def __len__(self) -> int:
        return len(self.windows)

    @property
    def lengths(self) -> IntArray:
        """int64[P], tokens of each example."""
        return self.windows.sizes * self.items.num_levels + 1

    def collate(self, positions: IntArray) -> dict[str, Tensor]:
        """The windows at `positions` as `input_ids`, `attention_mask` and `labels` (codes of targets only)."""
        batch = self.windows.batch(positions)
        offsets = np.concatenate([[0], np.cumsum(batch.inside_BT.sum(axis=1))])
        prompts = self.items.prompts(Histories(batch.rows_BT[batch.inside_BT], offsets), begin=True)
        learnt = np.pad(np.repeat(batch.learnt_BT, self.items.num_levels, axis=1), ((0, 0), (1, 0)))
        labels = prompts.tokens_BT.masked_fill(torch.from_numpy(~learnt), IGNORE)
        return {"input_ids": prompts.tokens_BT, "attention_mask": prompts.mask_BT, "labels": labels}
