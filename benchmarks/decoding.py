"""Constrained beam search: users per CPU second, ours against `generate` with a prefix function.

Both sides search the same random weights for the same 20 items a user: an index of 9,922 items with
4 levels of 256 codes, histories of 20 items, 20 beams, batches of 32 users, one thread. Random
weights change no cost. The baseline is what papers use: transformers' beam search and a trie of
dictionaries that is asked once a beam and step. "vocabulary" gives the same scores as the baseline
(which the script checks); "level" normalises over the codes of a level, the library's default.
"""

import argparse
import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from transformers import (
    GenerationConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    T5Config,
    T5ForConditionalGeneration,
)

from harness import Benchmark, compare
from sidrec.config import RunSettings
from sidrec.data.sequences import Histories
from sidrec.decoding.beam import beam_search
from sidrec.decoding.recommendations import BeamConfig, Request
from sidrec.decoding.trie import ItemTrie
from sidrec.recommenders.causal_scorer import CausalScorer
from sidrec.recommenders.encoder_decoder_scorer import EncoderDecoderScorer
from sidrec.tasks.next_item import ItemTokens
from sidrec.tokenizers.vocabulary import CodeVocabulary

ITEMS, LEVELS, CODES, HISTORY, BEAMS, USERS = 9_922, 4, 256, 20, 20, 32
TEXT_ROWS = 32_000
"""Rows of a text vocabulary that peers keep in front of the codes."""
BASELINE = "generate + dictionary trie"


class Setting:
    """One model, one vocabulary, one batch of users."""

    def __init__(self, name: str, *, text_rows: int) -> None:
        draw = np.random.default_rng(0)
        codes = np.unique(draw.integers(CODES, size=(ITEMS + 100, LEVELS)), axis=0)
        self.codes = draw.permutation(codes)[:ITEMS].astype(np.int32)
        self.vocabulary = CodeVocabulary((CODES,) * LEVELS)
        self.offset = text_rows
        table = self.vocabulary.tokens(self.codes) + text_rows
        self.items = ItemTokens(table, pad=0, eos=1, bos=2)
        self.histories = Histories.of(draw.integers(ITEMS, size=(USERS, HISTORY)))
        self.trie = ItemTrie.build(self.codes, self.vocabulary.sizes)
        self.is_t5 = name == "t5"
        torch.manual_seed(0)
        self.model = MODELS[name](len(self.vocabulary) + text_rows).eval()

    def prompts(self, histories: Histories) -> Any:
        """Encoder input of the T5, prompt of the Llama."""
        return self.items.prompts(histories, begin=not self.is_t5, end=self.is_t5)

    def ours(self, normalize: Any, dtype: torch.dtype = torch.float32) -> Callable[[], Any]:
        """Our search over the same weights."""
        model: Any = copy.deepcopy(self.model).to(dtype)
        levels = [torch.arange(*self.vocabulary.level_range(level)) + self.offset for level in range(LEVELS)]
        scorer = (EncoderDecoderScorer if self.is_t5 else CausalScorer)(model, levels, self.prompts, normalize)
        config = BeamConfig(beams=BEAMS, normalize=normalize, users_per_batch=USERS)
        request, run = Request(k=BEAMS, exclude_seen=False), RunSettings(device="cpu")

        def search() -> Any:
            with torch.no_grad():
                return beam_search(scorer, self.trie, self.histories, request, config, run)

        return search

    def generate(self) -> Callable[[], Any]:
        """The baseline."""
        trie: dict[int, Any] = {}
        for tokens in self.items.table_NL.tolist():
            node = trie
            for token in tokens:
                node = node.setdefault(token, {})
            node[self.items.eos] = {}
        prompts = self.prompts(self.histories)
        skip = 1 if self.is_t5 else prompts.tokens_BT.shape[1]

        def allowed(_: int, tokens: torch.Tensor) -> list[int]:
            node = trie
            for token in tokens.tolist()[skip:]:
                node = node.get(token, {})
            return list(node) or [0]

        config = GenerationConfig(
            num_beams=BEAMS,
            num_return_sequences=BEAMS,
            max_new_tokens=LEVELS + int(self.is_t5),
            do_sample=False,
            length_penalty=0.0,
            early_stopping=True,
            pad_token_id=0,
            eos_token_id=1 if self.is_t5 else None,
            decoder_start_token_id=0,
            output_scores=True,
            return_dict_in_generate=True,
        )
        model: Any = self.model
        return lambda: model.generate(
            prompts.tokens_BT,
            attention_mask=prompts.mask_BT,
            generation_config=config,
            prefix_allowed_tokens_fn=allowed,
        )

    def check(self) -> float:
        """Largest difference between our scores and the baseline's."""
        theirs = self.generate()().sequences_scores.reshape(USERS, BEAMS).numpy()
        return float(np.abs(theirs - self.ours("vocabulary")().scores).max())


def _t5(vocab_size: int) -> PreTrainedModel:
    fields: dict[str, Any] = {"decoder_start_token_id": 0}
    return T5ForConditionalGeneration(
        T5Config(vocab_size=vocab_size, d_model=128, d_kv=64, d_ff=1024, num_layers=4, num_heads=6, **fields)
    )


def _llama(
    vocab_size: int, width: int, inner: int, layers: int = 4, heads: int = 4, key_heads: int = 4
) -> PreTrainedModel:
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=vocab_size,
            hidden_size=width,
            intermediate_size=inner,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            num_key_value_heads=key_heads,
            tie_word_embeddings=True,
            pad_token_id=0,
        )
    )


MODELS: dict[str, Callable[[int], PreTrainedModel]] = {
    "t5": _t5,
    "llama-4x256": lambda vocab_size: _llama(vocab_size, 256, 1024),
    "smollm2-135m": lambda vocab_size: _llama(vocab_size, 576, 1536, layers=30, heads=9, key_heads=3),
    "llama-4x128": lambda vocab_size: _llama(vocab_size, 128, 512),
}


def main() -> None:
    """Measure every case and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    repeats = parser.parse_args().repeats
    torch.set_num_threads(1)
    benchmark = Benchmark("decoding")
    for name, text_rows in [("t5", TEXT_ROWS), ("t5", 0), ("llama-4x256", TEXT_ROWS), ("llama-4x128", 0)]:
        setting = Setting(name, text_rows=text_rows)
        case = f"{name}, vocabulary {len(setting.vocabulary) + text_rows:,}"
        difference = setting.check()
        if difference > 1e-3:
            raise SystemExit(f"{case}: our scores differ from the baseline's by {difference}")
        variants = {
            BASELINE: setting.generate(),
            "ours, vocabulary": setting.ours("vocabulary"),
            "ours, level": setting.ours("level"),
            "ours, level, bf16": setting.ours("level", torch.bfloat16),
        }
        found = compare(variants, BASELINE, repeats)
        for variant, timing in found.items():
            rate, ratio = USERS / timing.cpu_s, found[BASELINE].cpu_s / timing.cpu_s
            benchmark.row(case, variant, BASELINE, rate, "users per CPU second", ratio, timing.spread)
        benchmark.row(case, "largest difference of scores", BASELINE, difference, "nats")
    benchmark.save()


if __name__ == "__main__":
    main()
