"""Metrics of 25,000 users with 20 items each: ours, comparison of strings, and ranx.

- `decode + strings`: the evaluation of published generative recommenders written down afresh. A tokenizer turns the
  generated token ids into text; texts that name no item are pushed down, the list is sorted by score (scalars of a
  tensor), compared with the target's text, and hit and NDCG are summed for each cut-off.
- `strings`: the same from texts that are decoded already.
- `ranx`: per-user hit rate, NDCG and MRR, with the dictionaries that it reads built from the arrays.
- `sidrec`: places of the targets and hit, recall, NDCG and MRR at every cut-off, per user, ties by expectation.

All must give the same means, else the script fails.
"""

import math

import numpy as np
import torch
from ranx import Qrels, Run
from ranx import evaluate as ranx_evaluate
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import PreTrainedTokenizerFast

from harness import Benchmark, compare
from sidrec.evaluation.catalogue import catalogue_figures, list_defects
from sidrec.evaluation.ranking import collapse, find_target, metric_values
from tokenizers import Tokenizer

USERS, WIDTH, ITEMS, LEVELS, CODES = 25_000, 20, 12_000, 4, 256
K = (1, 5, 10, 20)
CASE = "25,000 users x 20 items, k = 1, 5, 10, 20"


def make_lists(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Random lists in which about a third of the users find their target."""
    draw = np.random.default_rng(seed)
    rows = draw.integers(0, ITEMS // WIDTH, (USERS, WIDTH)) * WIDTH + np.arange(WIDTH)  # no repeats in a list
    rows = np.take_along_axis(rows, np.argsort(draw.random(rows.shape), axis=1), axis=1).astype(np.int32)
    scores = -np.sort(draw.random((USERS, WIDTH)), axis=1).astype(np.float32) - np.arange(WIDTH, dtype=np.float32)
    chosen = rows[np.arange(USERS), draw.integers(0, WIDTH, USERS)]
    targets = np.where(draw.random(USERS) < 1 / 3, chosen, draw.integers(0, ITEMS, USERS)).astype(np.int32)
    return rows, scores, targets


def item_tokens(seed: int = 0) -> list[list[str]]:
    """The code tokens of every item, all different."""
    codes = np.random.default_rng(seed).integers(0, CODES, (ITEMS, LEVELS - 1)).tolist()
    return [
        [*(f"<{level}_{code}>" for level, code in zip("abc", line, strict=True)), f"<d_{row}>"]
        for row, line in enumerate(codes)
    ]


def make_tokenizer(items: list[list[str]]) -> PreTrainedTokenizerFast:
    """A tokenizer that knows the code tokens."""
    words = dict.fromkeys(token for tokens in items for token in tokens)
    vocabulary = {word: number for number, word in enumerate(["<unk>", *words])}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>")


def by_strings(generated: list[str], scores: torch.Tensor, targets: list[str], known: set[str]) -> dict[str, float]:
    """Means by comparison of texts; `generated` holds WIDTH texts a user, as a tokenizer decodes them."""
    results: list[list[int]] = []
    for user, target in enumerate(targets):
        first = user * WIDTH
        pairs = []
        for text, score in zip(generated[first : first + WIDTH], scores[first : first + WIDTH], strict=True):
            name = text.strip().replace(" ", "")
            pairs.append((name, score if name in known else -1000.0))
        pairs.sort(key=lambda pair: pair[1], reverse=True)
        results.append([int(name == target) for name, _ in pairs])
    means = {}
    for k in K:
        means[f"hit@{k}"] = sum(1 for hits in results if sum(hits[:k]) > 0) / len(results)
        means[f"ndcg@{k}"] = sum(
            sum(hit / math.log2(place + 2) for place, hit in enumerate(hits[:k])) for hits in results
        ) / len(results)
    return means


def by_ranx(rows: np.ndarray, scores: np.ndarray, targets: np.ndarray) -> dict[str, float]:
    """Means by ranx."""
    qrels = Qrels({str(user): {str(target): 1} for user, target in enumerate(targets.tolist())})
    lists = zip(rows.tolist(), scores.tolist(), strict=True)
    run = Run(
        {str(user): dict(zip(map(str, items), values, strict=True)) for user, (items, values) in enumerate(lists)}
    )
    names = {"hit_rate": "hit", "ndcg": "ndcg", "mrr": "mrr"}
    found = ranx_evaluate(qrels, run, [f"{name}@{k}" for name in names for k in K], threads=1)
    return {f"{names[name.split('@')[0]]}@{name.split('@')[1]}": float(value) for name, value in found.items()}


def by_sidrec(rows: np.ndarray, scores: np.ndarray, targets: np.ndarray) -> dict[str, float]:
    """Means by the library."""
    values = metric_values(find_target(rows, scores, targets), K)
    return {name: float(column.mean()) for name, column in values.items()}


def check_equal(ours: dict[str, float], theirs: dict[str, float], who: str) -> None:
    """Stop unless the other side's means are ours."""
    for name, value in theirs.items():
        if abs(value - ours[name]) > 1e-9:
            raise SystemExit(f"{who}: {name} is {value}, ours is {ours[name]}")


def main() -> None:
    """Measure and write the result."""
    rows, scores, targets = make_lists()
    items = item_tokens()
    tokenizer = make_tokenizer(items)
    ids = torch.tensor([tokenizer.convert_tokens_to_ids(tokens) for tokens in items])
    sequences = ids[torch.from_numpy(rows.ravel()).long()]
    generated = tokenizer.batch_decode(sequences)
    texts = ["".join(tokens) for tokens in items]
    flat_scores, target_texts, known = torch.from_numpy(scores.ravel()), [texts[row] for row in targets], set(texts)
    ours = by_sidrec(rows, scores, targets)
    variants = {
        "decode + strings": lambda: check_equal(
            ours, by_strings(tokenizer.batch_decode(sequences), flat_scores, target_texts, known), "decode + strings"
        ),
        "strings": lambda: check_equal(ours, by_strings(generated, flat_scores, target_texts, known), "strings"),
        "ranx": lambda: check_equal(ours, by_ranx(rows, scores, targets), "ranx"),
        "sidrec": lambda: check_equal(ours, by_sidrec(rows, scores, targets), "sidrec"),
    }
    benchmark = Benchmark("metrics")
    benchmark.timings(CASE, compare(variants, "decode + strings"), "decode + strings")
    group_of = np.random.default_rng(1).integers(0, ITEMS // 2, ITEMS)
    counts = np.random.default_rng(2).integers(0, 100, ITEMS)
    extras = {
        "SID level with collisions": lambda: metric_values(
            find_target(*collapse(rows, scores, group_of), group_of[targets]), K
        ),
        "coverage, Gini, novelty, defects": lambda: [
            (catalogue_figures(rows, counts, k), list_defects(rows, k)) for k in K
        ],
    }
    for variant, timing in compare(extras, next(iter(extras)), repeats=5).items():
        benchmark.row(CASE, f"sidrec, {variant}", value=timing.median_s, unit="s", spread=timing.spread)
        benchmark.row(CASE, f"sidrec, {variant}", value=timing.cpu_s, unit="CPU s")
    benchmark.save()


if __name__ == "__main__":
    main()
