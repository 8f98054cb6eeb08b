from itertools import chain

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from sidrec.training.batches import LengthBuckets, padding_of
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


def test_padding_is_counted_by_labels_without_a_mask():
    assert padding_of({"labels": torch.tensor([[1, IGNORE, IGNORE, 2]])}) == (2, 4)
    assert padding_of({"x": torch.ones(3)}) == (0, 1)
