"""Pairs of neighbours: by brute force, in the stated proportions, without anything held out."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.algorithms.pair_cases import check_codes, check_pairs, random_dataset, with_other_future

from sidrec.algorithms.neighbours import NeighbourPairs, _drawn, _index, nearest_items
from sidrec.config import RunSettings
from sidrec.data.sequences import Histories
from sidrec.embeddings.base import ItemEmbeddings, unit_length
from sidrec.errors import ConfigError, DataError
from sidrec.recommenders.sasrec import SASRec
from sidrec.recommenders.tiger import Tiger
from sidrec.testing.toy import cycle_dataset, random_semantic_ids
from sidrec.training.config import TrainingConfig

RUN = RunSettings(device="cpu")


def embeddings(dataset, seed=0, dims=6):
    vectors = np.random.default_rng(seed).normal(size=(len(dataset.catalog), dims)).astype(np.float32)
    return ItemEmbeddings(vectors, "random", dataset.catalog.digest)


def mine(dataset, vectors, seed=0, **fields):
    source = NeighbourPairs(vectors="embeddings", **fields)
    return source.pairs(SASRec(), dataset, RunSettings(seed=seed, device="cpu"), vectors)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 50))
def test_nearest_items_by_brute_force(seed, ranks):
    draw = np.random.default_rng(seed)
    vectors = unit_length(draw.normal(size=(30, 4))).astype(np.float32)
    items = draw.integers(30, size=7)
    own = [[*draw.integers(30, size=draw.integers(0, 12)), item] for item in items]
    found = nearest_items(_index(vectors), vectors, items, Histories.of(own), ranks)
    assert found.shape == (7, ranks)
    for item, mine_, line in zip(items, own, found, strict=True):
        order = [row for row in np.argsort(-(vectors @ vectors[item])) if row not in mine_][:ranks]
        assert line.tolist() == order + [-1] * (ranks - len(order))


def test_items_without_a_vector_are_no_neighbours_and_have_none():
    vectors = unit_length(np.array([[1.0, 0], [0, 0], [1, 0.2], [0.2, 1]])).astype(np.float32)
    found = nearest_items(_index(vectors), vectors, np.array([0, 1]), Histories.of([[0], [1]]), 3)
    assert found.tolist() == [[2, 3, -1], [-1, -1, -1]]


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(["last", "all"]), st.booleans(), st.booleans(), st.integers(1, 4))
def test_nothing_of_the_user_is_rejected(seed, targets, spared, repeated_users, negatives):
    dataset = random_dataset(seed, repeated_users=repeated_users)
    fields = {"targets": targets, "spare_held_out": spared, "negatives": negatives, "ranks": 8, "hard": 3}
    check_pairs(dataset, mine(dataset, embeddings(dataset), **fields), targets, spared)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10**6))
def test_blind_pairs_depend_on_training_events_alone(seed):
    dataset = random_dataset(seed)
    other = with_other_future(dataset, seed + 1)
    fields = {"targets": "all", "negatives": 2, "ranks": 8, "hard": 3}
    one, two = mine(dataset, embeddings(dataset), **fields), mine(other, embeddings(dataset), **fields)
    assert np.array_equal(one.rejected_PM, two.rejected_PM)
    assert np.array_equal(one.chosen_P, two.chosen_P)


def test_the_seed_decides():
    dataset = random_dataset(1)
    one, same, other = (mine(dataset, embeddings(dataset), seed, ranks=20) for seed in (3, 3, 4))
    assert np.array_equal(one.rejected_PM, same.rejected_PM)
    assert not np.array_equal(one.rejected_PM, other.rejected_PM)


def test_hard_and_easy_ones_are_drawn_in_the_stated_proportions():
    """One of ranks 1–10 with probability 0.3, else one of 11–200, all of a pool alike."""
    config = NeighbourPairs.Config()
    found = np.tile(np.arange(200), (20_000, 1))
    drawn = _drawn(found, config, np.random.default_rng(0))
    assert drawn.shape == (20_000, 1)
    assert (drawn < 10).mean() == pytest.approx(0.3, abs=0.015)
    counts = np.bincount(drawn[:, 0], minlength=200)
    assert counts[:10] == pytest.approx(np.full(10, 600), rel=0.2)
    assert counts[10:].min() > 30
    assert counts[10:].mean() == pytest.approx(20_000 * 0.7 / 190, rel=0.03)


@pytest.mark.parametrize(("num_found", "hard_share"), [(0, 0.3), (1, 0.3), (3, 0.0), (4, 1.0), (5, 0.5), (12, 0.0)])
def test_a_small_pool_is_filled_up_from_the_other(num_found, hard_share):
    config = NeighbourPairs.Config(negatives=4, hard=3, ranks=12, hard_share=hard_share)
    found = np.where(np.arange(12) < num_found, np.arange(12) + 100, -1)[None].repeat(50, axis=0)
    drawn = _drawn(found, config, np.random.default_rng(0))
    for line in drawn:
        present = line[line >= 0]
        assert len(present) == len(set(present)) == min(4, num_found)
        assert (line[: len(present)] >= 0).all()
        assert set(present) <= set(found[0, :num_found])
    if num_found == 12 and hard_share == 0:
        assert (drawn >= 103).all()
    if num_found == 4 and hard_share == 1:
        assert all({100, 101, 102} <= set(line) for line in drawn)


def test_by_default_neighbours_of_the_models_own_table():
    dataset = cycle_dataset()
    model = SASRec(hidden_size=8, num_layers=1, max_history=4)
    model.fit(dataset, TrainingConfig(max_steps=3, batch_size=32), RUN)
    fields = {"ranks": 6, "hard": 2}
    own = ItemEmbeddings(model.item_vectors(), "own", dataset.catalog.digest)
    expected = mine(dataset, own, **fields)
    found = NeighbourPairs(**fields).pairs(model, dataset, RUN)
    assert np.array_equal(found.rejected_PM, expected.rejected_PM)
    assert NeighbourPairs(vectors="embeddings").needs_embeddings
    assert not NeighbourPairs().needs_embeddings


def test_items_with_the_codes_of_the_chosen_one_are_not_rejected():
    dataset = random_dataset(4)
    ids = random_semantic_ids(dataset.catalog, (2, 3, 2))
    # The same codes, the same vector: they would be the nearest of all.
    near = ItemEmbeddings(ids.codes @ [[1, 0], [0, 1], [1, 3]] + np.float32(1), "codes", dataset.catalog.digest)
    recommender = Tiger()
    recommender.semantic_ids = ids
    source = NeighbourPairs(vectors="embeddings", ranks=20, hard=5, negatives=3, targets="all")
    check_codes(dataset, source.pairs(recommender, dataset, RUN, near), ids.codes, negatives=3)


def test_bad_requests():
    dataset = random_dataset(0)
    with pytest.raises(DataError, match=r"'tiger' has no vectors of items"):
        NeighbourPairs().pairs(Tiger(), dataset, RUN)
    with pytest.raises(DataError, match=r"need item vectors[\s\S]*sidrec embed"):
        NeighbourPairs(vectors="embeddings").pairs(SASRec(), dataset, RUN)
    with pytest.raises(DataError, match="catalogue and embeddings disagree"):
        mine(dataset, embeddings(random_dataset(0, num_items=39)))
    with pytest.raises(ConfigError, match="ranks 5 is less than hard 10"):
        NeighbourPairs(ranks=5)
    tiny = random_dataset(0, num_items=1)
    with pytest.raises(DataError, match="none of"):
        mine(tiny, embeddings(tiny))
