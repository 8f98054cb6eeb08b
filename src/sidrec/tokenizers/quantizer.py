"""Residual quantization with gradients: the codebooks of RQ-VAE, how codes are chosen and what is learnt from them.

Straight-through gradients (Bengio et al., 2013, arXiv:1308.3432) or the rotation trick (Fifty et al., 2024,
arXiv:2410.06424); codebooks learn by gradient or by moving averages (van den Oord et al., 2017, arXiv:1711.00937).
Leaves out encoder, decoder and optimizer.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sidrec.tokenizers.balanced import balanced_kmeans, size_bounds
from sidrec.tokenizers.kmeans import kmeans
from sidrec.tokenizers.residual import distances, nearest_codes
from sidrec.tokenizers.sinkhorn import sinkhorn_codes
from sidrec.types import Metric

__all__ = ["Gradient", "QuantizerOutput", "ResidualQuantizer", "ResidualRule", "rotated", "straight_through"]

Gradient = Literal["straight_through", "rotation"]
"""How the gradient of a quantized vector becomes the gradient of what was quantized."""

ResidualRule = Literal["all", "first"]
"""Levels whose commitment reaches the encoder."""


@dataclass(frozen=True)
class QuantizerOutput:
    """One pass through the quantizer.

    Attributes:
        sum_BD: the sum of the chosen codes, with gradients to the latent.
        codes_BL: int64.
        codebook: mean over levels of mean (e_c - sg(r))²; 0 where codebooks do not learn by gradient, or under
            another metric than `l2`.
        commitment: mean over levels of mean (sg(e_c) - r)²; under `cosine` and `dot` of the cross-entropy of the
            similarities to the chosen code, as in ETEGRec, which teaches codes and residuals at once.
        residuals: for each level float[B, D], what it quantized, without gradients.
    """

    sum_BD: Tensor
    codes_BL: Tensor
    codebook: Tensor
    commitment: Tensor
    residuals: tuple[Tensor, ...]


class ResidualQuantizer(nn.Module):
    """L codebooks, each quantizing what the levels before it left.

    Args:
        sizes: codes in each level.
        dim: D, size of a code.
        metric: what makes a code the nearest.
        rule: `first`, as published by LC-Rec and LETTER, subtracts the straight-through value, which makes each
            later residual a constant for the encoder, so that only the first level commits; `all` subtracts the
            code itself.
        gradient: see `Gradient`.
        epsilons: for each level ε of the Sinkhorn balancing of codes over the batch in training; 0 or less takes
            the nearest code. Empty means 0 everywhere.
        sinkhorn_iterations: of each balancing.
        decay: of the moving averages that codebooks follow; 0 lets them learn by gradient.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        dim: int,
        *,
        metric: Metric = "l2",
        rule: ResidualRule = "all",
        gradient: Gradient = "straight_through",
        epsilons: Sequence[float] = (),
        sinkhorn_iterations: int = 50,
        decay: float = 0.0,
    ) -> None:
        super().__init__()
        self.metric: Metric = metric
        self.rule: ResidualRule = rule
        self.gradient: Gradient = gradient
        self.epsilons = tuple(epsilons) or (0.0,) * len(sizes)
        self.sinkhorn_iterations, self.decay = sinkhorn_iterations, decay
        self.codebooks = nn.ParameterList()
        self.resize([torch.zeros(size, dim) for size in sizes])

    def resize(self, codebooks: Sequence[Tensor]) -> None:
        """Take over codebooks float32[K, D] of any size; moving averages begin anew."""
        learns = not self.decay
        books = [nn.Parameter(book_KD.detach().clone(), requires_grad=learns) for book_KD in codebooks]
        self.codebooks = nn.ParameterList(books)
        for level, book_KD in enumerate(codebooks if self.decay else ()):
            self.register_buffer(f"mass_{level}", book_KD.new_ones(len(book_KD)))

    @torch.no_grad()
    def initialize(self, latents_ND: Tensor, *, balanced: bool = False, iterations: int = 10, seed: int = 0) -> None:
        """K-means on latents, level by level; `balanced` bounds the cluster sizes as LETTER does.

        A codebook ends smaller than planned where the latents hold fewer distinct points.
        """
        residual_ND = latents_ND
        books: list[Tensor] = []
        for level, book_KD in enumerate(self.codebooks):
            size = len(book_KD)
            if balanced:
                low, high = size_bounds(len(residual_ND), size)
                centres_KD = balanced_kmeans(
                    residual_ND, size, min_size=low, max_size=high, iterations=iterations, seed=seed + level
                )[0]
            else:
                centres_KD = kmeans(
                    residual_ND, size, iterations=iterations, sample=len(residual_ND), seed=seed + level
                )
            residual_ND = residual_ND - centres_KD[nearest_codes(residual_ND, centres_KD, self.metric)[0]]
            books.append(centres_KD)
        self.resize(books)

    @torch.no_grad()
    def initialize_uniform(self, seed: int) -> None:
        """Codes uniform in ±1/K, as an untrained embedding of the published systems."""
        generator = torch.Generator().manual_seed(seed)
        for book_KD in self.codebooks:
            drawn_KD = torch.rand(book_KD.shape, generator=generator) * 2 - 1
            book_KD.copy_(drawn_KD / len(book_KD))

    def forward(self, latents_BD: Tensor) -> QuantizerOutput:
        """Codes of latents, their sum with gradients, and the two quantization losses."""
        residual_BD, total_BD = latents_BD, torch.zeros_like(latents_BD)
        codes: list[Tensor] = []
        residuals: list[Tensor] = []
        codebook, commitment = latents_BD.new_zeros(()), latents_BD.new_zeros(())
        for level, book_KD in enumerate(self.codebooks):
            residuals.append(residual_BD.detach())
            codes.append(self._choose(residuals[-1], book_KD.detach(), level))
            chosen_BD = book_KD[codes[-1]]
            if self.metric != "l2":
                commitment = commitment + F.cross_entropy(-distances(residual_BD, book_KD, self.metric), codes[-1])
            else:
                commitment = commitment + (chosen_BD.detach() - residual_BD).square().mean()
                if not self.decay:
                    codebook = codebook + (chosen_BD - residuals[-1]).square().mean()
            if self.rule == "all":
                total_BD, residual_BD = total_BD + chosen_BD.detach(), residual_BD - chosen_BD.detach()
            else:
                # What goes on is a constant for the encoder, whatever estimates the gradient of the sum.
                total_BD = total_BD + self._estimate(residual_BD, chosen_BD)
                residual_BD = residual_BD - straight_through(residual_BD, chosen_BD)
        if self.rule == "all":
            total_BD = self._estimate(latents_BD, total_BD)
        levels = len(self.codebooks)
        return QuantizerOutput(
            total_BD, torch.stack(codes, dim=1), codebook / levels, commitment / levels, tuple(residuals)
        )

    def _choose(self, residual_BD: Tensor, book_KD: Tensor, level: int) -> Tensor:
        epsilon = self.epsilons[level]
        if self.training and epsilon > 0:
            return sinkhorn_codes(distances(residual_BD, book_KD, self.metric), epsilon, self.sinkhorn_iterations)
        return nearest_codes(residual_BD, book_KD, self.metric)[0]

    def _estimate(self, source_BD: Tensor, target_BD: Tensor) -> Tensor:
        return (rotated if self.gradient == "rotation" else straight_through)(source_BD, target_BD)

    @torch.no_grad()
    def follow(self, output: QuantizerOutput) -> None:
        """Move codebooks towards the mean of what each code quantized; nothing where they learn by gradient."""
        for level, book_KD in enumerate(self.codebooks if self.decay else ()):
            codes_B, mass_K = output.codes_BL[:, level], self.get_buffer(f"mass_{level}")
            one_hot_BK = F.one_hot(codes_B, len(book_KD)).to(book_KD.dtype)
            sums_KD = self.decay * mass_K[:, None] * book_KD + (1 - self.decay) * (
                one_hot_BK.T @ output.residuals[level]
            )
            mass_K.mul_(self.decay).add_(one_hot_BK.sum(0), alpha=1 - self.decay)
            # A code that nothing chose for very long stays where it is.
            book_KD.copy_(torch.where(mass_K[:, None] > 1e-8, sums_KD / mass_K[:, None], book_KD))

    @torch.no_grad()
    def revive(self, level: int, dead_E: Tensor, points_ED: Tensor) -> None:
        """Move codes int64[E] of a level onto points float32[E, D]."""
        self.codebooks[level][dead_E] = points_ED
        if self.decay:
            self.get_buffer(f"mass_{level}")[dead_E] = 1.0


