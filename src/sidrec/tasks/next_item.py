"""Next-item examples: histories of rows become token arrays, for training, validation and serving.

The one place where prompts are built, so that what a model reads when it serves is what it read
when it learnt. Items become tokens by one array look-up; no strings are made. `PrefixExamples` is
for encoder-decoders (one target an example), `SequenceExamples` for causal models (all targets of a
stretch of a user's history in one forward pass). Text prompts and other tasks are not here.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sidrec.data.dataset import Examples
from sidrec.data.sequences import Histories, Sequences
from sidrec.types import BoolArray, IntArray

__all__ = ["IGNORED", "ItemTokens", "PrefixExamples", "Prompts", "SequenceExamples"]

IGNORED = -100
"""Label of a position that is not learnt from (the convention of torch and transformers)."""


@dataclass(frozen=True)
class Prompts:
    """A batch of prompts, padded on the right.

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
        """The examples at `positions` as `input_ids`, `attention_mask` and `labels` (codes, end token)."""
        users, cuts = self.examples.users[positions], self.examples.cuts[positions]
        prompts = self.items.prompts(self.sequences.before(users, cuts, self.max_items), end=True)
        targets_BL = self.items.table_NL[self.sequences.targets(users, cuts)]
        labels = np.pad(targets_BL, ((0, 0), (0, 1)), constant_values=self.items.eos)
        return {
            "input_ids": prompts.tokens_BT,
            "attention_mask": prompts.mask_BT,
            "labels": torch.from_numpy(labels.astype(np.int64)),
        }


@dataclass(frozen=True)
class SequenceExamples:
    """One example a stretch of a user's history, with all training targets in it.

    A user with at most `max_items + 1` items up to the last target is one stretch. A longer history
    is cut into stretches of that size which overlap by half; a target is learnt in exactly one, the
    first that holds it, so it is seen with at least half of the context that serving gives.

    Attributes:
        rows: int32[T], items of all users one after the other.
        is_target: bool[T], whether the item is learnt.
        starts: int64[P], place in `rows` where each stretch begins.
        sizes: int64[P], items in each stretch.
        seen: int64[P], leading items of each stretch that give context only.
        items: how items are written.
    """

    rows: IntArray
    is_target: BoolArray
    starts: IntArray
    sizes: IntArray
    seen: IntArray
    items: ItemTokens

    @classmethod
    def of(cls, sequences: Sequences, examples: Examples, items: ItemTokens, max_items: int) -> "SequenceExamples":
        """Stretches that hold every target of `examples` once.

        Args:
            sequences: the users' histories.
            examples: which items are targets; nothing after a user's last target is read.
            items: how items are written.
            max_items: items of history that the model reads when it serves; 0 means no limit.
        """
        is_target = np.zeros(len(sequences.rows), dtype=np.bool_)
        is_target[sequences.offsets[examples.users] + examples.cuts] = True
        used = np.zeros(len(sequences), dtype=np.int64)
        np.maximum.at(used, examples.users, examples.cuts.astype(np.int64) + 1)
        size = max_items + 1 if max_items > 0 else max(int(used.max(initial=1)), 1)
        users, ends, seen = _stretches(used, size)
        sizes = np.minimum(ends, size)
        starts = sequences.offsets[users] + ends - sizes
        before = np.concatenate([[0], np.cumsum(is_target)])
        useful = before[starts + sizes] > before[starts + seen]
        return cls(sequences.rows, is_target, starts[useful], sizes[useful], seen[useful], items)

    def __len__(self) -> int:
        return len(self.starts)

    @property
    def lengths(self) -> IntArray:
        """int64[P], tokens of each example."""
        return self.sizes * self.items.num_levels + 1

    def collate(self, positions: IntArray) -> dict[str, Tensor]:
        """The stretches at `positions` as `input_ids`, `attention_mask` and `labels` (codes of targets only)."""
        starts, sizes, seen = self.starts[positions], self.sizes[positions], self.seen[positions]
        place = np.arange(sizes.max(initial=0))
        inside_BT = place < sizes[:, None]
        events_BT = np.where(inside_BT, starts[:, None] + place, 0)
        histories = Histories(self.rows[events_BT[inside_BT]], np.concatenate([[0], np.cumsum(sizes)]))
        prompts = self.items.prompts(histories, begin=True)
        learnt_BT = inside_BT & (place >= seen[:, None]) & self.is_target[events_BT]
        learnt = np.pad(np.repeat(learnt_BT, self.items.num_levels, axis=1), ((0, 0), (1, 0)))
        labels = prompts.tokens_BT.masked_fill(torch.from_numpy(~learnt), IGNORED)
        return {"input_ids": prompts.tokens_BT, "attention_mask": prompts.mask_BT, "labels": labels}


def _stretches(used: IntArray, size: int) -> tuple[IntArray, IntArray, IntArray]:
    """Stretches that cover the first `used[u]` items of each user: (user, end, items already covered).

    The first one covers `size` items, each later one half as many new items.
    """
    step = max(size // 2, 1)
    counts = np.where(used > 0, 1 + np.maximum(-(-(used - size) // step), 0), 0)
    users = np.repeat(np.arange(len(used)), counts)
    number = np.arange(len(users)) - np.repeat(np.cumsum(counts) - counts, counts)
    ends = np.minimum(size + number * step, used[users])
    new_from = np.where(number > 0, size + (number - 1) * step, 0)
    return users, ends, new_from - (ends - np.minimum(ends, size))
