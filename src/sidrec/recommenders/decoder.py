"""A small causal transformer over semantic-ID tokens, trained on all targets of a user in one pass.

The architecture is Llama's (rotary positions, RMSNorm, SwiGLU), so the weights are a Llama directory.
One row holds a window of a user's history with every training target in it, where prefix training
needs one row a target. Left out: text, and any pretrained weights.
"""

from typing import Any, Literal, Self

from pydantic import Field, model_validator
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

from sidrec.data.dataset import Dataset, Examples
from sidrec.data.sequences import Histories
from sidrec.decoding.recommendations import Normalize
from sidrec.decoding.scorer import SidScorer
from sidrec.recommenders.causal_scorer import CausalScorer
from sidrec.recommenders.generative import GenerativeConfig, GenerativeRecommender
from sidrec.tasks.next_item import Prompts, SequenceExamples
from sidrec.tasks.packing import PackedExamples
from sidrec.tasks.windows import Windows
from sidrec.tokenizers.vocabulary import CodeVocabulary
from sidrec.training.batches import TrainingExamples

__all__ = ["Decoder"]


class Decoder(GenerativeRecommender):
    """Decoder-only model over semantic IDs: one training example a window of history."""

    model_class = LlamaForCausalLM

    class Config(GenerativeConfig):
        """Sizes of the transformer."""

        kind: Literal["decoder"] = "decoder"  # type: ignore[assignment]  # narrows the family's field
        max_history: int = Field(default=50, ge=1)
        """Newest items of a history that the model reads."""
        d_model: int = Field(default=128, ge=2)
        """Width of the hidden states; a multiple of twice the number of heads."""
        num_heads: int = Field(default=4, ge=1)
        """Attention heads."""
        d_ff: int = Field(default=512, ge=1)
        """Inner width of the feed-forward layers."""
        num_layers: int = Field(default=4, ge=1)
        """Layers."""
        dropout: float = Field(default=0.1, ge=0, lt=1)
        """Dropout rate of the attention weights."""
        packed: bool = False
        """Whether training puts the windows of a batch one behind the other, into rows as long as the longest window,
        not one a row in batches of similar length. The objective is the same; every step sees windows of all lengths,
        and all steps are of about one size. It pays where batches are large or few and lengths very different: there
        similar lengths leave much padding, and the largest batch decides the memory. With many small batches they leave
        as little, and on a CPU it is then no faster."""

        @model_validator(mode="after")
        def _heads_divide_width(self) -> Self:
            if self.d_model % (2 * self.num_heads):
                raise ValueError(
                    f"d_model {self.d_model} is not a multiple of 2 · num_heads = {2 * self.num_heads} "
                    "(rotary positions turn pairs of dimensions)"
                )
            return self

    def new_model(self, vocabulary: CodeVocabulary) -> PreTrainedModel:
        """A Llama with random weights, tied embeddings and one embedding row a code."""
        config = self.config
        longest = 1 + (config.user_tokens > 0) + (config.max_history + 1) * len(vocabulary.sizes)
        return LlamaForCausalLM(
            LlamaConfig(
                vocab_size=len(vocabulary),
                hidden_size=config.d_model,
                intermediate_size=config.d_ff,
                num_hidden_layers=config.num_layers,
                num_attention_heads=config.num_heads,
                attention_dropout=config.dropout,
                max_position_embeddings=longest,
                tie_word_embeddings=True,
                pad_token_id=vocabulary.PAD,
                bos_token_id=vocabulary.BOS,
                eos_token_id=vocabulary.EOS,
            )
        )

    def examples(self, dataset: Dataset, pairs: Examples) -> TrainingExamples:
        """One example a window of a user's history, with all targets in it."""
        windows = Windows.of(dataset.sequences, pairs, self.config.max_history)
        examples = SequenceExamples(windows, self.item_tokens, self.config.augmentation)
        return PackedExamples.of(examples) if self.config.packed else examples

    def prompts(self, histories: Histories) -> Prompts:
        """The begin token, then the codes of the newest items."""
        return self.item_tokens.prompts(histories, max_items=self.config.max_history, begin=True)

    def scorer(self, normalize: Normalize, model: PreTrainedModel | None = None) -> SidScorer:
        """Causal scorer over the Llama's weights."""
        searched: Any = self.model if model is None else model
        return CausalScorer(searched, self.level_token_ids, self.prompts, normalize)
