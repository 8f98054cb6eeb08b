"""Training of TIGER and of the decoders: targets per CPU second, against a trainer with a tokenizing collator.

The baseline is written as LETTER's description has it: `transformers.Trainer`, whose collator tokenizes strings of
codes for every batch with a T5-like tokenizer of 32,100 text pieces and the codes behind them, and pads each random
batch to its longest history. Beside it the same padded batches in a bare loop, made from arrays: once with the same
vocabulary and once with the compact one of the codes alone, which tells what the vocabulary costs from what batches do.
Ours is the library's own training call: compact vocabulary, batches of similar length. All train every target once,
with the same settings of AdamW and, but for `sum` inputs and the decoders, the same T5 and batch size. Every ratio is
to the baseline in fp32; the baseline in bf16 is a row of its own.

Histories are synthetic, with the lengths of review data: five targets a user in the middle, a long tail, cut at twenty
items. The decoders learn the same targets, all of a user in one row; `--decoder-batch` rows hold about as many
targets as a batch of the others. "packed" is the same with these windows one behind the other in fewer rows. They are
other models than the T5, and smaller: each variant has a row that counts its weights outside of embedding tables.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import nn
from torch.utils.data import Dataset as TorchDataset
from transformers import (
    PreTrainedTokenizerFast,
    PrinterCallback,
    T5Config,
    T5ForConditionalGeneration,
    Trainer,
    TrainingArguments,
)

from harness import RESULTS, Benchmark, compare
from sidrec.config import RunSettings
from sidrec.data.catalog import Catalog
from sidrec.data.columns import Columns
from sidrec.data.dataset import Dataset, Examples, Split
from sidrec.data.sequences import Sequences
from sidrec.recommenders.decoder import Decoder
from sidrec.recommenders.generative import GenerativeRecommender
from sidrec.recommenders.item_decoder import ItemDecoder
from sidrec.recommenders.tiger import Tiger
from sidrec.tasks.next_item import ItemTokens, PrefixExamples
from sidrec.testing.toy import random_semantic_ids
from sidrec.tokenizers.semantic_ids import SemanticIds
from sidrec.tokenizers.vocabulary import CodeVocabulary
from sidrec.training.config import OptimizerConfig, TrainingConfig
from sidrec.training.isolation import silent_transformers
from tokenizers import Tokenizer, models, normalizers, processors

ITEMS, SIZES, BATCH, HISTORY = 9_922, (256,) * 4, 128, 20
TEXT_ROWS, TOKENIZER_LIMIT = 32_100, 512
PAD, END, UNKNOWN = 0, 1, 2
LR, DECAY, WARMUP = 5e-4, 0.01, 0.01
BASELINE = "Trainer, tokenizing collator, vocabulary 33,124"
SIZE: dict[str, Any] = {"d_model": 128, "d_kv": 64, "d_ff": 1024, "num_layers": 4, "num_heads": 6}


@dataclass(frozen=True)
class Variant:
    """One way to train.

    Attributes:
        epoch: learns every target once.
        num_weights: of the model, outside of embedding tables.
    """

    epoch: Callable[[], object]
    num_weights: int


def count_weights(model: nn.Module) -> int:
    """Weights outside of embedding tables; an output layer that is tied to a table is part of it."""
    tables = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    return sum(weight.numel() for weight in model.parameters() if id(weight) not in tables)


def make_dataset(num: int) -> Dataset:
    """Users whose training targets are `num` together; every position from the second on is one."""
    counts = np.random.default_rng(0).geometric(0.2, size=num)
    counts = counts[: int(np.searchsorted(np.cumsum(counts), num)) + 1]
    counts[-1] -= counts.sum() - num
    # One event before the first target, and two behind the last one for validation and test.
    lengths = counts + 3
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    rows = np.random.default_rng(1).integers(ITEMS, size=offsets[-1]).astype(np.int32)
    users = np.repeat(np.arange(len(counts)), counts)
    cuts = np.arange(num) - np.repeat(np.cumsum(counts) - counts, counts) + 1
    none = Examples(np.empty(0, np.int32), np.empty(0, np.int32))
    train = Examples(users.astype(np.int32), cuts.astype(np.int32))
    catalog = Catalog(pl.DataFrame({Columns.ITEM: [f"item-{row}" for row in range(ITEMS)]}))
    return Dataset(
        catalog, Sequences(rows, offsets, [str(user) for user in range(len(counts))]), Split("all", train, none, none)
    )


def item_strings(ids: SemanticIds) -> list[str]:
    """Each item as the text of its codes, `<a_12><b_0><c_255><d_7>`."""
    letters = "abcdefgh"
    return ["".join(f"<{letters[level]}_{code}>" for level, code in enumerate(codes)) for codes in ids.codes.tolist()]


def text_tokenizer(ids: SemanticIds) -> PreTrainedTokenizerFast:
    """A unigram tokenizer of as many pieces as T5's, with the codes added in the order of their text."""
    sentinels = [f"<extra_id_{number}>" for number in reversed(range(100))]
    words = [f"\u2581w{number:x}" for number in range(TEXT_ROWS - 3 - len(sentinels))]
    # Pieces of a real vocabulary have log-probabilities that fall with their rank.
    scores = [0.0] * 3 + [-float(np.log(rank + 10)) for rank in range(len(words))] + [0.0] * len(sentinels)
    pieces = ["<pad>", "</s>", "<unk>", *words, *sentinels]
    backend = Tokenizer(models.Unigram(list(zip(pieces, scores, strict=True)), unk_id=UNKNOWN))
    backend.normalizer = normalizers.NFKC()
    backend.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", END)])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        model_max_length=TOKENIZER_LIMIT,
    )
    codes = {f"<{'abcdefgh'[level]}_{code}>" for level, size in enumerate(ids.sizes) for code in range(size)}
    tokenizer.add_tokens(sorted(codes))
    assert len(tokenizer) == TEXT_ROWS + sum(ids.sizes)
    return tokenizer


