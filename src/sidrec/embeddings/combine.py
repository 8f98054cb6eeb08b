"""Several vectors of an item put side by side: text and behaviour, say, as ETEGRec's dual input.

Leaves out learnt fusion: a tokenizer that learns sees all of them.
"""

from dataclasses import replace
from functools import reduce
from typing import Annotated, Literal, Self

import numpy as np
from pydantic import Field, SerializeAsAny, model_validator

from sidrec.config import Config, RunSettings, build, slot
from sidrec.data.catalog import Catalog
from sidrec.data.dataset import Dataset
from sidrec.embeddings.base import Embedder, ItemEmbeddings, unit_length
from sidrec.types import Json

__all__ = ["CombinedVectors"]


class CombinedVectors(Embedder):
    """Concatenates the vectors of other embedders."""

    class Config(Config):
        """Vectors of several embedders side by side."""

        kind: Literal["combine"] = "combine"
        parts: tuple[Annotated[SerializeAsAny[Config], slot("embedder")], ...] = Field(min_length=2)
        """The embedders, each a kind or a mapping with one."""
        weights: tuple[float, ...] = ()
        """Factor of each part; empty means 1 each."""
        normalize: bool = True
        """Scale the vectors of each part to length 1 first, so that none outweighs the others by its scale alone."""

        @model_validator(mode="after")
        def _one_weight_a_part(self) -> Self:
            if self.weights and len(self.weights) != len(self.parts):
                raise ValueError(f"weights has {len(self.weights)} values for {len(self.parts)} parts")
            return self

    def _parts(self) -> list[Embedder]:
        return [build("embedder", part) for part in self.config.parts]

    def sources(self) -> dict[str, str]:
        """Digests of the files that decide the vectors of any part."""
        return {
            f"{role} of part {number}": digest
            for number, part in enumerate(self._parts(), start=1)
            for role, digest in part.sources().items()
        }

    def facts(self, catalog: Catalog) -> Json:
        """What each part says about the input."""
        return {f"part {number}": part.facts(catalog) for number, part in enumerate(self._parts(), start=1)}

    def embed_items(self, dataset: Dataset, run: RunSettings) -> ItemEmbeddings:
        """Vectors float32[N, D1 + D2 + …] of all items, in catalogue order."""
        config: CombinedVectors.Config = self.config
        found: list[ItemEmbeddings] = []
        for number, part in enumerate(self._parts(), start=1):
            scratch = None if run.scratch is None else run.scratch / f"part-{number}"
            found.append(part.embed_items(dataset, replace(run, scratch=scratch)))
        weights = config.weights or (1.0,) * len(found)
        vectors = [unit_length(each.vectors) if config.normalize else each.vectors for each in found]
        together = np.concatenate([factor * each for factor, each in zip(weights, vectors, strict=True)], axis=1)
        names = " + ".join(each.encoder for each in found)
        missing = reduce(np.intersect1d, [each.missing for each in found])
        return ItemEmbeddings(together.astype(np.float32, copy=False), names, dataset.catalog.digest, missing)
