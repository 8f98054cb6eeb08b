"""Which examples go into which batch: random order, similar lengths together, the same every time.

Leaves out what an example is: `TrainingExamples.collate` turns positions into tensors.
"""

from collections.abc import Callable, Iterator
from typing import Any, Protocol, cast

import numpy as np
import torch
from torch.utils.data import Dataset, Sampler

from sidrec.random import generator
from sidrec.training.objectives import IGNORE
from sidrec.types import IntArray

__all__ = [
    "IDLE",
    "NO_POSITION",
    "BatchDataset",
    "LengthBuckets",
    "RedrawnExamples",
    "TrainingExamples",
    "num_examples",
    "num_targets",
    "padding_of",
]

MEGA_BATCHES = 50
"""Batches among which examples are sorted by length: enough for little padding, few enough for a random mix."""

NO_POSITION = -1
"""Position of padding in rows that hold several examples, each of which begins at position 0."""

IDLE = "idle"
"""Marks the batch of a process for which a step has no example left; it takes part and counts nothing."""


class TrainingExamples(Protocol):
    """What a model is trained on.

    Implementations are dataclasses of flat arrays, by which a resumed run knows its data again, and
    collate without a loop over examples.
    """

    @property
    def lengths(self) -> IntArray:
        """int[P], input positions of each example; examples of similar length share a batch."""
        ...

    def __len__(self) -> int: ...

    def collate(self, positions: IntArray) -> dict[str, torch.Tensor]:
        """Keyword arguments of the model for some of the examples.

        `labels` (`IGNORE` where nothing is to be predicted) says how many targets the batch holds; an
        `attention_mask` (0 where the input is padding), if there is one, how much of it is padding. A row is an
        example; where several stand in one, `position_ids` say so (0 where an example begins, `NO_POSITION` where the
        input is padding).
        """
        ...


class RedrawnExamples(TrainingExamples, Protocol):
    """Examples of which every epoch sees something else."""

    def in_epoch(self, seed: int, epoch: int) -> TrainingExamples:
        """The examples of an epoch of a run: a pure function of both numbers, by which a resumed run draws the same."""
        ...


