"""Windows in common rows: where each stands, and that to the model each is alone."""

from dataclasses import replace
from itertools import chain
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.recommenders.generative_cases import RUN, make
from tests.tasks.test_next_item import KNOWN, SEQUENCES, pairs, sequence_examples

from sidrec.data.dataset import Dataset, Examples, Split
from sidrec.data.sequences import Sequences
from sidrec.recommenders.decoder import Decoder
from sidrec.tasks.augmentation import Augmentation
from sidrec.tasks.packing import PackedExamples, first_fit
from sidrec.testing.toy import cycle_dataset, grid_semantic_ids
from sidrec.training import watch
from sidrec.training.batches import NO_POSITION, BatchDataset, num_examples, num_targets, padding_of
from sidrec.training.config import OptimizerConfig, TrainingConfig
from sidrec.training.objectives import IGNORE

OPTIONS = {
    "plain": {},
    "users": {"user_tokens": 9},
    "thinned": {"history_dropout": 0.4, "subsequences": True},
    "temperature, smoothing": {"temperature": 0.7, "label_smoothing": 0.1},
}


def ragged(**fields):
    """A decoder with random weights, and 14 windows of it in one row each and packed, as epoch 1 sees them."""
    recommender = make("decoder", **fields)
    lengths = np.array([2, 9, 3, 4, 14, 2, 5, 3, 6, 2])
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    rows = np.random.default_rng(5).integers(60, size=offsets[-1]).astype(np.int32)
    sequences = Sequences(rows, offsets, [f"user-{number}" for number in range(len(lengths))])
    users = np.repeat(np.arange(len(lengths)), lengths - 1).astype(np.int32)
    cuts = np.concatenate([np.arange(1, length) for length in lengths]).astype(np.int32)
    none = Examples(users[:0], cuts[:0])
    dataset = Dataset(recommender.catalog, sequences, Split("by hand", Examples(users, cuts), none, none))
    padded = recommender.examples(dataset, dataset.split.train)
    packed = PackedExamples.of(padded)
    return recommender, padded.in_epoch(3, 1), packed.in_epoch(3, 1)


@given(st.lists(st.integers(1, 20), max_size=40), st.integers(20, 60))
def test_every_length_has_its_own_cells_in_few_rows(lengths, capacity):
    lengths = np.array(lengths, dtype=np.int64)
    rows, starts = first_fit(lengths, capacity)
    placed = list(zip(rows.tolist(), starts.tolist(), lengths.tolist(), strict=True))
    cells = [(row, start + place) for row, start, length in placed for place in range(length)]
    assert len(set(cells)) == lengths.sum()
    filled = np.bincount(rows, lengths, minlength=1)
    assert all(start + length <= filled[row] <= capacity for row, start, length in placed), (
        "no gaps, none over capacity"
    )
    assert filled.min() > 0 or not placed, "no row is left out"
    assert np.sort(filled)[:2].sum() > capacity or len(filled) == 1, "two rows that fit into one would have been one"
    again = first_fit(lengths, capacity)
    assert np.array_equal(again[0], rows)
    assert np.array_equal(again[1], starts)


def test_longest_first_into_the_first_row_with_room():
    rows, starts = first_fit(np.array([3, 5, 5, 2, 3, 11, 2]), capacity=10)
    # 11 alone, 5 5, then 3 3 2 2.
    assert rows.tolist() == [2, 1, 1, 2, 2, 0, 2]
    assert starts.tolist() == [0, 0, 5, 6, 3, 0, 8]


def test_packed_examples_by_hand():
    wide = sequence_examples(SEQUENCES, pairs((0, 1), (0, 2), (1, 1)), max_items=5)
    packed = PackedExamples(wide, capacity=12)
    assert PackedExamples.of(wide).capacity == 7
    assert packed.lengths.tolist() == [12, 12]
    batch = packed.collate(np.array([1, 0]))
    ignored = IGNORE
    assert {name: values.tolist() for name, values in batch.items()} == {
        "input_ids": [[2, 3, 5, 3, 7, 4, 6, 2, 4, 5, 4, 6]],
        "position_ids": [[0, 1, 2, 3, 4, 5, 6, 0, 1, 2, 3, 4]],
        "labels": [[*[ignored] * 3, 3, 7, 4, 6, *[ignored] * 3, 4, 6]],
    }
    assert (num_examples(batch), num_targets(batch), padding_of(batch)) == (2, 6, (0, 12))
    apart = PackedExamples.of(wide).collate(np.array([1, 0]))
    assert apart["input_ids"].tolist() == [[2, 3, 5, 3, 7, 4, 6], [2, 4, 5, 4, 6, 0, 0]]
    assert apart["position_ids"].tolist()[1] == [0, 1, 2, 3, 4, NO_POSITION, NO_POSITION]
    assert apart["labels"].tolist()[1] == [*[ignored] * 3, 4, 6, ignored, ignored]
    assert (num_examples(apart), num_targets(apart), padding_of(apart)) == (2, 6, (2, 14))


def test_users_stand_in_every_window():
    examples = sequence_examples(SEQUENCES, pairs((0, 1), (1, 1), (1, 2)), 5, KNOWN)
    tokens = [8 + key % 2 for key in SEQUENCES.user_keys.tolist()]
    batch = PackedExamples(examples, capacity=20).collate(np.array([0, 1]))
    assert batch["input_ids"].tolist() == [[2, tokens[1], 4, 5, 4, 6, 3, 7, 2, tokens[0], 3, 5, 3, 7]]
    assert (batch["labels"][0, [0, 1, 8, 9]] == IGNORE).all()


