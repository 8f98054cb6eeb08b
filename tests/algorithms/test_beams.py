"""Pairs of the model's own mistakes: the best items of its own lists, without anything held out."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.algorithms.pair_cases import check_codes, check_pairs, events_of, random_dataset, with_other_future

from sidrec.algorithms import beams
from sidrec.algorithms.beams import BeamPairs
from sidrec.config import RunSettings
from sidrec.decoding.recommendations import Request
from sidrec.recommenders.decoder import Decoder
from sidrec.recommenders.sasrec import SASRec
from sidrec.testing.toy import random_semantic_ids
from sidrec.training.config import TrainingConfig

RUN = RunSettings(device="cpu")


def untrained(dataset, kind, sizes=(4, 5, 6)):
    if kind == "sasrec":
        model = SASRec(hidden_size=8, num_layers=1, dropout=0.0, max_history=4)
    else:
        model = Decoder(d_model=8, num_heads=2, d_ff=8, num_layers=1, max_history=3)
    ids = random_semantic_ids(dataset.catalog, sizes)
    model.fit(dataset, TrainingConfig(max_steps=1, batch_size=32), RUN, semantic_ids=ids)
    return model


@pytest.mark.parametrize("kind", ["sasrec", "decoder"])
@pytest.mark.parametrize("spared", [True, False])
def test_the_best_items_of_the_list_that_are_not_the_users_own(kind, spared, monkeypatch):
    monkeypatch.setattr(beams, "USERS_AT_ONCE", 7)
    dataset = random_dataset(3)
    model = untrained(dataset, kind)
    pairs = BeamPairs(negatives=3, spare_held_out=spared).pairs(model, dataset, RUN)
    check_pairs(dataset, pairs, "last", spared)
    everything = model.rank(pairs.histories(np.arange(len(pairs))), Request(k=40, exclude_seen=False, exact=True), RUN)
    lines = np.searchsorted(dataset.sequences.offsets, pairs.starts)
    for rejected, line, ranked in zip(pairs.rejected_PM, lines, everything.rows, strict=True):
        own = events_of(dataset, dataset.sequences.users[line])[0 if spared else 1]
        assert rejected.tolist() == [row for row in ranked.tolist() if row not in own][:3]


@settings(max_examples=5, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(["last", "all"]), st.booleans())
def test_nothing_of_the_user_is_rejected(seed, targets, spared):
    dataset = random_dataset(seed, repeated_users=True)
    pairs = BeamPairs(negatives=2, targets=targets, spare_held_out=spared).pairs(
        untrained(dataset, "sasrec"), dataset, RUN
    )
    check_pairs(dataset, pairs, targets, spared)


def test_blind_pairs_depend_on_training_events_alone():
    dataset = random_dataset(5)
    other = with_other_future(dataset, 6)
    one, two = (BeamPairs(negatives=2).pairs(untrained(data, "sasrec"), data, RUN) for data in (dataset, other))
    assert np.array_equal(one.rejected_PM, two.rejected_PM)


def test_users_who_own_the_whole_catalogue_are_dropped():
    dataset = random_dataset(2, num_items=4)
    pairs = BeamPairs(negatives=4).pairs(untrained(dataset, "sasrec"), dataset, RUN)
    own = [set(events_of(dataset, f"u{line}")[1]) for line in np.unique(dataset.split.train.users)]
    assert pairs.num_dropped == sum(len(items) == 4 for items in own) > 0
    counts = (pairs.rejected_PM >= 0).sum(axis=1)
    assert counts.tolist() == [4 - len(items) for items in own if len(items) < 4]


def test_items_with_the_codes_of_the_chosen_one_are_not_rejected():
    dataset = random_dataset(4)
    model = untrained(dataset, "decoder", sizes=(2, 3, 2))
    pairs = BeamPairs(negatives=5, targets="all").pairs(model, dataset, RUN)
    check_codes(dataset, pairs, model.semantic_ids.codes, negatives=5)
