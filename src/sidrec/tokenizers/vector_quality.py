"""What item vectors say about codes: how much of the vectors the codes keep, and which vectors are identical.

In blocks of rows, so that a million vectors are looked at without a copy of them.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from sidrec.tokenizers.base import VectorTokenizer
from sidrec.types import FloatArray, IntArray, Json

__all__ = ["duplicate_vectors", "reconstruction_error", "vector_quality"]

BLOCK = 8192
"""Rows looked at together: 25 MiB in double precision at 384 dimensions."""
EXAMPLES = 5
"""Groups of identical items that are named, and items named of each."""


def _blocks(count: int) -> Iterator[slice]:
    return (slice(start, start + BLOCK) for start in range(0, count, BLOCK))


def vector_quality(tokenizer: VectorTokenizer, vectors: FloatArray, codes: IntArray, item_ids: Sequence[str]) -> Json:
    """Entries of a quality report: `relative_reconstruction_error` and `duplicate_inputs`.

    Args:
        tokenizer: fitted.
        vectors: float32[N, D] of the items.
        codes: int32[N, L], the tokenizer's own, before collisions were settled.
        item_ids: of the items.
    """
    return {
        "relative_reconstruction_error": reconstruction_error(
            vectors, codes, tokenizer.reconstruct, tokenizer.compared
        ),
        "duplicate_inputs": duplicate_vectors(vectors, item_ids),
    }


def reconstruction_error(
    vectors: FloatArray,
    codes: IntArray,
    reconstruct: Callable[[IntArray], FloatArray],
    compared: Callable[[FloatArray], FloatArray] = lambda vectors: vectors,
) -> float:
    """`quality.relative_error` of the vectors that codes give back, which are never all in memory.

    Args:
        vectors: float32[N, D] of the items.
        codes: int32[N, L] of the items.
        reconstruct: codes of some items → float32[n, D'] that they stand for.
        compared: vectors of some items → float32[n, D'] that `reconstruct` tries to give back.

    >>> codebook = np.array([[0.5], [2.0]])
    >>> reconstruction_error(np.array([[0.0], [2.0]]), np.array([[0], [1]]), lambda codes: codebook[codes[:, 0]])
    0.125
    """
    blocks = list(_blocks(len(vectors)))
    mean = sum(compared(vectors[block]).sum(axis=0, dtype=np.float64) for block in blocks) / len(vectors)
    error = spread = 0.0
    for block in blocks:
        target = compared(vectors[block]).astype(np.float64)
        error += float(np.square(target - reconstruct(codes[block])).sum())
        spread += float(np.square(target - mean).sum())
    return error / spread if spread > 0 else float(error > 0)


def duplicate_vectors(vectors: FloatArray, item_ids: Sequence[str]) -> Json:
    """Items whose vectors are identical, which no tokenizer can tell apart.

    >>> duplicate_vectors(np.array([[1.0], [2.0], [1.0]]), ["a", "b", "c"])
    {'groups': 1, 'items': 2, 'largest_group': 2, 'examples': [['a', 'c']]}
    """
    first = _first_equal(vectors)
    sizes = np.bincount(first)
    leaders = np.flatnonzero(sizes > 1)
    return {
        "groups": len(leaders),
        "items": int(sizes[leaders].sum()),
        "largest_group": int(sizes.max()),
        "examples": [
            [item_ids[row] for row in np.flatnonzero(first == leader)[:EXAMPLES]] for leader in leaders[:EXAMPLES]
        ],
    }


def _first_equal(vectors: FloatArray) -> IntArray:
    """int64[N], for each row the first row that is identical to it."""
    hashes = np.concatenate([_hashes(vectors[block]) for block in _blocks(len(vectors))])
    first = np.arange(len(vectors))
    group, counts = np.unique(hashes, return_inverse=True, return_counts=True)[1:]
    left = np.flatnonzero(counts[group] > 1)
    while len(left):
        # Equal hashes are a hint: every row is compared with the first of its hash, and those that differ come again.
        places, group_of_left = np.unique(group[left], return_index=True, return_inverse=True)[1:]
        leaders = left[places][group_of_left.reshape(-1)]
        parts = [(vectors[left[block]] == vectors[leaders[block]]).all(axis=1) for block in _blocks(len(left))]
        same = np.concatenate(parts)
        first[left[same]] = leaders[same]
        left = left[~same]
    return first


def _hashes(vectors: FloatArray) -> IntArray:
    """uint64[n]; equal vectors have equal hashes, different ones hardly ever."""
    # Adding zero gives -0.0 and 0.0 the same bits.
    bits = (vectors.astype(np.float32) + np.float32(0)).view(np.uint32)
    weights = np.random.default_rng(0).integers(2**63, size=bits.shape[1], dtype=np.uint64) | np.uint64(1)
    return bits.astype(np.uint64) @ weights