class LengthBuckets(Sampler[list[int]]):
    """Batches of examples of similar length; every example once an epoch, order set by seed and epoch.

    Examples are shuffled, cut into groups of about 50 batches, sorted by length inside each group, cut
    into batches, and the batches are shuffled. The last, smaller batch is a random remainder. With
    accumulation the pieces of one optimizer step follow each other, so that a step sees the same examples
    however it is cut, among several processes too: each has its share of every piece of a step.

    Args:
        lengths: int[P], length of each example.
        batch_size: examples in one optimizer step.
        piece: examples in one forward pass of one process; with `processes` it divides `batch_size`.
        seed: of the run.
        process: number of this process, from 0.
        processes: how many share every step.
        lengths_in: epoch → int[P], lengths of the examples in it, where they differ between epochs.
    """

    def __init__(
        self,
        lengths: IntArray,
        batch_size: int,
        piece: int,
        seed: int,
        process: int = 0,
        processes: int = 1,
        lengths_in: Callable[[int], IntArray] | None = None,
    ) -> None:
        self.lengths, self.step_size, self.batch_size, self.seed = np.asarray(lengths), batch_size, piece, seed
        self.process, self.processes, self.lengths_in = process, processes, lengths_in
        self.drop_last = False
        self.epoch = 0
        """The epoch whose order `__iter__` gives; set before each epoch."""

    def __len__(self) -> int:
        whole, rest = divmod(len(self.lengths), self.step_size)
        together = self.batch_size * self.processes
        return whole * (self.step_size // together) + -(-rest // together)

    def __iter__(self) -> Iterator[list[int]]:
        for batch in self.batches():
            together = self.batch_size * self.processes
            for start in range(0, len(batch), together):
                yield np.array_split(batch[start : start + together], self.processes)[self.process].tolist()

    def batches(self) -> list[IntArray]:
        """The examples of each optimizer step of the epoch, int64[B] each."""
        draw = generator(self.seed, "batches", str(self.epoch))
        lengths = self.lengths if self.lengths_in is None else self.lengths_in(self.epoch)
        order = draw.permutation(len(self.lengths))
        whole = len(order) // self.step_size * self.step_size
        group = self.step_size * MEGA_BATCHES
        parts = [order[start : min(start + group, whole)] for start in range(0, whole, group)]
        parts = [part[np.argsort(lengths[part], kind="stable")] for part in parts]
        batches = list(np.concatenate([order[:0], *parts]).reshape(-1, self.step_size))
        batches = [batches[index] for index in draw.permutation(len(batches))]
        return [*batches, order[whole:]] if whole < len(order) else batches


class BatchDataset(Dataset[dict[str, torch.Tensor]]):
    """Gives the data loader whole collated batches, so that no example is ever touched alone.

    Args:
        examples: P of them.
        batch_size: examples in one optimizer step.
        piece: examples in one forward pass of one process.
        seed: of the run.
        process: number of this process, from 0.
        processes: how many share every step.
    """

    def __init__(
        self, examples: TrainingExamples, batch_size: int, piece: int, seed: int, process: int = 0, processes: int = 1
    ) -> None:
        self.examples, self.seed = examples, seed
        # Not isinstance, which reads the lengths of all examples.
        redrawn = hasattr(type(examples), "in_epoch")
        self._redrawn = cast(RedrawnExamples, examples) if redrawn else None
        self._drawn: tuple[int, TrainingExamples] | None = None
        lengths_in = (lambda epoch: self.in_epoch(epoch).lengths) if redrawn else None
        self.batches = LengthBuckets(examples.lengths, batch_size, piece, seed, process, processes, lengths_in)
        """Which examples share a batch, in the epoch that is set there."""

    def __len__(self) -> int:
        return len(self.examples)

    def in_epoch(self, epoch: int) -> TrainingExamples:
        """The examples as an epoch sees them."""
        if self._redrawn is None:
            return self.examples
        if self._drawn is None or self._drawn[0] != epoch:
            self._drawn = epoch, self._redrawn.in_epoch(self.seed, epoch)
        return self._drawn[1]

    def __getitems__(self, positions: list[int]) -> dict[str, torch.Tensor]:
        """The collated batch of these examples; for none, an example marked as idle."""
        batch = self.in_epoch(self.batches.epoch).collate(np.asarray(positions or [0], dtype=np.int64))
        return batch if positions else {**batch, IDLE: torch.tensor(True)}


def num_targets(batch: dict[str, Any]) -> Any:
    """Number of targets in a batch, a tensor or an int: its labels, or its examples where it has none; none if idle."""
    if IDLE in batch:
        return 0
    return (batch["labels"] != IGNORE).sum() if "labels" in batch else len(next(iter(batch.values())))


def num_examples(batch: dict[str, torch.Tensor]) -> int:
    """Number of examples in a batch: its rows, or what begins in them where rows hold several.

    >>> num_examples({"input_ids": torch.ones(2, 3)})
    2
    >>> num_examples({"position_ids": torch.tensor([[0, 1, 0], [0, 1, NO_POSITION]])})
    3
    """
    if "position_ids" in batch:
        return int((batch["position_ids"] == 0).sum())
    return len(next(iter(batch.values())))


def padding_of(batch: dict[str, torch.Tensor]) -> tuple[int, int]:
    """(padding positions, all positions) of a batch, by its attention mask or positions or, without them, its labels.

    >>> padding_of({"attention_mask": torch.tensor([[1, 1, 0], [1, 1, 1]])})
    (1, 6)
    >>> padding_of({"position_ids": torch.tensor([[0, 1, 0], [0, 1, NO_POSITION]])})
    (1, 6)
    """
    if "attention_mask" in batch:
        return int((batch["attention_mask"] == 0).sum()), batch["attention_mask"].numel()
    if "position_ids" in batch:
        return int((batch["position_ids"] == NO_POSITION).sum()), batch["position_ids"].numel()
    if "labels" in batch:
        return int((batch["labels"] == IGNORE).sum()), batch["labels"].numel()
    return 0, 1
