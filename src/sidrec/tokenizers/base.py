"""The interface of every tokenizer: fit on vectors, quantize vectors, write itself down."""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import SerializeAsAny

from sidrec.config import Config, Part, RunSettings, slot
from sidrec.embeddings.base import ItemEmbeddings
from sidrec.tokenizers.semantic_ids import SemanticIds
from sidrec.types import FloatArray, IntArray, Json

__all__ = ["Tokenizer", "TokenizerConfig"]


class TokenizerConfig(Config):
    """Fields that every tokenizer has."""

    kind: str
    collisions: Annotated[SerializeAsAny[Config], slot("collision")] = "append_level"  # type: ignore[assignment]
    """What happens to items with equal codes: append_level, nearest_free, sinkhorn_reassign or keep."""


class Tokenizer(Part, ABC):
    """Vectors → semantic IDs.

    `quantize` is a pure function of the fitted state: it needs vectors and nothing else, and the
    same vectors always get the same codes. Collisions are settled afterwards by a named policy.
    """

    @abstractmethod
    def fit(self, embeddings: ItemEmbeddings, run: RunSettings = RunSettings()) -> Self:
        """Learn the codebooks."""

    @abstractmethod
    def quantize(self, vectors: FloatArray) -> IntArray:
        """Codes int32[N, L] of vectors float32[N, D], before collisions are settled."""

    @property
    @abstractmethod
    def codebooks(self) -> list[FloatArray]:
        """For each level the codebook float32[K, D']; residuals of level l lie in the same space."""

    @abstractmethod
    def residuals(self, vectors: FloatArray) -> list[FloatArray]:
        """For each level the residual float32[N, D'] that `quantize` compares with the codebook."""

    @abstractmethod
    def reconstruct(self, codes: IntArray) -> FloatArray:
        """Vectors float32[N, D] that codes int32[N, L] stand for."""

    @abstractmethod
    def save(self, directory: Path) -> None:
        """Write the fitted state (safetensors) and its configuration (JSON) into a directory."""

    @classmethod
    @abstractmethod
    def load(cls, directory: Path) -> Self:
        """Rebuild a tokenizer from `save`'s files."""

    def encode(self, embeddings: ItemEmbeddings, extends: SemanticIds | None = None) -> SemanticIds:
        """Semantic IDs of all items, collisions settled by the configured policy.

        Args:
            embeddings: vectors of the catalogue.
            extends: earlier semantic IDs of the catalogue's first items; these keep their codes.
        """
        from sidrec.tokenizers.collisions import resolve

        return resolve(self, embeddings, extends)

    def describe(self) -> Json:
        """The configuration as JSON."""
        config: Any = self.config
        return config.model_dump(mode="json")
