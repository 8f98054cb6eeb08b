"""Users per CPU second by the number of users a batch, and what batches of similar length give.

One T5 of TIGER's size with random weights (which change no cost), an index of 9,922 items with 4 levels of
256 codes, 20 beams, 2,048 users with 1 to 20 items of history (about 7 on average), one thread. "auto" begins with
8 users and tunes by wall-clock time, so it is measured with its climb and with whatever else the machine does.
"unsorted" cuts the users into batches in the order in which they came.
"""

import argparse
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from transformers import T5Config, T5ForConditionalGeneration

from harness import Benchmark, compare
from sidrec.config import RunSettings
from sidrec.data.sequences import Histories
from sidrec.decoding.beam import beam_search
from sidrec.decoding.recommendations import BeamConfig, Recommendations, Request
from sidrec.decoding.trie import ItemTrie
from sidrec.recommenders.encoder_decoder_scorer import EncoderDecoderScorer
from sidrec.tasks.next_item import ItemTokens
from sidrec.tokenizers.vocabulary import CodeVocabulary

ITEMS, LEVELS, CODES, BEAMS, USERS, LONGEST = 9_922, 4, 256, 20, 2_048, 20
SIZES = (8, 16, 32, 64, 128)
BASELINE = "32 users a batch"


def ragged(draw: np.random.Generator) -> Histories:
    """Short histories are many, long ones few; none is longer than `LONGEST`."""
    lengths = draw.geometric(0.13, size=USERS).clip(1, LONGEST)
    return Histories.of(draw.integers(ITEMS, size=length) for length in lengths)


def searcher() -> Callable[[Histories, Any], Recommendations]:
    """Searches histories with some number of users a batch."""
    draw = np.random.default_rng(0)
    codes = draw.permutation(np.unique(draw.integers(CODES, size=(ITEMS + 100, LEVELS)), axis=0))[:ITEMS]
    words = CodeVocabulary((CODES,) * LEVELS)
    items = ItemTokens(words.tokens(codes), words.PAD, words.EOS, words.BOS)
    fields: dict[str, Any] = {"decoder_start_token_id": words.PAD}
    torch.manual_seed(0)
    model = T5ForConditionalGeneration(
        T5Config(vocab_size=len(words), d_model=128, d_kv=64, d_ff=1024, num_layers=4, num_heads=6, **fields)
    ).eval()
    levels = [torch.arange(*words.level_range(level)) for level in range(LEVELS)]
    scorer = EncoderDecoderScorer(model, levels, lambda histories: items.prompts(histories, end=True))
    trie, request = ItemTrie.build(codes.astype(np.int32), words.sizes), Request(k=BEAMS)

    def search(histories: Histories, users_per_batch: Any) -> Recommendations:
        config = BeamConfig(beams=BEAMS, users_per_batch=users_per_batch)
        return beam_search(scorer, trie, histories, request, config, RunSettings(device="cpu"))

    return search


def unsorted(search: Callable[[Histories, Any], Recommendations], histories: Histories, size: int) -> Recommendations:
    """The same lists, batch after batch in the order of the users."""
    batches = [histories.take(slice(first, first + size)) for first in range(0, USERS, size)]
    return Recommendations.concatenate([search(batch, size) for batch in batches])


def main() -> None:
    """Measure every size and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    repeats = parser.parse_args().repeats
    torch.set_num_threads(1)
    search, histories = searcher(), ragged(np.random.default_rng(1))
    variants: dict[str, Callable[[], Recommendations]] = {
        f"{size} users a batch": lambda size=size: search(histories, size) for size in SIZES
    }
    variants["auto"] = lambda: search(histories, "auto")
    variants["32 users a batch, unsorted"] = lambda: unsorted(search, histories, 32)
    expected = variants[BASELINE]()
    for name, run in variants.items():
        difference = np.abs(run().scores - expected.scores).max()
        if difference > 1e-3:
            raise SystemExit(f"{name}: scores differ by {difference}")
    benchmark = Benchmark("batching")
    case = f"T5 of TIGER's size, {histories.lengths.mean():.1f} items a history"
    found = compare(variants, BASELINE, repeats, warmup=0)
    for name, timing in found.items():
        ratio = found[BASELINE].cpu_s / timing.cpu_s
        benchmark.row(case, name, BASELINE, USERS / timing.cpu_s, "users per CPU second", ratio, timing.spread)
    benchmark.save()


if __name__ == "__main__":
    main()
