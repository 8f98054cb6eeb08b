"""The catalogue constraint alone: building the trie, its memory, and a search whose model costs nothing.

Baselines, as research code commonly has them: a nested dictionary of Python, and a beam search under
transformers' `PrefixConstrainedLogitsProcessor`, which asks a prefix function for every beam and masks
the whole vocabulary. As in `generate`, it holds one row a beam from the first step on; cache and
scores that `generate` also moves are left out. Both sides search the same random log-probabilities.
Ratios are of CPU seconds, one thread. Left out: models.

Where no two items share their codes, the lists of both searches are first checked to be equal.
"""

import gc
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor
from transformers import PrefixConstrainedLogitsProcessor

from harness import Benchmark, Timing, compare
from sidrec.config import RunSettings
from sidrec.data.sequences import Histories
from sidrec.decoding.beam import beam_search
from sidrec.decoding.recommendations import BeamConfig, Recommendations, Request
from sidrec.decoding.trie import ItemTrie

SIZES = (256, 256, 256, 256)
CATALOGUES = (10_000, 100_000, 1_000_000)
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


def random_codes(num_items: int) -> np.ndarray:
    draw = np.random.default_rng(0)
    return np.stack([draw.integers(size, size=num_items) for size in SIZES], axis=1).astype(np.int32)


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


def memory_of(build: Callable[[], object]) -> float:
    """Megabytes that a built object holds, by Python's allocator trace."""
    gc.collect()
    tracemalloc.start()
    built = build()
    held = tracemalloc.get_traced_memory()[0] / 1e6
    tracemalloc.stop()
    del built
    return held


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
    held = {name: memory_of(build) for name, build in variants.items()}
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


def main() -> None:
    torch.set_num_threads(1)
    benchmark = Benchmark("trie")
    for num_items in CATALOGUES:
        case, codes = f"{num_items:,} items", random_codes(num_items)
        build_rows(benchmark, case, codes)
        search_rows(benchmark, case, codes)
    benchmark.save()


if __name__ == "__main__":
    main()
