"""The item decoder: a transformer over items, one position each, that spells the next item's codes at every position.

Where `decoder` reads and writes L tokens an item in one long row, here an item is one vector, so a history is L
times shorter, and the L codes of a target cost one small layer each. All targets of a window are learnt in one
pass. See `item_decoder_model` for the network and its source.
"""

from typing import Any, Literal, Self

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor
from transformers import PreTrainedModel

from sidrec.data.dataset import Dataset, Examples
from sidrec.data.sequences import Histories
from sidrec.decoding.recommendations import Normalize
from sidrec.decoding.scorer import SidScorer
from sidrec.recommenders.code_tree import CodeTree, NodeLoss
from sidrec.recommenders.generative import GenerativeConfig, GenerativeRecommender
from sidrec.recommenders.item_decoder_model import ItemDecoderModel, ItemDecoderModelConfig
from sidrec.recommenders.item_decoder_scorer import ItemDecoderScorer, last_states
from sidrec.recommenders.path_log_probs import summed_log_probs
from sidrec.tasks.item_windows import ItemWindowExamples
from sidrec.tasks.next_item import Prompts
from sidrec.tasks.windows import Windows
from sidrec.tokenizers.vocabulary import CodeVocabulary
from sidrec.training.batch_loss import LevelLoss
from sidrec.training.batches import TrainingExamples
from sidrec.types import IntArray

__all__ = ["ItemDecoder"]


