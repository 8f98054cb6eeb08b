"""Rejected items from the model's own mistakes: what it ranks above everything else that the user did not choose.

Searched or scored by the recommender itself, in its first state, so the items are the likeliest wrong ones
of exactly the lists that it would give.
"""

from dataclasses import replace
from typing import Literal

import numpy as np

from sidrec.algorithms.pairs import Chosen, MiningConfig, Pairs, PairSource
from sidrec.config import RunSettings
from sidrec.data.dataset import Dataset
from sidrec.decoding.filters import Filters
from sidrec.decoding.recommendations import Request
from sidrec.embeddings.base import ItemEmbeddings
from sidrec.progress import Silent
from sidrec.recommenders.base import Recommender
from sidrec.types import IntArray

__all__ = ["BeamPairs"]

MASKED_AT_ONCE = 2**24
"""Users times items whose masks are held at once (16 MiB), which sets how many users are ranked together."""
USERS_AT_ONCE = 2048


class BeamPairs(PairSource):
    """Takes the items that the recommender ranks first after each training prefix, the chosen one removed."""

    class Config(MiningConfig):
        """How many, and for which targets."""

        kind: Literal["beams"] = "beams"

    def pairs(
        self, recommender: Recommender, dataset: Dataset, run: RunSettings, embeddings: ItemEmbeddings | None = None
    ) -> Pairs:
        """Pairs of the dataset's training targets with the best wrong items, best first."""
        del embeddings
        config: BeamPairs.Config = self.config
        chosen = Chosen.of(dataset, config, recommender)
        size = max(1, min(USERS_AT_ONCE, MASKED_AT_ONCE // len(dataset.catalog)))
        parts: list[IntArray] = []
        with run.progress("mine pairs", len(chosen)) as advance:
            for first in range(0, len(chosen), size):
                block = np.arange(first, min(first + size, len(chosen)))
                parts.append(self._best_wrong(recommender, dataset, chosen, block, replace(run, progress=Silent())))
                advance(len(block))
        return Pairs.of(dataset, chosen, np.concatenate(parts))

    def _best_wrong(
        self, recommender: Recommender, dataset: Dataset, chosen: Chosen, block: IntArray, run: RunSettings
    ) -> IntArray:
        """Rejected items int32[B, M] of some examples; -1 for users to whom no item is left."""
        barred = chosen.barred(block)
        denied_BN = np.zeros((len(block), len(dataset.catalog)), np.bool_)
        denied_BN[barred.owners, barred.rows] = True
        out_BM = np.full((len(block), self.config.negatives), -1, np.int32)
        users = np.flatnonzero(~denied_BN.all(axis=1))
        if len(users):
            examples = block[users]
            histories = dataset.sequences.before(chosen.examples.users[examples], chosen.examples.cuts[examples])
            denied = Filters(denied_BN[users], np.arange(len(users)))
            request = Request(k=self.config.negatives, exclude_seen=False, denied=denied)
            out_BM[users] = recommender.rank(histories, request, run).rows
        return out_BM
