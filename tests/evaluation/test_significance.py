import numpy as np
import pytest

from sidrec.errors import DataError
from sidrec.evaluation.significance import bootstrap_mean, paired_bootstrap


def test_same_seed_same_interval():
    values = np.random.default_rng(0).random(200)
    assert bootstrap_mean(values, 1) == bootstrap_mean(values, 1)
    assert bootstrap_mean(values, 1) != bootstrap_mean(values, 2)


def test_equals_drawing_users_with_replacement():
    draw = np.random.default_rng(5)
    values = draw.choice([0, 0.5, 1], size=300, p=[0.8, 0.1, 0.1])
    found = bootstrap_mean(values, 0)
    means = np.array([values[draw.integers(0, 300, 300)].mean() for _ in range(10_000)])
    low, high = np.quantile(means, [0.025, 0.975])
    assert found.mean == pytest.approx(values.mean())
    assert found.low == pytest.approx(low, abs=0.005)
    assert found.high == pytest.approx(high, abs=0.005)


def test_interval_covers_the_truth_about_as_often_as_it_says():
    draw = np.random.default_rng(6)
    samples = draw.random((200, 150)) < 0.3
    found = [bootstrap_mean(sample.astype(float), 0, resamples=1000) for sample in samples]
    covered = np.mean([interval.low <= 0.3 <= interval.high for interval in found])
    assert 0.88 <= covered <= 1


def test_pairing_removes_what_users_share():
    draw = np.random.default_rng(7)
    easy = draw.random(400)
    better = easy + 0.01 + 0.001 * draw.standard_normal(400)
    paired = paired_bootstrap(better, easy, 0)
    alone = bootstrap_mean(better, 0)
    assert paired.excludes_zero
    assert paired.high - paired.low < (alone.high - alone.low) / 10
    turned = paired_bootstrap(easy, better, 0)
    assert turned.high < 0
    assert turned.mean == pytest.approx(-paired.mean)


def test_equal_recommenders_do_not_differ():
    values = np.random.default_rng(8).random(50)
    found = paired_bootstrap(values, values, 0)
    assert (found.mean, found.low, found.high) == (0, 0, 0)
    assert not found.excludes_zero


def test_chunks_do_not_change_the_draws(monkeypatch):
    values = np.random.default_rng(9).integers(0, 5, 100).astype(float)
    whole = bootstrap_mean(values, 0, resamples=500)
    monkeypatch.setattr("sidrec.evaluation.significance.CHUNK", 35)
    assert bootstrap_mean(values, 0, resamples=500) == whole


def test_wrong_numbers_of_users_are_refused():
    with pytest.raises(DataError, match="3 and 2 users cannot be paired"):
        paired_bootstrap(np.zeros(3), np.zeros(2), 0)
    with pytest.raises(DataError, match="no users"):
        bootstrap_mean(np.zeros(0), 0)