class ItemDecoder(GenerativeRecommender):
    """Reads an item a position and learns the codes of the item after each position."""

    model_class = ItemDecoderModel
    model: ItemDecoderModel  # type: ignore[assignment]  # narrows the family's field
    _tree: CodeTree | None = None
    """Of the trie that was asked for last."""

    class Config(GenerativeConfig):
        """Sizes of the network."""

        kind: Literal["item-decoder"] = "item-decoder"  # type: ignore[assignment]  # narrows the family's field
        max_history: int = Field(default=50, ge=1)
        """Newest items of a history that the model reads."""
        d_model: int = Field(default=128, ge=1)
        """Width of the states; a multiple of the number of heads."""
        num_heads: int = Field(default=4, ge=1)
        """Attention heads."""
        d_ff: int = Field(default=0, ge=0)
        """Inner width of all feed-forward layers; 0 is four times `d_model`."""
        num_layers: int = Field(default=2, ge=1)
        """Transformer layers over items."""
        dropout: float = Field(default=0.5, ge=0, lt=1)
        """Dropout rate of the transformer: of inputs, attention weights and what each layer adds."""
        depth_dropout: float = Field(default=0.5, ge=0, lt=1)
        """Dropout rate of the layers that spell codes: of the codes that were written and of what a layer adds."""
        item_vectors: bool = True
        """Whether an item is read as the sum of its codes and a vector of its own, instead of its codes alone. What is
        written is codes either way; an item that the model was not trained on is read with the
        vector of the trained item that has its codes, and by its codes alone where there is none."""
        outputs: Literal["codes", "nodes"] = "codes"
        """What has output vectors. Of "codes" all of a level compete, whatever stands before them. With "nodes" the
        children of the prefix in the catalogue compete, and to a code's vector the mean of the own vectors of the
        items below the child is added: a softmax along the catalogue's tree, whose leaves are the items that are
        read, as SASRec's table is read and written. It needs `item_vectors`. Items added after training then share
        the probability of their prefixes, which lowers the scores of its other items."""

        @model_validator(mode="after")
        def _heads_divide_width(self) -> Self:
            if self.d_model % self.num_heads:
                raise ValueError(f"d_model {self.d_model} is not a multiple of num_heads {self.num_heads}")
            return self

        @model_validator(mode="after")
        def _nodes_have_items(self) -> Self:
            if self.outputs == "nodes" and not self.item_vectors:
                raise ValueError(
                    "outputs 'nodes' are means of the items' vectors, which item_vectors: false leaves out"
                )
            return self

    @property
    def reads_whole_items(self) -> bool:
        """Whether an item is one position of a prompt: always."""
        return True

    @property
    def reads_own_tokens(self) -> bool:
        """Whether an item's position holds a token of its own beside its codes."""
        return self.config.item_vectors

    @property
    def loss(self) -> LevelLoss | NodeLoss:  # type: ignore[override]  # another objective than the family's
        """The training objective: cross-entropy of each code among those of its level, or of its prefix."""
        temperature, smoothing, tree = self.config.temperature, self.config.label_smoothing, self.tree
        return LevelLoss(temperature, smoothing) if tree is None else NodeLoss(tree, temperature, smoothing)

    @property
    def tree(self) -> CodeTree | None:
        """The catalogue's tree, for outputs "nodes"."""
        if self.config.outputs == "codes":
            return None
        trie, num_items = self.trie, self.vocabulary.num_items
        if self._tree is None or self._tree.trie is not trie or self._tree.num_items != num_items:
            self._tree = CodeTree(trie, num_items)
        return self._tree

    def new_model(self, vocabulary: CodeVocabulary) -> PreTrainedModel:
        """A network with random weights."""
        config = self.config
        return ItemDecoderModel(
            ItemDecoderModelConfig(
                hidden_size=config.d_model,
                num_heads=config.num_heads,
                inner_width=config.d_ff,
                num_layers=config.num_layers,
                dropout=config.dropout,
                depth_dropout=config.depth_dropout,
                max_history=config.max_history + 1 + (config.user_tokens > 0),
                vocab_size=len(vocabulary),
                level_sizes=list(vocabulary.sizes),
                first_code=vocabulary.level_range(0)[0],
                outputs=config.outputs,
                first_item=vocabulary.first_item,
                pad_token_id=vocabulary.PAD,
                bos_token_id=vocabulary.BOS,
                eos_token_id=vocabulary.EOS,
            )
        )

    def examples(self, dataset: Dataset, pairs: Examples) -> TrainingExamples:
        """One example a window of a user's history, with all targets in it."""
        windows = Windows.of(dataset.sequences, pairs, self.config.max_history)
        return ItemWindowExamples(windows, self.item_tokens, self.config.augmentation, codes_NL=self.read_codes)

    def prompts(self, histories: Histories) -> Prompts:
        """The begin token, then the newest items, one position each."""
        return self.item_tokens.prompts(histories, max_items=self.config.max_history, begin=True)

    def scorer(self, normalize: Normalize, model: PreTrainedModel | None = None) -> SidScorer:
        """Scorer over the network's weights; over the "vocabulary" means over the codes of a level here.

        With outputs "nodes" all means over the children of a prefix.
        """
        searched: Any = self.model if model is None else model
        return ItemDecoderScorer(searched, self.prompts, self.tree)

    def log_probs(self, histories: Histories, rows_BM: IntArray) -> Tensor:
        """Summed log-probabilities float32[B, M] of the items' codes; arguments as in `Recommender.log_probs`."""
        model, codes_BML, prompts = self.model, self.read_codes[rows_BM], self.prompts(histories)
        hidden_BD = last_states(model, prompts.tokens_BT.to(model.device), prompts.mask_BT.to(model.device))
        paths_BML = torch.from_numpy(codes_BML.astype(np.int64)).to(model.device)
        hidden_BMD = hidden_BD[:, None].expand(-1, paths_BML.shape[1], -1)
        outputs = model.output_vectors(self.tree)
        states_BMSD, nodes = model.spelled(hidden_BMD, paths_BML[..., :-1], outputs), outputs.prefixes(paths_BML)

        def head(states_BMD: Tensor, level: int) -> Tensor:
            return model.log_probs(states_BMD, nodes[level], level, outputs)

        return summed_log_probs(head, states_BMSD, codes_BML, self.config.search.normalize, self.trie)
