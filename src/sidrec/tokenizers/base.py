"""The interfaces of tokenizers: semantic IDs are learned from vectors, or were made elsewhere."""

import json
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self

from pydantic import Field, SerializeAsAny

from sidrec.config import Config, Part, RunSettings, parse, slot
from sidrec.data.catalog import Catalog
from sidrec.data.dataset import Dataset
from sidrec.embeddings.base import ItemEmbeddings
from sidrec.errors import ArtifactError, DataError
from sidrec.registry import REGISTRY, load_class
from sidrec.tokenizers.collisions import as_semantic_ids, settle_new
from sidrec.tokenizers.placement import Quantized
from sidrec.tokenizers.semantic_ids import SemanticIds
from sidrec.types import FloatArray, IntArray, Json, Metric

__all__ = ["ImportingTokenizer", "Tokenizer", "TokenizerConfig", "VectorTokenizer", "load_tokenizer"]

FILE = "tokenizer.json"


class TokenizerConfig(Config):
    """Fields that every tokenizer has."""

    collisions: Annotated[
        SerializeAsAny[Config],
        slot("collision"),
        Field(description=f"What happens to items with equal codes: {', '.join(REGISTRY['collision'])}."),
    ] = "append_level"  # type: ignore[assignment]  # The slot makes a Config of the name.


class Tokenizer(Part, ABC):
    """Anything that gives a catalogue semantic IDs."""

    needs_embeddings: ClassVar[bool] = True
    """Whether it works on item vectors; the others bring their codes from elsewhere."""
    uses_seed: ClassVar[bool] = True
    """Whether the run's seed decides its codes."""

    @property
    def needs_collaborative(self) -> bool:
        """Whether `fit` also wants vectors learnt from what users did."""
        return False

    def sources(self) -> dict[str, str]:
        """Role → digest of files outside the run that decide the codes."""
        return {}

    def describe(self) -> Json:
        """The configuration as JSON."""
        config: Any = self.config
        return config.model_dump(mode="json")

    def save(self, directory: Path) -> None:
        """Write the configuration (JSON) and, in tokenizers that learn, the fitted state (safetensors)."""
        (directory / FILE).write_text(json.dumps(self.describe(), indent=1), encoding="utf-8")


class ImportingTokenizer(Tokenizer):
    """Has semantic IDs without looking at vectors: made elsewhere, or drawn; it learns nothing and cannot encode."""

    needs_embeddings = False
    uses_seed = False

    @abstractmethod
    def codes(self, dataset: Dataset, run: RunSettings = RunSettings()) -> tuple[IntArray, tuple[int, ...]]:
        """Codes int32[N, L] of the dataset's items before collisions are settled, and the sizes of the levels.

        Raises:
            DataError: there are none, or they do not fit the catalogue.
        """


