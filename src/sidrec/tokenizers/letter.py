"""LETTER's tokenizer: RQ-VAE with a collaborative and a diversity loss (Wang et al., CIKM 2024, arXiv:2405.07314).

The collaborative loss pulls the quantized latent of an item towards its vector from a sequential recommender, the
diversity loss keeps the codes of one cluster of a codebook together and all others apart. Both are as in the
published code by default. Deviations: clusters need no package and no process pool, both losses are free of loops
over samples, any number of codes and clusters works, a code that is alone in its cluster has no positive and no loss
(theirs would never end), and neither vectors nor clusters are needed to encode.
"""

from collections.abc import Sequence
from typing import Literal, Self

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor
from torch.nn import functional as F

from sidrec.embeddings.base import ItemEmbeddings
from sidrec.errors import DataError
from sidrec.random import torch_seed
from sidrec.tokenizers.balanced import balanced_kmeans
from sidrec.tokenizers.quantizer import QuantizerOutput
from sidrec.tokenizers.rqvae import RQVAE
from sidrec.tokenizers.rqvae_config import RQVAEConfig
from sidrec.tokenizers.rqvae_network import ResidualAutoencoder
from sidrec.tokenizers.rqvae_training import Term

__all__ = ["Letter", "collaborative_loss", "diversity_loss", "positive_codes"]


class Letter(RQVAE):
    """RQ-VAE that knows which items are liked together and uses its codes evenly."""

    class Config(RQVAEConfig):  # type: ignore[override]  # a family of settings of its own
        """LETTER."""

        kind: Literal["letter"] = "letter"  # type: ignore[assignment]  # narrows the family's field
        alpha: float = Field(default=0.02, ge=0)
        """Weight of the collaborative loss; 0 needs no collaborative vectors."""
        contrast_normalize: bool = False
        """Compare directions (cosines) instead of inner products, which grow with the length of the vectors."""
        contrast_temperature: float = Field(default=1.0, gt=0)
        """Divides the similarities of the collaborative loss."""
        contrast_symmetric: bool = False
        """Also let every collaborative vector find its item, and take the mean of both directions."""
        beta: float = Field(default=1e-4, ge=0)
        """Weight of the diversity loss."""
        clusters: int = Field(default=10, ge=1)
        """Balanced clusters of each codebook."""
        cluster_every: int = Field(default=1, ge=1)
        """Epochs after which codebooks are clustered anew."""

        @model_validator(mode="after")
        def _codebooks_learn(self) -> Self:
            if self.ema_decay and self.beta:
                raise ValueError(
                    "codebooks that follow moving averages learn nothing from the diversity loss; set beta=0"
                )
            return self

    @property
    def needs_collaborative(self) -> bool:
        """Whether the collaborative loss has a weight."""
        return self.config.alpha > 0 and not self.config.weights

    def terms(self, network: ResidualAutoencoder, collaborative: ItemEmbeddings | None, seed: int) -> Sequence[Term]:
        """The two losses, each where its weight is not 0.

        Raises:
            DataError: collaborative vectors are missing, of other items, or of another size than the latent.
        """
        config: Letter.Config = self.config
        out: list[Term] = []
        if config.alpha > 0:
            device = network.mean.device
            vectors = _checked(collaborative, network.quantizer.codebooks[0].shape[1])
            out.append(_Collaborative(config, torch.from_numpy(vectors).to(device)))
        if config.beta > 0:
            out.append(_Diversity(config, seed))
        return out


def _checked(collaborative: ItemEmbeddings | None, dim: int) -> np.ndarray:
    if collaborative is None:
        raise DataError(
            "LETTER's collaborative loss needs vectors learnt from what users did",
            expected="collaborative vectors of the same catalogue",
            next="add embeddings of kind 'collaborative' (the recipe 'letter' does), or set tokenizer.alpha=0",
        )
    vectors = np.ascontiguousarray(collaborative.vectors, np.float32)
    if vectors.shape[1] != dim:
        raise DataError(
            f"the collaborative vectors have {vectors.shape[1]} dimensions, the quantized latent has {dim}",
            where=collaborative.encoder,
            expected="equal sizes, because they are compared by inner products",
            next=f"set tokenizer.latent_dim={vectors.shape[1]}, or make vectors of {dim} dimensions",
        )
    return vectors


