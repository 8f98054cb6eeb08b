"""What the recommenders that write semantic IDs share: fitting, constrained ranking, files.

A subclass names its model, its training examples, its prompt and its scorer. Recommenders that score
all items at once are elsewhere (`sasrec`, the baselines).
"""

from abc import abstractmethod

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from transformers import PreTrainedModel

from sidrec.config import RunSettings
from sidrec.data.dataset import Dataset
from sidrec.data.sequences import Histories
from sidrec.decoding.beam import beam_search
from sidrec.decoding.recommendations import BeamConfig, Normalize, Recommendations, Request
from sidrec.decoding.scorer import SidScorer
from sidrec.decoding.trie import ItemTrie
from sidrec.random import torch_seed
from sidrec.recommenders.base import Recommender, RecommenderConfig, Validate
from sidrec.tasks.next_item import ItemTokens, Prompts
from sidrec.tokenizers.semantic_ids import SemanticIds
from sidrec.tokenizers.vocabulary import CodeVocabulary
from sidrec.training.batches import TrainingExamples
from sidrec.training.config import TrainingConfig, TrainReport
from sidrec.training.isolation import isolated_rng
from sidrec.training.trainer import train_model

__all__ = ["GenerativeConfig", "GenerativeRecommender"]


class GenerativeConfig(RecommenderConfig):
    """Fields of every recommender that writes semantic IDs."""

    max_history: int = Field(default=20, ge=1)
    """Newest items of a history that the model reads."""
    search: BeamConfig = BeamConfig()
    """How items are searched when it recommends."""


class GenerativeRecommender(Recommender):
    """A transformers model over semantic-ID tokens, searched under the catalogue's trie."""

    needs_semantic_ids = True
    model: PreTrainedModel
    _derived: tuple[SemanticIds, ItemTokens, ItemTrie] | None = None
    """Tables made from the semantic IDs, and the IDs they were made from."""

    @abstractmethod
    def new_model(self, vocabulary: CodeVocabulary) -> PreTrainedModel:
        """A model with random weights, drawn from torch's global random state."""

    @abstractmethod
    def examples(self, dataset: Dataset) -> TrainingExamples:
        """The training examples of a dataset."""

    @abstractmethod
    def prompts(self, histories: Histories) -> Prompts:
        """What the model reads of histories; the same form as in the training examples."""

    @abstractmethod
    def scorer(self, normalize: Normalize) -> SidScorer:
        """The model as the beam search sees it, with log-probabilities over what `normalize` says."""

    @property
    def ids(self) -> SemanticIds:
        """The semantic IDs that the model writes.

        Raises:
            DataError: the recommender was neither fitted nor loaded.
        """
        if self.semantic_ids is None:
            raise self.unfitted()
        return self.semantic_ids

    @property
    def vocabulary(self) -> CodeVocabulary:
        """Token ids of the codes."""
        return CodeVocabulary(self.ids.sizes)

    @property
    def item_tokens(self) -> ItemTokens:
        """Token ids of the items."""
        return self._tables[1]

    @property
    def level_token_ids(self) -> list[Tensor]:
        """For each level int64[K], the token ids of its codes."""
        words = self.vocabulary
        return [torch.arange(*words.level_range(level)) for level in range(len(words.sizes))]

    @property
    def trie(self) -> ItemTrie:
        """The prefix tree of the semantic IDs."""
        return self._tables[2]

    @property
    def _tables(self) -> tuple[SemanticIds, ItemTokens, ItemTrie]:
        if self._derived is None or self._derived[0] is not self.ids:
            words = self.vocabulary
            items = ItemTokens(words.tokens(self.ids.codes).astype(np.int64), words.PAD, words.EOS, words.BOS)
            self._derived = (self.ids, items, ItemTrie.build(self.ids.codes, self.ids.sizes))
        return self._derived

    def fit(
        self,
        dataset: Dataset,
        training: TrainingConfig,
        run: RunSettings,
        *,
        semantic_ids: SemanticIds | None = None,
        validate: Validate | None = None,
    ) -> TrainReport:
        """Train from scratch on the training targets; keep the weights that validated best.

        Raises:
            DataError: there are no semantic IDs, or they belong to another catalogue.
        """
        self.semantic_ids = self.require_ids(semantic_ids, dataset.catalog)
        self.catalog = dataset.catalog
        with isolated_rng(torch_seed(run.seed, "weights", self.config.kind)):
            self.model = self.new_model(self.vocabulary)
        score = None if validate is None else lambda: validate(self)
        return train_model(self.model, self.examples(dataset), training, run, validate=score)

    def search_for(self, request: Request) -> BeamConfig:
        """The request's search, else the recommender's own, with at least as many beams as items asked for."""
        search: BeamConfig = request.search or self.config.search
        return search.model_copy(update={"beams": max(search.beams, request.k)})

    def rank(self, histories: Histories, request: Request, run: RunSettings) -> Recommendations:
        """The best items of every history, by constrained beam search."""
        search = self.search_for(request)
        with self.evaluating(run):
            return beam_search(self.scorer(search.normalize), self.trie, histories, request, search, run)