def straight_through(source_BD: Tensor, target_BD: Tensor) -> Tensor:
    """The value of the target with the gradient of the source."""
    return source_BD + (target_BD - source_BD).detach()


def rotated(source_BD: Tensor, target_BD: Tensor) -> Tensor:
    """The target as a rotated and scaled source: gradients turn with it (Fifty et al., 2024, arXiv:2410.06424).

    With unit vectors u of the source, v of the target and w of u + v, the rotation takes x to x - 2 w wᵀx + 2 v uᵀx
    (their Eq. 4). It and the ratio of the lengths are constants.

    >>> source = torch.tensor([[1.0, 0.0]], requires_grad=True)
    >>> value = rotated(source, torch.tensor([[0.0, 2.0]]))
    >>> value.backward(torch.tensor([[0.0, 1.0]]))
    >>> value.tolist(), source.grad.round(decimals=4).tolist()
    ([[0.0, 2.0]], [[2.0, 0.0]])
    """
    with torch.no_grad():
        from_BD, to_BD = F.normalize(source_BD, dim=1), F.normalize(target_BD, dim=1)
        middle_BD = F.normalize(from_BD + to_BD, dim=1)
        scale_B1 = target_BD.norm(dim=1, keepdim=True) / source_BD.norm(dim=1, keepdim=True).clamp_min(1e-12)
    along_B1 = (source_BD * middle_BD).sum(1, keepdim=True)
    length_B1 = (source_BD * from_BD).sum(1, keepdim=True)
    turned_BD = source_BD - 2 * along_B1 * middle_BD + 2 * length_B1 * to_BD
    # Rounding, and a target that points straight away from the source, must not change the value.
    value_BD = scale_B1 * turned_BD
    return value_BD + (target_BD - value_BD).detach()