class Strings(TorchDataset[dict[str, str]]):
    """Histories and targets as text, joined example by example."""

    def __init__(self, dataset: Dataset, items: list[str]) -> None:
        train = dataset.split.train
        self.histories = dataset.sequences.before(train.users, train.cuts, HISTORY)
        self.targets = dataset.sequences.targets(train.users, train.cuts)
        self.items = items

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> dict[str, str]:
        history = "".join(self.items[row] for row in self.histories[index])
        return {"input_ids": history, "labels": self.items[self.targets[index]]}


class TokenizingCollator:
    """Text → padded tokens, batch by batch."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        self.tokenizer = tokenizer

    def __call__(self, examples: list[dict[str, str]]) -> dict[str, Any]:
        settings: dict[str, Any] = {"return_tensors": "pt", "padding": "longest", "truncation": True}
        inputs = self.tokenizer([example["input_ids"] for example in examples], **settings)
        labels = self.tokenizer([example["labels"] for example in examples], **settings)["input_ids"]
        labels[labels == PAD] = -100
        return {"input_ids": inputs["input_ids"], "attention_mask": inputs["attention_mask"], "labels": labels}


def new_t5(vocab_size: int) -> T5ForConditionalGeneration:
    """The T5 of all rows but the decoders'."""
    torch.manual_seed(0)
    return T5ForConditionalGeneration(T5Config(vocab_size=vocab_size, decoder_start_token_id=PAD, **SIZE)).train()


def trainer(dataset: Dataset, ids: SemanticIds, bf16: bool = False) -> Variant:
    """The baseline: one epoch by transformers' own loop."""
    tokenizer = text_tokenizer(ids)
    strings, collator = Strings(dataset, item_strings(ids)), TokenizingCollator(tokenizer)

    def epoch() -> None:
        with TemporaryDirectory() as folder, silent_transformers():
            arguments = TrainingArguments(
                output_dir=folder, use_cpu=True, num_train_epochs=1, per_device_train_batch_size=BATCH,
                learning_rate=LR, weight_decay=DECAY, warmup_steps=WARMUP, lr_scheduler_type="cosine",
                save_strategy="no", report_to="none", logging_strategy="no", disable_tqdm=True,
                bf16=bf16,
            )  # fmt: skip
            loop = Trainer(new_t5(len(tokenizer)), arguments, train_dataset=strings, data_collator=collator)
            loop.remove_callback(PrinterCallback)
            loop.train()

    return Variant(epoch, count_weights(new_t5(len(tokenizer))))


