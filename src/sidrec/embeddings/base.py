"""Item vectors and the interface of everything that makes them."""

import json
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save_file

from sidrec.artifact import Artifact, open_artifact
from sidrec.config import Part, RunSettings
from sidrec.data.catalog import Catalog
from sidrec.data.dataset import Dataset
from sidrec.errors import DataError
from sidrec.types import FloatArray, IntArray, Json

__all__ = ["ContentEmbedder", "Embedder", "ItemEmbeddings", "unit_length"]

FILE, ABOUT = "embeddings.safetensors", "about"
PIECE = 8192
"""Rows that are checked at once."""


@dataclass(frozen=True)
class ItemEmbeddings:
    """One vector an item, in catalogue order.

    Attributes:
        vectors: float32[N, D], finite.
        encoder: what made them, for people.
        catalog_digest: digest of the catalogue whose rows these are.
        missing: int64[M], ascending rows of items about which the encoder was told nothing, not even a word.

    Raises:
        DataError: not a matrix, a value is not finite, or a missing row is none.
    """

    vectors: FloatArray
    encoder: str
    catalog_digest: str
    missing: IntArray = field(default_factory=lambda: np.empty(0, np.int64))

    def __post_init__(self) -> None:
        if self.vectors.ndim != 2 or not self.vectors.shape[1]:
            raise DataError(f"item vectors have shape {self.vectors.shape}", expected="(items, dimensions)")
        if len(self.missing) and not 0 <= self.missing.min() <= self.missing.max() < len(self.vectors):
            raise DataError(f"row {self.missing.max()} of {len(self.vectors)} cannot be missing", where=self.encoder)
        bad = _bad_rows(self.vectors)
        if len(bad):
            raise DataError(
                f"{len(bad)} item vectors hold NaN or infinity, the first is row {bad[0]}",
                where=self.encoder,
                expected="finite numbers",
                next="make the vectors again; an empty text is usually the cause",
            )

    def check_fits(self, catalog: Catalog) -> None:
        """Raise `DataError` unless these are vectors of exactly this catalogue."""
        if len(self.vectors) != len(catalog) or self.catalog_digest != catalog.digest:
            raise DataError(
                f"catalogue and embeddings disagree: {len(catalog)} items of catalogue {catalog.digest[:12]}, "
                f"{len(self.vectors)} vectors made for catalogue {self.catalog_digest[:12]}",
                where=self.encoder,
                next="make the embeddings again with 'sidrec embed'",
            )

    def save(self, directory: Path) -> None:
        """Write `embeddings.safetensors` into a directory."""
        # One entry: safetensors writes several in an order of its own, and equal vectors would differ in digest.
        fields = {"encoder": self.encoder, "catalog_digest": self.catalog_digest, "missing": self.missing.tolist()}
        about = json.dumps(fields, ensure_ascii=False)
        save_file({"vectors": np.ascontiguousarray(self.vectors, np.float32)}, directory / FILE, {ABOUT: about})

    @classmethod
    def load(cls, path: Path | str) -> "ItemEmbeddings":
        """Read and check an embeddings artefact."""
        return cls.of_artifact(open_artifact(path, "embeddings"))

    @classmethod
    def of_artifact(cls, artifact: Artifact) -> "ItemEmbeddings":
        """The vectors of an artefact that was opened already, memory-mapped: pages are read when they are looked at."""
        # As torch tensors safetensors maps the file; as numpy arrays it would read it, and hold it twice meanwhile.
        with safe_open(artifact.path / FILE, framework="pt") as file:
            about: Json = json.loads(file.metadata()[ABOUT])
            missing = np.asarray(about.get("missing", ()), np.int64)
            return cls(file.get_tensor("vectors").numpy(), about["encoder"], about["catalog_digest"], missing)


class Embedder(Part, ABC):
    """Makes one vector an item."""

    def sources(self) -> dict[str, str]:
        """Role → digest of files outside the run that decide the vectors."""
        return {}

    def facts(self, catalog: Catalog) -> Json:
        """What a report should say about the input, such as how many items have no text."""
        return {}

    @abstractmethod
    def embed_items(self, dataset: Dataset, run: RunSettings) -> ItemEmbeddings:
        """Vectors of all items of a dataset, in catalogue order."""

    def save(self, directory: Path) -> None:
        """Write what was learnt from the items, where `extend` needs it (safetensors, JSON)."""

    def extend(
        self, new: Catalog, old: Catalog, earlier: Artifact, run: RunSettings, vectors: Path | None = None
    ) -> FloatArray:
        """Vectors float32[M, D] of M new items, made like those of an embeddings artefact, which stay.

        Args:
            new: the new items alone.
            old: the catalogue of the artefact.
            earlier: the artefact that this configuration made.
            run: device and progress.
            vectors: a `.npy` of the new items' vectors, where those of the old ones were imported too.

        Raises:
            DataError: vectors of this kind do not come from an item's content alone.
        """
        del new, old, run, vectors
        raise DataError(
            f"vectors of kind '{self.config.kind}' cannot be made for new items",
            where=str(earlier.path),
            expected="vectors of item content, which an item has before anybody touched it: tfidf, text or import",
            next="tokenize anew with the new items in the dataset, or learn semantic IDs from content",
        )


class ContentEmbedder(Embedder):
    """Makes vectors from what the catalogue says about items, whatever users did with them."""

    @abstractmethod
    def embed(self, catalog: Catalog, run: RunSettings) -> ItemEmbeddings:
        """Vectors of all items, in catalogue order."""

    def embed_items(self, dataset: Dataset, run: RunSettings) -> ItemEmbeddings:
        """Vectors of all items of a dataset, in catalogue order."""
        return self.embed(dataset.catalog, run)

    @abstractmethod
    def extend(
        self, new: Catalog, old: Catalog, earlier: Artifact, run: RunSettings, vectors: Path | None = None
    ) -> FloatArray:
        """Vectors float32[M, D] of new items, as `Embedder.extend` says."""

    def _refuse_file(self, vectors: Path | None) -> None:
        """Raise `DataError` where a file of vectors is given to an embedder that makes its own."""
        if vectors is not None:
            raise DataError(
                f"the vectors of this run are made by '{self.config.kind}', which makes those of new items as well",
                where=str(vectors),
                next="leave --vectors out",
            )


def _bad_rows(vectors: FloatArray) -> IntArray:
    """Rows that are not finite, found piece by piece."""
    is_bad = np.zeros(len(vectors), np.bool_)
    for start in range(0, len(vectors), PIECE):
        is_bad[start : start + PIECE] = ~np.isfinite(vectors[start : start + PIECE]).all(axis=1)
    return np.flatnonzero(is_bad)


def unit_length(vectors: FloatArray) -> FloatArray:
    """Rows scaled to length 1; zero rows stay zero.

    >>> unit_length(np.array([[3.0, 4.0], [0.0, 0.0]])).tolist()
    [[0.6, 0.8], [0.0, 0.0]]
    """
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.where(norms > 0, norms, 1)
