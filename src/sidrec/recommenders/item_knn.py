"""Item-kNN: items that stood near a user's items in other users' sequences. No gradient, a strong floor.

Leaves out user neighbours and content. With `window` as long as the longest history, `backward` = 1 and
`distance_power` = 0 it is the classic cosine of Sarwar et al. (2001); order makes it fit sequences, as
in the sequential rules of Ludewig and Jannach (2018, arXiv:1803.09587).
"""

import time
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field
from scipy import sparse
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

from sidrec.config import RunSettings
from sidrec.data.dataset import Dataset
from sidrec.data.sequences import Histories, positions_within
from sidrec.decoding.recommendations import Recommendations, Request
from sidrec.embeddings.base import ItemEmbeddings
from sidrec.recommenders.base import Recommender, RecommenderConfig, Validate
from sidrec.recommenders.scored import counted_report, rank_scores
from sidrec.tokenizers.semantic_ids import SemanticIds
from sidrec.training.config import TrainingConfig, TrainReport
from sidrec.types import FloatArray, IntArray

__all__ = ["ItemKNN", "ItemKNNModel", "ItemKNNModelConfig", "neighbours", "similarities"]

PAIRS_AT_ONCE = 2**24
"""Pairs of events gathered before they are summed, which bounds memory on large logs."""


class ItemKNNModelConfig(PreTrainedConfig):
    """Sizes of the neighbour table."""

    model_type = "sidrec-item-knn"
    num_items: int = 1
    num_neighbours: int = 1


class ItemKNNModel(PreTrainedModel):
    """A table of neighbours, kept as `transformers` keeps weights.

    Weights: `neighbours` int32[N, M], `similarities` float32[N, M] (0 fills up), `counts` int64[N].
    """

    config_class = ItemKNNModelConfig
    neighbours: Tensor
    counts: Tensor

    def __init__(self, config: ItemKNNModelConfig) -> None:
        super().__init__(config)
        shape = (config.num_items, config.num_neighbours)
        self.register_buffer("neighbours", torch.zeros(shape, dtype=torch.int32))
        self.similarities = nn.Parameter(torch.zeros(shape), requires_grad=False)
        self.register_buffer("counts", torch.zeros(config.num_items, dtype=torch.int64))
        self.post_init()

    def forward(self, weights_BN: Any) -> FloatArray:
        """float32[B, N] scores of users whose items have the given weights (a sparse matrix)."""
        scores = (weights_BN @ self._table()).toarray().astype(np.float32)
        counts = self.counts.numpy().astype(np.float32)
        # What no neighbour speaks for comes after everything else, by popularity.
        return np.where(scores > 0, scores, counts / (counts.max() + 1) - 1)

    def _table(self) -> sparse.csr_array:
        num_items, width = self.neighbours.shape
        offsets = np.arange(num_items + 1) * width
        table = (self.similarities.detach().numpy().ravel(), self.neighbours.numpy().ravel(), offsets)
        return sparse.csr_array(table, shape=(num_items, num_items))


class ItemKNN(Recommender):
    """Scores an item by its similarity to the user's latest items, later ones weighing more."""

    class Config(RecommenderConfig):
        """How near and how often items must have stood together."""

        kind: Literal["item-knn"] = "item-knn"  # type: ignore[assignment]  # narrows the family's field
        neighbours: int = Field(default=200, ge=1)
        """Similar items kept for each item (M)."""
        window: int = Field(default=20, ge=1)
        """Events at most between two items that count as together."""
        distance_power: float = Field(default=1.0, ge=0)
        """A pair that stands d events apart counts d to the minus this."""
        backward: float = Field(default=0.3, ge=0, le=1)
        """What a pair counts for the opposite direction: 1 ignores order, 0 is pure succession."""
        shrinkage: float = Field(default=10.0, ge=0)
        """Added to the denominator of the cosine, so that rare items need more than one witness."""
        max_history: int = Field(default=50, ge=1)
        """Latest items of a user that are used."""
        recency: float = Field(default=0.8, gt=0, le=1)
        """Weight of an item relative to the item after it."""

    learns_by_gradient = False
    model_class = ItemKNNModel
    model: ItemKNNModel

    def fit(
        self,
        dataset: Dataset,
        training: TrainingConfig,
        run: RunSettings,
        *,
        semantic_ids: SemanticIds | None = None,
        item_embeddings: ItemEmbeddings | None = None,
        validate: Validate | None = None,
        members: Mapping[str, Recommender] | None = None,
    ) -> TrainReport:
        """Count pairs. Nothing is chosen by validation and the training settings are not used."""
        started = time.perf_counter()
        self.catalog = dataset.catalog
        config, num_items = self.config, len(dataset.catalog)
        events = dataset.training_events()
        table = similarities(events, num_items, config, run)
        near, values = neighbours(table, min(config.neighbours, num_items))
        self.model = ItemKNNModel(ItemKNNModelConfig(num_items=num_items, num_neighbours=near.shape[1])).eval()
        self.model.neighbours.copy_(torch.from_numpy(near))
        self.model.similarities.copy_(torch.from_numpy(values))
        self.model.counts.copy_(torch.tensor(dataset.training_counts()))
        return counted_report(len(dataset.split.train), time.perf_counter() - started)

    def rank(self, histories: Histories, request: Request, run: RunSettings) -> Recommendations:
        """The items most similar to each user's latest items, then popular ones."""

        def score(batch: Histories) -> Tensor:
            return torch.from_numpy(self.model(self._weights(batch)))

        return rank_scores(score, len(self.catalog), histories, request, run)

    def _weights(self, histories: Histories) -> sparse.csr_array:
        """float32[B, N]: how much each of a user's latest items weighs."""
        recent = histories.last(self.config.max_history)
        age = recent.lengths[recent.owners] - 1 - positions_within(recent.lengths)
        weights = np.power(self.config.recency, age).astype(np.float32)
        return sparse.csr_array((weights, recent.rows, recent.offsets), shape=(len(recent), len(self.catalog)))

    @property
    def num_parameters(self) -> int:
        """Similarities above 0, and one count an item."""
        return int((self.model.similarities > 0).sum()) + self.model.counts.numel()


