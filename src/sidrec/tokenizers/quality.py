"""The report on semantic IDs: do items share codes, are codes used evenly, and the figures to look at first.

Numbers only: what the vectors say stands in `vector_quality`, what prefixes mean in `purity`, what to do about bad
figures in `advice`; the picture is drawn in `plots`, the page written in `quality_page`. Nothing here knows how
codebooks are learned.
"""

from collections.abc import Sequence

import numpy as np

from sidrec.data.statistics import gini
from sidrec.tokenizers.collisions import Settled
from sidrec.tokenizers.placement import Quantized
from sidrec.tokenizers.prefixes import prefix_groups
from sidrec.tokenizers.vector_quality import reconstruction_error
from sidrec.types import FloatArray, IntArray, Json

__all__ = ["code_quality", "level_usage", "quality_report", "quality_summary", "relative_error"]


def quality_report(quantized: Quantized, settled: Settled, policy: str) -> Json:
    """Quality of the codes `before` and `after` collisions were settled, and what the policy did and met."""
    return {
        "policy": policy,
        "settled_items": len(settled.codes),
        "moved_items": settled.num_moved,
        "moved_far": settled.num_far,
        "copies": settled.num_copies,
        "crowded_prefixes": settled.num_crowded,
        "before": code_quality(quantized.codes, quantized.sizes),
        "after": code_quality(settled.codes, settled.sizes),
    }


def quality_summary(report: Json) -> Json:
    """The figures of a report that people look at first.

    Args:
        report: `quality_report` with what else is known: `relative_reconstruction_error` and `duplicate_inputs` of
            codes that were made of vectors, `purity`, `neighbours`, `advice`.
    """
    before, after = report["before"], report["after"]
    out: Json = {
        "items": after["items"],
        "levels": len(after["levels"]),
        "codebook_sizes": [level["size"] for level in after["levels"]],
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
        out["num_duplicates"] = report["duplicate_inputs"]["items"]
    if report.get("purity"):
        first = report["purity"]["depths"][0]
        out["purity"] = {"field": report["purity"]["field"], "level_1": first["purity"], "random": first["random"]}
    if report.get("neighbours"):
        found = report["neighbours"]
        by_chance = found["random"] and found["random"]["code_similarity"]
        out["neighbours"] = {"code_similarity": found["code_similarity"], "random": by_chance}
    if "advice" in report:
        out["advice"] = [f"{advice['problem']}; {advice['change']}" for advice in report["advice"]]
    return out


def code_quality(codes_NL: IntArray, sizes: Sequence[int]) -> Json:
    """Collisions of whole codes and usage of every level.

    `collision_rate` is (N - distinct codes) / N, as LETTER and LC-Rec report it; `items_sharing` counts
    the items that share their codes. `items_per_code` maps a number of items to how many codes have it,
    `fullest_prefix` counts the items behind the fullest prefix of L-1 codes.

    >>> report = code_quality(np.array([[0, 0], [0, 1], [0, 1], [1, 0]]), (2, 2))
    >>> report["collision_rate"], report["items_sharing"], report["items_per_code"]
    (0.25, 2, {'1': 2, '2': 1})
    """
    items = len(codes_NL)
    groups_of = prefix_groups(codes_NL)
    counts = np.bincount(groups_of[-1])
    behind, groups = np.unique(counts, return_counts=True)
    return {
        "items": items,
        "distinct_codes": len(counts),
        "collision_rate": (items - len(counts)) / items,
        "colliding_groups": int((counts > 1).sum()),
        "items_sharing": int(counts[counts > 1].sum()),
        "largest_group": int(counts.max()),
        "fullest_prefix": int(np.bincount(groups_of[-2]).max()) if len(groups_of) > 1 else items,
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
    return reconstruction_error(vectors, np.arange(len(vectors)), reconstructed.__getitem__)
