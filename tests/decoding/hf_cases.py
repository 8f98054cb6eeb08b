"""Tiny random models of four families, their prompts, and `generate` under a dictionary trie: the slow reference."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
)

from sidrec.config import RunSettings
from sidrec.data.sequences import Histories
from sidrec.decoding.beam import beam_search
from sidrec.decoding.hf import TrieLogitsProcessor
from sidrec.decoding.recommendations import BeamConfig, Recommendations, Request
from sidrec.decoding.trie import ItemTrie
from sidrec.recommenders.causal_scorer import CausalScorer
from sidrec.recommenders.encoder_decoder_scorer import EncoderDecoderScorer
from sidrec.tasks.next_item import ItemTokens

FAMILIES = ("t5", "llama", "gpt2", "qwen2")
VOCABULARY, PAD, END, BEGIN = 40, 0, 1, 2
HISTORIES = Histories.of([[3, 7, 11], [], [5], [9, 1, 8, 4, 2]])


def _small(family: str) -> Any:
    sizes = {"vocab_size": VOCABULARY, "pad_token_id": PAD, "eos_token_id": END, "bos_token_id": BEGIN}
    llama = {"hidden_size": 24, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    match family:
        case "t5":
            start: dict[str, Any] = {"decoder_start_token_id": PAD, "d_ff": 32, "num_heads": 2}
            return T5ForConditionalGeneration(T5Config(d_model=16, d_kv=8, num_layers=2, **sizes, **start))
        case "llama":
            return LlamaForCausalLM(LlamaConfig(num_key_value_heads=2, **llama, **sizes))
        case "qwen2":
            return Qwen2ForCausalLM(Qwen2Config(num_key_value_heads=2, **llama, **sizes))
        case _:
            return GPT2LMHeadModel(GPT2Config(n_embd=24, n_layer=2, n_head=4, n_positions=64, **sizes))


@dataclass
class Case:
    """One model and a catalogue whose codes are tokens in no order."""

    family: str
    codes: np.ndarray
    sizes: tuple[int, ...]

    def __post_init__(self) -> None:
        draw = np.random.default_rng(1)
        ids = np.split(draw.permutation(np.arange(3, VOCABULARY))[: sum(self.sizes)], np.cumsum(self.sizes)[:-1])
        self.level_ids = [torch.from_numpy(level) for level in ids]
        table = np.stack([level[column] for level, column in zip(ids, self.codes.T, strict=True)], axis=1)
        self.items = ItemTokens(table, pad=PAD, eos=END, bos=BEGIN)
        self.trie = ItemTrie.build(self.codes, self.sizes)
        self.histories = Histories(HISTORIES.rows % len(self.codes), HISTORIES.offsets)
        self.is_t5 = self.family == "t5"
        torch.manual_seed(0)
        self.model = _small(self.family).eval()
        with torch.no_grad():
            for weight in self.model.parameters():
                weight.mul_(8.0 if weight.ndim == 2 and not self.is_t5 else 1.5)

    @property
    def end(self) -> int | None:
        """Only the T5 writes an end token."""
        return END if self.is_t5 else None

    def processor(self, **settings: Any) -> TrieLogitsProcessor:
        settings = {"end_token_id": self.end, "pad_token_id": PAD, **settings}
        return TrieLogitsProcessor(self.trie, self.level_ids, **settings)

    def right_padded(self, histories: Histories) -> Any:
        return self.items.prompts(histories, begin=not self.is_t5, end=self.is_t5)

    def prompts(self, histories: Histories | None = None) -> dict[str, torch.Tensor]:
        """What `generate` reads: padded on the left for a decoder-only model."""
        prompts = self.right_padded(self.histories if histories is None else histories)
        tokens, mask = prompts.tokens_BT.clone(), prompts.mask_BT.clone()
        if not self.is_t5:
            for row, length in enumerate(mask.sum(1).tolist()):
                tokens[row], mask[row] = tokens[row].roll(-length), mask[row].roll(-length)
        return {"input_ids": tokens, "attention_mask": mask}

    def generate(self, processor: TrieLogitsProcessor, histories: Histories | None = None, **settings: Any) -> Any:
        config = processor.generation_config(self.model, **settings)
        return self.model.generate(**self.prompts(histories), generation_config=config, logits_processor=[processor])

    def by_dictionary(self, config: Any, end: int | None = None) -> Any:
        """The baseline of papers: a trie of dictionaries that is asked once a beam and step."""
        trie: dict[int, Any] = {}
        for tokens in self.items.table_NL.tolist():
            node = trie
            for token in tokens:
                node = node.setdefault(token, {})
            node.update({} if end is None else {end: {}})
        prompts = self.prompts()
        skip = 1 if self.is_t5 else prompts["input_ids"].shape[1]

        def allowed(_: int, tokens: torch.Tensor) -> list[int]:
            node = trie
            for token in tokens.tolist()[skip:]:
                node = node.get(token, {})
            return list(node) or [PAD]

        return self.model.generate(**prompts, generation_config=config, prefix_allowed_tokens_fn=allowed)

    def ours(self, beams: int) -> Recommendations:
        """Our own search over the same weights."""
        scorer = (EncoderDecoderScorer if self.is_t5 else CausalScorer)(
            self.model, self.level_ids, self.right_padded, "vocabulary"
        )
        request, config = Request(k=beams, exclude_seen=False), BeamConfig(beams=beams, normalize="vocabulary")
        return beam_search(scorer, self.trie, self.histories, request, config, RunSettings(device="cpu"))


def make_case(family: str, num_items: int = 60, sizes: tuple[int, ...] = (5, 4, 6)) -> Case:
    draw = np.random.default_rng(0)
    codes = draw.permutation(np.stack(np.unravel_index(np.arange(np.prod(sizes)), sizes), axis=1))
    return Case(family, codes[:num_items].astype(np.int32), sizes)
