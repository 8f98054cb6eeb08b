"""TF-IDF and truncated SVD over item texts: the light default, without models and downloads.

Latent semantic analysis (Deerwester et al., 1990). It knows words, not meanings: two items are near
when they share words that few others have. Words that only new items have are left out of their
vectors, since no dimension was learnt for them.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field
from safetensors.numpy import load_file, save_file

from sidrec.artifact import Artifact
from sidrec.config import Config, RunSettings
from sidrec.data.catalog import Catalog
from sidrec.embeddings.base import ContentEmbedder, ItemEmbeddings, unit_length
from sidrec.embeddings.enrich.facts import described, facts_digest
from sidrec.embeddings.fields import joined_texts, rows_without_text, text_facts
from sidrec.errors import ArtifactError, DataError
from sidrec.random import generator
from sidrec.types import FloatArray, Json

__all__ = ["TfidfEmbedder"]

WORDS, STATE = "tfidf_words.json", "tfidf.safetensors"


@dataclass(frozen=True)
class _Fitted:
    """What was learnt from a catalogue.

    Attributes:
        words: the V words, in the order of the columns.
        rarity: float64[V], inverse document frequency of each.
        directions: float32[D, V], the words' weights in each dimension.
    """

    words: list[str]
    rarity: FloatArray
    directions: FloatArray

    def save(self, directory: Path) -> None:
        (directory / WORDS).write_text(json.dumps(self.words, ensure_ascii=False), encoding="utf-8")
        save_file({"rarity": self.rarity, "directions": self.directions}, directory / STATE)

    @classmethod
    def load(cls, directory: Path) -> "_Fitted":
        if not (directory / STATE).is_file():
            raise ArtifactError(
                "these vectors were made by a version that did not keep what it had learnt",
                where=str(directory),
                next="run 'sidrec embed' and 'sidrec tokenize' again with --force",
            )
        arrays = load_file(directory / STATE)
        return cls(json.loads((directory / WORDS).read_text(encoding="utf-8")), **arrays)

    def vectors(self, texts: list[str]) -> FloatArray:
        """float32[len(texts), D], the texts in the dimensions that were learnt."""
        from sklearn.feature_extraction.text import TfidfVectorizer

        vectorizer: Any = TfidfVectorizer(sublinear_tf=True, vocabulary=self.words)
        vectorizer.idf_ = self.rarity
        return np.asarray(vectorizer.transform(texts) @ self.directions.T, np.float32)


class TfidfEmbedder(ContentEmbedder):
    """Words weighted by rarity, reduced to some dozen dimensions."""

    class Config(Config):
        """TF-IDF and truncated SVD."""

        kind: Literal["tfidf"] = "tfidf"
        fields: tuple[str, ...] = ()  # type: ignore[assignment]  # Hides a deprecated attribute of pydantic.
        """Text fields to use, joined in this order; empty means all of the catalogue."""
        facts: str = ""
        """Folder of facts from `sidrec enrich`, which become one more text field, `facts`; empty means none."""
        dims: int = Field(default=64, ge=1)
        """Dimensions; fewer if the texts hold fewer words. With many, later levels find no clusters in what is left."""
        max_words: int = Field(default=50000, ge=1)
        """Size of the vocabulary, the most frequent words first."""
        normalize: bool = True
        """Scale vectors to length 1; items without words stay zero."""

    _fitted: _Fitted | None = None

    def sources(self) -> dict[str, str]:
        """The digest of the facts."""
        return facts_digest(self.config.facts)

    def embed(self, catalog: Catalog, run: RunSettings) -> ItemEmbeddings:
        """Vectors of all items, in catalogue order.

        Raises:
            DataError: there is no text, or no word in it.
        """
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.utils.extmath import randomized_svd

        config: TfidfEmbedder.Config = self.config
        texts = joined_texts(described(catalog, config.facts), config.fields)
        vectorizer: Any = TfidfVectorizer(sublinear_tf=True, max_features=config.max_words)
        with run.progress("embed items", 2) as advance:
            try:
                weights = vectorizer.fit_transform(texts)
            except ValueError as error:
                raise DataError(
                    "the item texts hold no word of two or more letters",
                    where=f"fields: {', '.join(config.fields) or 'all'}",
                    next="choose other fields, or import vectors with an embedder of kind 'import'",
                ) from error
            advance()
            dims = min(config.dims, *weights.shape)
            state = int(generator(run.seed, "tfidf").integers(2**31))
            left, strength, right = randomized_svd(weights, dims, random_state=state)
            words = vectorizer.get_feature_names_out().tolist()
            self._fitted = _Fitted(words, vectorizer.idf_, np.ascontiguousarray(right, np.float32))
            vectors = (left * strength).astype(np.float32)[_first_with_equal_text(texts)]
            # Without a word there are only rounding errors, which length 1 would make a direction of.
            vectors[weights.getnnz(axis=1) == 0] = 0
            advance()
        if config.normalize:
            vectors = unit_length(vectors)
        missing = rows_without_text(described(catalog, config.facts), config.fields)
        return ItemEmbeddings(vectors, f"tfidf, {dims} dimensions", catalog.digest, missing)

    def save(self, directory: Path) -> None:
        """Write words, rarities and directions."""
        if self._fitted is not None:
            self._fitted.save(directory)

    def extend(
        self, new: Catalog, old: Catalog, earlier: Artifact, run: RunSettings, vectors: Path | None = None
    ) -> FloatArray:
        """Vectors float32[M, D] of new items in the dimensions that the old ones taught.

        An item whose text an old one has gets that one's vector: the approximate decomposition gives old items
        coordinates that differ from a plain projection by about one per cent.

        Raises:
            DataError: there is no text.
        """
        self._refuse_file(vectors)
        config: TfidfEmbedder.Config = self.config
        texts = joined_texts(described(new, config.facts), config.fields)
        with run.progress("embed items", 1) as advance:
            made = _Fitted.load(earlier.path).vectors(texts)
            advance()
        if config.normalize:
            made = unit_length(made)
        old = described(old, config.facts)
        row_of = {text: row for row, text in enumerate(joined_texts(old, config.fields))}
        known = [place for place, text in enumerate(texts) if text in row_of]
        made[known] = ItemEmbeddings.of_artifact(earlier).vectors[[row_of[texts[place]] for place in known]]
        return made

    def facts(self, catalog: Catalog) -> Json:
        """Fields used and items without text."""
        return text_facts(described(catalog, self.config.facts), self.config.fields)


def _first_with_equal_text(texts: list[str]) -> list[int]:
    """For each text the row of its first occurrence: products of equal rows may differ in the last bit."""
    first: dict[str, int] = {}
    return [first.setdefault(text, row) for row, text in enumerate(texts)]
