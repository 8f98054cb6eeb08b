"""The catalogue constraint alone: the trie, its memory and file, lists of items, a search whose model costs nothing.

Baselines, as research code commonly has them: a nested dictionary of Python, and a beam search under
transformers' `PrefixConstrainedLogitsProcessor`, which asks a prefix function for every beam and masks
the whole vocabulary. As in `generate`, it holds one row a beam from the first step on; cache and
scores that `generate` also moves are left out. Both sides search the same random log-probabilities.
Ratios are of CPU seconds, one thread. Left out: models.

Where no two items share their codes, the lists of both searches are first checked to be equal. Allow-lists
stand beside a trie built anew of the allowed items, which is the other way to keep a search to them.
"""

import gc
import tempfile
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor
from transformers import PrefixConstrainedLogitsProcessor

from harness import Benchmark, Timing, compare
from sidrec.config import RunSettings
from sidrec.data.sequences import Histories
from sidrec.decoding.beam import beam_search
from sidrec.decoding.filters import Filters, TrieMasks
from sidrec.decoding.recommendations import BeamConfig, Recommendations, Request
from sidrec.decoding.trie import ItemTrie

SIZES = (256, 256, 256, 256)
CATALOGUES = (10_000, 100_000, 1_000_000)
HUGE = 10_000_000
USERS, BEAMS, BATCH, HISTORY = 128, 20, 32, 20
SPECIALS = 2
VOCABULARY = sum(SIZES) + SPECIALS
OFFSETS = np.cumsum([0, *SIZES[:-1]]) + SPECIALS
RUN = RunSettings(device="cpu")
PREFIX_FUNCTION = "transformers, prefix function"


@dataclass
class Prepared:
    """A scorer that hands out log-probabilities drawn beforehand; also its own state."""

    levels: list[Tensor]
    level_sizes: tuple[int, ...] = SIZES
    has_end: bool = False

    @classmethod
    def draw(cls, users: int, seed: int = 0) -> Self:
        random = torch.Generator().manual_seed(seed)
        widths = [1, *[BEAMS] * (len(SIZES) - 1)]
        shapes = [(users, width, size) for width, size in zip(widths, SIZES, strict=True)]
        return cls([torch.randn(shape, generator=random).log_softmax(-1) for shape in shapes])

    def start(self, histories: Histories) -> Self:
        return self

    def select(self, users: Tensor) -> Self:
        return self

    def step(self, state: Any, level: int, parents_UW: Tensor | None, codes_UW: Tensor | None) -> Tensor:
        return self.levels[level]


def random_codes(num_items: int, sizes: tuple[int, ...] = SIZES) -> np.ndarray:
    draw = np.random.default_rng(0)
    return np.stack([draw.integers(size, size=num_items, dtype=np.int32) for size in sizes], axis=1)


def dictionary_trie(codes: np.ndarray) -> dict[int, Any]:
    """Nested dictionaries over token ids; a leaf lists its rows."""
    root: dict[int, Any] = {}
    for row, tokens in enumerate((codes + OFFSETS).tolist()):
        node = root
        for token in tokens[:-1]:
            node = node.setdefault(token, {})
        node.setdefault(tokens[-1], []).append(row)
    return root


