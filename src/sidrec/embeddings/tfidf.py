"""TF-IDF and truncated SVD over item texts: the light default, without models and downloads.

Latent semantic analysis (Deerwester et al., 1990). It knows words, not meanings: two items are near
when they share words that few others have.
"""

from typing import Literal

import numpy as np
from pydantic import Field

from sidrec.config import Config, RunSettings
from sidrec.data.catalog import Catalog
from sidrec.embeddings.base import ContentEmbedder, ItemEmbeddings, unit_length
from sidrec.embeddings.fields import joined_texts, text_facts
from sidrec.errors import DataError
from sidrec.random import generator
from sidrec.types import Json

__all__ = ["TfidfEmbedder"]


class TfidfEmbedder(ContentEmbedder):
    """Words weighted by rarity, reduced to some dozen dimensions."""

    class Config(Config):
        """TF-IDF and truncated SVD."""

        kind: Literal["tfidf"] = "tfidf"
        fields: tuple[str, ...] = ()  # type: ignore[assignment]  # Hides a deprecated attribute of pydantic.
        """Text fields to use, joined in this order; empty means all of the catalogue."""
        dims: int = Field(default=64, ge=1)
        """Dimensions; fewer if the texts hold fewer words. With many, later levels find no clusters in what is left."""
        max_words: int = Field(default=50000, ge=1)
        """Size of the vocabulary, the most frequent words first."""
        normalize: bool = True
        """Scale vectors to length 1; items without words stay zero."""

    def embed(self, catalog: Catalog, run: RunSettings) -> ItemEmbeddings:
        """Vectors of all items, in catalogue order.

        Raises:
            DataError: there is no text, or no word in it.
        """
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.utils.extmath import randomized_svd

        config: TfidfEmbedder.Config = self.config
        texts = joined_texts(catalog, config.fields)
        with run.progress("embed items", 2) as advance:
            try:
                weights = TfidfVectorizer(sublinear_tf=True, max_features=config.max_words).fit_transform(texts)
            except ValueError as error:
                raise DataError(
                    "the item texts hold no word of two or more letters",
                    where=f"fields: {', '.join(config.fields) or 'all'}",
                    next="choose other fields, or import vectors with an embedder of kind 'import'",
                ) from error
            advance()
            dims = min(config.dims, *weights.shape)
            state = int(generator(run.seed, "tfidf").integers(2**31))
            left, strength, _ = randomized_svd(weights, dims, random_state=state)
            vectors = (left * strength).astype(np.float32)[_first_with_equal_text(texts)]
            advance()
        if config.normalize:
            vectors = unit_length(vectors)
        return ItemEmbeddings(vectors, f"tfidf, {dims} dimensions", catalog.digest)

    def facts(self, catalog: Catalog) -> Json:
        """Fields used and items without text."""
        return text_facts(catalog, self.config.fields)


def _first_with_equal_text(texts: list[str]) -> list[int]:
    """For each text the row of its first occurrence: products of equal rows may differ in the last bit."""
    first: dict[str, int] = {}
    return [first.setdefault(text, row) for row, text in enumerate(texts)]
