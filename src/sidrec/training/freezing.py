"""Rows of a table that a training leaves exactly as they are while everything else learns.

Zeroing their gradient is not enough: weight decay moves a weight whatever its gradient is.
"""

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["FrozenRows"]


@dataclass(frozen=True)
class FrozenRows:
    """Rows that keep every bit, also where the same table is read as input and as output.

    Attributes:
        weight: a parameter float[N, D] of the model that is trained.
        rows_N: bool[N], which rows are frozen.
    """

    weight: Tensor
    rows_N: Tensor

    @contextmanager
    def held(self) -> Generator[None]:
        """No gradient for the rows while the block runs, so that they do not count when gradients are clipped either.

        Where all rows are frozen, the gradient of the table is not even computed.
        """
        if bool(self.rows_N.all()):
            self.weight.requires_grad_(False)
            try:
                yield
            finally:
                self.weight.requires_grad_(True)
            return
        hook = self.weight.register_hook(
            lambda gradient: gradient.masked_fill(self.rows_N[:, None].to(gradient.device), 0)
        )
        try:
            yield
        finally:
            hook.remove()

    def keep(self, optimizer: torch.optim.Optimizer) -> None:
        """Have the rows put back after every step of an optimizer: weight decay asks for no gradient."""
        places = torch.nonzero(self.rows_N).flatten().to(self.weight.device)
        before = self.weight.detach()[places].clone()

        def put_back(*_: object) -> None:
            with torch.no_grad():
                self.weight.index_copy_(0, places, before)

        optimizer.register_step_post_hook(put_back)
