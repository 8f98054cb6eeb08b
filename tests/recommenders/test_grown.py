"""Recommenders of a grown catalogue: new items come out, nothing changes for the old ones."""

import numpy as np
import polars as pl
import pytest
from tests.recommenders.generative_cases import KINDS, RAGGED, RUN, make

from sidrec.artifact import create
from sidrec.config import RunSettings
from sidrec.data.catalog import Catalog
from sidrec.data.sequences import Histories
from sidrec.decoding.recommendations import Request
from sidrec.errors import DataError
from sidrec.recommenders.base import Recommender
from sidrec.recommenders.item_knn import ItemKNN
from sidrec.recommenders.popularity import Popularity
from sidrec.recommenders.sasrec import SASRec
from sidrec.testing.toy import cycle_dataset
from sidrec.tokenizers.semantic_ids import SemanticIds
from sidrec.training.config import TrainingConfig

NEW = 9
NORMALIZE = ("level", "vocabulary", "children")


def grow(recommender, further: int, seed: int = 1) -> tuple[Catalog, SemanticIds]:
    """Nine more items with random codes; the last level has `further` codes more, all of them in use."""
    ids, draw = recommender.ids, np.random.default_rng(seed)
    sizes = (*ids.sizes[:-1], ids.sizes[-1] + further)
    codes = np.stack([draw.integers(size, size=NEW) for size in sizes], axis=1)
    codes[: max(further, 1), -1] = np.arange(sizes[-1] - max(further, 1), sizes[-1])
    catalog = recommender.catalog.extended(
        pl.DataFrame(
            {
                "item_id": [f"new-{row}" if seed == 1 else f"new-{seed}-{row}" for row in range(NEW)],
                "title": [f"New {row}" for row in range(NEW)],
            }
        )
    )
    return catalog, SemanticIds(np.concatenate([ids.codes, codes]).astype(np.int32), sizes, catalog.digest, 2)


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("further", [0, 2])
@pytest.mark.parametrize("normalize", NORMALIZE)
@pytest.mark.parametrize("kind", KINDS)
def test_lists_of_old_items_are_the_same_to_the_bit(kind, normalize, further, exact):
    recommender = make(kind, normalize)
    grown = recommender.extended(*grow(recommender, further))
    old = np.arange(60 + NEW) < 60
    before = recommender.rank(RAGGED, Request(k=9, exact=exact), RUN)
    after = grown.rank(RAGGED, Request(k=9, exact=exact, allowed=old), RUN)
    np.testing.assert_array_equal(after.rows, before.rows)
    np.testing.assert_array_equal(after.scores, before.scores)
    np.testing.assert_array_equal(after.exact, before.exact)


@pytest.mark.parametrize("normalize", ["level", "vocabulary"])
@pytest.mark.parametrize("kind", KINDS)
def test_scores_of_old_items_stay_and_new_counters_score_like_the_last_known(kind, normalize):
    recommender = make(kind, normalize)
    catalog, ids = grow(recommender, 2)
    grown = recommender.extended(catalog, ids)
    everything = Request(k=60 + NEW, exclude_seen=False, exact=True)
    found = grown.rank(RAGGED, everything, RUN)
    before = recommender.rank(RAGGED, Request(k=60, exclude_seen=False, exact=True), RUN)
    for user in range(len(RAGGED)):
        score = dict(zip(found.rows[user].tolist(), found.scores[user].tolist(), strict=True))
        assert set(score) == set(range(60 + NEW)), "every item can be recommended"
        for row, value in zip(before.rows[user].tolist(), before.scores[user].tolist(), strict=True):
            assert score[row] == pytest.approx(value, abs=1e-5)
        read = np.minimum(ids.codes, np.array(recommender.ids.sizes) - 1)
        for row in range(60, 60 + NEW):
            twins = np.flatnonzero((read == read[row]).all(axis=1))
            assert [score[twin] for twin in twins] == pytest.approx([score[row]] * len(twins), abs=1e-5)
    assert grown.max_ties == np.unique(read, axis=0, return_counts=True)[1].max()


