"""Users shared among the members of a team: each ranked once, and everybody has the whole evaluation.

The team is one of threads here; processes that torchrun starts are in `tests/stages/test_shared_training.py`.
"""

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
import pytest
from tests.recommenders.generative_cases import make

from sidrec.config import RunSettings
from sidrec.evaluation.evaluator import evaluate
from sidrec.evaluation.protocol import Protocol
from sidrec.evaluation.validation import loss_validator
from sidrec.recommenders.popularity import Popularity
from sidrec.team import Team
from sidrec.testing.toy import cycle_dataset
from sidrec.training import batch_loss
from sidrec.training.config import TrainingConfig

RUN = RunSettings(device="cpu")
DATASET = cycle_dataset(num_items=60, num_users=13)


@dataclass(frozen=True)
class Threads(Team):
    """Gathers as processes do."""

    table: list = None
    barrier: threading.Barrier = None

    def gathered(self, result):
        self.table[self.rank] = result
        self.barrier.wait(timeout=60)
        found = list(self.table)
        self.barrier.wait(timeout=60)
        return found


def in_team(size, work):
    """What each member of a team makes."""
    table, barrier = [None] * size, threading.Barrier(size)
    with ThreadPoolExecutor(size) as pool:
        runs = [replace(RUN, team=Threads(rank, size, None, table, barrier)) for rank in range(size)]
        return list(pool.map(work, runs))


class Counting:
    """A recommender that counts how often it ranks each user."""

    def __init__(self, inner):
        self.inner, self.lengths = inner, []

    def __getattr__(self, name):
        return getattr(self.inner, name)

    def rank(self, histories, request, run):
        assert len(histories), "nobody is asked about no user"
        if request.k < 60:
            self.lengths += [tuple(histories[user].tolist()) for user in range(len(histories))]
        return self.inner.rank(histories, request, run)


def popularity():
    recommender = Popularity()
    recommender.fit(DATASET, TrainingConfig(), RUN)
    return recommender


@pytest.mark.parametrize("size", [2, 3, 13, 17])
@pytest.mark.parametrize("ties", ["expected", "listed"])
def test_every_user_is_ranked_once_and_ties_are_closed_as_alone(size, ties):
    """All items of the cycle are nearly equally popular, so that lists are asked for again."""
    protocol = Protocol(k=(1, 5), primary="hit@5", ties=ties)
    alone = evaluate(popularity(), DATASET, "test", protocol, RUN)
    members = [Counting(popularity()) for _ in range(size)]
    found = in_team(size, lambda run: evaluate(members[run.team.rank], DATASET, "test", protocol, run))
    for each in found:
        assert np.array_equal(each.recommended.rows, alone.recommended.rows)
        assert np.array_equal(each.ranks, alone.ranks)
        assert each.table.means() == alone.table.means()
        assert each.figures == alone.figures
    firsts = DATASET.histories("test")
    asked = sorted(history for member in members for history in member.lengths)
    wanted = sorted(tuple(firsts[user].tolist()) for user in range(len(firsts)))
    assert asked[: len(wanted)] == wanted if ties == "listed" else set(asked) == set(wanted)
    assert len(asked) == len(wanted) or ties == "expected"


@pytest.mark.parametrize("size", [2, 5])
def test_the_loss_is_that_of_one_process_to_the_bit(size, monkeypatch):
    monkeypatch.setattr(batch_loss, "EXAMPLES_AT_ONCE", 3)
    alone = loss_validator(DATASET, 0, RUN)(make("tiger"))
    members = [make("tiger") for _ in range(size)]
    found = in_team(size, lambda run: loss_validator(DATASET, 0, run)(members[run.team.rank]))
    assert all(each == alone for each in found)
