"""PQ and OPQ: the vector is cut into blocks and every block quantised by itself, after a rotation that evens them out.

Product quantisation (Jégou et al., 2011) and optimised product quantisation (Ge et al., 2013), which
VQ-Rec (2022, arXiv:2210.12316) made item codes of. As a residual quantiser: the codebook of a
level is zero outside its block, so that levels do not see each other and every policy works unchanged.
faiss learns the rotation; codebooks are the k-means of this package, for any number of codes and few items.
Left out: blocks of unequal width.
"""

import math
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import torch
from pydantic import Field
from safetensors.numpy import load_file, save_file

from sidrec.config import RunSettings
from sidrec.embeddings.base import ItemEmbeddings
from sidrec.errors import DataError
from sidrec.random import generator, torch_seed
from sidrec.tokenizers.kmeans import kmeans
from sidrec.tokenizers.residual import ResidualTokenizer, nearest_codes, sum_of_codes
from sidrec.tokenizers.sizes import SizedConfig
from sidrec.types import FloatArray, IntArray

__all__ = ["OPQ"]

STATE, ROTATION, DIMS = "tokenizer.safetensors", "rotation", "dims"


class OPQ(ResidualTokenizer):
    """Product quantisation, by default of rotated vectors.

    >>> vectors = np.array([[0, 0], [0, 1], [8, 0], [8, 1]], np.float32)
    >>> embeddings = ItemEmbeddings(vectors, "by hand", "digest")
    >>> product = OPQ(levels=2, codebook_size=2, rotate=False).fit(embeddings)
    >>> np.array_equal(product.reconstruct(product.quantize(vectors)), vectors)
    True
    """

    class Config(SizedConfig):
        """Product quantisation with a learnt rotation."""

        kind: Literal["opq"] = "opq"
        rotate: bool = True
        """Learn a rotation that spreads the variance evenly over the blocks (OPQ); without it this is PQ."""
        rotation_steps: int = Field(default=20, ge=1)
        """Times that rotation and codebooks are adapted to each other."""
        iterations: int = Field(default=20, ge=1)
        """Lloyd steps of the codebooks."""
        sample: int = Field(default=65536, ge=1)
        """Items that rotation and codebooks are learned from; larger catalogues are sampled."""

    _rotation: FloatArray | None = None
    _dims: int = 0

    @property
    def rotation(self) -> FloatArray:
        """float32[D', D'], orthogonal; D' is D rounded up to a multiple of the number of levels.

        Raises:
            DataError: the tokenizer has not been fitted.
        """
        if self._rotation is None:
            raise DataError("this OPQ has no codebooks yet", next="call fit(embeddings) first")
        return self._rotation

    def fit(
        self,
        embeddings: ItemEmbeddings,
        run: RunSettings = RunSettings(),
        collaborative: ItemEmbeddings | None = None,
    ) -> Self:
        """Learn the rotation, then a codebook for every block."""
        config: OPQ.Config = self.config
        num_levels, (total, dims) = len(config.sizes), embeddings.vectors.shape
        padded = num_levels * math.ceil(dims / num_levels)
        rows: IntArray | slice = slice(None)
        if total > config.sample:
            draw = generator(run.seed, "opq", "sample")
            rows = np.sort(draw.choice(total, config.sample, replace=False, shuffle=False))
        self._dims, self._rotation, points = dims, np.eye(padded, dtype=np.float32), embeddings.vectors[rows]
        self._codebooks = []
        with run.progress("fit codebooks", num_levels * config.iterations) as advance:
            if config.rotate and len(points) > 1:
                self._rotation = self._learned_rotation(
                    _padded(points, padded), torch_seed(run.seed, "opq", "rotation")
                )
            latents_MD = torch.from_numpy(self.latents(points)).to(run.torch_device())
            for level, (size, block_MD) in enumerate(
                zip(config.sizes, latents_MD.chunk(num_levels, dim=1), strict=True)
            ):
                seed = torch_seed(run.seed, "opq", f"level {level}")
                book = kmeans(
                    block_MD.contiguous(), size, iterations=config.iterations, seed=seed, advance=advance
                ).cpu()
                self._codebooks.append(_in_block(book.numpy(), level, padded))
        return self

    def _learned_rotation(self, points: FloatArray, seed: int) -> FloatArray:
        import faiss

        library: Any = faiss  # It comes without types.
        num_levels, dims = len(self.config.sizes), points.shape[1]
        # A code of faiss has whole bits, and it wants at least as many points as codes.
        bits = max(1, min(math.ceil(math.log2(max(self.config.sizes))), int(math.log2(len(points)))))
        product = library.ProductQuantizer(dims, num_levels, bits)
        product.cp.seed = seed % 2**31
        product.cp.min_points_per_centroid = 1  # It warns on the console otherwise.
        matrix = library.OPQMatrix(dims, num_levels, dims)
        matrix.pq, matrix.niter = product, self.config.rotation_steps
        matrix.train(points)
        return library.vector_to_array(matrix.A).reshape(dims, dims).copy()

    @property
    def dims(self) -> int:
        """D, the size of the vectors that it was fitted on, without padding."""
        _ = self.rotation
        return self._dims

    def latents(self, vectors: FloatArray) -> FloatArray:
        """The vectors float32[N, D'], padded with zeros and rotated."""
        points = _padded(vectors, len(self.rotation))
        return points @ self.rotation.T if self.config.rotate else points

    def quantize_latents(self, latents: FloatArray) -> IntArray:
        """Codes int32[N, L]: in every block the nearest, which is what the residuals of all levels give."""
        width = latents.shape[1] // len(self.codebooks)
        codes = np.empty((len(latents), len(self.codebooks)), np.int32)
        for level, book in enumerate(self.codebooks):
            block = np.s_[:, level * width : (level + 1) * width]
            points_BD, book_KD = (torch.from_numpy(np.ascontiguousarray(array[block])) for array in (latents, book))
            codes[:, level] = nearest_codes(points_BD, book_KD)[0].numpy()
        return codes

    def reconstruct(self, codes: IntArray) -> FloatArray:
        """Vectors float32[N, D'] that codes stand for, rotated back; dimensions beyond D are those of the padding."""
        latents = sum_of_codes(codes, self.codebooks)
        return latents @ self.rotation if self.config.rotate else latents

    def compared(self, vectors: FloatArray) -> FloatArray:
        """The vectors, padded with zeros to D' dimensions."""
        return _padded(vectors, len(self.rotation))

    def save(self, directory: Path) -> None:
        """Write configuration, rotation and codebooks."""
        super().save(directory)
        books = {f"codebook_{level}": book for level, book in enumerate(self.codebooks)}
        save_file({**books, ROTATION: self.rotation, DIMS: np.array([self.dims])}, directory / STATE)

    @classmethod
    def load(cls, directory: Path) -> Self:
        """Rebuild a tokenizer from `save`'s files."""
        tokenizer = cls._configured(directory)
        state = load_file(directory / STATE)
        tokenizer._rotation, tokenizer._dims = state.pop(ROTATION), int(state.pop(DIMS)[0])
        tokenizer._codebooks = [state[f"codebook_{level}"] for level in range(len(state))]
        return tokenizer


def _padded(vectors: FloatArray, dims: int) -> FloatArray:
    """float32[N, D'] with zeros behind the vectors; no copy where nothing is missing."""
    points = np.ascontiguousarray(vectors, np.float32)
    missing = dims - points.shape[1]
    return np.pad(points, ((0, 0), (0, missing))) if missing else points


def _in_block(book: FloatArray, level: int, dims: int) -> FloatArray:
    """A codebook [K, D'] that is zero outside the block of its level."""
    whole = np.zeros((len(book), dims), np.float32)
    width = book.shape[1]
    whole[:, level * width : (level + 1) * width] = book
    return whole