class VectorTokenizer(Tokenizer):
    """Item vectors → semantic IDs.

    `quantize` is a function of the fitted state alone: it needs vectors and nothing else. The same vectors get the
    same codes, whatever stands beside them, up to rounding where two codes are equally near. Collisions are settled
    afterwards by a named policy.
    """

    @abstractmethod
    def fit(
        self,
        embeddings: ItemEmbeddings,
        run: RunSettings = RunSettings(),
        collaborative: ItemEmbeddings | None = None,
    ) -> Self:
        """Learn the codebooks.

        Args:
            embeddings: vectors of the catalogue.
            run: seed, device, progress. A killed `fit` that is called again ends with the same codes; with a scratch
                folder, RQ-VAE and what is built on it go on from their last checkpoint.
            collaborative: vectors of the same items learnt from what users did; only tokenizers with
                `needs_collaborative` look at them.
        """

    @abstractmethod
    def latents(self, vectors: FloatArray) -> FloatArray:
        """The points float32[N, D'] that are quantized, of vectors float32[N, D]."""

    @abstractmethod
    def quantize_latents(self, latents: FloatArray) -> IntArray:
        """Codes int32[N, L] of the points that `latents` gives.

        At every level that of the nearest code by `metric`, whose codebook entry is then subtracted.
        """

    @property
    @abstractmethod
    def dims(self) -> int:
        """D, the size of the vectors that it was fitted on."""

    @property
    def metric(self) -> Metric:
        """What "nearest" means at every level."""
        return "l2"

    @property
    @abstractmethod
    def codebooks(self) -> list[FloatArray]:
        """For each level the codebook float32[K, D'], in the space of the latents."""

    @abstractmethod
    def reconstruct(self, codes: IntArray) -> FloatArray:
        """Vectors float32[N, D] that codes int32[N, L] stand for."""

    def compared(self, vectors: FloatArray) -> FloatArray:
        """What `reconstruct` tries to give back, float32[N, D]: the vectors, unless they are scaled first."""
        return vectors

    @classmethod
    @abstractmethod
    def load(cls, directory: Path) -> Self:
        """Rebuild a tokenizer from `save`'s files."""

    @property
    def sizes(self) -> tuple[int, ...]:
        """(K1, …, KL) of the fitted codebooks; smaller than configured where the data hold fewer distinct vectors."""
        return tuple(len(codebook) for codebook in self.codebooks)

    def quantize(self, vectors: FloatArray) -> IntArray:
        """Codes int32[N, L] of vectors float32[N, D], before collisions are settled.

        Raises:
            DataError: the vectors have another size than those it was fitted on.
        """
        return self.quantize_latents(self.checked_latents(vectors))

    def quantized(self, vectors: FloatArray) -> Quantized:
        """The codes of vectors float32[N, D] with all that a collision policy may look at."""
        latents = self.checked_latents(vectors)
        return Quantized(self.quantize_latents(latents), self.sizes, latents, self.codebooks, metric=self.metric)

    def encode(
        self, embeddings: ItemEmbeddings, extends: SemanticIds | None = None, catalog: Catalog | None = None
    ) -> SemanticIds:
        """Semantic IDs of all items, collisions settled by the configured policy.

        Args:
            embeddings: vectors of the catalogue.
            extends: earlier semantic IDs of the catalogue's first items; these keep their codes.
            catalog: needed with `extends`: the ids prove that the first items are still the same.

        Raises:
            DataError: `extends` does not fit, or there are more items than codes.
        """
        if extends is not None:
            _check_extension(extends, embeddings, catalog)
        new = embeddings.vectors if extends is None else embeddings.vectors[len(extends) :]
        settled = settle_new(self.config.collisions, self.quantized(new), extends)
        return as_semantic_ids(settled, embeddings.catalog_digest, extends)

    def checked_latents(self, vectors: FloatArray) -> FloatArray:
        """The latents float32[N, D'] of vectors float32[N, D].

        Raises:
            DataError: the vectors have another size than those it was fitted on.
        """
        if vectors.ndim != len(("N", "D")) or vectors.shape[1] != self.dims:
            raise DataError(
                f"vectors of shape {vectors.shape} for a tokenizer that learnt from {self.dims} dimensions",
                expected=f"(items, {self.dims})",
                next="use vectors of the embedder that it was fitted with",
            )
        return self.latents(vectors)

    @classmethod
    def _configured(cls, directory: Path) -> Self:
        """An unfitted tokenizer with the configuration that `save` wrote."""
        path = directory / FILE
        return cls(parse(cls.Config, json.loads(path.read_text(encoding="utf-8")), where=str(path)))


def _check_extension(extends: SemanticIds, embeddings: ItemEmbeddings, catalog: Catalog | None) -> None:
    """Raise `DataError` unless the catalogue begins with the items of the earlier semantic IDs."""
    if catalog is not None:
        embeddings.check_fits(catalog)
    if catalog is None or not catalog.begins_with(len(extends), extends.catalog_digest):
        raise DataError(
            f"nothing shows that the first {len(extends)} items are those of the earlier semantic IDs",
            where=f"semantic IDs made for catalogue {extends.catalog_digest[:12]}",
            expected="catalog=…, with the old items first, in their old order, and the new ones behind them",
            next="put the new items last, or tokenize anew",
        )


def load_tokenizer(directory: Path) -> VectorTokenizer:
    """The fitted tokenizer in a directory, of whatever kind it is.

    Raises:
        ArtifactError: there is none, or it holds imported codes and cannot encode vectors.
    """
    path = directory / FILE
    if not path.is_file():
        raise ArtifactError("there is no tokenizer", where=str(directory), expected=f"a directory with {FILE}")
    cls = load_class("tokenizer", json.loads(path.read_text(encoding="utf-8"))["kind"])
    if not issubclass(cls, VectorTokenizer):
        raise ArtifactError(
            "these semantic IDs were imported; no tokenizer that could encode vectors stands behind them",
            where=str(directory),
            next="use a tokenizer that learns from vectors, such as 'rqkmeans'",
        )
    return cls.load(directory)
