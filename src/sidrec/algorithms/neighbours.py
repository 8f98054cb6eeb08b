"""Rejected items from the neighbourhood of the chosen one: a few hard ones among easier ones.

Neighbours are those of largest cosine in an item table, by an exact inner-product search of faiss. The
recipe (200 neighbours, the nearest 10 with probability 0.3) is that of a published SASRec with DPO.
"""

from typing import Any, Literal

import numpy as np
from pydantic import Field, model_validator

from sidrec.algorithms.pairs import Chosen, MiningConfig, Pairs, PairSource
from sidrec.config import RunSettings
from sidrec.data.dataset import Dataset
from sidrec.data.sequences import Histories
from sidrec.embeddings.base import ItemEmbeddings, unit_length
from sidrec.errors import DataError
from sidrec.random import generator
from sidrec.recommenders.base import Recommender
from sidrec.types import FloatArray, IntArray

__all__ = ["NeighbourPairs", "nearest_items"]

EXAMPLES_AT_ONCE = 1024
"""Chosen items that are searched together."""


class NeighbourPairs(PairSource):
    """Draws rejected items among the neighbours of the chosen item, without repeats."""

    class Config(MiningConfig):
        """Which neighbours, and how they are drawn."""

        kind: Literal["neighbours"] = "neighbours"
        vectors: Literal["model", "embeddings"] = "model"
        """In which table: the recommender's own item vectors, or an embeddings artefact of the run."""
        hard_share: float = Field(default=0.3, ge=0, le=1)
        """Probability that a rejected item is drawn from the nearest ones."""
        hard: int = Field(default=10, ge=0)
        """How many of the nearest neighbours are hard."""
        ranks: int = Field(default=200, ge=1)
        """Neighbours that are looked at; those that are not hard are easy."""

        @model_validator(mode="after")
        def _enough_neighbours(self) -> "NeighbourPairs.Config":
            if self.ranks < max(self.hard, self.negatives):
                raise ValueError(f"ranks {self.ranks} is less than hard {self.hard} or negatives {self.negatives}")
            return self

    @property
    def needs_embeddings(self) -> bool:
        """Whether the neighbours are those of an embeddings artefact."""
        return self.config.vectors == "embeddings"

    def pairs(
        self, recommender: Recommender, dataset: Dataset, run: RunSettings, embeddings: ItemEmbeddings | None = None
    ) -> Pairs:
        """Pairs of the dataset's training targets; where one pool is too small, the other fills up.

        Raises:
            DataError: there are no vectors, or they are of another catalogue.
        """
        config: NeighbourPairs.Config = self.config
        chosen = Chosen.of(dataset, config, recommender)
        vectors_ND = unit_length(self._vectors(recommender, dataset, embeddings)).astype(np.float32)
        index, draw = _index(vectors_ND), generator(run.seed, "neighbour pairs")
        targets = dataset.sequences.targets(chosen.examples.users, chosen.examples.cuts)
        parts: list[IntArray] = []
        with run.progress("mine pairs", len(chosen)) as advance:
            for first in range(0, len(chosen), EXAMPLES_AT_ONCE):
                block = slice(first, first + EXAMPLES_AT_ONCE)
                barred = chosen.barred(block)
                found_BR = nearest_items(index, vectors_ND, targets[block], barred, config.ranks)
                parts.append(_drawn(found_BR, config, draw))
                advance(len(barred))
        return Pairs.of(dataset, chosen, np.concatenate(parts))

    def _vectors(self, recommender: Recommender, dataset: Dataset, embeddings: ItemEmbeddings | None) -> FloatArray:
        if self.config.vectors == "model":
            return recommender.item_vectors()
        if embeddings is None:
            raise DataError(
                "pairs of neighbours need item vectors, and there are none",
                next="make them with 'sidrec embed', or set pairs.vectors=model",
            )
        embeddings.check_fits(dataset.catalog)
        return embeddings.vectors


def _index(vectors_ND: FloatArray) -> Any:
    import faiss

    library: Any = faiss  # It comes without types.
    index = library.IndexFlatIP(vectors_ND.shape[1])
    index.add(np.ascontiguousarray(vectors_ND))
    return index


def nearest_items(index: Any, vectors_ND: FloatArray, items_B: IntArray, barred: Histories, ranks: int) -> IntArray:
    """Nearest other items int64[B, R] of some items, best first; -1 where there are fewer.

    Args:
        index: of faiss, over the vectors.
        vectors_ND: float32[N, D] of unit length; an item whose vector is 0 has no neighbours and is none.
        items_B: int[B], whose neighbours are wanted.
        barred: for each item what may not be found: B lists, which hold the item itself.
        ranks: R.
    """
    num_items, lines = len(vectors_ND), np.arange(len(items_B))
    width = min(num_items, ranks + int(barred.lengths.max(initial=0)))
    found_BK: IntArray = index.search(np.ascontiguousarray(vectors_ND[items_B]), width)[1].astype(np.int64)
    is_blank = ~np.any(vectors_ND, axis=1)
    is_barred = np.isin(lines[:, None] * num_items + found_BK, barred.owners * num_items + barred.rows)
    kept_BK = (found_BK >= 0) & ~is_barred & ~is_blank[found_BK] & ~is_blank[items_B][:, None]
    place_BK = kept_BK.cumsum(axis=1) - 1
    kept_BK &= place_BK < ranks
    out_BR = np.full((len(items_B), ranks), -1, np.int64)
    out_BR[np.nonzero(kept_BK)[0], place_BK[kept_BK]] = found_BK[kept_BK]
    return out_BR


def _drawn(found_BR: IntArray, config: NeighbourPairs.Config, draw: np.random.Generator) -> IntArray:
    """Rejected items int64[B, M] from ranked neighbours: how many hard ones is drawn first, then which."""
    num_found_B = (found_BR >= 0).sum(axis=1)
    num_hard_B = np.minimum(num_found_B, config.hard)
    num_easy_B = num_found_B - num_hard_B
    wanted_B = draw.binomial(config.negatives, config.hard_share, size=len(found_BR))
    hard_B = np.minimum(np.maximum(wanted_B, config.negatives - num_easy_B), num_hard_B)
    # Ranks in random order, first the hard ones that are taken, then the easy ones, then all others.
    key_BR = draw.random(found_BR.shape)
    rank_R = np.arange(found_BR.shape[1])
    is_hard_R = rank_R < config.hard
    key_BR[:, ~is_hard_R] += 1
    key_BR[rank_R >= num_found_B[:, None]] += 4
    order_BR = key_BR.argsort(axis=1)
    # Behind the first `hard_B` hard ones the other hard ones are passed over.
    taken_BM = np.arange(config.negatives)[None]
    taken_BM = np.where(taken_BM < hard_B[:, None], taken_BM, taken_BM + (num_hard_B - hard_B)[:, None])
    is_there_BM = taken_BM < num_found_B[:, None]
    place_BM = np.take_along_axis(order_BR, np.where(is_there_BM, taken_BM, 0), axis=1)
    return np.where(is_there_BM, np.take_along_axis(found_BR, place_BM, axis=1), -1)
