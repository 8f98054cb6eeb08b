"""What the recommenders that write semantic IDs share: fitting, constrained ranking, files.

A subclass names its model, its training examples, its prompt and its scorer. Recommenders that score
all items at once are elsewhere (`sasrec`, the baselines).
"""

import copy
from abc import abstractmethod
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from transformers import PreTrainedModel

from sidrec.config import RunSettings
from sidrec.data.catalog import Catalog
from sidrec.data.dataset import Dataset
from sidrec.data.sequences import Histories
from sidrec.decoding.beam import beam_search
from sidrec.decoding.recommendations import BeamConfig, Normalize, Recommendations, Request
from sidrec.decoding.scorer import SidScorer
from sidrec.decoding.trie import ItemTrie
from sidrec.errors import DataError
from sidrec.random import torch_seed
from sidrec.recommenders.base import Recommender, RecommenderConfig, Validate
from sidrec.recommenders.grown_scorer import GrownScorer
from sidrec.tasks.next_item import ItemTokens, Prompts
from sidrec.tokenizers.semantic_ids import SemanticIds
from sidrec.tokenizers.vocabulary import CodeVocabulary
from sidrec.training.batches import TrainingExamples
from sidrec.training.config import TrainingConfig, TrainReport
from sidrec.training.isolation import isolated_rng
from sidrec.training.trainer import train_model
from sidrec.types import IntArray

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
    _trained_sizes: tuple[int, ...] | None = None
    """Codes in each level that the model has tokens for; None where these are all codes of the semantic IDs."""

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
        """Token ids of the codes that the model was trained on."""
        return CodeVocabulary(self._trained_sizes or self.ids.sizes)

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
            tokens = words.tokens(self._known_codes).astype(np.int64)
            items = ItemTokens(tokens, words.PAD, words.EOS, words.BOS)
            self._derived = (self.ids, items, ItemTrie.build(self.ids.codes, self.ids.sizes))
        return self._derived

    @property
    def _known_codes(self) -> IntArray:
        """The codes int32[N, L] as the model reads and writes them.

        A counter that no training item had stands for the highest one that the model knows: what counters say is
        "one more of the same", so this is its nearest relative. A new token would have random weights, and its share
        of the softmax would change the scores of old items.
        """
        return np.minimum(self.ids.codes, np.asarray(self.vocabulary.sizes, np.int32) - 1)

    @property
    def max_ties(self) -> int:
        """Largest number of items that necessarily share a score: those that the model cannot tell apart."""
        if self._trained_sizes is None:
            return super().max_ties
        return int(np.unique(self._known_codes, axis=0, return_counts=True)[1].max())

    def extended(self, catalog: Catalog, semantic_ids: SemanticIds) -> Self:
        """A recommender of more items with the same weights, which both then share.

        Only the counter of `append_level` may have more codes than before. Scores of old items stay as they are.

        Raises:
            DataError: the catalogue does not begin with this one's items and codes, or another level has grown.
        """
        semantic_ids.check_extends(self.ids, catalog)
        old, new = self.ids.sizes, semantic_ids.sizes
        if new[:-1] != old[:-1] or new[-1] < old[-1]:
            raise DataError(
                f"the new semantic IDs have {' × '.join(map(str, new))} codes, the recommender knows "
                f"{' × '.join(map(str, old))}",
                expected="levels of the same sizes; only the last one, which counts collisions, may grow",
                next="extend the semantic IDs that the recommender was trained on",
            )
        grown = copy.copy(self)
        grown.catalog, grown.semantic_ids = catalog, semantic_ids
        grown._derived, grown._trained_sizes = None, self.vocabulary.sizes
        return grown

    def load_weights(self, directory: Path) -> None:
        """Read what `save_weights` wrote; of a grown catalogue the model may know fewer counters than there are."""
        super().load_weights(directory)
        config: Any = self.model.config
        sizes = self.ids.sizes
        known = config.vocab_size - len(CodeVocabulary(sizes)) + sizes[-1]
        self._trained_sizes = (*sizes[:-1], known) if known != sizes[-1] else None

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
        self.catalog, self._trained_sizes = dataset.catalog, None
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
            scorer = GrownScorer.of(self.scorer(search.normalize), self.ids.sizes)
            return beam_search(scorer, self.trie, histories, request, search, run)
