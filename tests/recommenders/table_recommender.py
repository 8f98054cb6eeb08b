"""A recommender that is a table, known to the test: the next item's log-probabilities by the history's last item."""

from typing import Literal

import numpy as np
import torch
from pydantic import Field

from sidrec.decoding.recommendations import BeamConfig
from sidrec.recommenders.base import Recommender, RecommenderConfig
from sidrec.recommenders.scored import counted_report, rank_scores


class Table(Recommender):
    """Row `last + 1` of the table after a history that ends with item `last`, row 0 after an empty one.

    With `by_user` row `key + 1` for the user with that key, row 0 where users are not known.

    As one that searches (`precision`, `normalize`), it certifies as many lists as `certified` says.
    """

    class Config(RecommenderConfig):
        kind: Literal["tests.recommenders.table_recommender:Table"] = "tests.recommenders.table_recommender:Table"
        probs: tuple[tuple[float, ...], ...]
        by_user: bool = False
        searches: bool = False
        certified: bool = True
        search: BeamConfig = Field(default=BeamConfig())

    calls = 0

    def fit(self, dataset, training, run, *, semantic_ids=None, item_embeddings=None, validate=None, members=None):
        self.catalog, self.model = dataset.catalog, torch.nn.Linear(1, 1)
        return counted_report(0, 1.0)

    def search_for(self, request):
        return (request.search or self.config.search) if self.config.searches else None

    def rank(self, histories, request, run):
        self.calls += 1
        found = rank_scores(self._table, len(self.catalog), histories, request, run)
        found.exact[:] = self.config.certified
        return found

    def log_probs(self, histories, rows_BM):
        return self._table(histories).gather(1, torch.from_numpy(rows_BM)).requires_grad_()

    def _table(self, histories):
        logs = np.log(np.array(self.config.probs, np.float32))
        if self.config.by_user:
            known = [-1] * len(histories) if histories.users is None else histories.users
            return torch.from_numpy(logs[np.asarray(known) + 1])
        last = [int(histories[user][-1]) + 1 if len(histories[user]) else 0 for user in range(len(histories))]
        return torch.from_numpy(logs[np.minimum(last, len(logs) - 1)])

    def save_weights(self, directory):
        (directory / "weights.txt").write_text("none")

    def load_weights(self, directory):
        assert (directory / "weights.txt").is_file()
        self.model = torch.nn.Linear(1, 1)


def table(dataset, probs, **fields):
    """A fitted table; `probs` float[rows, N]."""
    member = Table(probs=tuple(map(tuple, np.asarray(probs, float).tolist())), **fields)
    member.fit(dataset, None, None)
    return member
