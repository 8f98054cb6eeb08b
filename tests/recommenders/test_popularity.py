import numpy as np
from tests.recommenders.test_scored import dataset

from sidrec.config import RunSettings
from sidrec.data.sequences import Histories
from sidrec.decoding.recommendations import Request
from sidrec.recommenders.popularity import Popularity
from sidrec.training.config import TrainingConfig

RUN = RunSettings(device="cpu")


def test_counts_by_hand_without_what_is_held_out():
    data = dataset([[0, 1, 2, 3, 3], [1, 2, 3, 3], [2, 4]], ["a", "b", "c"], [(0, 1), (0, 2), (1, 1)])
    popularity = Popularity()
    report = popularity.fit(data, TrainingConfig(), RUN)
    assert popularity.model.counts.tolist() == [1, 2, 2, 0, 0]
    assert popularity.num_parameters == 5
    assert report.steps == 0
    found = popularity.rank(Histories.of([[], [1]]), Request(k=5), RUN)
    assert found.rows.tolist() == [[1, 2, 0, 3, 4], [2, 0, 3, 4, -1]]
    np.testing.assert_array_equal(found.scores[1], [2, 1, 0, 0, -np.inf])
