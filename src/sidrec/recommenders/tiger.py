"""TIGER: a T5, trained from scratch, reads the semantic IDs of a history and writes the next item's.

Rajput et al., Recommender Systems with Generative Retrieval, NeurIPS 2023, arXiv:2305.05065; sizes
as in LETTER's TIGER (Wang et al., CIKM 2024, arXiv:2405.07314). Left out: the text vocabulary that LETTER
keeps unused (97 % of its embedding rows).
"""

from typing import Any, Literal

from pydantic import Field
from transformers import AutoModelForSeq2SeqLM, PreTrainedModel, T5Config, T5ForConditionalGeneration

from sidrec.data.dataset import Dataset, Examples
from sidrec.data.sequences import Histories
from sidrec.decoding.recommendations import Normalize
from sidrec.decoding.scorer import SidScorer
from sidrec.recommenders.encoder_decoder_scorer import EncoderDecoderScorer
from sidrec.recommenders.generative import GenerativeConfig, GenerativeRecommender
from sidrec.recommenders.item_t5 import ItemT5, ItemT5Config
from sidrec.tasks.next_item import PrefixExamples, Prompts
from sidrec.tokenizers.vocabulary import CodeVocabulary
from sidrec.training.batches import TrainingExamples

__all__ = ["Tiger"]


class Tiger(GenerativeRecommender):
    """Encoder-decoder over semantic IDs: one training example a (history, next item)."""

    model_class = AutoModelForSeq2SeqLM

    class Config(GenerativeConfig):
        """Sizes of the T5."""

        kind: Literal["tiger"] = "tiger"  # type: ignore[assignment]  # narrows the family's field
        d_model: int = Field(default=128, ge=1)
        """Width of the hidden states."""
        d_kv: int = Field(default=64, ge=1)
        """Width of a head."""
        num_heads: int = Field(default=6, ge=1)
        """Attention heads."""
        d_ff: int = Field(default=1024, ge=1)
        """Inner width of the feed-forward layers."""
        num_layers: int = Field(default=4, ge=1)
        """Encoder layers, and as many decoder layers."""
        dropout: float = Field(default=0.1, ge=0, lt=1)
        """Dropout rate."""
        item_inputs: Literal["codes", "sum"] = "codes"
        """What the encoder reads: a vector a code, or one an item, the sum of those of its codes. The decoder writes
        codes either way."""
        item_positions: bool = False
        """Whether the encoder's vectors of an item get one more, learnt for its place counted from the newest item."""

    def new_model(self, vocabulary: CodeVocabulary) -> PreTrainedModel:
        """A T5 with random weights and one embedding row a code."""
        config = self.config
        sizes: dict[str, Any] = {
            "vocab_size": len(vocabulary),
            "d_model": config.d_model,
            "d_kv": config.d_kv,
            "num_heads": config.num_heads,
            "d_ff": config.d_ff,
            "num_layers": config.num_layers,
            "num_decoder_layers": config.num_layers,
            "dropout_rate": config.dropout,
            "pad_token_id": vocabulary.PAD,
            "eos_token_id": vocabulary.EOS,
            "decoder_start_token_id": vocabulary.PAD,
        }
        if not (config.item_positions or self.reads_whole_items):
            return T5ForConditionalGeneration(T5Config(**sizes))
        first, last = vocabulary.level_range(0)
        codes = {"first_code": first, "first_level_size": last - first, "num_codes": sum(vocabulary.sizes)}
        return ItemT5(ItemT5Config(item_positions=config.max_history * config.item_positions, **codes, **sizes))

    @property
    def reads_whole_items(self) -> bool:
        """Whether the encoder reads one vector an item."""
        return self.config.item_inputs == "sum"

    def examples(self, dataset: Dataset, pairs: Examples) -> TrainingExamples:
        """One example a target."""
        config = self.config
        return PrefixExamples(dataset.sequences, pairs, self.item_tokens, config.max_history, config.augmentation)

    def prompts(self, histories: Histories) -> Prompts:
        """Codes of the newest items, then the end token."""
        return self.item_tokens.prompts(histories, max_items=self.config.max_history, end=True)

    def scorer(self, normalize: Normalize, model: PreTrainedModel | None = None) -> SidScorer:
        """Encoder-decoder scorer over the T5's weights."""
        searched: Any = self.model if model is None else model
        return EncoderDecoderScorer(searched, self.level_token_ids, self.prompts, normalize)
