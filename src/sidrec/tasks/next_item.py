"""Next-item examples: histories of rows become token arrays, for training, validation and serving.

The one place where prompts are built, so that what a model reads when it serves is what it read
when it learnt. Items become tokens by one array look-up; no strings are made. `PrefixExamples` is
for encoder-decoders (one target an example), `SequenceExamples` for causal models (all targets of a
window of a user's history in one forward pass). Text prompts and other tasks are not here.
"""

from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import torch
from torch import Tensor

from sidrec.data.dataset import Examples
from sidrec.data.sequences import Histories, Sequences, positions_within
from sidrec.tasks.augmentation import WHOLE, Augmentation
from sidrec.tasks.windows import WindowBatch, Windows
from sidrec.training.objectives import IGNORE
from sidrec.types import BoolArray, IntArray

__all__ = ["ItemTokens", "PrefixExamples", "Prompts", "SequenceExamples", "WindowExamples"]


@dataclass(frozen=True)
class Prompts:
    """A batch of prompts, padded on the right; models that are searched read padding on either side.

    Attributes:
        tokens_BT: int64[B, T] token ids, or int64[B, T, L] where each position is an item (or a token and padding).
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
        whole: whether an item is one position of a prompt, with all its tokens, instead of a position a token. What is
            written is a token a level either way.
        first_user: token of the first of them, where users have tokens.
        num_users: tokens among which users are shared out by their keys; 0 puts none.
        own_N: int64[N], one more token that each item is read with, where items are whole; `pad` for those without.

    >>> items = ItemTokens(np.array([[3, 6], [4, 5]]), pad=0, eos=1, bos=2)
    >>> items.prompts(Histories.of([[1, 0], []]), end=True).tokens_BT.tolist()
    [[4, 5, 3, 6, 1], [1, 0, 0, 0, 0]]
    >>> replace(items, whole=True).prompts(Histories.of([[1, 0], []]), end=True).tokens_BT.tolist()
    [[[4, 5], [3, 6], [1, 0]], [[1, 0], [0, 0], [0, 0]]]
    """

    table_NL: IntArray
    pad: int
    eos: int
    bos: int
    whole: bool = False
    first_user: int = 0
    num_users: int = 0
    own_N: IntArray | None = None

    @property
    def num_levels(self) -> int:
        """L, tokens an item."""
        return self.table_NL.shape[1]

    @property
    def span(self) -> int:
        """Positions of an item in a prompt."""
        return 1 if self.whole else self.num_levels

    @property
    def num_extra(self) -> int:
        """Positions of a training example beside its items: a begin or end token, and the user's where there is one."""
        return 1 + (self.num_users > 0)

    def prompts(self, histories: Histories, *, max_items: int = 0, begin: bool = False, end: bool = False) -> Prompts:
        """The newest items of each history, oldest first, as token ids.

        Where users have tokens, one that is known stands before the items; nothing stands there for an unknown one.

        Args:
            histories: item rows; an empty history gives only the tokens around items.
            max_items: items kept of each history; 0 keeps all.
            begin: put the begin token first.
            end: put the end token last.
        """
        histories = histories.last(max_items)
        batch, width = len(histories), (self.num_levels + (self.own_N is not None)) // self.span
        named = self._are_named(histories)
        heads = int(begin) + named.astype(np.int64)
        lengths = heads + histories.lengths * self.span + int(end)
        tokens = np.full((batch, int(lengths.max(initial=int(begin) + int(end))), width), self.pad, dtype=np.int64)
        real = np.arange(tokens.shape[1]) < lengths[:, None]
        places = heads[histories.owners] + positions_within(histories.lengths) * self.span
        items = self.table_NL[histories.rows]
        if self.own_N is not None:
            items = np.column_stack([items, self.own_N[histories.rows]])
        tokens[histories.owners[:, None], places[:, None] + np.arange(self.span)] = items.reshape(-1, self.span, width)
        if begin:
            tokens[:, 0, 0] = self.bos
        if histories.users is not None and named.any():
            tokens[named, int(begin), 0] = self.first_user + histories.users[named] % self.num_users
        if end:
            tokens[np.arange(batch), lengths - 1, 0] = self.eos
        tokens = tokens if self.whole else tokens[..., 0]
        return Prompts(torch.from_numpy(tokens), torch.from_numpy(real.astype(np.int64)))

    def _are_named(self, histories: Histories) -> BoolArray:
        """bool[B], whose user's token is put."""
        if self.num_users == 0 or histories.users is None:
            return np.zeros(len(histories), dtype=np.bool_)
        return histories.users >= 0


