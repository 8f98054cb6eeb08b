import numpy as np
import pytest

from sidrec.config import RunSettings
from sidrec.data.dataset import Dataset, Examples, Split
from sidrec.data.sequences import Histories
from sidrec.decoding.recommendations import BeamConfig, Recommendations
from sidrec.errors import DataError
from sidrec.evaluation.evaluator import draw_examples, evaluate, score
from sidrec.evaluation.protocol import Protocol
from sidrec.evaluation.validation import validator
from sidrec.testing.toy import cycle_dataset
from sidrec.tokenizers.semantic_ids import SemanticIds

RUN = RunSettings()
PROTOCOL = Protocol(k=(1, 2, 3), primary="ndcg@2")


class Fixed:
    """Recommends the next item of the cycle in first place; remembers what it was asked."""

    semantic_ids = None
    max_ties = 1

    def __init__(self, catalog, first=1):
        self.catalog, self.first, self.requests = catalog, first, []

    def search_for(self, request):
        return request.search

    def rank(self, histories: Histories, request, run):
        self.requests.append((len(histories), request))
        last = histories.rows[histories.offsets[1:] - 1]
        rows = (last[:, None] + self.first + np.arange(request.k)) % len(self.catalog)
        scores = np.tile(-np.arange(request.k, dtype=np.float32), (len(rows), 1))
        return Recommendations(rows.astype(np.int32), scores, np.ones(len(rows), np.bool_))


def test_perfect_and_second_best():
    dataset = cycle_dataset()
    best = evaluate(Fixed(dataset.catalog), dataset, "test", PROTOCOL, RUN)
    second = evaluate(Fixed(dataset.catalog, first=0), dataset, "test", PROTOCOL, RUN)
    assert best.table.means()["hit@1"] == 1
    assert next(iter(best.table.means())) == "ndcg@2"
    assert second.table.means()["hit@1"] == 0
    assert second.table.means()["mrr@2"] == 0.5
    assert (second.ranks == 2).all()
    assert best.figures["certified"] == 1
    assert best.figures["seen_targets"] == 0
    assert best.figures["invalid@3"] == 0
    assert best.users_per_second > 0


def test_enough_items_are_asked_for_that_no_tie_is_cut():
    dataset = cycle_dataset(num_items=24)
    recommender = Fixed(dataset.catalog)
    evaluate(recommender, dataset, "test", PROTOCOL, RUN)
    assert recommender.requests[-1][1].k == 4  # one more than 3 shows an open tie
    codes = np.arange(24, dtype=np.int32)[:, None] // 4  # four items a code
    recommender.semantic_ids = SemanticIds(codes, (6,), dataset.catalog.digest)
    recommender.max_ties = recommender.semantic_ids.largest_group
    evaluate(recommender, dataset, "test", PROTOCOL, RUN)
    found = evaluate(recommender, dataset, "test", PROTOCOL, RUN)
    assert recommender.requests[-1][1].k == 3 + 4 - 1
    # Six neighbours touch three groups of four only if they begin at the last item of one: one user in four.
    assert found.figures["sid_short"] == 0.75


def test_never_more_items_than_there_are():
    dataset = cycle_dataset(num_items=10, length=5)
    recommender = Fixed(dataset.catalog)
    evaluate(recommender, dataset, "test", Protocol(k=(50,), primary="ndcg@50"), RUN)
    assert recommender.requests[-1][1].k == 10


def test_request_follows_the_protocol():
    dataset, search = cycle_dataset(), BeamConfig(beams=50)
    recommender = Fixed(dataset.catalog)
    evaluate(recommender, dataset, "test", Protocol(exclude_seen=False, exact=True, search=search), RUN)
    request = recommender.requests[-1][1]
    assert (request.exclude_seen, request.exact, request.search) == (False, True, search)


def test_colliding_items_at_item_and_sid_level_by_hand():
    # Items 0, 1 share codes A; 2, 3 share B; 4 is alone.
    ids = SemanticIds(np.array([[0], [0], [1], [1], [2]], np.int32), (3,), "digest")
    lists = Recommendations(
        np.array([[2, 3, 0, 1], [0, 1, 4, 2]], np.int32),
        np.array([[0.9, 0.9, 0.5, 0.5], [0.9, 0.9, 0.5, 0.2]], np.float32),
        np.ones(2, np.bool_),
    )
    table, ranks = score(lists, np.array([0, 4], np.int32), PROTOCOL, ids)
    # User 0: item 0 ties over places 3-4; its codes stand at place 2. User 1: item 4 at 3, codes at 2.
    assert ranks.tolist() == [3.5, 3]
    assert table.values["hit@3"].tolist() == [0.5, 1]
    assert table.values["hit@2"].tolist() == [0, 0]
    assert table.values["sid_hit@1"].tolist() == [0, 0]
    assert table.values["sid_hit@2"].tolist() == [1, 1]
    assert table.values["sid_mrr@2"].tolist() == [0.5, 0.5]


def test_unique_codes_give_equal_levels():
    ids = SemanticIds(np.arange(5, dtype=np.int32)[:, None], (5,), "digest")
    lists = Recommendations(np.array([[2, 3, 0]], np.int32), np.array([[3.0, 2, 1]], np.float32), np.ones(1, np.bool_))
    table, _ = score(lists, np.array([3], np.int32), PROTOCOL, ids)
    for name in PROTOCOL.names:
        assert table.values[f"sid_{name}"].tolist() == table.values[name].tolist()


def test_validator_scores_validation_users_drawn_once():
    dataset = cycle_dataset(num_users=50)
    recommender = Fixed(dataset.catalog)
    validate = validator(dataset, PROTOCOL, 20, RUN)
    first, second = validate(recommender), validate(recommender)
    assert first == second
    assert next(iter(first)) == "ndcg@2"
    assert [num for num, _ in recommender.requests] == [20, 20]
    # The cycle's right answer to a validation history is the validation target: it is not the test part.
    assert first["hit@1"] == 1
    assert draw_examples(dataset, "valid", 20, 0).tolist() == draw_examples(dataset, "valid", 20, 0).tolist()
    assert draw_examples(dataset, "valid", 20, 0).tolist() != draw_examples(dataset, "valid", 20, 1).tolist()


def test_repeated_targets_are_reported():
    dataset = cycle_dataset(num_items=4, num_users=4, length=6)  # after four items the cycle repeats
    found = evaluate(Fixed(dataset.catalog), dataset, "test", Protocol(k=(2,), primary="hit@2"), RUN)
    assert found.figures["seen_targets"] == 1


def test_an_empty_part_is_refused():
    dataset = cycle_dataset()
    none = Examples(np.empty(0, np.int32), np.empty(0, np.int32))
    empty = Dataset(
        dataset.catalog, dataset.sequences, Split("temporal cut", dataset.split.train, none, dataset.split.test)
    )
    with pytest.raises(DataError, match="the valid part is empty"):
        validator(empty, PROTOCOL, 10, RUN)
