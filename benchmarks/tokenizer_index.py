"""From item vectors to unique semantic IDs, and ten million of them: index generation, collisions, growth.

Three parts. **Index generation**: an encoder of the published RQ-VAE's size (768 to 32 dimensions) and four
codebooks of 256; the baseline is the published loop (LC-Rec, LETTER): batches of 64, then up to twenty rounds in
which every colliding group is encoded again, alone, and spread over the last level by Sinkhorn. Ours encodes in
large batches and assigns free codes inside the colliding prefixes. **Collision policies** on real vectors, under a
tokenizer with too few codes: items moved and what the codes lose. **Scale**: a tree over ten million items, and
ten thousand more. The random encoder makes no good codes; its cost is that of a trained one.

Real vectors come from an embeddings artefact: `python benchmarks/tokenizer_index.py runs/NAME/embeddings/text`, or
the environment variable SIDREC_EMBEDDINGS. Without one the second part is left out, and its rows are missing.
"""

import os
import sys
import tracemalloc
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from harness import Benchmark, compare, measure
from sidrec.decoding.trie import ItemTrie
from sidrec.embeddings.base import ItemEmbeddings
from sidrec.tokenizers.collisions import Settled, as_semantic_ids, settle_codes, settle_new
from sidrec.tokenizers.counting import AppendLevel, HashedRoundRobin
from sidrec.tokenizers.kmeans import kmeans
from sidrec.tokenizers.placement import Quantized
from sidrec.tokenizers.reassignment import NearestFree, SinkhornReassign
from sidrec.tokenizers.residual import distances, residual_codes
from sidrec.tokenizers.rqkmeans import RQKMeans
from sidrec.tokenizers.semantic_ids import SemanticIds

LAYERS = (768, 2048, 1024, 512, 256, 128, 64, 32)
ITEMS, LEVELS, CODES = 10_000, 4, 256
THEIR_BATCH, OUR_BATCH, ROUNDS, EPSILON, ITERATIONS = 64, 256, 20, 0.003, 50
FEW = 5
MANY, NEW = 10_000_000, 10_000
PUBLISHED, OURS = "published loop", "sidrec, nearest_free"

Code = tuple[str, ...]


@dataclass
class Problem:
    """Items, an encoder and codebooks."""

    vectors: Tensor
    encoder: nn.Module
    codebooks: list[Tensor]

    @classmethod
    @torch.no_grad()
    def draw(cls, near_duplicates: float, collapsed: bool = False) -> "Problem":
        """Random items, some of them near copies of others; a collapsed codebook has one code in use."""
        torch.manual_seed(0)
        layers = [layer for pair in pairwise(LAYERS) for layer in (nn.Dropout(0.0), nn.Linear(*pair), nn.ReLU())]
        encoder = nn.Sequential(*layers[:-1]).eval()
        for layer in encoder:
            if isinstance(layer, nn.Linear):
                nn.init.xavier_normal_(layer.weight, nn.init.calculate_gain("relu"))
                nn.init.zeros_(layer.bias)
        vectors = torch.randn(ITEMS, LAYERS[0])
        copies = int(near_duplicates * ITEMS)
        vectors[:copies] = vectors[copies : 2 * copies] + 1e-4 * torch.randn(copies, LAYERS[0])
        residual = torch.cat([encoder(batch) for batch in vectors.split(OUR_BATCH)])
        codebooks = []
        for level in range(LEVELS):
            unused = collapsed and level < LEVELS - 1
            size = 1 if unused else CODES
            book = kmeans(residual, size, iterations=10, sample=ITEMS, seed=level, advance=lambda: None)
            residual = residual - book[distances(residual, book).argmin(1)]
            # Codes that nobody uses lie far away.
            codebooks.append(torch.cat([book, torch.full((CODES - size, LAYERS[-1]), 1e3)]))
        return cls(vectors, encoder, codebooks)


def their_sinkhorn(cost_BK: Tensor) -> Tensor:
    middle = (cost_BK.max() + cost_BK.min()) / 2
    plan = torch.exp(-((cost_BK - middle) / (cost_BK.max() - middle + 1e-5)).double() / EPSILON)
    plan /= plan.sum()
    for _ in range(ITERATIONS):
        plan = plan / plan.sum(dim=1, keepdim=True) / plan.shape[0]
        plan = plan / plan.sum(dim=0, keepdim=True) / plan.shape[1]
    return plan.argmax(dim=1)


class TheirItems(Dataset[Tensor]):
    """One tensor an item, stacked again by the loader."""

    def __init__(self, vectors: np.ndarray) -> None:
        self.vectors = vectors

    def __len__(self) -> int:
        return len(self.vectors)

    def __getitem__(self, rows: int | list[int]) -> Tensor:
        return torch.FloatTensor(self.vectors[rows])


