"""Training targets a CPU second and scoring of a whole test part, beside RecBole's SASRec.

    pip install --no-deps recbole==1.2.1 colorlog==4.7.2 colorama texttable thop tensorboard
    python benchmarks/sasrec.py

RecBole 1.2.1 (its own network and its own cross-entropy over all items) makes every prefix a row of 50 positions, of
which only the last is learnt from. Ours learns from every position in one pass and batches windows of similar
length. Both are post-norm with dropout in attention and feed-forward, 64 wide, two layers of two heads, and learn the
same targets, 2,048 or about as many in a step of Adam; making the batches counts. The one difference: RecBole
normalises the inputs of the first layer, ours the outputs of the last. The third variant is our network fed with one
row a prefix, which tells the share of the layout from that of the layers. Without RecBole its rows are left out.
"""

import importlib.util
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import nn

from harness import Benchmark, compare, measure
from sidrec.config import RunSettings
from sidrec.data.catalog import Catalog
from sidrec.data.dataset import Dataset, Examples, Split
from sidrec.data.sequences import Sequences
from sidrec.evaluation.evaluator import evaluate
from sidrec.evaluation.protocol import Protocol
from sidrec.random import generator
from sidrec.recommenders.sasrec import SASRec
from sidrec.recommenders.sasrec_model import SASRecExamples, SASRecModel, SASRecModelConfig
from sidrec.tasks.windows import Windows
from sidrec.training.batches import LengthBuckets
from sidrec.training.objectives import IGNORE

NUM_ITEMS, MAX_HISTORY, TARGETS, USERS = 12_000, 50, 2048, 22_000
SIZES = {"hidden_size": 64, "num_layers": 2, "num_heads": 2, "dropout": 0.5}
THEIRS, PREFIXES, OURS = "RecBole 1.2.1", "ours, one row a prefix, padded to 50", "ours, all positions, length buckets"
STEPS = {THEIRS: 2, PREFIXES: 2, OURS: 10}
"""The last is so much faster that it takes more steps to be measured as well."""
CASES = {"short sequences (mean 9, as Amazon Beauty)": 9, "long sequences (mean 100, as ml-100k)": 100}

Batch = dict[str, torch.Tensor]


def generated(mean_length: int, num_users: int = USERS) -> Dataset:
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


def prefix_batches(dataset: Dataset) -> Iterator[Batch]:
    """One row a training pair, filled up to 50 items, labelled at its last item only."""
    train = dataset.split.train
    targets = torch.from_numpy(dataset.targets("train").astype(np.int64))
    order = generator(0, "prefixes").permutation(len(train))
    for start in range(0, len(order), TARGETS):
        pairs = order[start : start + TARGETS]
        prefixes = dataset.sequences.before(train.users[pairs], train.cuts[pairs], MAX_HISTORY)
        filled = prefixes.padded(fill=0)
        inputs = torch.from_numpy(np.pad(filled, ((0, 0), (0, MAX_HISTORY - filled.shape[1]))).astype(np.int64))
        labels = torch.full(inputs.shape, IGNORE)
        labels[torch.arange(len(pairs)), torch.from_numpy(prefixes.lengths - 1)] = targets[pairs]
        yield {"input_ids": inputs, "labels": labels}


def window_batches(dataset: Dataset) -> Iterator[Batch]:
    """Windows of all positions, similar lengths together."""
    examples = SASRecExamples(Windows.of(dataset.sequences, dataset.split.train, MAX_HISTORY))
    size = max(1, round(TARGETS * len(examples) / len(dataset.split.train)))
    for positions in LengthBuckets(examples.lengths, size, size, seed=0):
        yield examples.collate(np.asarray(positions))


def recbole_network() -> nn.Module:
    """RecBole's SASRec, with the settings of its own configuration files but dropout as here."""
    from recbole.model.sequential_recommender.sasrec import SASRec as Theirs  # pyright: ignore

    config: dict[str, Any] = {
        "USER_ID_FIELD": "user",
        "ITEM_ID_FIELD": "item",
        "LIST_SUFFIX": "_list",
        "ITEM_LIST_LENGTH_FIELD": "length",
        "NEG_PREFIX": "neg_",
        "MAX_ITEM_LIST_LENGTH": MAX_HISTORY,
        "device": torch.device("cpu"),
        "n_layers": SIZES["num_layers"],
        "n_heads": SIZES["num_heads"],
        "hidden_size": SIZES["hidden_size"],
        "inner_size": 4 * SIZES["hidden_size"],
        "hidden_dropout_prob": SIZES["dropout"],
        "attn_dropout_prob": SIZES["dropout"],
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-12,
        "initializer_range": 0.02,
        "loss_type": "CE",
    }
    return Theirs(config, SimpleNamespace(num=lambda _: NUM_ITEMS + 1))