def collaborative_loss(
    quantized_BD: Tensor,
    collaborative_BD: Tensor,
    *,
    normalize: bool = False,
    temperature: float = 1.0,
    symmetric: bool = False,
) -> Tensor:
    """Cross-entropy of each item's quantized latent to its own collaborative vector among those of the batch.

    L_CF of LETTER (Eq. 4): logits are inner products, no temperature, one direction. As the other items of the batch
    are the negatives, its size depends on the batch.

    >>> close = collaborative_loss(torch.eye(2) * 9, torch.eye(2))
    >>> far = collaborative_loss(torch.eye(2) * 9, torch.eye(2).flip(0))
    >>> round(close.item(), 4), round(far.item(), 4)
    (0.0001, 9.0001)
    """
    if normalize:
        quantized_BD, collaborative_BD = F.normalize(quantized_BD, dim=1), F.normalize(collaborative_BD, dim=1)
    logits_BB = quantized_BD @ collaborative_BD.T / temperature
    own_B = torch.arange(len(logits_BB), device=logits_BB.device)
    loss = F.cross_entropy(logits_BB, own_B)
    return (loss + F.cross_entropy(logits_BB.T, own_B)) / 2 if symmetric else loss


def positive_codes(codes_B: Tensor, cluster_K: Tensor, draws_B: Tensor) -> Tensor:
    """For each code another one of its cluster, int64[B]; -1 where it is alone.

    Args:
        codes_B: int64.
        cluster_K: int64, the cluster of every code.
        draws_B: float64 in [0, 1), which of the others.

    >>> cluster = torch.tensor([0, 1, 0, 0])
    >>> positive_codes(torch.tensor([0, 0, 2, 1]), cluster, torch.tensor([0.0, 0.9, 0.5, 0.5])).tolist()
    [2, 3, 3, -1]
    """
    order_K = cluster_K.argsort(stable=True)
    sizes = torch.bincount(cluster_K)
    starts = sizes.cumsum(0) - sizes
    place_K = torch.empty_like(order_K)
    place_K[order_K] = torch.arange(len(order_K), device=order_K.device)
    cluster_B = cluster_K[codes_B]
    others_B, own_B = sizes[cluster_B] - 1, place_K[codes_B] - starts[cluster_B]
    chosen_B = (draws_B * others_B).long()
    chosen_B = torch.minimum(chosen_B, (others_B - 1).clamp_min(0))
    # The own code is skipped by stepping over its place.
    chosen_B = chosen_B + (chosen_B >= own_B)
    found_B = order_K[(starts[cluster_B] + chosen_B).clamp_max(len(order_K) - 1)]
    return torch.where(others_B > 0, found_B, -1)


def diversity_loss(codebook_KD: Tensor, codes_B: Tensor, positives_B: Tensor) -> Tensor:
    """Cross-entropy of each chosen code to its positive among all other codes of the level, mean over the batch.

    L_Div of LETTER (Eq. 5): -(1/B) Σ log [exp<e_c, e_p> / Σ_{j≠c} exp<e_c, e_j>]. Codes without a positive
    (-1) count 0.

    The denominator depends on the code alone, so it is computed once a code, not once a sample.

    >>> book = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    >>> round(diversity_loss(book, torch.tensor([0]), torch.tensor([2])).item(), 4)  # log(1 + e^0 / e^1)
    0.3133
    """
    used_U, which_B = codes_B.unique(return_inverse=True) if len(codebook_KD) > len(codes_B) else (None, codes_B)
    rows_UD = codebook_KD if used_U is None else codebook_KD[used_U]
    own_U = torch.arange(len(codebook_KD), device=codes_B.device) if used_U is None else used_U
    logits_UK = rows_UD @ codebook_KD.T
    masked_UK = logits_UK.scatter(1, own_U[:, None], float("-inf"))
    normalizer_B = masked_UK.logsumexp(1)[which_B]
    similarity_B = logits_UK[which_B, positives_B.clamp_min(0)]
    return torch.where(positives_B >= 0, normalizer_B - similarity_B, 0.0).sum() / len(codes_B)


