"""Noise: equal to splitmix64 by hand, evenly spread, and a function of its arguments alone."""

import pytest
import scipy.stats
import torch

from sidrec.decoding.noise import Noise

WORD = 2**64 - 1


def mixed(value: int) -> int:
    """The finaliser of splitmix64 in unbounded integers."""
    value &= WORD
    value = (value ^ (value >> 30)) * 0xBF58476D1CE4E5B9 & WORD
    value = (value ^ (value >> 27)) * 0x94D049BB133111EB & WORD
    return value ^ (value >> 31)


def test_the_hash_is_splitmix64():
    golden = 0x9E3779B97F4A7C15
    assert mixed(golden) == 0xE220A8397B1DCDAF, "the published first number of seed 0"
    seed, users, which = 2**63 - 25, [0, 5, 2**40], [0, 1, 77]
    found = Noise(seed, torch.tensor(users)).uniform(3, torch.tensor([which] * 3))
    for user, row in zip(users, found.tolist(), strict=True):
        key = mixed(mixed(user * golden + seed) ^ 3)
        assert row == [((mixed(key + number * golden) >> 12) + 0.5) / 2**52 for number in which]


def test_numbers_are_even_and_independent_across_users_levels_and_numbers():
    noise = Noise(1, torch.arange(300))
    first, second = (noise.uniform(level, torch.arange(300).expand(300, -1)) for level in (0, 1))
    for values in (first, second):
        assert values.min() > 0
        assert values.max() < 1
        assert scipy.stats.kstest(values.flatten().numpy(), "uniform").pvalue > 0.01
    neighbours = [
        (first, second), (first[:-1], first[1:]), (first[:, :-1], first[:, 1:]),
        (first, Noise(2, torch.arange(300)).uniform(0, torch.arange(300).expand(300, -1))),
    ]  # fmt: skip
    for left, right in neighbours:
        assert abs(torch.corrcoef(torch.stack([left.flatten(), right.flatten()]))[0, 1]) < 0.015


def test_gumbel_noise_is_gumbel_distributed():
    values = Noise(0, torch.arange(100)).gumbel(0, torch.arange(100).expand(100, -1))
    assert scipy.stats.kstest(values.flatten().numpy(), "gumbel_r").pvalue > 0.01


@pytest.mark.parametrize("user", [-1, 2**62])
def test_any_whole_number_names_a_user(user):
    values = Noise(0, torch.tensor([user, 0])).uniform(0, torch.zeros(2, 1, dtype=torch.long))
    assert values[0] != values[1]
