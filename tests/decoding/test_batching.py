"""The choice of batch sizes under a clock that follows a made-up cost, and searches of any batch size."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.recommenders.generative_cases import KINDS, RUN, make

from sidrec.config import parse
from sidrec.data.sequences import Histories
from sidrec.decoding.batching import LARGEST, START, BatchTuner, in_batches
from sidrec.decoding.beam import beam_search
from sidrec.decoding.exhaustive import exhaustive_ranking
from sidrec.decoding.recommendations import BeamConfig, Request
from sidrec.decoding.trie import ItemTrie
from sidrec.errors import ConfigError
from sidrec.testing.scorers import TableScorer

Cost = Callable[[int, float], float]
"""Users of a batch, place of its middle in the order (0 to 1) → seconds."""


class Machine:
    """Takes the seconds that a cost says, and keeps what was asked of it."""

    def __init__(self, cost: Cost, num_users: int, memory: int = 10**9, noise: float = 0.0) -> None:
        self.cost, self.num_users, self.memory = cost, num_users, memory
        self.now, self.sizes, self.failures = 0.0, list[int](), 0
        self.noise, self.draw = noise, np.random.default_rng(0)

    def clock(self) -> float:
        return self.now

    def search(self, users: slice) -> slice:
        size = users.stop - users.start
        if size > self.memory:
            self.failures += 1
            raise torch.OutOfMemoryError("synthetic")
        self.sizes.append(size)
        seconds = self.cost(size, (users.start + users.stop) / 2 / self.num_users)
        self.now += seconds * (1 + self.noise * self.draw.uniform(-1, 1))
        return users

    def run(self, users_per_batch: int | str = "auto") -> "Machine":
        """Work through all users; every one is searched once, in order."""
        found = list(in_batches(self.num_users, users_per_batch, self.search, self.clock))  # pyright: ignore
        covered = [user for users in found for user in range(users.start, users.stop)]
        assert covered == list(range(self.num_users))
        return self


def curve(best: float, rise: float = 1.0, call: float = 1.0) -> Cost:
    """A call costs as much as its work on the best size; beyond that, work gets slower. Users cost more on the way."""

    def cost(size: int, place: float) -> float:
        user = (1 + (rise - 1) * place) * call / best
        return call + size * user * max(1.0, (size / best) ** 0.5)

    return cost


@given(st.floats(1, 256), st.floats(1, 8))
@settings(max_examples=50, deadline=None, derandomize=True)
def test_the_search_is_nearly_as_fast_as_with_the_best_fixed_size(best, rise):
    """The climb costs something; of 20,000 users' time at most 15 %, where the best size is 32 times the first."""
    cost = curve(best, rise)
    sizes = [2**power for power in range(10) if best / 4 <= 2**power <= best * 4]
    fastest = min(Machine(cost, 20_000).run(size).now for size in sizes)
    assert Machine(cost, 20_000).run().now < 1.15 * fastest


@pytest.mark.parametrize("rise", [1.0, 10.0])
@pytest.mark.parametrize("noise", [0.0, 0.1])
@pytest.mark.parametrize("best", [2, 64, 256])
def test_most_users_are_searched_at_about_the_best_size(best, noise, rise):
    """Cost a user of a batch is least near `best`, whether it rises along the way or not."""
    machine = Machine(curve(best, rise), 20_000, noise=noise).run()
    near = sum(size for size in machine.sizes if best / 4 <= size <= best * 4)
    assert near > 0.8 * 20_000


def test_rising_cost_alone_is_no_reason_to_shrink():
    """Seconds a user grow tenfold, whatever the size: larger batches save calls, so sizes only rise."""
    machine = Machine(lambda size, place: 20 + size * 0.1 * (1 + 9 * place), 3_000).run()
    best = np.maximum.accumulate(machine.sizes[:-1])
    assert max(machine.sizes) >= 16 * START
    assert (np.array(machine.sizes[:-1]) >= best / 4).all()


def test_a_best_size_that_falls_on_the_way_is_followed():
    machine = Machine(lambda size, place: curve(256 if place < 0.5 else 8)(size, 0.0), 40_000).run()
    assert np.median(machine.sizes[10:25]) >= 64
    assert np.median(machine.sizes[-30:-1]) <= 32


