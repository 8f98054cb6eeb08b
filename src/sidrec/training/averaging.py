"""Averages of a model's weights over the states that a training goes through.

Only weights are averaged: buffers are the model's own. Leaves out which states are averaged, and whether
the average is any good.
"""

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

__all__ = ["WeightAverage", "warmed_decay"]


def warmed_decay(decay: float, num_averaged: int) -> float:
    """The decay by which a state enters an average of `num_averaged` states: min(decay, (1 + n) / (10 + n)).

    Without it the first states, which are the worst, would weigh `decay`ᵗ after t steps: in a short run, nearly all.

    >>> [round(warmed_decay(0.99, num), 3) for num in (1, 8, 90, 10_000)]
    [0.182, 0.5, 0.91, 0.99]
    """
    return min(decay, (1 + num_averaged) / (10 + num_averaged))


class WeightAverage:
    """The average of the states in which `add` found a model; in the beginning, the state that it has now.

    Tied weights are held once, on the device of the model. Rows that never change are in the average what they
    are in the model, to the bit.

    Args:
        model: on its device already.
        decay: of an exponential moving average (Polyak and Juditsky, 1992, *Acceleration of Stochastic Approximation by
            Averaging*, in the form usual today), warmed up by `warmed_decay`; None for the plain mean
            (Izmailov et al., 2018, arXiv:1803.05407).
    """

    def __init__(self, model: nn.Module, decay: float | None = None) -> None:
        self._weights = nn.ParameterList(model.parameters())

        def decayed(means: Any, weights: Any, num_averaged: Any) -> None:
            # The count of the average itself, because the argument may be a copy on an accelerator, slow to read.
            get_ema_multi_avg_fn(warmed_decay(decay or 0.0, int(self._mean.n_averaged)))(means, weights, num_averaged)

        self._mean = AveragedModel(self._weights, multi_avg_fn=None if decay is None else decayed)

    def add(self) -> None:
        """Take in the weights that the model has now."""
        self._mean.update_parameters(self._weights)

    @contextmanager
    def in_place(self) -> Generator[None]:
        """The average stands in the model while the block runs, and the model's weights are put back to the bit."""
        self.swap()
        try:
            yield
        finally:
            self.swap()

    def swap(self) -> None:
        """Exchange the weights of the model and the average."""
        for weight, mean in zip(self._weights.parameters(), self._mean.module.parameters(), strict=True):
            weight.data, mean.data = mean.data, weight.data

    def state(self) -> dict[str, Tensor]:
        """All that `restore` needs."""
        return self._mean.state_dict()

    def restore(self, state: dict[str, Tensor]) -> None:
        """Go on from what `state` gave, to the bit."""
        self._mean.load_state_dict(state)