@pytest.mark.parametrize("kind", KINDS)
def test_histories_may_name_new_items_and_new_counters_read_like_the_last_known(kind):
    recommender = make(kind)
    catalog, ids = grow(recommender, 2)
    grown = recommender.extended(catalog, ids)
    read = np.minimum(ids.codes[60], np.array(recommender.ids.sizes) - 1)
    assert ids.codes[60, -1] == recommender.ids.sizes[-1], "a counter that the model has no token for"
    np.testing.assert_array_equal(grown.item_tokens.table_NL[60], grown.vocabulary.tokens(read))
    first, second = grown.recommend([["item-3", "new-0"], ["item-3"]], k=4)
    assert [item.score for item in first] != [item.score for item in second]
    assert all(item.item != "new-0" for item in first)
    assert grown.recommend([["item-3"]], k=2, allowed=["new-0", "new-1"])[0][0].title.startswith("New ")


@pytest.mark.parametrize("further", [0, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_a_grown_recommender_is_saved_and_loaded(kind, further, tmp_path):
    recommender = make(kind, "vocabulary")
    grown = recommender.extended(*grow(recommender, further))
    with create(tmp_path / kind, kind="recommender", config={}) as writer:
        grown.save(writer.path)
    loaded = Recommender.load(tmp_path / kind)
    request = Request(k=20, exclude_seen=False)
    ours, theirs = (each.rank(RAGGED, request, RUN) for each in (grown, loaded))
    np.testing.assert_array_equal(ours.rows, theirs.rows)
    np.testing.assert_array_equal(ours.scores, theirs.scores)
    assert loaded.num_parameters == recommender.num_parameters
    again = loaded.extended(*grow(loaded, 1, seed=2))
    assert len(again.rank(RAGGED, request, RUN).rows) == len(RAGGED), "it can grow again"
    assert again.vocabulary.sizes == recommender.ids.sizes


def test_the_old_recommender_stays():
    recommender = make("decoder")
    before = recommender.rank(RAGGED, Request(k=5), RUN)
    recommender.extended(*grow(recommender, 2)).rank(RAGGED, Request(k=5), RUN)
    after = recommender.rank(RAGGED, Request(k=5), RUN)
    np.testing.assert_array_equal(before.scores, after.scores)
    assert (len(recommender.catalog), len(recommender.ids)) == (60, 60)


def test_training_a_grown_recommender_anew_learns_all_codes():
    recommender = make("decoder")
    grown = recommender.extended(*grow(recommender, 2))
    dataset = cycle_dataset(num_items=12)
    ids = SemanticIds(
        np.stack([np.arange(12) // 4, np.arange(12) % 4], axis=1).astype(np.int32), (3, 4), dataset.catalog.digest
    )
    grown.fit(dataset, TrainingConfig(max_steps=1), RUN, semantic_ids=ids)
    assert grown.vocabulary.sizes == (3, 4)


def test_what_does_not_extend_is_refused():
    recommender = make("decoder")
    catalog, ids = grow(recommender, 0)
    moved = ids.codes.copy()
    moved[3] = (moved[3] + 1) % np.array(ids.sizes)
    with pytest.raises(DataError, match="first 60 items do not have the codes"):
        recommender.extended(catalog, SemanticIds(moved, ids.sizes, catalog.digest, 2))
    reordered = Catalog(catalog.items.reverse())
    with pytest.raises(DataError, match="does not begin with the 60 items"):
        recommender.extended(reordered, SemanticIds(ids.codes, ids.sizes, reordered.digest, 2))
    with pytest.raises(DataError, match="disagree"):
        recommender.extended(recommender.catalog, ids)
    wide = (ids.sizes[0] + 1, *ids.sizes[1:])
    with pytest.raises(DataError, match=r"6 × 4 × 6 codes, the recommender knows 5 × 4 × 6(.|\n)*only the last"):
        recommender.extended(catalog, SemanticIds(ids.codes, wide, catalog.digest, 2))
    longer = SemanticIds(np.column_stack([ids.codes, ids.codes[:, 0]]), (*ids.sizes, 5), catalog.digest, 2)
    with pytest.raises(DataError, match="do not have the codes"):
        recommender.extended(catalog, longer)


@pytest.mark.parametrize("cls", [Popularity, ItemKNN, SASRec])
def test_recommenders_that_score_items_say_why_not(cls):
    catalog, ids = grow(make("decoder"), 0)
    with pytest.raises(DataError, match="what it learnt about each of them, which for new ones is nothing"):
        cls().extended(catalog, ids)


def test_an_empty_history_is_legal_after_growth():
    recommender = make("tiger")
    grown = recommender.extended(*grow(recommender, 1))
    found = grown.rank(Histories.of([[]]), Request(k=3), RunSettings(device="cpu"))
    assert (found.rows >= 0).all()