def test_the_first_sizes_by_hand():
    """Each user costs 1 s, each call 100 s: every trial pays."""
    machine = Machine(lambda size, _: 100 + size, 8 + 8 + 16 + 8 + 16 + 32 + 16 + 32 + 5).run()
    assert machine.sizes == [8, 8, 16, 8, 16, 32, 16, 32, 5]
    # No call costs anything: no trial pays, and the wait between trials doubles.
    machine = Machine(lambda size, _: size, 150).run()
    assert machine.sizes[:13] == [8, 8, 16, 8, 8, 8, 4, 8, 8, 8, 8, 8, 16]


def test_memory_that_runs_out_halves_the_batch_for_good():
    machine = Machine(lambda size, _: 100 + size, 5_000, memory=50).run()
    assert machine.failures == 1
    assert max(machine.sizes) == 32
    machine = Machine(lambda size, _: 100 + size, 100, memory=3).run()
    assert machine.failures == 2
    assert set(machine.sizes) == {1, 2}
    with pytest.raises(torch.OutOfMemoryError):
        Machine(lambda size, _: 1, 100, memory=0).run()
    with pytest.raises(torch.OutOfMemoryError):
        Machine(lambda size, _: 1, 100, memory=7).run(8)


def test_without_room_a_batch_does_not_grow():
    tuner = BatchTuner()
    for _ in range(50):
        size = tuner.propose(may_grow=False)
        assert size <= START
        tuner.observe(size, 100.0 + size)
    tuner = BatchTuner()
    for _ in range(200):
        size = tuner.propose()
        assert 1 <= size <= LARGEST
        tuner.observe(size, 100.0)
    assert tuner.size == LARGEST


@given(st.integers(0, 300), st.integers(1, 40))
@settings(max_examples=50, deadline=None)
def test_fixed_batches(num_users, size):
    machine = Machine(lambda size, _: 1, num_users).run(size)
    assert all(found == size for found in machine.sizes[:-1])
    assert len(machine.sizes) == -(-num_users // size)


def test_the_setting_is_a_number_or_auto():
    assert BeamConfig().users_per_batch == 32
    for given_, expected in (("auto", "auto"), ("7", 7), (7, 7)):
        assert parse(BeamConfig, {"users_per_batch": given_}).users_per_batch == expected
    for wrong in (0, -3, "atuo", 2.5):
        with pytest.raises(ConfigError, match="users_per_batch"):
            parse(BeamConfig, {"users_per_batch": wrong})


@pytest.mark.parametrize("rank", [beam_search, exhaustive_ranking])
def test_lists_are_the_same_for_every_batch_size(rank):
    draw = np.random.default_rng(0)
    trie = ItemTrie.build(draw.integers(6, size=(150, 3)).astype(np.int32), (6, 6, 6))
    histories = Histories.of(draw.integers(150, size=length) for length in draw.integers(0, 30, size=120))
    request = Request(k=5, exact=True)
    lists = [
        rank(TableScorer((6, 6, 6)), trie, histories, request, BeamConfig(beams=5, users_per_batch=size), RUN)
        for size in (1, 7, 32, "auto")
    ]
    for other in lists[1:]:
        assert (other.rows == lists[0].rows).all()
        assert (other.scores == lists[0].scores).all()
        assert (other.exact == lists[0].exact).all()


@pytest.mark.parametrize("kind", KINDS)
def test_lists_of_models_are_the_same_for_every_batch_size(kind):
    recommender = make(kind)
    draw = np.random.default_rng(0)
    histories = Histories.of(draw.integers(60, size=length) for length in draw.integers(0, 9, size=90))
    first, *others = [
        recommender.rank(histories, Request(k=5, search=BeamConfig(beams=7, users_per_batch=size)), RUN)
        for size in (1, 7, 32, "auto")
    ]
    for other in others:
        np.testing.assert_allclose(other.scores, first.scores, atol=1e-4)
        # Rounding may swap items of nearly equal score.
        clear = np.abs(np.diff(first.scores, axis=1, append=-np.inf)) > 1e-3
        clear[:, 1:] &= clear[:, :-1]
        assert clear.mean() > 0.5
        assert (other.rows == first.rows)[clear].all()
