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


def test_users_are_drawn_with_all_their_examples():
    """Every example told three times says nothing new: the interval must not shrink."""
    values = (np.random.default_rng(10).random(200) < 0.3).astype(float)
    users = np.arange(200)
    once = bootstrap_mean(values, 0)
    thrice = bootstrap_mean(np.repeat(values, 3), 0, users=np.repeat(users, 3))
    naive = bootstrap_mean(np.repeat(values, 3), 0)
    assert (thrice.mean, thrice.low, thrice.high) == pytest.approx((once.mean, once.low, once.high))
    assert naive.high - naive.low < 0.7 * (once.high - once.low)


def test_clusters_equal_drawing_users_one_by_one():
    draw = np.random.default_rng(11)
    users = np.repeat(np.arange(120), draw.integers(1, 6, 120))
    values = np.clip(draw.random(120)[users] + 0.1 * draw.standard_normal(len(users)), 0, 1)
    found = bootstrap_mean(values, 0, users=np.array([f"user-{user}" for user in users]))
    own = [values[users == user] for user in range(120)]
    means = [np.concatenate([own[user] for user in draw.integers(0, 120, 120)]).mean() for _ in range(4000)]
    low, high = np.quantile(means, [0.025, 0.975])
    assert found.mean == pytest.approx(values.mean())
    assert found.low == pytest.approx(low, abs=0.008)
    assert found.high == pytest.approx(high, abs=0.008)


def test_one_example_a_user_is_the_plain_bootstrap():
    values = np.random.default_rng(12).integers(0, 4, 100) / 4
    users = np.random.default_rng(13).permutation(100)
    assert bootstrap_mean(values, 0, users=users) == bootstrap_mean(values, 0)
    assert paired_bootstrap(values, values[::-1], 0, users=users) == paired_bootstrap(values, values[::-1], 0)
