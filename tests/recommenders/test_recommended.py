"""Lists by item id: what they hold, what may be asked, what is said about bad histories."""

import json

import polars as pl
import pytest
from tests.recommenders.generative_cases import make
from tests.recommenders.test_scored import dataset

from sidrec.config import RunSettings
from sidrec.data.catalog import Catalog
from sidrec.data.dataset import Dataset
from sidrec.errors import ArtifactError, DataError
from sidrec.recommenders.base import Recommender
from sidrec.recommenders.popularity import Popularity
from sidrec.recommenders.recommended import Recommended, RecommendedList
from sidrec.recommenders.sasrec import SASRec
from sidrec.testing.toy import cycle_dataset
from sidrec.training.config import TrainingConfig

RUN = RunSettings(device="cpu")


@pytest.fixture(scope="module")
def popularity():
    """Training events: b three times, c twice, a once, d never; c has no title."""
    data = dataset([[0, 1, 2, 3], [1, 2, 3], [1, 1]], ["u", "v", "w"], [(0, 1), (1, 1), (2, 1)])
    items = pl.DataFrame({"item_id": ["a", "b", "c", "d"], "title": ["Alpha", "Beta", None, "Delta"]})
    recommender = Popularity()
    recommender.fit(Dataset(Catalog(items), data.sequences, data.split), TrainingConfig(), RUN)
    return recommender


def test_lists_by_hand(popularity):
    (found,) = popularity.recommend([["a"]], k=2, run=RUN)
    assert found == RecommendedList((Recommended("b", 4.0, "Beta"), Recommended("c", 1.0, "c")), exact=True)
    assert [item.item for item in found] == ["b", "c"]
    assert (len(found), found[0].title, found[1:][0].item) == (2, "Beta", "c")
    assert json.loads(json.dumps(found.as_json())) == {
        "items": [
            {"item": "b", "score": 4.0, "title": "Beta", "semantic_id": ""},
            {"item": "c", "score": 1.0, "title": "c", "semantic_id": ""},
        ],
        "exact": True,
    }


def test_what_may_be_asked(popularity):
    def ids(**fields):
        return [[item.item for item in found] for found in popularity.recommend([["b"], []], run=RUN, **fields)]

    assert ids() == [["a", "c", "d"], ["b", "a", "c", "d"]]
    assert ids(k=1) == [["a"], ["b"]]
    assert ids(exclude_seen=False, k=1) == [["b"], ["b"]]
    assert ids(allowed=["d", "c"]) == [["c", "d"], ["c", "d"]]
    assert ids(denied=["a"]) == [["c", "d"], ["b", "c", "d"]]
    assert ids(allowed=["d", "c", "a"], denied=["a", "b", "c"]) == [["d"], ["d"]]
    assert ids(denied=[]) == ids()
    assert popularity.recommend([], run=RUN) == []


def test_lists_of_semantic_ids_show_the_codes():
    recommender = make("tiger")
    (found,) = recommender.recommend([["item-3"]], k=2, exact=True, run=RUN)
    rows = recommender.catalog.rows(item.item for item in found)
    assert [item.semantic_id for item in found] == [recommender.ids.text(int(row)) for row in rows]
    assert found.exact


@pytest.mark.parametrize(
    ("histories", "fields", "message"),
    [
        ([["a"], ["b", "z"]], {}, r"the first is 'z'[\s\S]*where: history 2[\s\S]*'a', 'b', 'c'"),
        ([["a"]], {"allowed": ["z"]}, r"the first is 'z'[\s\S]*where: allowed"),
        ([["a"]], {"denied": ["a", "z"], "on_unknown": "skip"}, r"the first is 'z'[\s\S]*where: denied"),
        (["ab"], {}, r"'ab' is one string[\s\S]*where: history 1"),
        (["ab"], {"on_unknown": "skip"}, r"'ab' is one string[\s\S]*where: history 1"),
    ],
)
def test_bad_ids_are_named_with_their_place(popularity, histories, fields, message):
    with pytest.raises(DataError, match=message):
        popularity.recommend(histories, run=RUN, **fields)


def test_unknown_items_are_skipped_where_asked(popularity):
    skipped = popularity.recommend([["z", "b"], ["z"]], on_unknown="skip", run=RUN)
    assert skipped == popularity.recommend([["b"], []], run=RUN)


def test_never_fitted(tmp_path):
    for use in (lambda one: one.recommend([]), lambda one: one.save(tmp_path), lambda one: one.catalog):
        with pytest.raises(DataError, match=r"'sasrec' was never fitted[\s\S]*call fit, or use Recommender.load"):
            use(SASRec())
    with pytest.raises(ArtifactError):
        Recommender.load(tmp_path)


@pytest.mark.parametrize("training", [True, False])
def test_ranking_leaves_the_mode_of_the_network(training):
    data = cycle_dataset(num_items=8, num_users=8)
    networks = [make("tiger"), make("decoder"), SASRec(hidden_size=8)]
    networks[2].fit(data, TrainingConfig(max_steps=1), RUN)
    for recommender in networks:
        recommender.model.train(training)
        first = recommender.recommend([["item-1", "item-2"]], run=RUN)
        assert recommender.model.training == training
        assert recommender.recommend([["item-1", "item-2"]], run=RUN) == first
