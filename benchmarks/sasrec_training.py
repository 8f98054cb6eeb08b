"""Training targets a CPU second: one padded row a prefix, or all positions of a sequence at once.

The baseline is our own transcription of how RecBole trains SASRec: every prefix is a row of its own, filled up
to 50 items, and only its last position is learnt from. Ours learns from every position in one pass and batches
windows of similar length. Same network, same objective over all items, same optimizer, about as many targets
in a step. Both include making the batches.
"""

from collections.abc import Callable, Iterator

import numpy as np
import polars as pl
import torch

from harness import Benchmark, compare
from sidrec.data.catalog import Catalog
from sidrec.data.dataset import Dataset, Examples, Split
from sidrec.data.sequences import Sequences
from sidrec.random import generator
from sidrec.recommenders.sasrec_model import SASRecExamples, SASRecModel, SASRecModelConfig
from sidrec.tasks.windows import Windows
from sidrec.training.batches import LengthBuckets
from sidrec.training.objectives import IGNORE

NUM_ITEMS, MAX_HISTORY, TARGETS = 12_000, 50, 256
STEPS = 4
CASES = {"short sequences (mean 9, as Amazon Beauty)": 9, "long sequences (mean 100, as ml-100k)": 100}


def generated(mean_length: int, num_users: int = 3_000) -> Dataset:
    """Users with at least 5 events, geometric lengths and items of Zipf popularity; leave-one-out."""
    draw = generator(0, "benchmark", str(mean_length))
    lengths = 5 + draw.geometric(1 / (mean_length - 4), size=num_users) - 1
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    rows = np.minimum(draw.zipf(1.2, size=offsets[-1]) - 1, NUM_ITEMS - 1).astype(np.int32)
    catalog = Catalog(pl.DataFrame({"item_id": [str(row) for row in range(NUM_ITEMS)]}))
    sequences = Sequences(rows, offsets, [str(user) for user in range(num_users)])
    users = np.arange(num_users, dtype=np.int32)
    num = lengths - 3
    cuts = 1 + np.arange(num.sum()) - np.repeat(np.cumsum(num) - num, num)
    train = Examples(np.repeat(users, num), cuts.astype(np.int32))
    held = [Examples(users, (lengths - place).astype(np.int32)) for place in (2, 1)]
    return Dataset(catalog, sequences, Split("leave-one-out", train, *held))


def prefix_batches(dataset: Dataset) -> Iterator[dict[str, torch.Tensor]]:
    """One row a training pair, filled up to 50 items, labelled at its last item only."""
    train = dataset.split.train
    targets = torch.from_numpy(dataset.targets("train").astype(np.int64))
    order = generator(0, "prefixes").permutation(len(train))
    for start in range(0, len(order), TARGETS):
        pairs = order[start : start + TARGETS]
        prefixes = dataset.sequences.before(train.users[pairs], train.cuts[pairs], MAX_HISTORY)
        inputs = torch.from_numpy(prefixes.padded(fill=0, width=MAX_HISTORY).astype(np.int64))
        labels = torch.full(inputs.shape, IGNORE)
        labels[torch.arange(len(pairs)), torch.from_numpy(prefixes.lengths - 1)] = targets[pairs]
        yield {"input_ids": inputs, "labels": labels}


def window_batches(dataset: Dataset) -> Iterator[dict[str, torch.Tensor]]:
    """Windows of all positions, similar lengths together."""
    examples = SASRecExamples(Windows.of(dataset.sequences, dataset.split.train, MAX_HISTORY))
    size = max(1, round(TARGETS * len(examples) / len(dataset.split.train)))
    for positions in LengthBuckets(examples.lengths, size, size, seed=0):
        yield examples.collate(np.asarray(positions))


def trainer_of(batches: Callable[[Dataset], Iterator[dict[str, torch.Tensor]]], dataset: Dataset, steps: int):
    """Work that takes optimizer steps on a fresh network, and the list to which it adds its targets."""
    learnt: list[int] = []

    def work() -> None:
        torch.manual_seed(0)
        model = SASRecModel(SASRecModelConfig(num_items=NUM_ITEMS, max_history=MAX_HISTORY)).train()
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
        count = 0
        for _, batch in zip(range(steps), batches(dataset), strict=False):
            optimizer.zero_grad()
            model(**batch).loss.backward()
            optimizer.step()
            count += int((batch["labels"] != IGNORE).sum())
        learnt.append(count)

    return work, learnt


def main() -> None:
    benchmark = Benchmark("sasrec_training")
    baseline, ours = "one row a prefix, padded to 50", "all positions, length buckets"
    for case, mean_length in CASES.items():
        dataset = generated(mean_length)
        # Ours is so much faster that it takes more steps to be measured as well.
        slow, slow_targets = trainer_of(prefix_batches, dataset, STEPS)
        fast, fast_targets = trainer_of(window_batches, dataset, 5 * STEPS)
        found = compare({baseline: slow, ours: fast}, baseline, repeats=3)
        rates = {baseline: slow_targets[-1] / found[baseline].cpu_s, ours: fast_targets[-1] / found[ours].cpu_s}
        for variant, rate in rates.items():
            ratio = rate / rates[baseline]
            benchmark.row(case, variant, baseline, rate, "targets / CPU s", ratio, found[variant].spread)
    benchmark.save()


if __name__ == "__main__":
    main()
