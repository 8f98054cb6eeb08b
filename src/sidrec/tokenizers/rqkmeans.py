"""RQ-k-means: k-means on the vectors, then on what is left of them, level after level.

The default tokenizer: no training loop, seconds for ten thousand items, and a baseline that learned
quantizers must beat. Codebooks are learned from samples and items encoded piece by piece, so vectors may
be memory-mapped and are never held a second time. `balanced` learns codebooks from clusters of similar size, as
OneRec does (Deng et al., 2025, arXiv:2502.18965). Left out: joint refinement of all levels and beam search over codes.
"""

import math
from pathlib import Path
from typing import Literal, Self

import numpy as np
import torch
from pydantic import Field
from safetensors.numpy import load_file, save_file
from torch import Tensor

from sidrec.config import RunSettings
from sidrec.embeddings.base import ItemEmbeddings, unit_length
from sidrec.progress import Advance
from sidrec.random import generator, torch_seed
from sidrec.tokenizers.balanced import balanced_kmeans
from sidrec.tokenizers.kmeans import distinct_rows, kmeans
from sidrec.tokenizers.residual import PIECE, ResidualTokenizer, nearest_codes, sum_of_codes
from sidrec.tokenizers.sizes import SizedConfig
from sidrec.types import FloatArray, IntArray

__all__ = ["RQKMeans"]

STATE = "tokenizer.safetensors"


class RQKMeans(ResidualTokenizer):
    """Residual quantisation with k-means codebooks.

    >>> vectors = np.array([[0, 0], [0, 1], [8, 0], [8, 1]], np.float32)
    >>> embeddings = ItemEmbeddings(vectors, "by hand", "digest")
    >>> ids = RQKMeans(levels=2, codebook_size=2, collisions="keep").fit(embeddings).encode(embeddings)
    >>> len(ids), ids.sizes, ids.num_collided
    (4, (2, 2), 0)
    """

    class Config(SizedConfig):
        """RQ-k-means."""

        kind: Literal["rqkmeans"] = "rqkmeans"
        balanced: bool = False
        """Learn codebooks from clusters of half to twice the average size; encoding still takes the nearest code."""
        iterations: int = Field(default=20, ge=1)
        """Lloyd steps a level; as many again with balanced assignment if `balanced`."""
        sample: int = Field(default=65536, ge=1)
        """Items that a level's codebook is learned from; from larger catalogues every level draws its own."""
        normalize: bool = False
        """Scale vectors to length 1 first, so that angles are quantised instead of positions."""

    def fit(
        self,
        embeddings: ItemEmbeddings,
        run: RunSettings = RunSettings(),
        collaborative: ItemEmbeddings | None = None,
    ) -> Self:
        """Learn the codebooks, one k-means a level, each from the residuals of a sample of the items."""
        config: RQKMeans.Config = self.config
        books: list[Tensor] = []
        with run.progress("fit codebooks", len(config.sizes) * config.iterations) as advance:
            for level, size in enumerate(config.sizes):
                rows = _sample(len(embeddings.vectors), config.sample, run.seed, level)
                points_MD = torch.tensor(self.latents(embeddings.vectors[rows]), device=run.torch_device())
                for piece_BD in points_MD.split(PIECE):
                    for book_KD in books:
                        piece_BD -= book_KD[nearest_codes(piece_BD, book_KD)[0]]
                books.append(
                    self._codebook(points_MD, size, torch_seed(run.seed, "rqkmeans", f"level {level}"), advance)
                )
        self._codebooks = [book_KD.cpu().numpy() for book_KD in books]
        return self

    def _codebook(self, points_MD: Tensor, size: int, seed: int, advance: Advance) -> Tensor:
        """Centres float32[K, D] of the residuals of a level."""
        config: RQKMeans.Config = self.config
        if not config.balanced or len(distinct_rows(points_MD, size + 1)) <= size:
            return kmeans(
                points_MD, size, iterations=config.iterations, sample=config.sample, seed=seed, advance=advance
            )
        average = len(points_MD) / size
        return balanced_kmeans(
            points_MD,
            size,
            min_size=math.floor(average / 2),
            max_size=math.ceil(2 * average),
            iterations=config.iterations,
            seed=seed,
            advance=advance,
        )[0]

    @property
    def dims(self) -> int:
        """D, the size of the vectors that it was fitted on."""
        return self.codebooks[0].shape[1]

    def latents(self, vectors: FloatArray) -> FloatArray:
        """The vectors themselves, at length 1 if so configured."""
        points = np.ascontiguousarray(vectors, np.float32)
        return unit_length(points) if self.config.normalize else points

    def compared(self, vectors: FloatArray) -> FloatArray:
        """The vectors themselves, at length 1 if so configured."""
        return self.latents(vectors)

    def reconstruct(self, codes: IntArray) -> FloatArray:
        """Vectors float32[N, D] that codes stand for; with `normalize`, of items scaled to length 1."""
        return sum_of_codes(codes, self.codebooks)

    def save(self, directory: Path) -> None:
        """Write configuration and codebooks."""
        super().save(directory)
        save_file({f"codebook_{level}": book for level, book in enumerate(self.codebooks)}, directory / STATE)

    @classmethod
    def load(cls, directory: Path) -> Self:
        """Rebuild a tokenizer from `save`'s files."""
        tokenizer = cls._configured(directory)
        state = load_file(directory / STATE)
        tokenizer._codebooks = [state[f"codebook_{level}"] for level in range(len(state))]
        return tokenizer


def _sample(total: int, count: int, seed: int, level: int) -> IntArray | slice:
    """Rows that a level learns from, in ascending order, in which a file is read."""
    if total <= count:
        return slice(None)
    return np.sort(generator(seed, "rqkmeans", f"sample {level}").choice(total, count, replace=False, shuffle=False))
