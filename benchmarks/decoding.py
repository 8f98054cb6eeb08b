"""Constrained beam search: users per second, ours against `generate` with a prefix function.

    python benchmarks/decoding.py [--device cuda] [--repeats 3]

Both sides search the same random weights for the same items: an index of 9,922 items with 4 levels of 256 codes,
histories of 20 items (32 for the shape of SmolLM2-135M), 20 beams, one thread. Random weights change no cost. The
baseline is what papers use: transformers' beam search and a trie of dictionaries that is asked once a beam and step.
"vocabulary" gives the same scores as the baseline (which the script checks); "level" normalises over the codes of a
level, the library's default. On a CPU seconds are CPU seconds, on a GPU wall seconds after waiting for it, and
there larger batches and wider beams are measured too.

Shares: what of a search is not the model (constraint and selection), and how near its matrix products come to
the speed of one large product on the same device.
"""

import argparse
import copy
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import (
    GenerationConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    T5Config,
    T5ForConditionalGeneration,
)

from harness import Benchmark, Timing, compare
from sidrec.config import RunSettings
from sidrec.data.sequences import Histories
from sidrec.decoding.beam import beam_search
from sidrec.decoding.recommendations import BeamConfig, Request
from sidrec.decoding.trie import ItemTrie
from sidrec.recommenders.causal_scorer import CausalScorer
from sidrec.recommenders.encoder_decoder_scorer import EncoderDecoderScorer
from sidrec.tasks.next_item import ItemTokens
from sidrec.tokenizers.vocabulary import CodeVocabulary

ITEMS, LEVELS, CODES = 9_922, 4, 256
TEXT_ROWS, SMOLLM_ROWS = 32_000, 49_152
"""Rows of a text vocabulary that peers keep in front of the codes."""
BASELINE = "generate + dictionary trie"
PLAIN, HALF = torch.float32, torch.bfloat16


@dataclass(frozen=True)
class Case:
    """What is searched: model, rows of its text vocabulary, users at once, items of a history, beams."""

    model: str
    text_rows: int
    users: int = 32
    history: int = 20
    beams: int = 20

    def __str__(self) -> str:
        beams = "" if self.beams == 20 else f", {self.beams} beams"
        return f"{self.model}, vocabulary {self.text_rows + LEVELS * CODES + 3:,}, batch {self.users}{beams}"


CASES = [
    *(Case("t5", TEXT_ROWS, users) for users in (16, 32, 64)),
    Case("t5", 0),
    Case("llama-4x256", TEXT_ROWS),
    Case("llama-4x128", 0),
    Case("smollm2-135m", SMOLLM_ROWS, users=4, history=32),
]
GPU_CASES = [
    *(Case(model, TEXT_ROWS, 256, beams=beams) for model in ("t5", "llama-4x256") for beams in (20, 50, 200)),
    Case("smollm2-135m", SMOLLM_ROWS, users=32, history=32),
]


class Timed:
    """A scorer that counts the seconds of its own work."""

    def __init__(self, scorer: Any) -> None:
        self.scorer, self.seconds = scorer, 0.0
        self.level_sizes, self.has_end = scorer.level_sizes, scorer.has_end

    def start(self, histories: Histories) -> Any:
        """Read the prompts."""
        return self._timed(self.scorer.start, histories)

    def step(self, *arguments: Any) -> Any:
        """Score a level."""
        return self._timed(self.scorer.step, *arguments)

    def _timed(self, work: Callable[..., Any], *arguments: Any) -> Any:
        started = now()
        found = work(*arguments)
        self.seconds += now() - started
        return found


def now() -> float:
    """CPU seconds, or seconds after all work of the GPU is done."""
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time()


