"""The network of RQ-VAE: encoder, residual quantiser with straight-through gradients, decoder, losses.

No optimiser, no data, no settings: the loop in `rqvae` has them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from sidrec.tokenizers.kmeans import kmeans
from sidrec.tokenizers.residual import nearest_codes, squared_distances
from sidrec.tokenizers.sinkhorn import sinkhorn_codes

__all__ = ["Losses", "QuantizerOutput", "ResidualAutoencoder"]


@dataclass(frozen=True)
class QuantizerOutput:
    """One pass through the quantiser.

    Attributes:
        sum_BD: the sum of the chosen codes, with gradients to the latent.
        codes_BL: int64.
        codebook: mean over levels of mean (e_c - sg(r))².
        commitment: mean over levels of mean (sg(e_c) - r)².
    """

    sum_BD: Tensor
    codes_BL: Tensor
    codebook: Tensor
    commitment: Tensor


@dataclass(frozen=True)
class Losses:
    """The three terms of the loss, unweighted; means over elements, as in LC-Rec and LETTER, not norms."""

    reconstruction: Tensor
    codebook: Tensor
    commitment: Tensor


class ResidualAutoencoder(nn.Module):
    """MLP encoder, L codebooks, MLP decoder.

    Args:
        widths: input, hidden and latent sizes; the decoder is the mirror image.
        sizes: codes in each level.
        dropout: before every linear layer.
        passes_residual_gradient: False, as published, makes each level's residual a constant for the
            encoder, so that only the first level's commitment reaches it; True lets all of them.
        num_balanced: last levels whose codes Sinkhorn balances over the batch in training.
        epsilon: of Sinkhorn.
    """

    def __init__(
        self,
        widths: Sequence[int],
        sizes: Sequence[int],
        *,
        dropout: float = 0.0,
        passes_residual_gradient: bool = False,
        num_balanced: int = 0,
        epsilon: float = 0.003,
    ) -> None:
        super().__init__()
        self.encoder = _mlp(widths, dropout)
        self.decoder = _mlp(list(reversed(widths)), dropout)
        self.codebooks = nn.ParameterList([nn.Parameter(torch.zeros(size, widths[-1])) for size in sizes])
        self.passes_residual_gradient, self.num_balanced, self.epsilon = passes_residual_gradient, num_balanced, epsilon
        self.mean: Tensor
        self.scale: Tensor
        self.register_buffer("mean", torch.zeros(widths[0]))
        self.register_buffer("scale", torch.ones(()))

    @torch.no_grad()
    def initialize_weights(self, seed: int) -> None:
        """Xavier-normal weights and zero biases."""
        generator = torch.Generator().manual_seed(seed)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_normal_(module.weight, generator=generator)
                nn.init.zeros_(module.bias)

    @torch.no_grad()
    def fit_scaler(self, vectors_ND: Tensor) -> None:
        """Take over the mean of the vectors and their root mean square around it."""
        self.mean.copy_(vectors_ND.mean(0))
        self.scale.copy_((vectors_ND - self.mean).square().mean().sqrt().clamp_min(1e-12))

    def size_codebooks(self, sizes: Sequence[int]) -> None:
        """Make empty codebooks of other sizes."""
        latent_dim = self.codebooks[0].shape[1]
        books = [nn.Parameter(self.mean.new_zeros(size, latent_dim)) for size in sizes]
        self.codebooks = nn.ParameterList(books)

    @torch.no_grad()
    def initialize_codebooks(self, vectors_ND: Tensor, seed: int, iterations: int = 10) -> None:
        """K-means over all items, level by level."""
        self.eval()
        residual_ND = self.encode(vectors_ND)
        books: list[Tensor] = []
        for level, book_KD in enumerate(self.codebooks):
            centres_KD = kmeans(residual_ND, len(book_KD), iterations=iterations, seed=seed + level)
            residual_ND = residual_ND - centres_KD[nearest_codes(residual_ND, centres_KD)[0]]
            books.append(centres_KD)
        self.codebooks = nn.ParameterList([nn.Parameter(centres_KD) for centres_KD in books])

    def encode(self, vectors_BD: Tensor) -> Tensor:
        """Latents float32[B, D'] of vectors [B, D]."""
        return self.encoder((vectors_BD - self.mean) / self.scale).float()

    def decode(self, latents_BD: Tensor) -> Tensor:
        """Vectors float32[B, D] of latents [B, D']."""
        return self.decoder(latents_BD).float() * self.scale + self.mean

    def quantize(self, latents_BD: Tensor) -> QuantizerOutput:
        """Codes of latents, their straight-through sum and the two quantisation losses."""
        residual_BD, total_BD = latents_BD, torch.zeros_like(latents_BD)
        codes: list[Tensor] = []
        codebook, commitment = latents_BD.new_zeros(()), latents_BD.new_zeros(())
        for level, book_KD in enumerate(self.codebooks):
            codes.append(self._choose(residual_BD.detach(), book_KD.detach(), level))
            chosen_BD = book_KD[codes[-1]]
            codebook = codebook + (chosen_BD - residual_BD.detach()).square().mean()
            commitment = commitment + (chosen_BD.detach() - residual_BD).square().mean()
            if self.passes_residual_gradient:
                total_BD, residual_BD = total_BD + chosen_BD.detach(), residual_BD - chosen_BD.detach()
            else:
                # Value of the code, gradient of the residual: what goes on to the next level is constant.
                through_BD = residual_BD + (chosen_BD - residual_BD).detach()
                total_BD, residual_BD = total_BD + through_BD, residual_BD - through_BD
        if self.passes_residual_gradient:
            total_BD = latents_BD + (total_BD - latents_BD).detach()
        levels = len(self.codebooks)
        return QuantizerOutput(total_BD, torch.stack(codes, dim=1), codebook / levels, commitment / levels)

    def losses(self, vectors_BD: Tensor, bf16: bool = False) -> tuple[Losses, Tensor]:
        """The loss terms of a batch and its codes int64[B, L].

        The reconstruction is measured on standardised vectors: 1 is no better than their mean.
        """
        device = vectors_BD.device.type
        standard_BD = (vectors_BD - self.mean) / self.scale
        with torch.autocast(device, torch.bfloat16, enabled=bf16):
            latents_BD = self.encoder(standard_BD)
        quantized = self.quantize(latents_BD.float())
        with torch.autocast(device, torch.bfloat16, enabled=bf16):
            rebuilt_BD = self.decoder(quantized.sum_BD)
        reconstruction = (rebuilt_BD.float() - standard_BD).square().mean()
        return Losses(reconstruction, quantized.codebook, quantized.commitment), quantized.codes_BL

    def _choose(self, residual_BD: Tensor, book_KD: Tensor, level: int) -> Tensor:
        if self.training and level >= len(self.codebooks) - self.num_balanced:
            return sinkhorn_codes(squared_distances(residual_BD, book_KD), self.epsilon)
        return nearest_codes(residual_BD, book_KD)[0]


def _mlp(widths: Sequence[int], dropout: float) -> nn.Sequential:
    """Dropout, linear, ReLU for every pair of widths; no ReLU after the last."""
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        layers += [nn.Dropout(dropout), nn.Linear(before, after), nn.ReLU()]
    return nn.Sequential(*layers[:-1])