def their_codes(problem: Problem, batch: Tensor, balanced: bool) -> list[Code]:
    """Encode a batch, with the losses that their quantizer computes; the last level by Sinkhorn if `balanced`."""
    residual, codes, losses = problem.encoder(batch), [], []
    for level, book in enumerate(problem.codebooks):
        cost = residual.square().sum(1, keepdim=True) + book.square().sum(1) - 2 * residual @ book.T
        codes.append(their_sinkhorn(cost) if balanced and level == LEVELS - 1 else cost.argmin(dim=1))
        chosen = nn.functional.embedding(codes[-1], book)
        losses.append(nn.functional.mse_loss(chosen, residual) + 0.25 * nn.functional.mse_loss(chosen, residual))
        residual = residual - (residual + (chosen - residual))
    torch.stack(losses).mean()
    found = torch.stack(codes, dim=1).numpy()
    return [tuple(f"<{'abcd'[level]}_{code}>" for level, code in enumerate(item)) for item in found]


@torch.no_grad()
def published_index(problem: Problem, rounds: int = ROUNDS) -> list[Code]:
    """The published loop; left-over collisions stay."""
    items = TheirItems(problem.vectors.numpy())
    codes = [code for batch in DataLoader(items, THEIR_BATCH) for code in their_codes(problem, batch, False)]
    for _ in range(rounds):
        groups = defaultdict(list)
        for row, code in enumerate(codes):
            groups[code].append(row)
        if len(groups) == len(codes):
            break
        for rows in groups.values():
            if len(rows) > 1:
                for row, code in zip(rows, their_codes(problem, items[rows], True), strict=True):
                    codes[row] = code
    return codes


@torch.no_grad()
def our_index(problem: Problem) -> Settled:
    """Encode in large batches, then settle."""
    latents = torch.cat([problem.encoder(batch) for batch in problem.vectors.split(OUR_BATCH)])
    codes = residual_codes(latents, problem.codebooks)[0].numpy().astype(np.int32)
    books = [book.numpy() for book in problem.codebooks]
    return settle_codes(NearestFree.Config(), Quantized(codes, (CODES,) * LEVELS, latents.numpy(), books))


def collision_rate(codes: np.ndarray) -> float:
    return 1 - len(np.unique(codes, axis=0)) / len(codes)


def index_rows(benchmark: Benchmark) -> None:
    for case, problem, rounds, repeats in (
        ("index, no near-duplicates", Problem.draw(0.0), ROUNDS, 3),
        ("index, 5 % near-duplicates", Problem.draw(0.05), ROUNDS, 3),
        (f"index, collapsed codebook, {FEW} of {ROUNDS} rounds", Problem.draw(0.0, collapsed=True), FEW, 1),
    ):
        theirs: list[Code] = []

        def published(problem: Problem = problem, rounds: int = rounds, theirs: list[Code] = theirs) -> None:
            theirs[:] = published_index(problem, rounds)

        variants = {PUBLISHED: published, OURS: lambda problem=problem: our_index(problem)}
        benchmark.timings(case, compare(variants, PUBLISHED, repeats, warmup=int(repeats > 1)), PUBLISHED)
        settled = our_index(problem)
        for variant, codes in ((PUBLISHED, np.array(theirs)), (OURS, settled.codes)):
            benchmark.row(case, variant, value=100 * collision_rate(codes), unit="% collisions left")
        benchmark.row(case, OURS, value=settled.num_crowded, unit="crowded prefixes reported")
        benchmark.row(case, OURS, value=settled.num_far, unit="items sent to another prefix")


def policy_rows(benchmark: Benchmark, folder: str) -> None:
    embeddings = ItemEmbeddings.load(folder)
    policies = {
        "nearest_free": NearestFree.Config(),
        "sinkhorn_reassign": SinkhornReassign.Config(),
        "sinkhorn_reassign, faithful": SinkhornReassign.Config(faithful=True),
        "hashed_round_robin, suffix": HashedRoundRobin.Config(suffix=True),
    }
    for size in (64, 256):
        tokenizer = RQKMeans(levels=3, codebook_size=size).fit(embeddings)
        quantized, target = tokenizer.quantized(embeddings.vectors), tokenizer.compared(embeddings.vectors)
        case = f"{len(embeddings.vectors)} real vectors, 3x{size}"

        def lost(codes: np.ndarray, tokenizer: RQKMeans = tokenizer, target: np.ndarray = target) -> float:
            return float(np.square(target - tokenizer.reconstruct(codes), dtype=np.float64).sum())

        before = lost(quantized.codes)
        benchmark.row(case, "before", value=100 * collision_rate(quantized.codes), unit="% collisions")
        benchmark.row(case, "before", value=before, unit="squared error")
        for name, config in policies.items():
            settled = settle_codes(config, quantized)
            timing = measure(lambda config=config, quantized=quantized: settle_codes(config, quantized), 1, 0)
            after = lost(settled.codes[:, :3])
            benchmark.row(case, name, value=settled.num_moved, unit="items moved")
            benchmark.row(case, name, value=100 * collision_rate(settled.codes), unit="% collisions left")
            benchmark.row(case, name, "before", value=after, unit="squared error", ratio=before / after)
            benchmark.row(case, name, value=timing.cpu_s, unit="CPU s")
        benchmark.row(case, "all", value=settled.num_copies or 0, unit="exact copies")