def recbole_loss(model: Any, batch: Batch) -> torch.Tensor:
    """Its loss of a batch of prefixes; row 0 is padding there."""
    learnt = batch["labels"] != IGNORE
    lengths = learnt.int().argmax(dim=1) + 1
    inside = torch.arange(MAX_HISTORY) < lengths[:, None]
    items = (batch["input_ids"] + 1) * inside
    return model.calculate_loss({"item_list": items, "length": lengths, "item": batch["labels"][learnt] + 1})


def own_network() -> nn.Module:
    """Ours, laid out as theirs."""
    slots = {"norm_place": "post", "scale_inputs": False}
    return SASRecModel(SASRecModelConfig(num_items=NUM_ITEMS, max_history=MAX_HISTORY, **SIZES, **slots))


def own_loss(model: Any, batch: Batch) -> torch.Tensor:
    """The mean cross-entropy of the batch's targets."""
    return model(**batch).loss


Variant = tuple[Callable[[], nn.Module], Callable[[Any, Batch], torch.Tensor], Callable[[Dataset], Iterator[Batch]]]
VARIANTS: dict[str, Variant] = {
    THEIRS: (recbole_network, recbole_loss, prefix_batches),
    PREFIXES: (own_network, own_loss, prefix_batches),
    OURS: (own_network, own_loss, window_batches),
}


def trainer_of(variant: Variant, dataset: Dataset, steps: int) -> tuple[Callable[[], None], list[int]]:
    """Work that takes optimizer steps on a fresh network, and the list to which it adds its targets."""
    network, loss_of, batches = variant
    learnt: list[int] = []

    def work() -> None:
        torch.manual_seed(0)
        model = network().train()
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)
        count = 0
        for _, batch in zip(range(steps), batches(dataset), strict=False):
            optimizer.zero_grad()
            loss_of(model, batch).backward()
            optimizer.step()
            count += int((batch["labels"] != IGNORE).sum())
        learnt.append(count)

    return work, learnt


def training(benchmark: Benchmark) -> None:
    """Targets a CPU second of all variants, in turns."""
    has_recbole = importlib.util.find_spec("recbole") is not None
    if not has_recbole:
        print("RecBole is not installed; its rows are left out")
    names = [name for name in VARIANTS if has_recbole or name != THEIRS]
    for case, mean_length in CASES.items():
        dataset = generated(mean_length)
        made = {name: trainer_of(VARIANTS[name], dataset, STEPS[name]) for name in names}
        found = compare({name: work for name, (work, _) in made.items()}, names[0], repeats=3)
        rates = {name: made[name][1][-1] / found[name].cpu_s for name in names}
        for name, rate in rates.items():
            ratio = rate / rates[names[0]]
            benchmark.row(f"training, {case}", name, names[0], rate, "targets / CPU s", ratio, found[name].spread)


def scoring(benchmark: Benchmark) -> None:
    """Seconds to rank all items for every test user and score the lists."""
    dataset = generated(9)
    recommender = SASRec(SASRec.Config(**SIZES))
    recommender.catalog = dataset.catalog
    torch.manual_seed(0)
    recommender.model = SASRecModel(SASRecModelConfig(num_items=NUM_ITEMS, max_history=MAX_HISTORY, **SIZES)).eval()
    taken = measure(lambda: evaluate(recommender, dataset, "test", Protocol(), RunSettings(device="cpu")))
    case = f"evaluation, {USERS:,} users, {NUM_ITEMS:,} items, top 20"
    benchmark.row(case, "ours", value=taken.median_s, unit="s", spread=taken.spread)
    benchmark.row(case, "ours", value=taken.cpu_s, unit="CPU s")


def main() -> None:
    """Measure, and write `results/sasrec.json`."""
    torch.set_num_threads(1)
    benchmark = Benchmark("sasrec")
    training(benchmark)
    scoring(benchmark)
    benchmark.save()


if __name__ == "__main__":
    main()