@dataclass(frozen=True)
class PrefixExamples:
    """One example a (user, cut): the history before the cut, the item at the cut.

    Attributes:
        sequences: the users' histories.
        examples: which items are targets.
        items: how items are written.
        max_items: newest items of a history that are read; 0 reads all.
        augmentation: what is left out of the history that would be read.
    """

    sequences: Sequences
    examples: Examples
    items: ItemTokens
    max_items: int
    augmentation: Augmentation = WHOLE

    def __len__(self) -> int:
        return len(self.examples)

    def in_epoch(self, seed: int, epoch: int) -> Self:
        """The examples as an epoch of a run sees them."""
        return replace(self, augmentation=self.augmentation.in_epoch(seed, epoch))

    @property
    def lengths(self) -> IntArray:
        """int64[P], positions of each example's prompt."""
        kept = self.examples.cuts.astype(np.int64)
        if self.max_items > 0:
            kept = np.minimum(kept, self.max_items)
        # An end token instead of a begin token.
        return self.augmentation.num_kept(kept) * self.items.span + self.items.num_extra

    def collate(self, positions: IntArray) -> dict[str, Tensor]:
        """The examples at `positions` as `input_ids`, `attention_mask`, `decoder_input_ids` and `labels`.

        Labels are codes and the end token; before each of them the decoder has read padding and the codes so far.
        """
        users, cuts = self.examples.users[positions], self.examples.cuts[positions]
        histories = self.sequences.before(users, cuts, self.max_items)
        if self.augmentation.is_on:
            histories = histories.where(self.augmentation.kept(positions, histories.lengths))
        prompts = self.items.prompts(histories, end=True)
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
class WindowExamples:
    """One example a window of a user's history, with all training targets in it; how it is written, subclasses say.

    Attributes:
        windows: which events, and which of them are learnt.
        items: how items are written.
        augmentation: what is left out of the events before a window's last one. What is left out is not learnt in
            that epoch either, nor is what then stands first, with nothing before it.
    """

    windows: Windows
    items: ItemTokens
    augmentation: Augmentation = WHOLE

    def __len__(self) -> int:
        return len(self.windows)

    def in_epoch(self, seed: int, epoch: int) -> Self:
        """The examples as an epoch of a run sees them."""
        return replace(self, augmentation=self.augmentation.in_epoch(seed, epoch))

    def batch(self, positions: IntArray) -> WindowBatch:
        """The windows at `positions` as this epoch sees them."""
        batch = self.windows.batch(positions)
        if not self.augmentation.is_on:
            return batch
        return batch.where(self.augmentation.kept(positions, self.windows.sizes[positions] - 1))

    def prompts(self, positions: IntArray, batch: WindowBatch, is_read_BT: BoolArray) -> Prompts:
        """The events of a batch that are read, as token ids behind the begin token."""
        offsets = np.concatenate([[0], np.cumsum(is_read_BT.sum(axis=1))])
        histories = Histories(batch.rows_BT[is_read_BT], offsets, self.windows.users[positions])
        return self.items.prompts(histories, begin=True)


@dataclass(frozen=True)
class SequenceExamples(WindowExamples):
    """Windows of which every code is read, and those of targets are learnt where the code before them stands."""

    @property
    def lengths(self) -> IntArray:
        """int64[P], tokens of each example."""
        events = self.augmentation.num_kept(self.windows.sizes - 1) + 1
        return events * self.items.num_levels + self.items.num_extra

    def collate(self, positions: IntArray) -> dict[str, Tensor]:
        """The windows at `positions` as `input_ids`, `attention_mask` and `labels` (codes of targets only)."""
        batch = self.batch(positions)
        prompts = self.prompts(positions, batch, batch.inside_BT)
        learnt = np.repeat(batch.learnt_BT, self.items.num_levels, axis=1)
        learnt = np.pad(learnt, ((0, 0), (self.items.num_extra, 0)))
        labels = prompts.tokens_BT.masked_fill(torch.from_numpy(~learnt), IGNORE)
        return {"input_ids": prompts.tokens_BT, "attention_mask": prompts.mask_BT, "labels": labels}
