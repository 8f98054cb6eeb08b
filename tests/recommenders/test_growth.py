"""Recommenders of a grown catalogue: new items come out, nothing changes for the old ones."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.recommenders.generative_cases import RAGGED, RUN, VARIANTS, make

from sidrec.artifact import create
from sidrec.data.catalog import Catalog
from sidrec.data.sequences import Histories
from sidrec.decoding.recommendations import Request
from sidrec.errors import DataError
from sidrec.recommenders.base import Recommender
from sidrec.recommenders.growth import Trained, counts_groups
from sidrec.recommenders.item_knn import ItemKNN
from sidrec.recommenders.popularity import Popularity
from sidrec.recommenders.sasrec import SASRec
from sidrec.testing.toy import cycle_dataset
from sidrec.tokenizers.collisions import settle_codes
from sidrec.tokenizers.counting import AppendLevel
from sidrec.tokenizers.placement import Quantized
from sidrec.tokenizers.semantic_ids import SemanticIds
from sidrec.training.config import TrainingConfig

OLD, NEW = 60, 9
BASE = (6, 5)
NORMALIZE = ("level", "vocabulary", "children")
STEADY = [kind for kind in VARIANTS if kind != "item-decoder, nodes"]
"""Variants whose scores of old items stay; where the children of a prefix compete, new ones take their share."""


def base_codes(num: int, seed: int) -> np.ndarray:
    draw = np.random.default_rng(seed)
    return np.stack([draw.integers(size - 1, size=num) for size in BASE], axis=1).astype(np.int32)


def counting(kind: str, normalize: str = "level") -> Recommender:
    """A recommender whose last level counts the items of a prefix; prefixes with the highest codes are free."""
    settled = settle_codes(AppendLevel.Config(), Quantized(base_codes(OLD, 0), BASE))
    recommender = make(kind, normalize, num_items=OLD, sizes=settled.sizes)
    recommender.semantic_ids = SemanticIds(settled.codes, settled.sizes, recommender.catalog.digest)
    return recommender


def grown_by(recommender: Recommender, num: int = NEW, seed: int = 1) -> tuple[Catalog, SemanticIds]:
    """New items behind the old ones: four under the fullest prefix, one under a prefix that nobody had, others."""
    old = recommender.semantic_ids
    new = base_codes(num, seed)
    new[:4] = old.codes[old.codes[:, -1].argmax(), :2]
    new[4] = np.array(BASE) - 1
    quantized = Quantized(np.concatenate([old.codes[:, :2], new]), BASE)
    settled = settle_codes(AppendLevel.Config(), quantized, old)
    names = [f"new-{seed}-{row}" for row in range(num)]
    catalog = recommender.catalog.extended(pl.DataFrame({"item_id": names, "title": [f"New {row}" for row in names]}))
    return catalog, SemanticIds(settled.codes, settled.sizes, catalog.digest, old.version + 1)


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("normalize", NORMALIZE)
@pytest.mark.parametrize("kind", STEADY)
def test_lists_of_old_items_are_the_same_to_the_bit(kind, normalize, exact):
    recommender = counting(kind, normalize)
    grown = recommender.extended(*grown_by(recommender))
    assert grown.ids.sizes[-1] > recommender.ids.sizes[-1], "there are counters that the model never saw"
    old = np.arange(OLD + NEW) < OLD
    before = recommender.rank(RAGGED, Request(k=9, exact=exact), RUN)
    after = grown.rank(RAGGED, Request(k=9, exact=exact, allowed=old), RUN)
    np.testing.assert_array_equal(after.rows, before.rows)
    np.testing.assert_array_equal(after.scores, before.scores)
    np.testing.assert_array_equal(after.exact, before.exact)


@pytest.mark.parametrize("normalize", ["level", "vocabulary"])
@pytest.mark.parametrize("kind", STEADY)
def test_a_new_item_scores_like_the_last_old_one_of_its_prefix(kind, normalize):
    recommender = counting(kind, normalize)
    grown = recommender.extended(*grown_by(recommender))
    found = grown.rank(RAGGED, Request(k=OLD + NEW, exclude_seen=False, exact=True), RUN)
    before = recommender.rank(RAGGED, Request(k=OLD, exclude_seen=False, exact=True), RUN)
    codes = grown.ids.codes
    for user in range(len(RAGGED)):
        score = dict(zip(found.rows[user].tolist(), found.scores[user].tolist(), strict=True))
        assert set(score) == set(range(OLD + NEW)), "every item can be recommended"
        for row, value in zip(before.rows[user].tolist(), before.scores[user].tolist(), strict=True):
            assert score[row] == pytest.approx(value, abs=1e-5)
        for row in range(OLD, OLD + NEW):
            kin = np.flatnonzero((codes[:OLD, :2] == codes[row, :2]).all(axis=1))
            if len(kin):
                assert score[row] == pytest.approx(score[int(kin[codes[kin, 2].argmax()])], abs=1e-5)
    assert grown.max_ties == 1 + (codes[OLD:, :2] == codes[OLD, :2]).all(axis=1).sum()


@pytest.mark.parametrize("kind", STEADY)
def test_codes_with_a_meaning_stand_for_themselves(kind):
    """Codes drawn at random, as those of `nearest_free`: no level counts, and each item keeps its own path."""
    recommender = make(kind, num_items=OLD)
    sizes, draw = recommender.ids.sizes, np.random.default_rng(1)
    new = np.stack([draw.integers(size, size=NEW) for size in sizes], axis=1).astype(np.int32)
    items = pl.DataFrame({"item_id": [f"new-{row}" for row in range(NEW)], "title": "New"})
    catalog = recommender.catalog.extended(items)
    ids = SemanticIds(np.concatenate([recommender.ids.codes, new]), sizes, catalog.digest, 2)
    grown = recommender.extended(catalog, ids)
    np.testing.assert_array_equal(grown.read_codes, ids.codes)
    before = recommender.rank(RAGGED, Request(k=9), RUN)
    after = grown.rank(RAGGED, Request(k=9, allowed=np.arange(OLD + NEW) < OLD), RUN)
    np.testing.assert_array_equal(after.scores, before.scores)
    wide = SemanticIds(ids.codes, (*sizes[:-1], sizes[-1] + 1), catalog.digest, 2)
    with pytest.raises(DataError, match="only a last one that counts"):
        recommender.extended(catalog, wide)


def test_by_hand():
    """Prefix (0, ) has two trained items, prefix (1, ) one, prefix (3, ) none."""
    codes = np.array([[0, 0], [0, 1], [1, 0], [0, 2], [1, 1], [3, 0], [3, 1], [0, 3]])
    read = Trained(items=3, sizes=(4, 2)).read(codes)
    assert read.tolist() == [[0, 0], [0, 1], [1, 0], [0, 1], [1, 0], [3, 0], [3, 0], [0, 1]]


@given(seed=st.integers(0, 10**6), trained=st.integers(1, 30))
def test_trained_items_read_as_they_are_and_new_ones_as_something_known(seed, trained):
    base = np.random.default_rng(seed).integers(3, size=(30, 2)).astype(np.int32)
    old = settle_codes(AppendLevel.Config(), Quantized(base[:trained], (3, 3)))
    ids = SemanticIds(old.codes, old.sizes, "digest")
    codes = settle_codes(AppendLevel.Config(), Quantized(base, (3, 3)), ids).codes
    assert counts_groups(codes)
    read = Trained(trained, old.sizes).read(codes)
    np.testing.assert_array_equal(read[:trained], codes[:trained])
    np.testing.assert_array_equal(read[:, :2], codes[:, :2])
    known = {tuple(path) for path in codes[:trained].tolist()}
    prefixes = {path[:2] for path in known}
    for path in read[trained:].tolist():
        assert tuple(path) in known or (tuple(path[:2]) not in prefixes and path[2] == 0)


@pytest.mark.parametrize("kind", VARIANTS)
def test_histories_may_name_new_items(kind):
    recommender = counting(kind)
    grown = recommender.extended(*grown_by(recommender))
    kin = int(np.flatnonzero((grown.read_codes[:OLD] == grown.read_codes[OLD]).all(axis=1))[0])
    with_new, with_kin, without = grown.rank(
        Histories.of([[3, OLD], [3, kin], [3]]), Request(k=5, exclude_seen=False), RUN
    ).scores
    np.testing.assert_allclose(with_new, with_kin, atol=1e-5)
    assert not np.allclose(with_new, without)
    (answer,) = grown.recommend([["item-3", "new-1-0"]], k=OLD + NEW, exact=True)
    assert {"new-1-1", "new-1-4", "item-4"} <= {item.item for item in answer}
    assert not {"item-3", "new-1-0"} & {item.item for item in answer}
    assert grown.recommend([["item-3"]], k=2, allowed=["new-1-0"])[0][0].title == "New new-1-0"


@pytest.mark.parametrize("kind", VARIANTS)
def test_a_grown_recommender_is_saved_and_loaded_and_grows_again(kind, tmp_path):
    recommender = counting(kind, "vocabulary")
    grown = recommender.extended(*grown_by(recommender))
    with create(tmp_path / kind, kind="recommender", config={}) as writer:
        grown.save(writer.path)
    loaded = Recommender.load(tmp_path / kind)
    request = Request(k=20, exclude_seen=False)
    ours, theirs = (each.rank(RAGGED, request, RUN) for each in (grown, loaded))
    np.testing.assert_array_equal(ours.rows, theirs.rows)
    np.testing.assert_array_equal(ours.scores, theirs.scores)
    assert loaded.num_parameters == recommender.num_parameters
    twice = grown_by(loaded, seed=2)
    third, again = loaded.extended(*twice), grown.extended(*twice)
    np.testing.assert_array_equal(third.read_codes, again.read_codes)
    assert third.vocabulary.sizes == recommender.ids.sizes
    assert third.ids.version == 3
    np.testing.assert_array_equal(third.rank(RAGGED, request, RUN).rows, again.rank(RAGGED, request, RUN).rows)


def test_the_old_recommender_stays():
    recommender = counting("decoder")
    before = recommender.rank(RAGGED, Request(k=5), RUN)
    recommender.extended(*grown_by(recommender)).rank(RAGGED, Request(k=5), RUN)
    np.testing.assert_array_equal(before.scores, recommender.rank(RAGGED, Request(k=5), RUN).scores)
    assert (len(recommender.catalog), len(recommender.ids)) == (OLD, OLD)


def test_training_a_grown_recommender_anew_learns_all_its_codes():
    recommender = counting("decoder")
    grown = recommender.extended(*grown_by(recommender))
    dataset = cycle_dataset(num_items=12)
    codes = np.stack([np.arange(12) // 4, np.arange(12) % 4], axis=1).astype(np.int32)
    ids = SemanticIds(codes, (3, 4), dataset.catalog.digest)
    grown.fit(dataset, TrainingConfig(max_steps=1), RUN, semantic_ids=ids)
    assert grown.vocabulary.sizes == (3, 4)
    np.testing.assert_array_equal(grown.read_codes, codes)


def test_what_does_not_extend_is_refused():
    recommender = counting("decoder")
    catalog, ids = grown_by(recommender)
    moved = ids.codes.copy()
    moved[3, 0] = (moved[3, 0] + 1) % BASE[0]
    with pytest.raises(DataError, match="first 60 items do not have the codes"):
        recommender.extended(catalog, SemanticIds(moved, ids.sizes, catalog.digest, 2))
    reordered = Catalog(catalog.items.reverse())
    with pytest.raises(DataError, match="does not begin with the 60 items"):
        recommender.extended(reordered, SemanticIds(ids.codes, ids.sizes, reordered.digest, 2))
    with pytest.raises(DataError, match="disagree"):
        recommender.extended(recommender.catalog, ids)
    wide = (ids.sizes[0] + 1, *ids.sizes[1:])
    with pytest.raises(DataError, match=r"7 × 5 × \d+ codes, the recommender knows 6 × 5"):
        recommender.extended(catalog, SemanticIds(ids.codes, wide, catalog.digest, 2))
    longer = SemanticIds(np.column_stack([ids.codes, ids.codes[:, 0]]), (*ids.sizes, 6), catalog.digest, 2)
    with pytest.raises(DataError, match="do not have the codes"):
        recommender.extended(catalog, longer)


@pytest.mark.parametrize("cls", [Popularity, ItemKNN, SASRec])
def test_recommenders_that_score_items_say_why_not(cls):
    catalog, ids = grown_by(counting("decoder"))
    with pytest.raises(DataError, match="what it learnt about each of them, which for new ones is nothing"):
        cls().extended(catalog, ids)


@pytest.mark.parametrize("kind", VARIANTS)
def test_a_grown_recommender_that_is_trained_again_knows_all_items(kind):
    grown = counting(kind).extended(*grown_by(counting(kind)))
    grown.rank(RAGGED, Request(k=3), RUN)
    dataset = cycle_dataset(num_items=OLD + NEW)
    ids = SemanticIds(grown.ids.codes, grown.ids.sizes, dataset.catalog.digest)
    # The very object of codes that it has already read, for a catalogue of its own training.
    grown.semantic_ids = ids
    grown.rank(RAGGED, Request(k=3), RUN)
    grown.fit(dataset, TrainingConfig(max_steps=1, batch_size=8), RUN, semantic_ids=ids)
    fresh = type(grown)(**grown.config.model_dump(exclude={"kind"}))
    fresh.fit(dataset, TrainingConfig(max_steps=1, batch_size=8), RUN, semantic_ids=ids)
    for ours, theirs in (
        (grown.item_tokens.table_NL, fresh.item_tokens.table_NL),
        (grown.item_tokens.own_N, fresh.item_tokens.own_N),
    ):
        np.testing.assert_array_equal(ours, theirs)
    lists = [each.rank(RAGGED, Request(k=5), RUN).scores for each in (grown, fresh)]
    np.testing.assert_array_equal(*lists)
