"""What is left out of histories: never everything, as often as asked, the same whatever is drawn beside it."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sidrec.config import RunSettings
from sidrec.recommenders.decoder import Decoder
from sidrec.recommenders.tiger import Tiger
from sidrec.tasks.augmentation import Augmentation
from sidrec.testing.toy import cycle_dataset, grid_semantic_ids
from sidrec.training import watch
from sidrec.training.config import TrainingConfig
from sidrec.training.objectives import IGNORE

DATASET = cycle_dataset(num_items=16, num_users=12)
IDS = grid_semantic_ids(DATASET.catalog, size=4, levels=2)
SMALL = {
    Tiger: {"d_model": 16, "d_kv": 8, "num_heads": 2, "d_ff": 32, "num_layers": 1},
    Decoder: {"d_model": 16, "num_heads": 2, "d_ff": 32, "num_layers": 1, "dropout": 0.0},
}
BOTH = {"history_dropout": 0.4, "subsequences": True}


def examples_of(kind, **fields):
    recommender = kind(**SMALL[kind], **fields)
    recommender.semantic_ids = IDS
    return recommender.examples(DATASET, DATASET.split.train)


@settings(deadline=None)
@given(
    lengths=st.lists(st.integers(0, 9), min_size=1, max_size=8),
    dropout=st.sampled_from([0.0, 0.3, 0.99]),
    subsequences=st.booleans(),
    epoch=st.integers(0, 3),
)
def test_something_stays_and_each_example_is_drawn_alone(lengths, dropout, subsequences, epoch):
    drawn = Augmentation(dropout, subsequences).in_epoch(4, epoch)
    lengths = np.array(lengths)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    kept = drawn.kept(np.arange(len(lengths)), lengths)
    counts = [int(kept[first:last].sum()) for first, last in pairwise(offsets)]
    assert all(1 <= count <= length for count, length in zip(counts, lengths, strict=True) if length)
    assert drawn.num_kept(lengths).tolist() == counts
    for example, length in enumerate(lengths):
        alone = drawn.kept(np.array([example]), np.array([length]))
        assert np.array_equal(alone, kept[offsets[example] : offsets[example + 1]])


def test_items_are_left_out_as_often_as_asked():
    lengths = np.full(4000, 10)
    kept = Augmentation(history_dropout=0.3).in_epoch(0, 0).kept(np.arange(4000), lengths).reshape(4000, 10)
    np.testing.assert_allclose(kept.mean(axis=0), 0.7, atol=0.03)
    # Neighbours are independent: both stay in 0.49 of the histories.
    np.testing.assert_allclose((kept[:, 1:] & kept[:, :-1]).mean(axis=0), 0.49, atol=0.04)


def test_every_suffix_is_equally_likely():
    lengths = np.full(4000, 5)
    kept = Augmentation(subsequences=True).in_epoch(0, 0).kept(np.arange(4000), lengths).reshape(4000, 5)
    assert (np.diff(kept.astype(int), axis=1) >= 0).all(), "what stays is the end"
    np.testing.assert_allclose(np.bincount(kept.sum(axis=1), minlength=6)[1:] / 4000, 0.2, atol=0.03)


def test_where_a_history_begins_says_nothing_of_what_is_left_out_behind():
    # The first item shares a draw with the start, if any does: at start 0 its number would always be small.
    num, length, dropout = 20_000, 5, 0.3
    lengths = np.full(num, length)
    starts, both = (
        Augmentation(share, subsequences=True).in_epoch(0, 0).kept(np.arange(num), lengths).reshape(num, length)
        for share in (0.0, dropout)
    )
    assert (both <= starts).all()
    for first in range(length):
        begins_here = starts.sum(axis=1) == length - first
        # The newest item is told apart: it stays where nothing else would.
        share_kept = both[begins_here, first : length - 1].mean(axis=0)
        np.testing.assert_allclose(share_kept, 1 - dropout, atol=0.03)


def test_epochs_and_seeds_differ_and_without_a_draw_nothing_is_left_out():
    plan, lengths = Augmentation(**BOTH), np.full(50, 8)
    one, two, three = (plan.in_epoch(*at).kept(np.arange(50), lengths) for at in ((0, 0), (0, 1), (1, 0)))
    assert (one != two).any()
    assert (one != three).any()
    assert plan.kept(np.arange(50), lengths).all()
    assert Augmentation().in_epoch(0, 0).kept(np.arange(50), lengths).all()


@pytest.mark.parametrize("kind", SMALL)
def test_examples_read_what_stays(kind):
    examples = examples_of(kind, **BOTH)
    drawn = examples.in_epoch(seed=3, epoch=2)
    positions = np.random.default_rng(0).permutation(len(examples))[:9]
    batch = drawn.collate(positions)
    assert (batch["attention_mask"].sum(1).numpy() == drawn.lengths[positions]).all()
    assert drawn.lengths.sum() < examples.lengths.sum()
    whole = examples.collate(positions)
    for row, position in enumerate(positions):
        (alone,) = drawn.collate(np.array([position]))["input_ids"]
        read = batch["input_ids"][row][batch["attention_mask"][row] > 0]
        assert torch.equal(alone, read), "an example is the same in every batch"
        items, all_items = (
            [tuple(pair) for pair in tokens[tokens > 2].view(-1, 2).tolist()]
            for tokens in (read, whole["input_ids"][row])
        )
        assert items == [item for item in all_items if item in set(items)], "the order stays"


def test_prefix_examples_keep_their_targets():
    examples = examples_of(Tiger, **BOTH)
    positions = np.arange(len(examples))
    drawn = examples.in_epoch(0, 0).collate(positions)
    assert torch.equal(drawn["labels"], examples.collate(positions)["labels"])


def test_windows_learn_what_stays_but_its_first():
    examples = examples_of(Decoder, **BOTH)
    batch = examples.in_epoch(0, 1).collate(np.arange(len(examples)))
    tokens, labels = batch["input_ids"][:, 1:].unflatten(1, (-1, 2)), batch["labels"][:, 1:].unflatten(1, (-1, 2))
    learnt = (labels != IGNORE).all(2)
    assert torch.equal(tokens[learnt], labels[learnt])
    sizes = (batch["attention_mask"].sum(1) - 1) // 2
    # Users of the cycle have no event that is no target but their first.
    assert torch.equal(learnt.sum(1), sizes - 1)
    assert not learnt[:, 0].any()


@pytest.mark.parametrize("kind", SMALL)
def test_off_reads_what_it_always_read(kind):
    examples = examples_of(kind)
    drawn, positions = examples.in_epoch(1, 1), np.arange(len(examples))
    for name, values in examples.collate(positions).items():
        assert torch.equal(values, drawn.collate(positions)[name])
    assert np.array_equal(examples.lengths, drawn.lengths)


@pytest.mark.parametrize(("kind", "options"), [*((kind, {}) for kind in SMALL), (Decoder, {"packed": True})])
def test_a_resumed_training_draws_the_same(tmp_path, monkeypatch, kind, options):
    monkeypatch.setattr(watch, "CHECKPOINT_SECONDS", 0.0)
    training = TrainingConfig(max_epochs=3, batch_size=16 if kind is Tiger else 4, validate_every=1, patience=0)

    def fitted(folder, kill_at=None, **fields):
        recommender, calls = kind(**SMALL[kind], **options, **fields), []

        def validate(_):
            calls.append(1)
            if len(calls) == kill_at:
                raise KeyboardInterrupt
            return {"metric": float(len(calls))}

        run = RunSettings(device="cpu", scratch=tmp_path / folder)
        recommender.fit(DATASET, training, run, semantic_ids=IDS, validate=validate)
        return torch.cat([weight.flatten() for weight in recommender.model.parameters()])

    whole = fitted("whole", **BOTH)
    with pytest.raises(KeyboardInterrupt):
        fitted("cut", kill_at=5, **BOTH)
    assert [path.name for path in (tmp_path / "cut" / "checkpoints").glob("checkpoint-*")] == ["checkpoint-4"]
    assert torch.equal(fitted("cut", **BOTH), whole)
    assert not torch.equal(fitted("plain"), whole)
