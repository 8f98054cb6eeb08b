from dataclasses import dataclass
from itertools import chain

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from sidrec.training.batches import IDLE, BatchDataset, LengthBuckets, num_targets, padding_of
from sidrec.training.objectives import IGNORE


@given(num=st.integers(0, 300), accumulation=st.integers(1, 3), piece=st.integers(1, 7), epoch=st.integers(0, 3))
def test_every_example_once_an_epoch(num, accumulation, piece, epoch):
    buckets = LengthBuckets(np.arange(num) % 11, accumulation * piece, piece, seed=4)
    buckets.epoch = epoch
    pieces = list(buckets)
    assert len(pieces) == len(buckets)
    assert sorted(chain(*pieces)) == list(range(num))
    assert all(len(batch) == piece for batch in pieces[: num // (accumulation * piece) * accumulation])
    assert pieces == list(buckets)


@given(
    num=st.integers(0, 200),
    accumulation=st.integers(1, 3),
    piece=st.integers(1, 5),
    processes=st.integers(1, 4),
)
def test_processes_share_every_step_of_one(num, accumulation, piece, processes):
    """Step by step they have the examples of a process alone, each once, in the same number of pieces."""
    lengths, size = np.arange(num) % 11, accumulation * piece * processes
    shares = [list(LengthBuckets(lengths, size, piece, 4, process, processes)) for process in range(processes)]
    steps = LengthBuckets(lengths, size, size, seed=4).batches()
    assert {len(share) for share in shares} == {len(LengthBuckets(lengths, size, piece, 4, 0, processes))}
    for step, examples in enumerate(batch for batch in steps if len(batch)):
        mine = [share[step * accumulation : (step + 1) * accumulation] for share in shares]
        assert sorted(chain(*chain(*mine))) == sorted(examples.tolist())
        assert all(len(batch) <= piece for batch in chain(*mine))


@dataclass
class Doubled:
    """Examples whose content is twice their position."""

    lengths: np.ndarray

    def __len__(self):
        return len(self.lengths)

    def collate(self, positions):
        return {"labels": torch.from_numpy(positions * 2)[:, None]}


def test_a_process_without_an_example_takes_part_and_counts_nothing():
    data = BatchDataset(Doubled(np.ones(5)), 5, 5, 0)
    busy, idle = data.__getitems__([3, 4]), data.__getitems__([])
    assert (busy["labels"].tolist(), num_targets(busy)) == ([[6], [8]], 2)
    assert IDLE not in busy
    assert bool(idle[IDLE])
    assert num_targets(idle) == 0
    assert num_targets({"labels": torch.tensor([[1, IGNORE]])}) == 1
    assert num_targets({"x": torch.ones(3)}) == 3


def test_order_depends_on_seed_and_epoch():
    def order(seed, epoch):
        buckets = LengthBuckets(np.ones(64, int), 8, 8, seed)
        buckets.epoch = epoch
        return list(buckets)

    assert order(1, 0) == order(1, 0)
    assert order(1, 0) != order(1, 1)
    assert order(1, 0) != order(2, 0)


def test_lengths_of_a_batch_are_similar_and_batches_are_mixed():
    lengths = np.random.default_rng(0).integers(1, 51, size=6400)
    batches = LengthBuckets(lengths, 64, 64, seed=0).batches()
    spread = np.mean([np.ptp(lengths[batch]) for batch in batches])
    firsts = [lengths[batch].min() for batch in batches]
    assert spread < 3
    assert firsts != sorted(firsts)


def test_pieces_are_cut_from_the_same_steps():
    lengths = np.arange(100) % 9
    whole, cut = (list(LengthBuckets(lengths, 32, piece, seed=1)) for piece in (32, 16))
    assert whole == [cut[0] + cut[1], cut[2] + cut[3], cut[4] + cut[5], cut[6]]


@dataclass
class Redrawn(Doubled):
    """Examples that are longer every epoch, and count how often they are asked for their lengths and drawn."""

    asked: list[str]
    longer: int = 0

    def __getattribute__(self, name):
        if name == "lengths":
            self.asked.append(name)
            return object.__getattribute__(self, name) + self.longer
        return object.__getattribute__(self, name)

    def __len__(self):
        return 40

    def in_epoch(self, seed, epoch):
        self.asked.append("drawn")
        return Redrawn(object.__getattribute__(self, "lengths"), self.asked, seed + epoch)


def test_an_epoch_is_drawn_once_and_its_lengths_read_once():
    data = BatchDataset(Redrawn(np.ones(40, int), []), 4, 4, seed=5)
    data.examples.asked.clear()
    for epoch in (0, 1):
        data.batches.epoch = epoch
        for positions in data.batches:
            data.__getitems__(positions)
        assert data.in_epoch(epoch).longer == 5 + epoch
    assert data.examples.asked == ["drawn", "lengths"] * 2


def test_padding_is_counted_by_labels_without_a_mask():
    assert padding_of({"labels": torch.tensor([[1, IGNORE, IGNORE, 2]])}) == (2, 4)
    assert padding_of({"x": torch.ones(3)}) == (0, 1)
