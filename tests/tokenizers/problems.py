"""Small problems with many collisions, and every policy as loops over tuples, written from its description."""

import zlib
from collections import Counter

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment

from sidrec.tokenizers.collisions import CollisionPolicy, Settled
from sidrec.tokenizers.placement import Quantized
from sidrec.tokenizers.residual import distances
from sidrec.tokenizers.semantic_ids import SemanticIds
from sidrec.tokenizers.sinkhorn import sinkhorn_codes


def matrix(points: np.ndarray, book: np.ndarray, metric: str = "l2") -> np.ndarray:
    tensors = (torch.from_numpy(np.asarray(array, np.float64)) for array in (points, book))
    return distances(*tensors, metric).numpy()


def quantized_of(latents: np.ndarray, codebooks: list[np.ndarray], metric: str = "l2") -> Quantized:
    """Residual codes by a plain loop."""
    rest, codes = latents.copy(), []
    for book in codebooks:
        codes.append(matrix(rest, book, metric).argmin(1))
        rest = rest - book[codes[-1]]
    sizes = tuple(map(len, codebooks))
    return Quantized(np.stack(codes, 1).astype(np.int32), sizes, latents, codebooks, metric)


def random_problem(
    seed: int, num_items: int, sizes: tuple[int, ...], spread: float, metric: str = "l2", round_to: int = 1
) -> Quantized:
    draw = np.random.default_rng(seed)
    books = [draw.normal(size=(size, 2)).astype(np.float32) / (level + 1) for level, size in enumerate(sizes)]
    # Rounding to one digit makes identical items common.
    latents = (draw.normal(size=(num_items, 2)) * spread).round(round_to).astype(np.float32)
    return quantized_of(latents, books, metric)


def on_a_line(points: list[float], codebook: list[float]) -> Quantized:
    """One level in one dimension behind a first level with a single code."""
    books = [np.zeros((1, 1), np.float32), np.array(codebook, np.float32)[:, None]]
    return quantized_of(np.array(points, np.float32)[:, None], books)


def table(settled: Settled, rows: int | None = None) -> SemanticIds:
    return SemanticIds(settled.codes[:rows], settled.sizes, "digest")


def first_rows(quantized: Quantized, count: int) -> Quantized:
    latents = quantized.latents[:count]
    return Quantized(quantized.codes[:count], quantized.sizes, latents, quantized.codebooks, quantized.metric)


def settled_slowly(policy: CollisionPolicy, quantized: Quantized, old: np.ndarray | None) -> np.ndarray:
    """Codes of all items under a policy; the first ones have those of `old`."""
    fixed = [] if old is None else [tuple(code) for code in old.tolist()]
    codes = [tuple(code) for code in quantized.codes.tolist()]
    kind = policy.config.kind
    if kind == "keep":
        return np.array([*fixed, *codes[len(fixed) :]])
    if kind == "append_level":
        return np.array([(*code, codes[:row].count(code)) for row, code in enumerate(codes)])
    if kind == "hashed_round_robin":
        return np.array([_dealt(codes, row, quantized.sizes[-1], policy.config.suffix) for row in range(len(codes))])
    codes = [*fixed, *codes[len(fixed) :]]
    if kind == "sinkhorn_reassign":
        codes = _spread(policy.config, quantized, codes, len(fixed))
        if policy.config.faithful:
            return np.array(codes)
    return np.array(_placed(quantized, codes, len(fixed)))


def _dealt(codes: list[tuple[int, ...]], row: int, size: int, suffix: bool) -> tuple[int, ...]:
    prefix = codes[row][:-1]
    turn = sum(code[:-1] == prefix for code in codes[:row])
    last = (zlib.adler32(str(prefix).encode()) + turn) % size
    return (*prefix, last, turn // size) if suffix else (*prefix, last)


def residual(quantized: Quantized, row: int) -> np.ndarray:
    rest = quantized.latents[row].astype(np.float64)
    for book, code in zip(quantized.codebooks[:-1], quantized.codes[row], strict=False):
        rest = rest - book[code]
    return rest


def _spread(config: object, quantized: Quantized, codes: list[tuple[int, ...]], num_old: int) -> list[tuple[int, ...]]:
    behind = Counter(code[:-1] for code in codes)
    for _ in range(config.rounds):
        counts = Counter(codes)
        colliding = sorted({code for code in codes if counts[code] > 1})
        groups = [[row for row in range(num_old, len(codes)) if codes[row] == code] for code in colliding]
        for rows in groups:
            if not rows or (not config.faithful and behind[codes[rows[0]][:-1]] > quantized.sizes[-1]):
                continue
            points = np.stack([residual(quantized, row) for row in rows]).astype(np.float32)
            cost = distances(torch.from_numpy(points), torch.from_numpy(quantized.codebooks[-1]), quantized.metric)
            chosen = sinkhorn_codes(cost, config.epsilon, config.iterations, spread_ties=not config.faithful)
            for row, code in zip(rows, chosen.tolist(), strict=True):
                codes[row] = (*codes[row][:-1], code)
    return codes


def _placed(quantized: Quantized, codes: list[tuple[int, ...]], num_old: int) -> list[tuple[int, ...]]:
    codes, metric = list(codes), quantized.metric
    cost = {
        row: matrix(residual(quantized, row)[None], quantized.codebooks[-1], metric)[0] for row in range(len(codes))
    }
    stays = set(range(num_old))
    for code in sorted(set(codes)):
        rows = [row for row in range(len(codes)) if codes[row] == code]
        if rows[0] >= num_old:
            stays.add(min(rows, key=lambda row: (cost[row][code[-1]].round(9), row)))
    leaving = []
    for prefix in sorted({code[:-1] for code in codes}):
        used = {codes[row][-1] for row in stays if codes[row][:-1] == prefix}
        free = [code for code in range(quantized.sizes[-1]) if code not in used]
        movers = [row for row in range(len(codes)) if row not in stays and codes[row][:-1] == prefix]
        costs = np.array([[cost[row][code] for code in free] for row in movers]).reshape(len(movers), len(free))
        items, columns = linear_sum_assignment(costs)
        for item, column in zip(items, columns, strict=True):
            codes[movers[item]] = (*prefix, free[column])
        leaving += [row for item, row in enumerate(movers) if item not in items]
    for row in sorted(leaving):
        others = [code for other, code in enumerate(codes) if other not in leaving]
        codes[row] = _walked(quantized, row, codes[row], others)
        leaving.remove(row)
    return codes


def _walked(quantized: Quantized, row: int, code: tuple[int, ...], others: list[tuple[int, ...]]) -> tuple[int, ...]:
    def has_room(path: tuple[int, ...]) -> bool:
        return sum(other[: len(path)] == path for other in others) < np.prod(quantized.sizes[len(path) :])

    path = next(code[:depth] for depth in range(len(code) - 1, -1, -1) if has_room(code[:depth]))
    rest = quantized.latents[row].astype(np.float64)
    for level, book in enumerate(quantized.codebooks):
        if level >= len(path):
            order = np.argsort(matrix(rest[None], book, quantized.metric)[0], kind="stable").tolist()
            path = next((*path, code) for code in order if has_room((*path, code)))
        rest = rest - book[path[level]]
    return path
