"""The report on semantic IDs: do items share codes, are codes used evenly, what do codes forget.

Numbers only; the picture is drawn in `plots`. Nothing here knows how codebooks are learned.
"""

from collections.abc import Sequence

import numpy as np

from sidrec.data.statistics import gini
from sidrec.tokenizers.collisions import Settled
from sidrec.tokenizers.placement import Quantized
from sidrec.types import FloatArray, IntArray, Json

__all__ = [
    "code_quality",
    "duplicate_vectors",
    "level_usage",
    "quality_report",
    "quality_summary",
    "relative_error",
    "vector_quality",
]

EXAMPLES = 5
"""Groups of identical items that a report names."""


def quality_report(quantized: Quantized, settled: Settled, policy: str) -> Json:
    """Quality of the codes `before` and `after` collisions were settled, and what the policy did."""
    return {
        "policy": policy,
        "moved_items": settled.num_moved,
        "moved_far": settled.num_far,
        "before": code_quality(quantized.codes, quantized.sizes),
        "after": code_quality(settled.codes, settled.sizes),
    }


def vector_quality(vectors: FloatArray, target: FloatArray, rebuilt: FloatArray, item_ids: Sequence[str]) -> Json:
    """What the vectors say about the codes, for the same report.

    Args:
        vectors: float32[N, D] of the items.
        target: float32[N, D'], what the tokenizer tries to give back.
        rebuilt: float32[N, D'], what the codes give back.
        item_ids: of the items.
    """
    return {
        "relative_reconstruction_error": relative_error(target, rebuilt),
        "duplicate_inputs": duplicate_vectors(vectors, item_ids),
    }


def quality_summary(report: Json) -> Json:
    """The figures of a report that people look at first."""
    before, after = report["before"], report["after"]
    out: Json = {
        "items": after["items"],
        "sizes": [level["size"] for level in after["levels"]],
        "policy": report["policy"],
        "collision_rate_before": before["collision_rate"],
        "collision_rate": after["collision_rate"],
        "items_sharing": after["items_sharing"],
        "largest_group": after["largest_group"],
        "perplexity": [round(level["perplexity"], 1) for level in after["levels"]],
        "dead_codes": sum(level["dead"] for level in before["levels"]),
        "moved_items": report["moved_items"],
    }
    if "relative_reconstruction_error" in report:
        out["relative_reconstruction_error"] = report["relative_reconstruction_error"]
        out["items_with_duplicate_input"] = report["duplicate_inputs"]["items"]
    return out


def code_quality(codes_NL: IntArray, sizes: Sequence[int]) -> Json:
    """Collisions of whole codes and usage of every level.

    `collision_rate` is (N - distinct codes) / N, as LETTER and LC-Rec report it; `items_sharing` counts
    the items that share their codes. `items_per_code` maps a number of items to how many codes have it.

    >>> report = code_quality(np.array([[0, 0], [0, 1], [0, 1], [1, 0]]), (2, 2))
    >>> report["collision_rate"], report["items_sharing"], report["items_per_code"]
    (0.25, 2, {'1': 2, '2': 1})
    """
    items = len(codes_NL)
    counts = np.unique(codes_NL, axis=0, return_counts=True)[1]
    behind, groups = np.unique(counts, return_counts=True)
    return {
        "items": items,
        "distinct_codes": len(counts),
        "collision_rate": (items - len(counts)) / items,
        "colliding_groups": int((counts > 1).sum()),
        "items_sharing": int(counts[counts > 1].sum()),
        "largest_group": int(counts.max()),
        "items_per_code": {str(size): int(number) for size, number in zip(behind, groups, strict=True)},
        "levels": [level_usage(codes_NL[:, level], size) for level, size in enumerate(sizes)],
    }


def level_usage(codes_N: IntArray, size: int) -> Json:
    """How evenly one level's codes are used: perplexity is 2 to the entropy, dead codes have no item.

    >>> level_usage(np.array([0, 0, 1, 1]), 4)
    {'size': 4, 'used': 2, 'dead': 2, 'entropy_bits': 1.0, 'perplexity': 2.0, 'gini': 0.5}
    """
    counts = np.bincount(codes_N, minlength=size)
    share = counts[counts > 0] / counts.sum()
    entropy = max(0.0, float(-(share * np.log2(share)).sum()))
    return {
        "size": size,
        "used": len(share),
        "dead": size - len(share),
        "entropy_bits": entropy,
        "perplexity": float(2**entropy),
        "gini": gini(counts),
    }


def relative_error(vectors: FloatArray, reconstructed: FloatArray) -> float:
    """Squared reconstruction error as a share of the variance: 0 is exact, 1 no better than the mean vector.

    >>> relative_error(np.array([[0.0], [2.0]]), np.array([[0.5], [2.0]]))
    0.125
    """
    error = float(np.square(vectors - reconstructed, dtype=np.float64).sum())
    spread = float(np.square(vectors - vectors.mean(axis=0, dtype=np.float64)).sum())
    return error / spread if spread > 0 else float(error > 0)


def duplicate_vectors(vectors: FloatArray, item_ids: Sequence[str]) -> Json:
    """Items whose vectors are identical, which no tokenizer can tell apart.

    >>> duplicate_vectors(np.array([[1.0], [2.0], [1.0]]), ["a", "b", "c"])
    {'groups': 1, 'items': 2, 'largest_group': 2, 'examples': [['a', 'c']]}
    """
    rows_of: dict[bytes, list[int]] = {}
    for row, vector in enumerate(vectors):
        # Adding zero gives -0.0 and 0.0 the same bytes.
        rows_of.setdefault((vector + 0.0).tobytes(), []).append(row)
    groups = [rows for rows in rows_of.values() if len(rows) > 1]
    return {
        "groups": len(groups),
        "items": sum(map(len, groups)),
        "largest_group": max(map(len, groups), default=1),
        "examples": [[item_ids[row] for row in rows[:EXAMPLES]] for rows in groups[:EXAMPLES]],
    }
