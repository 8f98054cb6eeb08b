"""FSQ, finite scalar quantisation (Mentzer et al., 2023, arXiv:2309.15505): an autoencoder with rounded scalars.

The encoder gives a few bounded numbers, each is rounded to one of a few values, the decoder rebuilds
the vector; gradients pass the rounding as if it were not there. Nothing to learn but the two networks:
no codebook, no codebook loss, no dead codes to revive. Several numbers make up one code of a level: its codebook is
their grid, and zero on the numbers of other levels, so that rounding is taking the nearest code.
Deviations: all values of a number have equal width (the paper gives the outer ones half), numbers are standardised
before they are bounded, levels have no order of importance. Left out: everything that RQ-VAE has beyond this.
"""

from itertools import product
from typing import Literal, Self

import numpy as np
import torch
from pydantic import Field, field_validator
from torch import Tensor, nn

from sidrec.config import RunSettings
from sidrec.embeddings.base import ItemEmbeddings
from sidrec.progress import Advance
from sidrec.random import torch_seed
from sidrec.tokenizers.autoencoder import AutoencoderTokenizer, ScaledNetwork
from sidrec.tokenizers.base import TokenizerConfig
from sidrec.tokenizers.networks import diverged, mlp, xavier_
from sidrec.types import FloatArray

__all__ = ["FSQ", "grids"]


class FSQ(AutoencoderTokenizer):
    """A learned quantiser without codebooks."""

    class Config(TokenizerConfig):
        """Finite scalar quantisation."""

        kind: Literal["fsq"] = "fsq"
        levels: int = Field(default=3, ge=1)
        """L, number of codes an item gets before collisions are settled."""
        axes: tuple[int, ...] = Field(default=(8, 8, 4), min_length=1)
        """Values of each of the numbers that make up a level's code; their product is K."""
        layers: tuple[int, ...] = (512, 256, 128)
        """Hidden sizes of the encoder; the decoder is its mirror image."""
        epochs: int = Field(default=100, ge=1)
        """Passes over the items."""
        batch_size: int = Field(default=128, ge=2)
        """Items in a step."""
        lr: float = Field(default=3e-3, gt=0)
        """Peak learning rate of AdamW; it falls as a cosine."""
        weight_decay: float = Field(default=1e-4, ge=0)
        """Decoupled weight decay."""

        @field_validator("axes")
        @classmethod
        def _rounds_to_something(cls, value: tuple[int, ...]) -> tuple[int, ...]:
            if min(value) < 2:
                raise ValueError("a number needs at least two values")
            return value

    def fit(
        self,
        embeddings: ItemEmbeddings,
        run: RunSettings = RunSettings(),
        collaborative: ItemEmbeddings | None = None,
    ) -> Self:
        """Train encoder and decoder for all epochs."""
        config: FSQ.Config = self.config
        device = run.torch_device()
        network = self._new_network(embeddings.vectors.shape[1])
        xavier_(network, torch_seed(run.seed, "fsq", "weights"))
        vectors_ND = torch.from_numpy(np.ascontiguousarray(embeddings.vectors, np.float32)).to(device)
        network.to(device)
        network.fit_scaler(vectors_ND)
        with run.progress("train the tokenizer", config.epochs) as advance:
            _train(network, vectors_ND, config, torch_seed(run.seed, "fsq", "order"), advance)
        self._adopt(network)
        return self

    def _new_network(self, dims: int) -> "_Autoencoder":
        config: FSQ.Config = self.config
        return _Autoencoder([dims, *config.layers], config.axes * config.levels)

    def _network_of(self, state: dict[str, Tensor]) -> "_Autoencoder":
        network = self._new_network(len(state["mean"]))
        network.load_state_dict(state)
        return network

    def _books_of(self, network: "_Autoencoder") -> list[FloatArray]:
        return grids(self.config.axes, self.config.levels)


def grids(axes: tuple[int, ...], levels: int) -> list[FloatArray]:
    """For each level all combinations of the values of its numbers, float32[K, L·A]; other levels' numbers are zero.

    >>> [grid.tolist() for grid in grids((2,), 2)]
    [[[-0.5, 0.0], [0.5, 0.0]], [[0.0, -0.5], [0.0, 0.5]]]
    """
    points = np.array(list(product(*(np.arange(size) - (size - 1) / 2 for size in axes))), np.float32)
    width = len(axes)
    out = [np.zeros((len(points), width * levels), np.float32) for _ in range(levels)]
    for level, grid in enumerate(out):
        grid[:, level * width : (level + 1) * width] = points
    return out


class _Autoencoder(ScaledNetwork):
    """Encoder to bounded numbers, rounding with straight-through gradients, decoder."""

    def __init__(self, widths: list[int], axes: tuple[int, ...]) -> None:
        super().__init__(widths[0])
        self.encoder = nn.Sequential(mlp([*widths, len(axes)]), nn.BatchNorm1d(len(axes), affine=False))
        self.decoder = mlp([len(axes), *reversed(widths)])
        self.values_A: Tensor
        self.register_buffer("values_A", torch.tensor(axes, dtype=torch.float32))

    def encode(self, vectors_BD: Tensor) -> Tensor:
        """Numbers float32[B, A] between plus and minus half the count of their values."""
        return torch.tanh(self.encoder((vectors_BD - self.mean) / self.scale)) * self.values_A / 2

    def round(self, numbers_BA: Tensor) -> Tensor:
        """The nearest values, with the gradient of the identity."""
        outer_A = (self.values_A - 1) / 2
        rounded_BA = torch.minimum((numbers_BA + outer_A).round().clamp_min(0), 2 * outer_A) - outer_A
        return numbers_BA + (rounded_BA - numbers_BA).detach()

    def decode(self, latents_BD: Tensor) -> Tensor:
        """Vectors float32[B, D] of rounded numbers [B, D']."""
        return self.decoder(latents_BD) * self.scale + self.mean

    def loss(self, vectors_BD: Tensor) -> Tensor:
        """Mean squared error of the standardised vectors: 1 is no better than their mean."""
        rebuilt_BD = self.decode(self.round(self.encode(vectors_BD)))
        return ((rebuilt_BD - vectors_BD) / self.scale).square().mean()


def _train(network: _Autoencoder, vectors_ND: Tensor, config: FSQ.Config, seed: int, advance: Advance) -> None:
    order = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(network.parameters(), lr=config.lr, weight_decay=config.weight_decay)
    # Items left over are spread over the batches: batch norm has no use for a batch of one.
    batches = max(1, len(vectors_ND) // config.batch_size)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, config.epochs * batches)
    network.train(len(vectors_ND) > 1)
    for epoch in range(1, config.epochs + 1):
        total = torch.zeros((), device=vectors_ND.device)
        order_N = torch.randperm(len(vectors_ND), generator=order).to(vectors_ND.device)
        for rows_B in order_N.tensor_split(batches):
            optimizer.zero_grad(set_to_none=True)
            loss = network.loss(vectors_ND[rows_B])
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.detach()
        if not torch.isfinite(total):
            raise diverged(epoch)
        advance()