def similarities(events: Histories, num_items: int, config: Any, run: RunSettings) -> sparse.csr_array:
    """float32[N, N] sparse: entry (i, j) is how strongly item i speaks for item j; the diagonal is empty.

    s_ij = Σ w(d) / (√(n_i n_j) + shrinkage) over pairs of events of i and j that stand d events apart, with
    w(d) = d^-distance_power where j follows i, `backward` times that where it precedes.
    """
    together = sparse.csr_array((num_items, num_items), dtype=np.float64)
    user = events.owners
    size = max(1, PAIRS_AT_ONCE // config.window)
    with run.progress("count neighbours", len(events.rows)) as advance:
        for start in range(0, len(events.rows), size):
            block = slice(start, start + size + config.window)
            together = together + _pairs(events.rows[block], user[block], size, num_items, config)
            advance(min(size, len(events.rows) - start))
    together = (together + config.backward * together.T).tocoo()
    counts = np.bincount(events.rows, minlength=num_items).astype(np.float64)
    norm = np.sqrt(counts[together.row] * counts[together.col]) + config.shrinkage
    other = together.row != together.col
    values = (together.data / norm)[other].astype(np.float32)
    return sparse.csr_array((values, (together.row[other], together.col[other])), shape=together.shape)


def _pairs(rows: IntArray, user: IntArray, size: int, num_items: int, config: Any) -> sparse.csr_array:
    """Weighted counts of (earlier, later) for pairs whose earlier event is among the first `size`."""
    first, second, weight = [], [], []
    for distance in range(1, min(config.window, len(rows) - 1) + 1):
        here = np.flatnonzero(user[:-distance][:size] == user[distance:][:size])
        first.append(rows[here])
        second.append(rows[here + distance])
        weight.append(np.full(len(here), float(distance) ** -config.distance_power))
    if not first:
        return sparse.csr_array((num_items, num_items), dtype=np.float64)
    index = (np.concatenate(first), np.concatenate(second))
    return sparse.coo_array((np.concatenate(weight), index), shape=(num_items, num_items)).tocsr()


def neighbours(table: sparse.csr_array, width: int) -> tuple[IntArray, FloatArray]:
    """For each row the `width` largest entries: columns int32[N, M] and values float32[N, M], ties by column.

    >>> near, values = neighbours(sparse.csr_array(np.array([[0, 1.0, 2], [0, 0, 0], [3, 3, 0]])), 1)
    >>> near.tolist(), values.tolist()
    ([[2], [0], [0]], [[2.0], [0.0], [3.0]])
    """
    entries: Any = table.tocoo()
    num_items = len(table.indptr) - 1
    order = np.lexsort((entries.col, -entries.data, entries.row))
    row, column, value = entries.row[order], entries.col[order], entries.data[order]
    place = positions_within(np.bincount(row, minlength=num_items))
    kept = place < width
    near = np.zeros((num_items, width), dtype=np.int32)
    values = np.zeros((num_items, width), dtype=np.float32)
    near[row[kept], place[kept]] = column[kept]
    values[row[kept], place[kept]] = value[kept]
    return near, values
