"""SASRec: the honest baseline. A tuned full-softmax SASRec beats most published generative results."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor

from sidrec.config import RunSettings, refuse_unread
from sidrec.data.dataset import Dataset, Examples
from sidrec.data.sequences import Histories
from sidrec.decoding.recommendations import Recommendations, Request
from sidrec.embeddings.base import ItemEmbeddings
from sidrec.random import torch_seed
from sidrec.recommenders.base import Recommender, RecommenderConfig, Validate
from sidrec.recommenders.item_table import ItemTableConfig, start_tables
from sidrec.recommenders.sasrec_model import SASRecExamples, SASRecModel, SASRecModelConfig
from sidrec.recommenders.scored import rank_scores
from sidrec.tasks.item_tokenizer import item_tokenizer, special_ids
from sidrec.tasks.windows import Windows
from sidrec.tokenizers.semantic_ids import SemanticIds
from sidrec.training.batch_loss import mean_loss
from sidrec.training.config import TrainingConfig, TrainReport
from sidrec.training.isolation import isolated_rng
from sidrec.training.item_loss import ObjectiveConfig
from sidrec.training.staged import train_stage
from sidrec.training.trainer import train_model
from sidrec.types import FloatArray, IntArray

__all__ = ["SASRec"]

MAX_LOGITS = 2**22
"""Logits held at once for log-probabilities (16 MiB of float32)."""
OF_EXPERTS = ("expert", "num_experts", "experts_per_item", "shared_expert", "balance_weight")


class SASRec(Recommender):
    """Predicts the next item at every position of a sequence by a causal transformer over item rows.

    An empty history gets the items with the most training events.
    """

    class Config(RecommenderConfig):
        """Sizes and slots of the network, and what it learns by."""

        kind: Literal["sasrec"] = "sasrec"  # type: ignore[assignment]  # narrows the family's field
        hidden_size: int = Field(default=64, ge=1)
        """Width D of states and item table (also embedding size, d_model)."""
        num_layers: int = Field(default=2, ge=1)
        """Transformer layers (num_hidden_layers)."""
        num_heads: int = Field(default=2, ge=1)
        """Attention heads (num_attention_heads); divides the width unless `head_width` is set."""
        dropout: float = Field(default=0.2, ge=0, lt=1)
        """Share of values dropped in training: of inputs, attention weights and what each layer adds (embedding,
        attention and hidden dropout)."""
        max_history: int = Field(default=50, ge=1)
        """Latest items of a user that are used (max_position_embeddings, maximum sequence length)."""
        head_width: int = Field(default=0, ge=0)
        """Width of an attention head (head_dim); 0 divides the width among the heads."""
        positions: Literal["learned", "rope"] = "learned"
        """Where an item stands in its history: a learned table (absolute position embeddings), or rotary positions
        (RoPE)."""
        rope_theta: float = Field(default=10000.0, gt=0)
        """rope: base of the rotary positions' speeds."""
        feed_forward: Literal["dense", "gated", "moe"] = "dense"
        """Two matrices (dense), three with a gate (gated; SwiGLU where the activation is silu), or experts (moe)."""
        inner_width: int = Field(default=0, ge=0)
        """Width inside a feed-forward layer, of experts each (intermediate_size, d_ff); 0 is four times the width."""
        activation: Literal["gelu", "relu", "silu"] = "gelu"
        """Inside a feed-forward layer (hidden_act)."""
        expert: Literal["dense", "gated"] = "dense"
        """moe: what an expert is."""
        num_experts: int = Field(default=4, ge=1)
        """moe: experts a layer (num_local_experts, n_routed_experts)."""
        experts_per_item: int = Field(default=2, ge=1)
        """moe: experts that the router chooses at each position (top-k, num_experts_per_tok)."""
        shared_expert: bool = False
        """moe: one more expert works at every position (n_shared_experts: 1)."""
        balance_weight: float = Field(default=0.01, ge=0)
        """moe: weight of the load balancing loss, which spreads positions over experts (router_aux_loss_coef)."""
        norm_place: Literal["pre", "post"] = "pre"
        """Norms stand before attention and feed-forward, or behind the sums that these are part of
        (pre-norm, post-norm)."""
        attention_norm: Literal["layer", "rms"] = "layer"
        """Norm of attention: LayerNorm or RMSNorm."""
        feed_norm: Literal["layer", "rms"] = "layer"
        """Norm of feed-forward layers."""
        final_norm: Literal["layer", "rms"] = "layer"
        """Norm of the last states."""
        norm_eps: float = Field(default=1e-5, gt=0)
        """What norms add to the mean square (layer_norm_eps, rms_norm_eps)."""
        bias: bool = True
        """Biases in attention and dense feed-forward layers; gated ones have none."""
        scale_inputs: bool = True
        """Item rows are multiplied with √D before positions are added."""
        tied: bool = True
        """One item table is input and output (tie_word_embeddings); else the output has its own."""
        special_rows: int = Field(default=0, ge=0)
        """Rows of the input table behind the items', for the tokens of the item tokenizer in its order: begin, end,
        padding, unknown. They are never recommended."""
        begin: bool = False
        """The token that begins a history (BOS), the first special row, stands before every history."""
        objective: ObjectiveConfig = ObjectiveConfig()
        """What is learnt at each target."""
        table: ItemTableConfig | None = None
        """How the item table starts from the recipe's `embeddings`; None means at random, without them."""

        @model_validator(mode="after")
        def _fits_together(self) -> "SASRec.Config":
            if self.hidden_size % self.num_heads and not self.head_width:
                raise ValueError(f"hidden_size {self.hidden_size} is not a multiple of num_heads {self.num_heads}")
            width = self.head_width or self.hidden_size // self.num_heads
            if self.positions == "rope" and width % 2:
                raise ValueError(f"rotary positions turn pairs of dimensions; a head has {width}")
            refuse_unread(self, "positions", {"learned": [], "rope": ["rope_theta"]})
            refuse_unread(self, "feed_forward", {"dense": [], "gated": [], "moe": OF_EXPERTS})
            if self.feed_forward == "moe" and self.experts_per_item > self.num_experts:
                raise ValueError(f"experts_per_item {self.experts_per_item} of num_experts {self.num_experts}")
            if self.begin and not self.special_rows:
                raise ValueError("begin stands in the first special row; set special_rows to 1 or more")
            return self

    model_class = SASRecModel
    model: SASRecModel

    @property
    def needs_item_embeddings(self) -> bool:
        """Whether the item table starts from vectors."""
        return self.config.table is not None

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
        """Train on all positions that are training targets; keep the state that validated best.

        With `table.frozen_first` there are two stages, and the second goes on from the best state of the first.

        Raises:
            DataError: the table starts from vectors, and there are none or they belong to another catalogue.
        """
        self.catalog = dataset.catalog
        table: ItemTableConfig | None = self.config.table
        sizes, num_items = self.config.model_dump(exclude={"kind", "table"}), len(dataset.catalog)
        with isolated_rng(torch_seed(run.seed, "sasrec")):
            self.model = SASRecModel(SASRecModelConfig(num_items=num_items, **special_ids(num_items), **sizes))
        counts = dataset.training_counts()
        self.model.popularity.copy_(torch.from_numpy(np.log1p(counts)))
        if self.model.target_counts is not None:
            targets = np.bincount(dataset.targets("train"), minlength=num_items)
            self.model.target_counts.copy_(torch.from_numpy(targets))
        examples = self._examples(dataset, dataset.split.train)
        check = None if validate is None else lambda: validate(self)
        earlier: tuple[TrainReport, ...] = ()
        if table is not None:
            vectors = self.require_embeddings(item_embeddings, dataset.catalog)
            frozen = start_tables(self.model.tables, table, vectors, dataset, run)
            if table.frozen_first is not None:
                first = table.frozen_first.over(training, len(examples))
                report = train_stage("frozen", self.model, examples, first, run, validate=check, frozen=frozen)
                earlier = (report,)
        return replace(train_model(self.model, examples, training, run, validate=check), earlier=earlier)

    def _examples(self, dataset: Dataset, pairs: Examples) -> SASRecExamples:
        return SASRecExamples(Windows.of(dataset.sequences, pairs, self.config.max_history))

    def mean_loss(self, dataset: Dataset, pairs: Examples, run: RunSettings) -> float:
        """Mean of the objective over targets; arguments are those of `Recommender.mean_loss`."""
        with self.evaluating(run) as model:
            return mean_loss(model, self._examples(dataset, pairs), run)

    def save_weights(self, directory: Path) -> None:
        """Write the weights as a Hugging Face directory, with a tokenizer whose tokens are the rows of the table."""
        super().save_weights(directory)
        item_tokenizer(self.catalog, self.config.max_history).save_pretrained(directory)

    def item_vectors(self) -> FloatArray:
        """The item table float32[N, D] that is the network's input and, unless it is untied, output."""
        return self.model.items.weight[: len(self.catalog)].detach().cpu().numpy()

    def rank(self, histories: Histories, request: Request, run: RunSettings) -> Recommendations:
        """The items with the largest logits after each user's latest items."""
        with self.evaluating(run):
            return rank_scores(
                lambda batch: self.model.scores(*self._read(batch)), len(self.catalog), histories, request, run
            )

    def log_probs(self, histories: Histories, rows_BM: IntArray) -> Tensor:
        """Log-softmax float32[B, M] over all items; arguments are those of `Recommender.log_probs`.

        Of a large catalogue, logits of some items are held at a time, and computed again for the gradients.
        """
        _ = self.catalog
        rows = torch.from_numpy(rows_BM.astype(np.int64)).to(self.model.device)
        return self.model.log_probs(*self._read(histories), rows, MAX_LOGITS)

    def _read(self, histories: Histories) -> tuple[Tensor, Tensor]:
        """Each user's latest items int64[B, T], and how many there are."""
        recent, device = histories.last(self.config.max_history), self.model.device
        input_ids = torch.from_numpy(recent.padded(fill=0).astype(np.int64)).to(device)
        return input_ids, torch.from_numpy(recent.lengths).to(device)