def distinct_codes(num_items: int, draw: np.random.Generator) -> np.ndarray:
    keys = np.unique(draw.integers(CODES**LEVELS, size=num_items + num_items // 20))
    keys = draw.permutation(keys)[:num_items]
    columns = [(keys // CODES**level % CODES).astype(np.int32) for level in reversed(range(LEVELS))]
    return np.stack(columns, axis=1)


def new_items(earlier: np.ndarray, draw: np.random.Generator) -> Quantized:
    """Items half of which have the codes of earlier ones."""
    half = NEW // 2
    codes = np.concatenate([earlier[draw.integers(len(earlier), size=half)], distinct_codes(NEW - half, draw)])
    books = [draw.normal(size=(CODES, 32)).astype(np.float32) / 8**level for level in range(LEVELS)]
    latents = sum(book[codes[:, level]] for level, book in enumerate(books))
    return Quantized(codes, (CODES,) * LEVELS, latents.astype(np.float32), books)


def peak_of(work: Callable[[], object]) -> float:
    """Megabytes at most allocated while `work` runs, its result included."""
    tracemalloc.start()
    work()
    peak = tracemalloc.get_traced_memory()[1] / 1e6
    tracemalloc.stop()
    return peak


def growing(ids: SemanticIds, new: Quantized) -> Iterator[tuple[str, SemanticIds, object]]:
    """A policy's name, earlier semantic IDs that it could have settled, and its configuration."""
    yield "nearest_free", ids, NearestFree.Config()
    counted = np.column_stack([ids.codes, np.zeros(len(ids), np.int32)])
    yield "append_level", SemanticIds(counted, (*ids.sizes, 1), ids.catalog_digest), AppendLevel.Config()


def scale_rows(benchmark: Benchmark) -> None:
    draw = np.random.default_rng(0)
    case = f"{MANY:,} items"
    ids = SemanticIds(distinct_codes(MANY, draw), (CODES,) * LEVELS, "digest")
    new = new_items(ids.codes, draw)
    built = measure(lambda: ItemTrie.build(ids.codes, ids.sizes), repeats=2, warmup=0)
    benchmark.row(f"trie, {case}", "sidrec", value=built.cpu_s, unit="CPU s")
    benchmark.row(f"trie, {case}", "sidrec", value=ids.trie.nbytes / 1e6, unit="MB of arrays")
    peak = peak_of(lambda: ItemTrie.build(ids.codes, ids.sizes))
    benchmark.row(f"trie, {case}", "sidrec", value=peak, unit="MB at most while building")
    for name, earlier, config in growing(ids, new):
        _ = earlier.trie  # A recommender in use has it.
        found: list[Settled] = []
        # Once: a second time, figures of the earlier table would be known.
        settle = lambda: found.append(settle_new(config, new, earlier))  # noqa: B023, E731 - run at once
        seconds = {"settle": measure(settle, 1, 0)}
        settled = found[0]
        grown = as_semantic_ids(settled, "digest", earlier)
        seconds["new table"] = measure(lambda: as_semantic_ids(settled, "digest", earlier), 3, 0)  # noqa: B023
        seconds["new tree"] = measure(lambda: replace(grown).trie, 3, 0)  # noqa: B023
        steps = f"{case} and {NEW:,} more, {name}"
        for step, timing in seconds.items():
            benchmark.row(steps, step, value=timing.cpu_s, unit="CPU s", spread=timing.spread)
        benchmark.row(steps, "together", value=sum(timing.cpu_s for timing in seconds.values()), unit="CPU s")
        benchmark.row(steps, "together", value=settled.num_moved, unit="items moved")


def main() -> None:
    torch.set_num_threads(1)
    benchmark = Benchmark("tokenizer_index")
    index_rows(benchmark)
    folder = sys.argv[1] if len(sys.argv) > 1 else os.environ.get("SIDREC_EMBEDDINGS", "")
    if folder:
        policy_rows(benchmark, folder)
    else:
        print("NO REAL VECTORS: name an embeddings artefact to compare the policies", file=sys.stderr)
    scale_rows(benchmark)
    benchmark.save()


if __name__ == "__main__":
    main()
