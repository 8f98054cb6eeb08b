"""The multilayer perceptron that learned quantizers use as encoder and as decoder."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from sidrec.errors import TrainingError

__all__ = ["Perceptron", "diverged", "mlp", "xavier_"]


class Perceptron(nn.Sequential):
    """Layers one after another; on a CPU plain float32 ones run in oneDNN.

    On processors with AVX-512 oneDNN's float32 products are about a tenth faster than those that torch takes by
    itself, and training a quantizer is little else. Results differ by rounding only. Dropout of nothing and dropout
    out of training are left out there; batch norm and other precisions go the usual way.
    """

    def forward(self, input: Tensor) -> Tensor:
        """[B, first width] → [B, last width]."""
        layers = [
            layer for layer in self if not (isinstance(layer, nn.Dropout) and (layer.p == 0 or not self.training))
        ]
        if not _is_plain(input, layers):
            return super().forward(input)
        hidden = input.to_mkldnn()
        for layer in layers:
            hidden = layer(hidden)
        return hidden.to_dense()


def _is_plain(input: Tensor, layers: Sequence[nn.Module]) -> bool:
    """Whether oneDNN has the layers, forward and backward."""
    return (
        input.device.type == "cpu"
        and input.dtype == torch.float32
        and len(input) > 0
        and torch.backends.mkldnn.is_available()
        and not torch.is_autocast_enabled("cpu")
        and all(isinstance(layer, nn.Linear | nn.ReLU) for layer in layers)
    )


def mlp(widths: Sequence[int], dropout: float = 0.0, batch_norm: bool = False) -> Perceptron:
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
    return Perceptron(*layers[: -2 if batch_norm else -1])


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
