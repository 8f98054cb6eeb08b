"""RQ-k-means: k-means on the vectors, then on what is left of them, level after level.

The default tokenizer: no training loop, seconds for ten thousand items, and a baseline that learned
quantizers must beat. Left out: joint refinement of all levels and beam search over codes.
"""

from pathlib import Path
from typing import Literal, Self

import numpy as np
import torch
from pydantic import Field
from safetensors.numpy import load_file, save_file

from sidrec.config import RunSettings
from sidrec.embeddings.base import ItemEmbeddings, unit_length
from sidrec.random import torch_seed
from sidrec.tokenizers.base import TokenizerConfig
from sidrec.tokenizers.kmeans import kmeans
from sidrec.tokenizers.residual import ResidualTokenizer, nearest_codes, sum_of_codes
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

    class Config(TokenizerConfig):
        """RQ-k-means."""

        kind: Literal["rqkmeans"] = "rqkmeans"
        levels: int = Field(default=3, ge=1)
        """L, number of codes an item gets before collisions are settled."""
        codebook_size: int = Field(default=256, ge=1)
        """K, codes in a level; fewer where the data hold fewer distinct vectors."""
        iterations: int = Field(default=20, ge=1)
        """Lloyd steps a level."""
        sample: int = Field(default=65536, ge=1)
        """Items that codebooks are learned from; larger catalogues are sampled."""
        normalize: bool = False
        """Scale vectors to length 1 first, so that angles are quantised instead of positions."""

    def fit(
        self,
        embeddings: ItemEmbeddings,
        run: RunSettings = RunSettings(),
        collaborative: ItemEmbeddings | None = None,
    ) -> Self:
        """Learn the codebooks, one k-means a level."""
        config: RQKMeans.Config = self.config
        residual_ND = torch.from_numpy(self.latents(embeddings.vectors)).to(run.torch_device())
        codebooks: list[FloatArray] = []
        with run.progress("fit codebooks", config.levels * config.iterations) as advance:
            for level in range(config.levels):
                codebook_KD = kmeans(
                    residual_ND,
                    config.codebook_size,
                    iterations=config.iterations,
                    sample=config.sample,
                    seed=torch_seed(run.seed, "rqkmeans", f"level {level}"),
                    advance=advance,
                )
                residual_ND = residual_ND - codebook_KD[nearest_codes(residual_ND, codebook_KD)[0]]
                codebooks.append(codebook_KD.cpu().numpy())
        self._codebooks = codebooks
        return self

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
