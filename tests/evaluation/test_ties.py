import numpy as np
import pytest

from sidrec.config import RunSettings
from sidrec.data.sequences import Histories
from sidrec.decoding.recommendations import Recommendations
from sidrec.evaluation.evaluator import evaluate
from sidrec.evaluation.protocol import Protocol
from sidrec.evaluation.ranking import find_target
from sidrec.evaluation.ties import close_ties
from sidrec.progress import Silent
from sidrec.recommenders.popularity import Popularity
from sidrec.testing.toy import cycle_dataset
from sidrec.training.config import TrainingConfig

RUN = RunSettings()


class Scores:
    """Ranks by given scores float32[U, N]; a user's history is its own number. Remembers what it was asked."""

    def __init__(self, scores):
        self.scores, self.asked = np.asarray(scores, np.float32), []

    def __call__(self, histories, width):
        users = histories.rows
        self.asked.append((users.tolist(), width))
        order = np.argsort(-self.scores[users], axis=1, kind="stable")[:, :width].astype(np.int32)
        top = np.take_along_axis(self.scores[users], order, axis=1)
        return Recommendations(order, top, np.ones(len(users), np.bool_))


def close(scores, targets, k=2):
    rank, histories = Scores(scores), Histories.of([[user] for user in range(len(scores))])
    first = rank(histories, k + 1)
    rank.asked.clear()
    return close_ties(rank, histories, np.asarray(targets), first, k, rank.scores.shape[1], Silent()), rank.asked


def test_ties_by_hand():
    flat = [0.0] * 20
    ahead = [1.0, *[0.0] * 19]
    falling = [float(-item) for item in range(20)]
    six = [1.0] * 6 + [0.0] * 14
    places, asked = close([flat, ahead, ahead, falling, six, six], [19, 0, 19, 1, 5, 19])
    assert places.lo.tolist()[:5] == [0, 0, 1, 1, 0]
    assert places.hi.tolist()[:5] == [20, 1, 20, 2, 6]
    assert places.ranks[4] == 3.5
    assert places.hi[5] == places.lo[5], "a target behind the closed group counts as not listed"
    # The second user's target stands before the group, the fourth has no tie; six of a score end among twelve.
    assert asked == [([0, 2, 4, 5], 12), ([0, 2], 20)]


def test_equals_the_places_in_the_whole_list():
    draw = np.random.default_rng(0)
    scores, targets = draw.integers(0, 3, (200, 50)), draw.integers(0, 50, 200)
    places, _ = close(scores, targets, k=5)
    everything = Scores(scores)(Histories.of([[user] for user in range(200)]), 50)
    whole = find_target(everything.rows, everything.scores, targets)
    inside = whole.lo < 5
    assert inside.any()
    assert (places.lo[inside] == whole.lo[inside]).all()
    assert (places.hi[inside] == whole.hi[inside]).all()
    assert (places.lo[~inside] >= 5).all() or (places.hi[~inside] == places.lo[~inside]).any()


def test_few_lists_are_held_at_once(monkeypatch):
    monkeypatch.setattr("sidrec.evaluation.ties.PLACES_AT_ONCE", 40)
    places, asked = close(np.zeros((5, 20)), [3] * 5)
    assert places.hi.tolist() == [20] * 5
    assert max(len(users) * width for users, width in asked) <= 40


def test_popularity_of_a_cycle_in_which_all_items_are_equally_frequent():
    """100 items of equal count and 8 in each history: the target is one of 92, all of them tied."""
    dataset = cycle_dataset(num_items=100, num_users=100)
    recommender = Popularity()
    recommender.fit(dataset, TrainingConfig(), RUN)
    found = evaluate(recommender, dataset, "test", Protocol(k=(1, 10), primary="ndcg@10"), RUN)
    means = found.table.means()
    assert means["hit@1"] == pytest.approx(1 / 92)
    assert means["hit@10"] == pytest.approx(10 / 92)
    assert (found.ranks == 46.5).all()
    assert found.figures["open_ties"] == 1
    listed = evaluate(recommender, dataset, "test", Protocol(k=(1, 10), ties="listed"), RUN).table.means()
    # The first item of the catalogue that is not in the history is the target of the nine users next to item 0.
    assert listed["hit@1"] == 0.09
