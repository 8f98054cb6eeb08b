"""What the recommenders that write semantic IDs share: fitting, constrained ranking, files.

A subclass names its model, its training examples, its prompt and its scorer. Recommenders that score
all items at once are elsewhere (`sasrec`, the baselines).
"""

import copy
from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Self

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from transformers import PreTrainedModel

from sidrec.config import RunSettings
from sidrec.data.catalog import Catalog
from sidrec.data.dataset import Dataset, Examples
from sidrec.data.sequences import Histories
from sidrec.decoding.batching import in_batches
from sidrec.decoding.beam import beam_search
from sidrec.decoding.paths import path_scores
from sidrec.decoding.recommendations import BeamConfig, Normalize, Recommendations, Request
from sidrec.decoding.samples import Samples, SamplingConfig
from sidrec.decoding.sampling import sample_items
from sidrec.decoding.scorer import SidScorer
from sidrec.decoding.trie import ItemTrie
from sidrec.embeddings.base import ItemEmbeddings
from sidrec.random import torch_seed
from sidrec.recommenders.base import Recommender, RecommenderConfig, Validate
from sidrec.recommenders.growth import Trained, check_sizes
from sidrec.recommenders.path_log_probs import path_log_probs
from sidrec.recommenders.precision import in_precision
from sidrec.tasks.augmentation import Augmentation
from sidrec.tasks.next_item import ItemTokens, Prompts
from sidrec.tokenizers.semantic_ids import SemanticIds
from sidrec.tokenizers.vocabulary import CodeVocabulary
from sidrec.training.batch_loss import TokenLoss, mean_loss
from sidrec.training.batches import TrainingExamples
from sidrec.training.config import TrainingConfig, TrainReport
from sidrec.training.isolation import isolated_rng
from sidrec.training.trainer import train_model
from sidrec.types import FloatArray, IntArray

__all__ = ["GenerativeConfig", "GenerativeRecommender"]


class GenerativeConfig(RecommenderConfig):
    """Fields of every recommender that writes semantic IDs."""

    max_history: int = Field(default=20, ge=1)
    """Newest items of a history that the model reads."""
    user_tokens: int = Field(default=0, ge=0)
    """Tokens among which users are shared out by a hash of their id (2,000 in TIGER's paper); 0 leaves users out. A
    user's token stands before the history wherever the user is known, and nothing stands there where not."""
    history_dropout: float = Field(default=0.0, ge=0, lt=1)
    """Probability with which training leaves an item of a history out, drawn anew in every epoch; one always stays."""
    subsequences: bool = False
    """Whether training begins each history at an item drawn anew in every epoch, all of them equally likely."""
    temperature: float = Field(default=1.0, gt=0)
    """τ of the training objective, the cross-entropy of logits / τ (LETTER's ranking-guided generation loss). Below 1,
    wrong codes that come close to the right one weigh more. Recommending does not divide by it."""
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    """Share of each target that training spreads evenly over the vocabulary."""
    search: BeamConfig = BeamConfig()
    """How items are searched when it recommends."""

    @property
    def augmentation(self) -> Augmentation:
        """What training does to histories."""
        return Augmentation(self.history_dropout, self.subsequences)


