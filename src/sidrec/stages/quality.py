"""The quality report of semantic IDs in a directory: `quality.json`, `quality.png` and `quality.html`."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sidrec.data.dataset import Dataset
from sidrec.tokenizers.advice import advice
from sidrec.tokenizers.collisions import Settled
from sidrec.tokenizers.placement import Quantized
from sidrec.tokenizers.plots import draw_quality
from sidrec.tokenizers.prefixes import largest_groups, shared_prefixes
from sidrec.tokenizers.purity import category_labels, neighbour_similarity, prefix_purity
from sidrec.tokenizers.quality import quality_report, quality_summary
from sidrec.tokenizers.quality_page import quality_page
from sidrec.types import Json

__all__ = ["write_quality"]

REPORT, PICTURE, PAGE = "quality.json", "quality.png", "quality.html"
EXAMPLE_DEPTHS = 2
"""Depths of which items that share a prefix are shown."""


def write_quality(
    directory: Path,
    quantized: Quantized,
    settled: Settled,
    policy: str,
    dataset: Dataset,
    facts: Mapping[str, Any] | None = None,
) -> Json:
    """Write the whole report and return its summary, the figures that people look at first.

    Args:
        directory: of the tokenizer's artefact.
        quantized: the codes before collisions were settled.
        settled: the codes afterwards.
        policy: what settled them.
        dataset: gives titles, categories and training sequences; validation and test are not looked at.
        facts: what else the report should say, such as `relative_reconstruction_error` and `duplicate_inputs`.
    """
    catalog = dataset.catalog
    # What a recommender sees, without the level that only counts the items of a group.
    codes = settled.codes[:, : len(quantized.sizes)]
    labels = category_labels(catalog)
    report: Json = quality_report(quantized, settled, policy) | dict(facts or {})
    report |= {
        "purity": prefix_purity(codes, labels) if labels else None,
        "neighbours": neighbour_similarity(codes, dataset.training_events()),
        "largest_groups": largest_groups(quantized.codes, catalog),
        "examples": [
            shared_prefixes(codes, catalog, depth + 1) for depth in range(min(EXAMPLE_DEPTHS, codes.shape[1]))
        ],
    }
    report["advice"] = advice(report)
    (directory / REPORT).write_text(json.dumps(report, indent=1, ensure_ascii=False), encoding="utf-8")
    draw_quality(directory / PICTURE, settled.codes, settled.sizes, report)
    page = quality_page(report, (directory / PICTURE).read_bytes())
    (directory / PAGE).write_text(page, encoding="utf-8")
    return quality_summary(report)