@pytest.mark.parametrize("options", OPTIONS)
def test_loss_and_gradients_equal_those_of_padded_rows_and_of_each_window_alone(options):
    recommender, padded, packed = ragged(**OPTIONS[options])
    positions, model = np.random.default_rng(1).permutation(len(padded)), recommender.model
    batch, rows = packed.collate(positions), padded.collate(positions)
    assert batch["input_ids"].shape[0] < len(positions) == num_examples(batch)
    assert num_targets(batch) == num_targets(rows)

    def found(loss):
        model.zero_grad()
        loss.backward()
        return loss.item(), torch.cat([weight.grad.flatten() for weight in model.parameters()])

    one, gradient = found(recommender.loss(model, batch))
    two, wanted = found(recommender.loss(model, rows))
    alone = [padded.collate(positions[[number]]) for number in range(len(positions))]
    counts = [int(num_targets(each)) for each in alone]
    sums = [recommender.loss(model, each) * count for each, count in zip(alone, counts, strict=True) if count]
    three, slow = found(torch.stack(sums).sum() / sum(counts))
    assert one == pytest.approx(two, rel=1e-6)
    assert one == pytest.approx(three, rel=1e-6)
    scale = wanted.abs().max().item()
    torch.testing.assert_close(gradient, wanted, rtol=1e-4, atol=1e-6 * scale)
    torch.testing.assert_close(gradient, slow, rtol=1e-4, atol=1e-6 * scale)


def test_a_window_does_not_see_its_neighbours():
    recommender, _, packed = ragged()
    batch = replace(packed, capacity=60).collate(np.arange(len(packed)))
    places = batch["position_ids"]
    documents = (places == 0).cumsum(1)
    assert (places == NO_POSITION).any(), "padding is among what changes"
    model, inputs = recommender.model, {"position_ids": places, "use_cache": False}
    with torch.no_grad():
        before = model(input_ids=batch["input_ids"], **inputs).logits
        for document in range(1, int(documents[0].max()) + 1):
            inside = (documents == document) & (places >= 0)
            others = torch.where(inside, batch["input_ids"], 3 + (batch["input_ids"] + 4) % 15)
            after = model(input_ids=others, **inputs).logits
            assert torch.equal(after[inside], before[inside])
            assert (after[~inside] != before[~inside]).any()
            first = batch["input_ids"].clone()
            first[places == 0] = 7
            changed = (model(input_ids=first, **inputs).logits != before).any(-1)
            assert changed[inside].all(), "but its own first token is seen by all of it"


@pytest.mark.parametrize("options", ["plain", "thinned"])
def test_batches_hold_every_window_once_in_any_order_of_lengths(options):
    _, padded, packed = ragged(**OPTIONS[options])
    data = BatchDataset(packed, 5, 5, seed=2)
    batches = list(data.batches)
    assert sorted(chain(*batches)) == list(range(len(packed)))
    sizes = padded.windows.sizes
    spread = [sum(np.ptp(sizes[batch]) for batch in each) for each in (BatchDataset(padded, 5, 5, 2).batches, batches)]
    assert spread[0] < spread[1], "lengths are mixed"
    for batch in batches:
        found = data.__getitems__(batch)
        assert num_examples(found) == len(batch)
        tokens = found["input_ids"].numel() - padding_of(found)[0]
        assert tokens == int(data.in_epoch(0).examples.collate(np.array(batch))["attention_mask"].sum())


def test_what_is_left_out_changes_with_the_epoch():
    examples = sequence_examples(SEQUENCES, pairs((0, 1), (0, 2), (0, 3)), 5)
    packed = PackedExamples.of(replace(examples, augmentation=Augmentation(history_dropout=0.5)))
    read = {
        tuple(packed.in_epoch(0, epoch).collate(np.array([0]))["input_ids"].flatten().tolist()) for epoch in range(8)
    }
    assert len(read) > 2
    assert packed.in_epoch(0, 3).capacity == packed.capacity == 9


@pytest.mark.parametrize("fields", [{}, {"user_tokens": 5, "history_dropout": 0.2, "subsequences": True}])
def test_steps_over_all_windows_are_the_same_packed_or_not_and_in_pieces(fields, monkeypatch):
    dataset = cycle_dataset(num_items=16, num_users=24)
    ids = grid_semantic_ids(dataset.catalog, levels=2)
    small = {"d_model": 16, "num_heads": 2, "d_ff": 32, "num_layers": 2, "dropout": 0.0, "max_history": 4, **fields}
    # A clock that stands still shows how many examples were counted: they all take its shortest time.
    monkeypatch.setattr(watch, "time", SimpleNamespace(perf_counter=lambda: 0.0))
    found = []
    for packed, accumulation in ((False, 1), (True, 1), (True, 2)):
        # Seven events of 24 users are two windows each.
        training = TrainingConfig(
            max_steps=5, batch_size=48, accumulation=accumulation, optimizer=OptimizerConfig(lr=0.01)
        )
        recommender = Decoder(**small, packed=packed)
        report = recommender.fit(dataset, training, RUN, semantic_ids=ids)
        weights = torch.cat([weight.detach().flatten() for weight in recommender.model.parameters()])
        found.append((report, weights))
        assert report.losses[-1][1] < report.losses[0][1]
        assert report.examples_per_second == pytest.approx(5 * 48 / 1e-9)
    (plain, weights), *others = found
    for report, changed in others:
        torch.testing.assert_close(changed, weights, rtol=0, atol=2e-4)
        np.testing.assert_allclose(report.losses, plain.losses, rtol=1e-4)
        assert report.padding_share <= plain.padding_share / 2