class GenerativeRecommender(Recommender):
    """A transformers model over semantic-ID tokens, searched under the catalogue's trie."""

    needs_semantic_ids = True
    model: PreTrainedModel
    _derived: tuple[SemanticIds, ItemTokens, ItemTrie] | None = None
    """Tables made from the semantic IDs, and the IDs they were made from."""
    _trained: Trained | None = None
    """What it was trained on, if its catalogue has grown since."""

    @abstractmethod
    def new_model(self, vocabulary: CodeVocabulary) -> PreTrainedModel:
        """A model with random weights, drawn from torch's global random state."""

    @abstractmethod
    def examples(self, dataset: Dataset, pairs: Examples) -> TrainingExamples:
        """What is learnt of a dataset's (user, cut) pairs, in training and where a validation loss is asked for."""

    @abstractmethod
    def prompts(self, histories: Histories) -> Prompts:
        """What the model reads of histories; the same form as in the training examples."""

    @abstractmethod
    def scorer(self, normalize: Normalize, model: PreTrainedModel | None = None) -> SidScorer:
        """The model, or one in its place, as a search sees it; log-probabilities are over what `normalize` says."""

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
        sizes = self.ids.sizes if self._trained is None else self._trained.sizes
        trained_items = len(self.ids) if self._trained is None else self._trained.items
        return CodeVocabulary(sizes, self.config.user_tokens, trained_items if self.reads_own_tokens else 0)

    @property
    def reads_whole_items(self) -> bool:
        """Whether an item is one position of a prompt, instead of one a code."""
        return False

    @property
    def reads_own_tokens(self) -> bool:
        """Whether an item's position holds a token of its own beside its codes; those of new items have none."""
        return False

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
        """The prefix tree of the codes that the model writes; its leaves are lists of items."""
        return self._tables[2]

    @property
    def _tables(self) -> tuple[SemanticIds, ItemTokens, ItemTrie]:
        if self._derived is None or self._derived[0] is not self.ids:
            words = self.vocabulary
            codes = self.read_codes
            items = ItemTokens(
                words.tokens(codes).astype(np.int64),
                words.PAD,
                words.EOS,
                words.BOS,
                self.reads_whole_items,
                words.first_user,
                words.num_users,
                self._own_tokens(words) if self.reads_own_tokens else None,
            )
            # The table's own tree may have grown from an earlier one, which is faster than building it.
            trie = self.ids.trie if codes is self.ids.codes else ItemTrie.build(codes, words.sizes)
            self._derived = (self.ids, items, trie)
        return self._derived

    def _own_tokens(self, words: CodeVocabulary) -> IntArray:
        """int64[N], each item's own token. A new item has that of a trained one it stands for, else padding."""
        rows_N = np.arange(len(self.ids), dtype=np.int64)
        if self._trained is not None:
            group_N = np.unique(self.read_codes, axis=0, return_inverse=True)[1].reshape(-1)
            # Groups count from their first rows, and trained items stand before new ones.
            firsts = np.unique(group_N, return_index=True)[1]
            rows_N = np.where(rows_N < words.num_items, rows_N, firsts[group_N])
        return np.where(rows_N < words.num_items, words.first_item + rows_N, words.PAD)

    @property
    def read_codes(self) -> IntArray:
        """Codes int32[N, L] as the model reads and writes them; those of new items may stand for old ones."""
        return self.ids.codes if self._trained is None else self._trained.read(self.ids.codes)

    @property
    def max_ties(self) -> int:
        """Largest number of items that necessarily share a score."""
        if self._trained is None:
            return super().max_ties
        return int(np.unique(self.read_codes, axis=0, return_counts=True)[1].max())

    def extended(self, catalog: Catalog, semantic_ids: SemanticIds) -> Self:
        """A recommender of more items with the same weights, which both then share.

        How a new item is read and scored is said in `sidrec.recommenders.growth`; old items keep their scores, but with
        outputs "nodes" of the item decoder, where a new leaf takes a share of its prefix.

        Raises:
            DataError: the catalogue does not begin with this one's items and codes, or a level has grown.
        """
        semantic_ids.check_extends(self.ids, catalog)
        check_sizes(self.ids, semantic_ids)
        grown = copy.copy(self)
        grown.catalog, grown.semantic_ids, grown._derived = catalog, semantic_ids, None
        grown._trained = self._trained or Trained(len(self.ids), self.ids.sizes)
        return grown

    def save_weights(self, directory: Path) -> None:
        """Write the weights as a Hugging Face directory, and what they were trained on if the catalogue has grown."""
        super().save_weights(directory)
        if self._trained is not None:
            self._trained.save(directory)

    def load_weights(self, directory: Path) -> None:
        """Read what `save_weights` wrote."""
        super().load_weights(directory)
        self._trained = Trained.load(directory)

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
        """Train from scratch on the training targets; keep the weights that validated best.

        Raises:
            DataError: there are no semantic IDs, or they belong to another catalogue.
        """
        self.semantic_ids = self.require_ids(semantic_ids, dataset.catalog)
        # Tables of a grown catalogue may be of the very same codes.
        self.catalog, self._trained, self._derived = dataset.catalog, None, None
        with isolated_rng(torch_seed(run.seed, "weights", self.config.kind)):
            self.model = self.new_model(self.vocabulary)
        score = None if validate is None else lambda: validate(self)
        examples = self.examples(dataset, dataset.split.train)
        return train_model(self.model, examples, training, run, validate=score, loss=self.loss)

    @property
    def loss(self) -> TokenLoss:
        """The training objective."""
        return TokenLoss(self.config.temperature, self.config.label_smoothing)

    def mean_loss(self, dataset: Dataset, pairs: Examples, run: RunSettings) -> float:
        """Mean of the training objective over codes of targets; arguments are those of `Recommender.mean_loss`."""
        with self.evaluating(run) as model:
            return mean_loss(model, self.examples(dataset, pairs), run, self.loss)

    def search_for(self, request: Request) -> BeamConfig:
        """The request's search, else the recommender's own, with at least as many beams as items asked for."""
        search: BeamConfig = request.search or self.config.search
        return search.model_copy(update={"beams": max(search.beams, request.k)})

    def rank(self, histories: Histories, request: Request, run: RunSettings) -> Recommendations:
        """The best items of every history, by constrained beam search."""
        search = self.search_for(request)
        with self.evaluating(run):
            scorer = self.scorer(search.normalize, in_precision(self.model, search.precision))
            return beam_search(scorer, self.trie, histories, request, search, run)

    def log_probs(self, histories: Histories, rows_BM: IntArray) -> Tensor:
        """Summed log-probabilities float32[B, M] of the items' codes, normalised as `config.search` says.

        Arguments are those of `Recommender.log_probs`.
        """
        return path_log_probs(
            self.model,
            self.level_token_ids,
            self.prompts(histories),
            self.read_codes[rows_BM],
            self.config.search.normalize,
            self.trie,
        )

    def score_items(self, histories: Histories, rows_UM: IntArray, run: RunSettings) -> FloatArray:
        """The values float32[U, M] of `log_probs`, prompts read once a user; arguments as there."""
        by_length = np.argsort(histories.lengths, kind="stable")
        out_UM, search = np.empty(rows_UM.shape, np.float32), self.config.search
        with self.evaluating(run):
            scorer = self.scorer(search.normalize)

            def score(part: slice) -> IntArray:
                users = by_length[part]
                codes_UML, state = self.read_codes[rows_UM[users]], scorer.start(histories.take(users))
                out_UM[users] = path_scores(scorer, state, self.trie, codes_UML, search.normalize).cpu().numpy()
                return users

            for _ in in_batches(len(histories), search.users_per_batch, score):
                pass
        return out_UM

    def sample(
        self,
        histories: Histories,
        request: Request,
        config: SamplingConfig,
        run: RunSettings,
        users: IntArray | None = None,
    ) -> Samples:
        """Items of every history drawn at random, or by diverse beams; `request.k` of them.

        Arguments and errors are those of `sample_items`; the seed is the run's.
        """
        with self.evaluating(run):
            return sample_items(self.scorer(config.normalize), self.trie, histories, request, config, run, users)