def bare_loop(dataset: Dataset, ids: SemanticIds, is_compact: bool) -> Variant:
    """Random batches padded to their longest history, from arrays, in a few lines.

    The vocabulary is that of the codes alone, or the text's with the codes behind it.
    """
    recommender = Tiger()
    recommender.semantic_ids = ids
    words = recommender.vocabulary
    num_text = 0 if is_compact else TEXT_ROWS - words.NUM_SPECIAL
    vocab_size = num_text + len(words)
    table = words.tokens(ids.codes).astype(np.int64) + num_text
    items = ItemTokens(table, words.PAD, words.EOS, words.BOS)
    examples = PrefixExamples(dataset.sequences, dataset.split.train, items, HISTORY)

    def epoch() -> None:
        model = new_t5(vocab_size)
        optimizer = torch.optim.AdamW(model.parameters(), lr=LR, weight_decay=DECAY)
        order = np.random.default_rng(1).permutation(len(examples))
        for start in range(0, len(order), BATCH):
            model(**examples.collate(order[start : start + BATCH])).loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()

    return Variant(epoch, count_weights(new_t5(vocab_size)))


def ours(
    recommender: GenerativeRecommender, dataset: Dataset, ids: SemanticIds, precision: Any, batch: int = BATCH
) -> Variant:
    """One epoch by the library's own training call."""
    optimizer = OptimizerConfig(lr=LR, weight_decay=DECAY, warmup_ratio=WARMUP)
    training = TrainingConfig(max_epochs=1, batch_size=batch, precision=precision, patience=0, optimizer=optimizer)
    recommender.semantic_ids = ids
    num_weights = count_weights(recommender.new_model(recommender.vocabulary))
    return Variant(lambda: recommender.fit(dataset, training, RunSettings(device="cpu"), semantic_ids=ids), num_weights)


def main() -> None:
    """Measure and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--examples", type=int, default=1_024, help="targets, each learnt once")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--decoder-batch", type=int, default=26, help="users in a batch of the decoder")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the result file")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    dataset = make_dataset(arguments.examples)
    ids = random_semantic_ids(dataset.catalog, SIZES)
    summed = Tiger(max_history=HISTORY, item_inputs="sum")
    packed = Decoder(max_history=HISTORY, packed=True)
    batch, compact = arguments.decoder_batch, f"{sum(SIZES) + CodeVocabulary.NUM_SPECIAL:,}"
    variants = {
        BASELINE: trainer(dataset, ids),
        f"{BASELINE}, bf16": trainer(dataset, ids, bf16=True),
        "bare loop, padded random batches from arrays, same vocabulary": bare_loop(dataset, ids, is_compact=False),
        f"bare loop, padded random batches from arrays, vocabulary {compact}": bare_loop(dataset, ids, is_compact=True),
        "ours": ours(Tiger(max_history=HISTORY), dataset, ids, "fp32"),
        "ours, bf16": ours(Tiger(max_history=HISTORY), dataset, ids, "bf16"),
        "ours, item_inputs: sum": ours(summed, dataset, ids, "fp32"),
        "ours, item_inputs: sum, bf16": ours(summed, dataset, ids, "bf16"),
        "decoder": ours(Decoder(max_history=HISTORY), dataset, ids, "fp32", batch),
        "decoder, bf16": ours(Decoder(max_history=HISTORY), dataset, ids, "bf16", batch),
        "decoder, packed": ours(packed, dataset, ids, "fp32", batch),
        "decoder, packed, bf16": ours(packed, dataset, ids, "bf16", batch),
        "item-decoder": ours(ItemDecoder(max_history=HISTORY), dataset, ids, "fp32", batch),
        "item-decoder, bf16": ours(ItemDecoder(max_history=HISTORY), dataset, ids, "bf16", batch),
    }
    epochs = {name: variant.epoch for name, variant in variants.items()}
    found = compare(epochs, BASELINE, arguments.repeats, warmup=0)
    users = len(np.unique(dataset.split.train.users))
    case = f"T5 4+4 layers, d 128, batch {BATCH}, {arguments.examples:,} targets of {users} users"
    benchmark = Benchmark("training")
    for variant, timing in found.items():
        ratio, speed = found[BASELINE].cpu_s / timing.cpu_s, arguments.examples / timing.cpu_s
        benchmark.row(case, variant, BASELINE, speed, "targets per CPU second", ratio, timing.spread)
        benchmark.row(case, variant, value=variants[variant].num_weights, unit="weights outside of embedding tables")
    benchmark.save(arguments.results)


if __name__ == "__main__":
    main()