def prefix_search(root: dict[int, Any], vocabulary_logps: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Beam search with a prefix function: tokens int64[U, W, L] and scores float32[U, W]."""

    def allowed(_: int, prefix: Tensor) -> list[int]:
        node = root
        for token in prefix.tolist():
            node = node[token]
        return list(node)

    users = vocabulary_logps[0].shape[0]
    tokens, scores = torch.empty(users, BEAMS, 0, dtype=torch.long), torch.full((users, BEAMS), -1e9)
    scores[:, 0] = 0
    for level_logps in vocabulary_logps:
        logps = level_logps.expand(-1, BEAMS, -1)
        constrain = PrefixConstrainedLogitsProcessor(allowed, num_beams=logps.shape[1])
        masked = constrain(tokens.flatten(0, 1), logps.flatten(0, 1)).view_as(logps)
        total = (scores[..., None] + masked).flatten(1)
        # Beams in the order of their tokens, as ours: the prepared numbers belong to places.
        index = total.topk(BEAMS, dim=1).indices.sort(dim=1).values
        scores = total.gather(1, index)
        parents = (index // VOCABULARY)[..., None].expand(-1, -1, tokens.shape[2])
        tokens = torch.cat([tokens.gather(1, parents), (index % VOCABULARY)[..., None]], dim=2)
    return tokens, scores


def over_vocabulary(scorer: Prepared) -> list[Tensor]:
    """The scorer's numbers spread over one vocabulary, everything else impossible."""
    spread = []
    for level, logps in enumerate(scorer.levels):
        full = torch.full((*logps.shape[:2], VOCABULARY), -torch.inf)
        full[..., OFFSETS[level] : OFFSETS[level] + SIZES[level]] = logps
        spread.append(full)
    return spread


def free_mask_search(vocabulary_logps: list[Tensor]) -> None:
    """The same search without any constraint: what top-k over the vocabulary costs alone."""
    scores = torch.zeros(vocabulary_logps[0].shape[0], 1)
    for logps in vocabulary_logps:
        scores = (scores[..., None] + logps).flatten(1).topk(BEAMS, dim=1).values


def memory_of(build: Callable[[], object]) -> tuple[float, float]:
    """Megabytes that a built object holds, and the most that were held on the way, by Python's allocator trace."""
    gc.collect()
    tracemalloc.start()
    built = build()
    held, peak = (size / 1e6 for size in tracemalloc.get_traced_memory())
    tracemalloc.stop()
    del built
    return held, peak


def check_equal(found: Recommendations, codes: np.ndarray, tokens: Tensor, scores: Tensor) -> None:
    """Stop unless both searches found the same codes with the same scores."""
    best = scores.argsort(dim=1, descending=True)
    theirs = tokens.gather(1, best[..., None].expand_as(tokens)).numpy()
    same = np.allclose(found.scores, scores.gather(1, best), atol=1e-5)
    if not same or (codes[found.rows] + OFFSETS != theirs).any():
        raise SystemExit("the baseline and the search disagree: the comparison would mean nothing")


def build_rows(benchmark: Benchmark, case: str, codes: np.ndarray) -> None:
    variants = {"nested dict": lambda: dictionary_trie(codes), "sidrec": lambda: ItemTrie.build(codes, SIZES)}
    repeats = 3 if len(codes) < 500_000 else 1
    benchmark.timings(f"build, {case}", compare(variants, "nested dict", repeats, warmup=repeats // 3), "nested dict")
    held = {name: memory_of(build)[0] for name, build in variants.items()}
    for name, megabytes in held.items():
        benchmark.row(
            f"memory, {case}", name, "nested dict", value=megabytes, unit="MB", ratio=held["nested dict"] / megabytes
        )


def search_rows(benchmark: Benchmark, case: str, codes: np.ndarray) -> None:
    scorer, trie, root = Prepared.draw(BATCH), ItemTrie.build(codes, SIZES), dictionary_trie(codes)
    spread = over_vocabulary(scorer)
    draw = np.random.default_rng(1)
    histories = Histories.of(draw.integers(len(codes), size=(USERS, HISTORY)))
    config = BeamConfig(beams=BEAMS, users_per_batch=BATCH)
    batches = range(USERS // BATCH)

    def ours(exclude_seen: bool) -> Recommendations:
        return beam_search(scorer, trie, histories, Request(k=BEAMS, exclude_seen=exclude_seen), config, RUN)

    unique = len(trie.rows) == trie.num_nodes[-1]
    if unique:
        found = ours(False)
        first = Recommendations(found.rows[:BATCH], found.scores[:BATCH], found.exact[:BATCH])
        check_equal(first, codes, *prefix_search(root, spread))
    variants = {
        PREFIX_FUNCTION: lambda: [prefix_search(root, spread) for _ in batches],
        "top-k without constraint": lambda: [free_mask_search(spread) for _ in batches],
        "sidrec": lambda: ours(False),
        "sidrec, seen items excluded": lambda: ours(True),
    }
    taken = compare(variants, PREFIX_FUNCTION, repeats=5)
    base: Timing = taken[PREFIX_FUNCTION]
    for name, timing in taken.items():
        benchmark.row(
            f"constraint, {case}",
            name,
            PREFIX_FUNCTION,
            value=timing.cpu_s / USERS * 1e3,
            unit="CPU ms/user",
            ratio=base.cpu_s / timing.cpu_s,
            spread=timing.spread,
        )


def file_rows(benchmark: Benchmark, case: str, trie: ItemTrie, codes: np.ndarray) -> None:
    """The file against building anew; loading ends when the first path was looked up."""
    paths = codes[np.random.default_rng(4).integers(len(codes), size=1000)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "items.trie"
        variants = {
            "build": lambda: ItemTrie.build(codes, trie.sizes).rows_of(paths[0]),
            "save": lambda: trie.save(path),
            "load": lambda: ItemTrie.load(path).rows_of(paths[0]),
        }
        benchmark.timings(f"file, {case}", compare(variants, "build", repeats=3), "build")


def list_rows(benchmark: Benchmark, case: str, codes: np.ndarray) -> None:
    """Allow-lists: preparing one, and a search of one batch with and without."""
    scorer, trie, draw = Prepared.draw(BATCH), ItemTrie.build(codes, SIZES), np.random.default_rng(2)
    lists = {f"{share:.0%} allowed": draw.random(len(codes)) < share for share in (0.5, 0.01)}
    histories = Histories.of(draw.integers(len(codes), size=(BATCH, HISTORY)))
    config = BeamConfig(beams=BEAMS, users_per_batch=BATCH)
    _ = trie.node_items  # made once a trie
    for name, mask in lists.items():
        variants = {
            "trie of the allowed items": lambda mask=mask: ItemTrie.build(codes[mask], SIZES),
            "sidrec": lambda mask=mask: TrieMasks.of(trie, mask[None]).held,
        }
        taken = compare(variants, "trie of the allowed items", repeats=9)
        benchmark.timings(f"list, {case}, {name}", taken, "trie of the allowed items")
    markets = Filters(draw.random((8, len(codes))) < 0.5, np.arange(BATCH) % 8)
    requests = {"no list": Request(k=BEAMS), **{name: Request(k=BEAMS, allowed=mask) for name, mask in lists.items()}}
    requests["8 lists of 50%"] = Request(k=BEAMS, allowed=markets)
    searches = {
        name: lambda request=request: beam_search(scorer, trie, histories, request, config, RUN)
        for name, request in requests.items()
    }
    benchmark.timings(f"search of {BATCH} users, {case}", compare(searches, "no list", repeats=9), "no list")


def lookup_rows(benchmark: Benchmark, case: str, codes: np.ndarray) -> None:
    """Nodes of a million paths, whole and of two codes, with and without the table of the first levels."""
    draw = np.random.default_rng(3)
    paths = codes[draw.integers(len(codes), size=1_000_000)]
    plain, dense = ItemTrie.build(codes, SIZES), ItemTrie.build(codes, SIZES)
    plain.__dict__["_dense_levels"] = 0
    for length in (2, len(SIZES)):
        variants = {
            "binary search": lambda length=length: plain.nodes_of(paths[:, :length]),
            "table of first levels": lambda length=length: dense.nodes_of(paths[:, :length]),
        }
        taken = compare(variants, "binary search", repeats=5)
        benchmark.timings(f"nodes of 10⁶ paths of {length}, {case}", taken, "binary search")


def huge_rows(benchmark: Benchmark) -> None:
    """Ten million items, with levels as usual and with more than one integer holds."""
    for sizes in (SIZES, SIZES * 2):
        case, codes = f"{HUGE:,} items, {len(sizes)} levels", random_codes(HUGE, sizes)
        trie = ItemTrie.build(codes, sizes)
        file_rows(benchmark, case, trie, codes)
        benchmark.row(f"memory, {case}", "stored arrays", value=trie.nbytes / 1e6, unit="MB")
        benchmark.row(f"memory, {case}", "codes", value=codes.nbytes / 1e6, unit="MB")
        del trie
        benchmark.row(
            f"memory, {case}",
            "peak of building",
            value=memory_of(lambda codes=codes, sizes=sizes: ItemTrie.build(codes, sizes))[1],
            unit="MB",
        )


def main() -> None:
    torch.set_num_threads(1)
    benchmark = Benchmark("trie")
    for num_items in CATALOGUES:
        case, codes = f"{num_items:,} items", random_codes(num_items)
        build_rows(benchmark, case, codes)
        search_rows(benchmark, case, codes)
    file_rows(benchmark, case, ItemTrie.build(codes, SIZES), codes)
    list_rows(benchmark, case, codes)
    lookup_rows(benchmark, case, codes)
    huge_rows(benchmark)
    benchmark.save()


if __name__ == "__main__":
    main()
