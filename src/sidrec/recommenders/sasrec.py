"""SASRec: the honest baseline. A tuned full-softmax SASRec beats most published generative results."""

from typing import Literal

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor

from sidrec.config import RunSettings
from sidrec.data.dataset import Dataset
from sidrec.data.sequences import Histories
from sidrec.decoding.recommendations import Recommendations, Request
from sidrec.random import torch_seed
from sidrec.recommenders.base import Recommender, RecommenderConfig, Validate
from sidrec.recommenders.sasrec_model import SASRecExamples, SASRecModel, SASRecModelConfig
from sidrec.recommenders.scored import rank_scores
from sidrec.tasks.windows import Windows
from sidrec.tokenizers.semantic_ids import SemanticIds
from sidrec.training.config import TrainingConfig, TrainReport
from sidrec.training.isolation import isolated_rng
from sidrec.training.trainer import train_model
from sidrec.types import FloatArray, IntArray

__all__ = ["SASRec"]


class SASRec(Recommender):
    """Predicts the next item at every position of a sequence by a causal transformer over item rows.

    An empty history gets the items with the most training events.
    """

    class Config(RecommenderConfig):
        """Sizes of the network."""

        kind: Literal["sasrec"] = "sasrec"  # type: ignore[assignment]  # narrows the family's field
        hidden_size: int = Field(default=64, ge=1)
        """Width D of states and item table."""
        num_layers: int = Field(default=2, ge=1)
        """Transformer layers."""
        num_heads: int = Field(default=2, ge=1)
        """Attention heads; divides the width."""
        dropout: float = Field(default=0.2, ge=0, lt=1)
        """Share of values dropped in training."""
        max_history: int = Field(default=50, ge=1)
        """Latest items of a user that are used."""

        @model_validator(mode="after")
        def _heads_divide_width(self) -> "SASRec.Config":
            if self.hidden_size % self.num_heads:
                raise ValueError(f"hidden_size {self.hidden_size} is not a multiple of num_heads {self.num_heads}")
            return self

    model_class = SASRecModel
    model: SASRecModel

    def fit(
        self,
        dataset: Dataset,
        training: TrainingConfig,
        run: RunSettings,
        *,
        semantic_ids: SemanticIds | None = None,
        validate: Validate | None = None,
    ) -> TrainReport:
        """Train on all positions that are training targets; keep the state that validated best."""
        self.catalog = dataset.catalog
        sizes = self.config.model_dump(exclude={"kind"})
        with isolated_rng(torch_seed(run.seed, "sasrec")):
            self.model = SASRecModel(SASRecModelConfig(num_items=len(dataset.catalog), **sizes))
        counts = dataset.training_counts()
        self.model.popularity.copy_(torch.from_numpy(np.log1p(counts)))
        windows = Windows.of(dataset.sequences, dataset.split.train, self.config.max_history)
        check = None if validate is None else lambda: validate(self)
        return train_model(self.model, SASRecExamples(windows), training, run, validate=check)

    def item_vectors(self) -> FloatArray:
        """The item table float32[N, D], which is input and output of the network."""
        _ = self.catalog
        return self.model.items.weight.detach().cpu().numpy()

    def rank(self, histories: Histories, request: Request, run: RunSettings) -> Recommendations:
        """The items with the largest logits after each user's latest items."""
        with self.evaluating(run):
            return rank_scores(self._logits, len(self.catalog), histories, request, run)

    def log_probs(self, histories: Histories, rows_BM: IntArray) -> Tensor:
        """Log-softmax float32[B, M] over all items; arguments are those of `Recommender.log_probs`."""
        _ = self.catalog
        logits_BN = self._logits(histories)
        return logits_BN.log_softmax(-1).gather(1, torch.from_numpy(rows_BM.astype(np.int64)).to(logits_BN.device))

    def _logits(self, histories: Histories) -> Tensor:
        """float32[B, N], logits of every item as the next one after each user's latest items."""
        recent, device = histories.last(self.config.max_history), self.model.device
        input_ids = torch.from_numpy(recent.padded(fill=0).astype(np.int64)).to(device)
        return self.model.scores(input_ids, torch.from_numpy(recent.lengths).to(device))
