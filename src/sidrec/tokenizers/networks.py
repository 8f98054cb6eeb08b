"""The multilayer perceptron that learned quantizers use as encoder and as decoder."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import nn

from sidrec.errors import TrainingError

__all__ = ["diverged", "mlp", "xavier_"]


def mlp(widths: Sequence[int], dropout: float = 0.0, batch_norm: bool = False) -> nn.Sequential:
    """Dropout, linear, batch norm if wanted, ReLU for every pair of widths; nothing after the last linear layer.

    The caller's random stream is left as it was; draw the weights with `xavier_`.

    >>> [type(layer).__name__ for layer in mlp([4, 3, 2], batch_norm=True)]
    ['Dropout', 'Linear', 'BatchNorm1d', 'ReLU', 'Dropout', 'Linear']
    """
    layers: list[nn.Module] = []
    with torch.random.fork_rng([]):
        for before, after in pairwise(widths):
            layers += [nn.Dropout(dropout), nn.Linear(before, after)]
            layers += [nn.BatchNorm1d(after), nn.ReLU()] if batch_norm else [nn.ReLU()]
    return nn.Sequential(*layers[: -2 if batch_norm else -1])


@torch.no_grad()
def xavier_(module: nn.Module, seed: int) -> None:
    """Give every linear layer of a module Xavier-normal weights and zero biases, the same for the same seed."""
    generator = torch.Generator().manual_seed(seed)
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            nn.init.xavier_normal_(layer.weight, generator=generator)
            nn.init.zeros_(layer.bias)


def diverged(epoch: int) -> TrainingError:
    """The error of a training whose loss is no longer a number."""
    return TrainingError(
        f"the tokenizer's loss is no longer a number in epoch {epoch}",
        expected="a smaller learning rate, or vectors of a usual scale",
        next="lower tokenizer.lr",
    )
