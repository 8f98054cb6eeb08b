"""TIGER training: samples per CPU second, ours against padded random batches with a text vocabulary.

The baseline is what papers train: random batches padded to their longest history, a vocabulary of
32,000 text pieces in front of the codes, in a bare loop that costs nothing else. Ours is the library's
own training call: compact vocabulary, batches of similar length. Both see every example once, with
the same model, dropout and optimizer. Histories are synthetic, with the lengths of review data: five
items in the middle, a long tail, cut at twenty.
"""

import argparse
from collections.abc import Callable
from typing import Any

import numpy as np
import polars as pl
import torch
from transformers import T5Config, T5ForConditionalGeneration

from harness import Benchmark, compare
from sidrec.config import RunSettings
from sidrec.data.catalog import Catalog
from sidrec.data.columns import Columns
from sidrec.data.dataset import Dataset, Examples, Split
from sidrec.data.sequences import Sequences
from sidrec.recommenders.tiger import Tiger
from sidrec.tasks.next_item import ItemTokens, PrefixExamples
from sidrec.testing.toy import random_semantic_ids
from sidrec.training.config import TrainingConfig

ITEMS, SIZES, BATCH, EXAMPLES, HISTORY = 9_922, (256,) * 4, 128, 1_024, 20
TEXT_ROWS = 32_000
BASELINE = "padded random batches, vocabulary 33,027"
CASE = f"T5 4+4 layers, d 128, batch {BATCH}, {EXAMPLES:,} examples"


def make_dataset() -> Dataset:
    """Users with 5 or more items; every position from the second on is a training target."""
    draw = np.random.default_rng(0)
    lengths = 3 + draw.geometric(0.2, size=EXAMPLES)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    rows = draw.integers(ITEMS, size=offsets[-1]).astype(np.int32)
    users = np.repeat(np.arange(EXAMPLES), lengths - 3)
    cuts = np.arange(len(users)) - np.repeat(np.cumsum(lengths - 3) - (lengths - 3), lengths - 3) + 1
    chosen = np.sort(draw.permutation(len(users))[:EXAMPLES])
    none = Examples(np.empty(0, np.int32), np.empty(0, np.int32))
    train = Examples(users[chosen].astype(np.int32), cuts[chosen].astype(np.int32))
    catalog = Catalog(pl.DataFrame({Columns.ITEM: [f"item-{row}" for row in range(ITEMS)]}))
    sequences = Sequences(rows, offsets, [str(user) for user in range(EXAMPLES)])
    return Dataset(catalog, sequences, Split("all", train, none, none))


def padded(dataset: Dataset, ids: Any) -> Callable[[], None]:
    """The baseline: one epoch of random batches."""
    recommender = Tiger()
    recommender.semantic_ids = ids
    words = recommender.vocabulary
    table = words.tokens(ids.codes).astype(np.int64) + TEXT_ROWS
    items = ItemTokens(table, words.PAD, words.EOS, words.BOS)
    examples = PrefixExamples(dataset.sequences, dataset.split.train, items, HISTORY)
    fields: dict[str, Any] = {"decoder_start_token_id": 0, "vocab_size": len(words) + TEXT_ROWS}
    torch.manual_seed(0)
    model = T5ForConditionalGeneration(
        T5Config(d_model=128, d_kv=64, d_ff=1024, num_layers=4, num_heads=6, dropout_rate=0.1, **fields)
    ).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.01)

    def epoch() -> None:
        order = np.random.default_rng(1).permutation(len(examples))
        for start in range(0, len(order), BATCH):
            loss = model(**examples.collate(order[start : start + BATCH])).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()

    return epoch


def ours(dataset: Dataset, ids: Any, precision: Any) -> Callable[[], None]:
    """One epoch by the library's own training call."""
    training = TrainingConfig(max_epochs=1, batch_size=BATCH, precision=precision, patience=0)
    run = RunSettings(device="cpu")
    return lambda: Tiger(max_history=HISTORY).fit(dataset, training, run, semantic_ids=ids) and None


def main() -> None:
    """Measure and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    repeats = parser.parse_args().repeats
    torch.set_num_threads(1)
    dataset = make_dataset()
    ids = random_semantic_ids(dataset.catalog, SIZES)
    variants = {
        BASELINE: padded(dataset, ids),
        "ours": ours(dataset, ids, "fp32"),
        "ours, bf16": ours(dataset, ids, "bf16"),
    }
    found = compare(variants, BASELINE, repeats, warmup=0)
    benchmark = Benchmark("tiger_training")
    for variant, timing in found.items():
        ratio = found[BASELINE].cpu_s / timing.cpu_s
        benchmark.row(CASE, variant, BASELINE, EXAMPLES / timing.cpu_s, "samples per CPU second", ratio, timing.spread)
    benchmark.save()


if __name__ == "__main__":
    main()
