"""The network of RQ-VAE: scaler, encoder, residual quantizer, decoder, and its loss terms.

No optimizer, no data, no settings: `rqvae_training` has the loop, `rqvae` the settings.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sidrec.tokenizers.autoencoder import ScaledNetwork
from sidrec.tokenizers.networks import mlp, xavier_
from sidrec.tokenizers.quantizer import QuantizerOutput, ResidualQuantizer

__all__ = ["Losses", "Reconstruction", "ResidualAutoencoder", "reconstruction_loss"]

Reconstruction = Literal["mse", "l1", "infonce"]
"""How far a rebuilt vector is from its own."""


@dataclass(frozen=True)
class Losses:
    """Reconstruction term, unweighted, and the quantizer's output; means over elements, not norms."""

    reconstruction: Tensor
    quantized: QuantizerOutput


class ResidualAutoencoder(ScaledNetwork):
    """MLP encoder, residual quantizer, MLP decoder.

    Args:
        widths: input, hidden and latent sizes; the decoder is the mirror image.
        quantizer: of latents.
        dropout: before every linear layer.
        batch_norm: after every linear layer but the last, in training over the batch.
        skip: encoder and decoder add what they compute to their input, and compute nothing at first; the latent
            then has the size of the input.
        reconstruction: see `Reconstruction`.
        temperature: of `infonce`.
    """

    def __init__(
        self,
        widths: Sequence[int],
        quantizer: ResidualQuantizer,
        *,
        dropout: float = 0.0,
        batch_norm: bool = False,
        skip: bool = False,
        reconstruction: Reconstruction = "mse",
        temperature: float = 0.1,
    ) -> None:
        super().__init__(widths[0])
        self.encoder = mlp(widths, dropout, batch_norm)
        self.decoder = mlp(list(reversed(widths)), dropout, batch_norm)
        self.quantizer = quantizer
        self.skip, self.temperature = skip, temperature
        self.reconstruction: Reconstruction = reconstruction

    @torch.no_grad()
    def initialize_weights(self, seed: int) -> None:
        """Xavier-normal weights and zero biases; with `skip` the last layers are zero."""
        xavier_(self, seed)
        if self.skip:
            for stack in (self.encoder, self.decoder):
                nn.init.zeros_(_last_linear(stack).weight)

    def encode(self, vectors_BD: Tensor) -> Tensor:
        """Latents float32[B, D'] of vectors [B, D]."""
        return self._encode((vectors_BD - self.mean) / self.scale).float()

    def decode(self, latents_BD: Tensor) -> Tensor:
        """Vectors float32[B, D] of latents [B, D']."""
        return self._decode(latents_BD).float() * self.scale + self.mean

    def losses(self, vectors_BD: Tensor, bf16: bool = False) -> Losses:
        """The loss terms of a batch.

        The reconstruction is measured on standardised vectors: an mse of 1 is no better than their mean.
        """
        device = vectors_BD.device.type
        standard_BD = (vectors_BD - self.mean) / self.scale
        with torch.autocast(device, torch.bfloat16, enabled=bf16):
            latents_BD = self._encode(standard_BD)
        quantized = self.quantizer(latents_BD.float())
        with torch.autocast(device, torch.bfloat16, enabled=bf16):
            rebuilt_BD = self._decode(quantized.sum_BD)
        loss = reconstruction_loss(rebuilt_BD.float(), standard_BD, self.reconstruction, self.temperature)
        return Losses(loss, quantized)

    def _encode(self, standard_BD: Tensor) -> Tensor:
        latents_BD = self.encoder(standard_BD)
        return standard_BD + latents_BD if self.skip else latents_BD

    def _decode(self, latents_BD: Tensor) -> Tensor:
        rebuilt_BD = self.decoder(latents_BD)
        return latents_BD + rebuilt_BD if self.skip else rebuilt_BD


def reconstruction_loss(
    rebuilt_BD: Tensor, vectors_BD: Tensor, kind: Reconstruction = "mse", temperature: float = 0.1
) -> Tensor:
    """Mean squared or absolute difference, or the cross-entropy of each rebuilt vector to its own among the batch.

    `infonce` compares cosines divided by the temperature, as ETEGRec's option of that name.

    >>> a, b = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 2.0]])
    >>> [round(reconstruction_loss(a, b, kind).item(), 4) for kind in ("mse", "l1", "infonce")]
    [2.5, 1.5, 0.0]
    """
    if kind == "mse":
        return F.mse_loss(rebuilt_BD, vectors_BD)
    if kind == "l1":
        return F.l1_loss(rebuilt_BD, vectors_BD)
    cosines_BB = F.normalize(rebuilt_BD, dim=1) @ F.normalize(vectors_BD, dim=1).T
    return F.cross_entropy(cosines_BB / temperature, torch.arange(len(cosines_BB), device=cosines_BB.device))


def _last_linear(stack: nn.Sequential) -> nn.Linear:
    return [module for module in stack if isinstance(module, nn.Linear)][-1]