class _Collaborative:
    """`collaborative_loss` with the vectors of the items of each batch."""

    def __init__(self, config: Letter.Config, vectors_ND: Tensor) -> None:
        self.config, self.vectors_ND = config, vectors_ND

    def begin_epoch(self, network: ResidualAutoencoder, epoch: int) -> None:
        """Nothing to do."""

    def loss(self, network: ResidualAutoencoder, output: QuantizerOutput, rows_B: Tensor, step: int) -> Tensor:
        """The weighted loss of a batch."""
        config = self.config
        return config.alpha * collaborative_loss(
            output.sum_BD,
            self.vectors_ND[rows_B],
            normalize=config.contrast_normalize,
            temperature=config.contrast_temperature,
            symmetric=config.contrast_symmetric,
        )

    def state(self) -> dict[str, Tensor]:
        """Nothing that changes."""
        return {}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Nothing that changed."""


class _Diversity:
    """`diversity_loss` of every level, with clusters that are renewed between epochs."""

    def __init__(self, config: Letter.Config, seed: int) -> None:
        self.config, self.seed = config, seed
        self.clusters: list[Tensor] = []

    def begin_epoch(self, network: ResidualAutoencoder, epoch: int) -> None:
        """Cluster the codebooks, if it is time."""
        config = self.config
        if self.clusters and epoch % config.cluster_every:
            return
        self.clusters = [
            cluster_codes(book_KD.detach(), config.clusters, torch_seed(self.seed, "letter", f"{epoch} {level}"))
            for level, book_KD in enumerate(network.quantizer.codebooks)
        ]

    def loss(self, network: ResidualAutoencoder, output: QuantizerOutput, rows_B: Tensor, step: int) -> Tensor:
        """The weighted loss of a batch, mean over levels."""
        draws = torch.Generator().manual_seed(torch_seed(self.seed, "letter", "positives", str(step)))
        codes_LB = output.codes_BL.T
        draws_LB = torch.rand(codes_LB.shape, generator=draws, dtype=torch.float64).to(codes_LB.device)
        losses = [
            diversity_loss(book_KD, codes_B, positive_codes(codes_B, cluster_K, draws_B))
            for book_KD, codes_B, cluster_K, draws_B in zip(
                network.quantizer.codebooks, codes_LB, self.clusters, draws_LB, strict=True
            )
        ]
        return self.config.quantization_weight * self.config.beta * torch.stack(losses).mean()

    def state(self) -> dict[str, Tensor]:
        """The clusters in force."""
        return {str(level): cluster_K for level, cluster_K in enumerate(self.clusters)}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Take over clusters."""
        self.clusters = [state[str(level)] for level in range(len(state))]


def cluster_codes(codebook_KD: Tensor, clusters: int, seed: int) -> Tensor:
    """The cluster int64[K] of every code, by balanced k-means with the published code's size bounds where they fit.

    At least min(K / 2C, 10) and at most 60 codes a cluster, or as many as it takes.
    """
    num_codes = len(codebook_KD)
    clusters = min(clusters, num_codes)
    low, high = min(num_codes // (2 * clusters), 10), max(60, -(-2 * num_codes // clusters))
    return balanced_kmeans(codebook_KD, clusters, min_size=low, max_size=high, iterations=10, seed=seed)[1]
