import math

import numpy as np
import pytest
from tests.recommenders.test_scored import dataset

from sidrec.config import RunSettings
from sidrec.data.sequences import Histories
from sidrec.decoding.recommendations import Request
from sidrec.recommenders import item_knn
from sidrec.recommenders.item_knn import ItemKNN, similarities
from sidrec.testing.toy import cycle_dataset
from sidrec.training.config import TrainingConfig

RUN = RunSettings(device="cpu")


def slow_similarities(lists, num_items, config):
    table, counts = np.zeros((num_items, num_items)), np.zeros(num_items)
    for items in lists:
        for here, one in enumerate(items):
            counts[one] += 1
            for there, two in enumerate(items):
                distance = abs(there - here)
                if one != two and 0 < distance <= config.window:
                    table[one, two] += distance**-config.distance_power * (1 if there > here else config.backward)
    for one in range(num_items):
        for two in range(num_items):
            if table[one, two]:
                table[one, two] /= math.sqrt(counts[one] * counts[two]) + config.shrinkage
    return table


@pytest.mark.parametrize("pairs_at_once", [2**24, 8])
@pytest.mark.parametrize(
    "fields", [{}, {"window": 2, "backward": 1.0}, {"distance_power": 0, "shrinkage": 0.0, "backward": 0.0}]
)
def test_similarities_equal_a_slow_loop(monkeypatch, fields, pairs_at_once):
    monkeypatch.setattr(item_knn, "PAIRS_AT_ONCE", pairs_at_once)
    draw = np.random.default_rng(3)
    lists = [draw.integers(9, size=length).tolist() for length in (7, 1, 12, 4, 25)]
    config = ItemKNN(**fields).config
    found = similarities(Histories.of(lists), 9, config, RUN).toarray()
    np.testing.assert_allclose(found, slow_similarities(lists, 9, config), rtol=1e-6)


def test_classic_cosine_by_hand():
    data = dataset([[0, 1, 9], [1, 0, 9], [0, 2, 9]], ["a", "b", "c"], [(0, 1), (1, 1), (2, 1)])
    knn = ItemKNN(window=50, backward=1.0, distance_power=0, shrinkage=0, recency=1.0)
    knn.fit(data, TrainingConfig(), RUN)
    found = knn.rank(Histories.of([[0]]), Request(k=4), RUN)
    assert found.rows.tolist() == [[1, 2, 3, 4]]
    np.testing.assert_allclose(found.scores[0, :2], [2 / math.sqrt(6), 1 / math.sqrt(3)], rtol=1e-6)
    assert (found.scores[0, 2:] == -1).all()


def test_recent_items_weigh_more():
    data = dataset([[0, 2, 9], [1, 3, 9]], ["a", "b"], [(0, 1), (1, 1)])
    knn = ItemKNN(shrinkage=1, recency=0.5)
    knn.fit(data, TrainingConfig(), RUN)
    found = knn.rank(Histories.of([[0, 1], [1, 0]]), Request(k=2), RUN)
    assert found.rows.tolist() == [[3, 2], [2, 3]]
    np.testing.assert_allclose(found.scores, [[0.5, 0.25], [0.5, 0.25]])


def test_lists_are_filled_up_by_popularity():
    data = dataset([[0, 1, 9], [2, 3, 9], [2, 4, 9]], ["a", "b", "c"], [(0, 1), (1, 1), (2, 1)])
    knn = ItemKNN()
    knn.fit(data, TrainingConfig(), RUN)
    found = knn.rank(Histories.of([[0], []]), Request(k=3), RUN)
    assert found.rows.tolist() == [[1, 2, 3], [2, 0, 1]]


def test_only_the_nearest_neighbours_are_kept():
    data = cycle_dataset()
    knn = ItemKNN(neighbours=1)
    knn.fit(data, TrainingConfig(), RUN)
    assert knn.model.neighbours[:, 0].tolist() == [(row + 1) % 24 for row in range(24)]
    assert knn.num_parameters == 24 + 24


def test_twenty_thousand_items_fit_quickly_and_sparsely():
    draw = np.random.default_rng(0)
    lists = draw.integers(20_000, size=(5_000, 8))
    events = Histories.of(lists)
    table = similarities(events, 20_000, ItemKNN().config, RUN)
    assert table.nnz <= 5_000 * 8 * 7
    near, values = item_knn.neighbours(table, 3)
    assert near.shape == values.shape == (20_000, 3)
    assert (np.diff(values, axis=1) <= 0).all()
