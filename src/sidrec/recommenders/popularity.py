"""Popularity: everybody gets the items with the most training events. The floor of every comparison."""

import time
from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

from sidrec.config import RunSettings
from sidrec.data.dataset import Dataset
from sidrec.data.sequences import Histories
from sidrec.decoding.recommendations import Recommendations, Request
from sidrec.embeddings.base import ItemEmbeddings
from sidrec.recommenders.base import Recommender, RecommenderConfig, Validate
from sidrec.recommenders.scored import counted_report, rank_scores
from sidrec.tokenizers.semantic_ids import SemanticIds
from sidrec.training.config import TrainingConfig, TrainReport

__all__ = ["Popularity", "PopularityModel", "PopularityModelConfig"]


class PopularityModelConfig(PreTrainedConfig):
    """Size of a table of counts."""

    model_type = "sidrec-popularity"
    num_items: int = 1


class PopularityModel(PreTrainedModel):
    """A table of counts, kept as `transformers` keeps weights."""

    config_class = PopularityModelConfig

    def __init__(self, config: PopularityModelConfig) -> None:
        super().__init__(config)
        # `transformers` wants a floating parameter; float32 counts exactly up to 16 million.
        self.counts = nn.Parameter(torch.zeros(config.num_items), requires_grad=False)
        self.post_init()

    def forward(self, num_users: int) -> Tensor:
        """float32[B, N], the counts once for each of `num_users` users."""
        return self.counts.detach().repeat(num_users, 1)


class Popularity(Recommender):
    """Ranks items by their number of training events (histories and targets, nothing held out)."""

    class Config(RecommenderConfig):
        """Nothing to choose."""

        kind: Literal["popularity"] = "popularity"  # type: ignore[assignment]  # narrows the family's field

    learns_by_gradient = False
    model_class = PopularityModel
    model: PopularityModel

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
        """Count. Nothing is chosen by validation and the training settings are not used."""
        started = time.perf_counter()
        self.catalog = dataset.catalog
        counts = torch.tensor(dataset.training_counts())
        self.model = PopularityModel(PopularityModelConfig(num_items=len(counts))).eval()
        self.model.counts.copy_(counts)
        return counted_report(len(dataset.split.train), time.perf_counter() - started)

    def rank(self, histories: Histories, request: Request, run: RunSettings) -> Recommendations:
        """The most popular items that each user may get."""

        def score(batch: Histories) -> Tensor:
            return self.model(len(batch))

        return rank_scores(score, len(self.catalog), histories, request, run)
