import pytest
import torch
from torch import nn

from sidrec.tokenizers.networks import mlp, xavier_


def test_the_callers_random_stream_is_left_alone() -> None:
    before = torch.random.get_rng_state()
    xavier_(mlp([4, 3, 2]), seed=1)
    assert torch.equal(before, torch.random.get_rng_state())


def test_weights_are_those_of_the_seed() -> None:
    first, second, other = (mlp([4, 3, 2]) for _ in range(3))
    for network, seed in ((first, 1), (second, 1), (other, 2)):
        xavier_(network, seed)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert not torch.equal(first[1].weight, other[1].weight)
    assert not first[1].bias.any()


def test_it_is_what_it_says() -> None:
    network = mlp([3, 5, 2])
    points = torch.randn(7, 3)
    by_hand = torch.relu(points @ network[1].weight.T + network[1].bias) @ network[4].weight.T + network[4].bias
    torch.testing.assert_close(network(points), by_hand)


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_the_fast_way_has_the_values_and_gradients_of_the_plain_one(dropout: float) -> None:
    network = mlp([6, 9, 5, 2], dropout)
    xavier_(network, seed=0)
    network.eval()
    points = torch.randn(7, 6, generator=torch.Generator().manual_seed(1), requires_grad=True)
    plain, leaves = nn.Sequential(*network), [points, *network.parameters()]
    found = torch.autograd.grad(network(points).square().sum(), leaves)
    torch.testing.assert_close(network(points), plain(points))
    torch.testing.assert_close(found, torch.autograd.grad(plain(points).square().sum(), leaves))
    assert network(points[:0]).shape == (0, 2)
    assert network.double()(points.double()).dtype == torch.float64