class Setting:
    """One model, one vocabulary, one batch of users."""

    def __init__(self, case: Case, device: str) -> None:
        draw = np.random.default_rng(0)
        codes = np.unique(draw.integers(CODES, size=(ITEMS + 100, LEVELS)), axis=0)
        self.case, self.device, self.codes = case, device, draw.permutation(codes)[:ITEMS].astype(np.int32)
        self.vocabulary = CodeVocabulary((CODES,) * LEVELS)
        self.items = ItemTokens(self.vocabulary.tokens(self.codes) + case.text_rows, pad=0, eos=1, bos=2)
        self.histories = Histories.of(draw.integers(ITEMS, size=(case.users, case.history)))
        self.trie = ItemTrie.build(self.codes, self.vocabulary.sizes)
        self.is_t5 = case.model == "t5"
        torch.manual_seed(0)
        self.model: Any = MODELS[case.model](len(self.vocabulary) + case.text_rows).eval().to(device)

    def prompts(self, histories: Histories) -> Any:
        """Encoder input of the T5, prompt of the Llama."""
        return self.items.prompts(histories, begin=not self.is_t5, end=self.is_t5)

    def scorer(self, normalize: Any, dtype: torch.dtype = PLAIN) -> Any:
        """Ours over the same weights."""
        model: Any = self.model if dtype is PLAIN else copy.deepcopy(self.model).to(dtype)
        ranges = [self.vocabulary.level_range(level) for level in range(LEVELS)]
        levels = [torch.arange(*codes) + self.case.text_rows for codes in ranges]
        return (EncoderDecoderScorer if self.is_t5 else CausalScorer)(model, levels, self.prompts, normalize)

    def ours(self, scorer: Any, normalize: Any) -> Callable[[], Any]:
        """Our search."""
        config = BeamConfig(beams=self.case.beams, normalize=normalize, users_per_batch=self.case.users)
        request, run = Request(k=self.case.beams, exclude_seen=False), RunSettings(device=self.device)
        return lambda: beam_search(scorer, self.trie, self.histories, request, config, run)

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
            num_beams=self.case.beams,
            num_return_sequences=self.case.beams,
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
        tokens, mask = prompts.tokens_BT.to(self.device), prompts.mask_BT.to(self.device)
        return lambda: self.model.generate(
            tokens, attention_mask=mask, generation_config=config, prefix_allowed_tokens_fn=allowed
        )

    def check(self, theirs: Any, ours: Any) -> float:
        """Largest difference between our scores and the baseline's."""
        scores = theirs.sequences_scores.reshape(self.case.users, self.case.beams)
        return float(np.abs(scores.cpu().numpy() - ours.scores).max())


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
    "llama-4x128": lambda vocab_size: _llama(vocab_size, 128, 512),
    "smollm2-135m": lambda vocab_size: _llama(vocab_size, 576, 1536, layers=30, heads=9, key_heads=3),
}


def peak(device: str, dtype: torch.dtype) -> float:
    """GFLOP/s of one large matrix product."""
    size = 2048 if device == "cpu" else 8192
    left, right = torch.randn(2, size, size, device=device, dtype=dtype)
    taken: list[float] = []
    for _ in range(5):
        started = now()
        torch.mm(left, right)
        taken.append(now() - started)
    return 2 * size**3 / min(taken) / 1e9


def _seconds(timing: Timing, device: str) -> float:
    return timing.cpu_s if device == "cpu" else timing.median_s


def measure(benchmark: Benchmark, case: Case, device: str, repeats: int) -> None:
    """Rates of one case, and the shares of its searches."""
    setting, unit = Setting(case, device), f"users per {'CPU ' if device == 'cpu' else ''}second"
    scorers = {
        f"ours, {normalize}{', bf16' if dtype is HALF else ''}": (setting.scorer(normalize, dtype), normalize, dtype)
        for normalize in ("vocabulary", "level")
        for dtype in (PLAIN, HALF)
    }
    found: dict[str, Any] = {}

    def run(name: str, work: Callable[[], Any]) -> None:
        found[name] = work()
        now()

    works = {name: setting.ours(scorer, normalize) for name, (scorer, normalize, _) in scorers.items()}
    variants = {
        name: (lambda name=name, work=work: run(name, work))
        for name, work in ({BASELINE: setting.generate()} | works).items()
    }
    timings = compare(variants, BASELINE, repeats)
    difference = setting.check(found[BASELINE], found["ours, vocabulary"])
    if difference > 1e-3:
        raise SystemExit(f"{case}: our scores differ from the baseline's by {difference}")
    base = _seconds(timings[BASELINE], device)
    for name, timing in timings.items():
        seconds = _seconds(timing, device)
        benchmark.row(str(case), name, BASELINE, case.users / seconds, unit, base / seconds, timing.spread)
    benchmark.row(str(case), "largest difference of scores", BASELINE, difference, "nats")
    for name, (scorer, normalize, dtype) in scorers.items():
        if normalize == "level":
            shares(benchmark, setting, name, Timed(scorer), dtype, _seconds(timings[name], device))


def shares(benchmark: Benchmark, setting: Setting, name: str, timed: Timed, dtype: torch.dtype, seconds: float) -> None:
    """What of a search is constraint and selection, and how near it comes to the device's peak."""
    search = setting.ours(timed, "level")
    outside: list[float] = []
    for _ in range(5):
        timed.seconds, started = 0.0, now()
        search()
        total = now() - started
        outside.append(1 - timed.seconds / total)
    benchmark.row(str(setting.case), f"{name}: constraint and selection", value=100 * sorted(outside)[2], unit="%")
    with FlopCounterMode(display=False) as counter:
        search()
    rate = counter.get_total_flops() / seconds / 1e9
    benchmark.row(
        str(setting.case), name, value=counter.get_total_flops() / setting.case.users / 1e6, unit="MFLOP a user"
    )
    share = 100 * rate / peak(setting.device, dtype)
    benchmark.row(str(setting.case), f"{name}: speed of one large product that it reaches", value=share, unit="%")


def main() -> None:
    """Measure every case and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    benchmark = Benchmark("decoding" if arguments.device == "cpu" else f"decoding-{arguments.device}")
    with torch.no_grad():
        for case in CASES if arguments.device == "cpu" else CASES + GPU_CASES:
            measure(benchmark, case, arguments.device, arguments.repeats)
    benchmark.save()


if __name__ == "__main__":
    main()
