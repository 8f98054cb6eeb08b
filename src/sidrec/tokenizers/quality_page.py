"""The quality report as one HTML file with its picture inside: advice first, then figures, then items to look at."""

from collections.abc import Sequence
from typing import Any

from sidrec.page import page, paragraph, picture, table
from sidrec.types import Json

__all__ = ["quality_page"]

LEVELS_LEGEND = (
    "Before: as the tokenizer gave the codes; after: as the collision policy left them, which is what recommenders "
    "see. Used: codes with at least one item. Perplexity: 2 to the entropy, the number of evenly used codes that would "
    "be as varied. Gini: 0 if all codes have equally many items, towards 1 if few have nearly all."
)
COLLISIONS_LEGEND = (
    "Collision rate: 1 − different semantic IDs / items. Fullest prefix: items with the same codes on all "
    "levels but the last. Moved: items whose codes the policy changed; far: on an earlier level than the last."
)
PURITY_LEGEND = (
    "Purity: share of items whose label is the most frequent one behind their first codes; it rises with depth for any "
    "codes, so compare it with chance (the same with shuffled labels). NMI: mutual information of prefix and label "
    "over their mean entropy. An item with several entries is labelled with the most frequent of them that at most "
    "half of all items have."
)
NEIGHBOURS_LEGEND = (
    "Neighbours of an item stand directly before or after it in a training sequence. Code similarity: share of levels "
    "on which two items have the same code, averaged over an item's neighbours and then over items. By chance: the "
    "same neighbours dealt out at random."
)


def quality_page(report: Json, png: bytes) -> str:
    """A report as one HTML file.

    Args:
        report: what `sidrec.stages.quality` writes as `quality.json`.
        png: the picture of the same report.
    """
    before, after = report["before"], report["after"]
    facts = f"{after['items']:,} items, codes a level {' × '.join(str(level['size']) for level in after['levels'])}"
    parts = [
        paragraph(f"{facts}; collisions settled by {report['policy']}", "note"),
        *_advice(report["advice"]),
        picture("Items behind every code, most used first, and what prefixes say", png, "image/png"),
        *_section("Usage of the codes", _level_rows("before", before) + _level_rows("after", after), LEVELS_LEGEND),
        *_section("Collisions", _collision_rows(report), COLLISIONS_LEGEND),
    ]
    if "relative_reconstruction_error" in report:
        parts += _section("Against the vectors", _vector_rows(report), "")
    if report["purity"]:
        title = f"Prefixes against the field '{report['purity']['field']}'"
        parts += _section(title, _purity_rows(report["purity"]), PURITY_LEGEND)
    if report["neighbours"]:
        parts += _section("Prefixes against neighbours", _neighbour_rows(report["neighbours"]), NEIGHBOURS_LEGEND)
    parts += _groups("Largest groups before the policy", report["largest_groups"])
    for depth, groups in enumerate(report["examples"], start=1):
        title = f"Items that share their first {'code' if depth == 1 else f'{depth} codes'}"
        parts += _groups(title, groups)
    return page("Quality of semantic IDs", parts)


def _section(title: str, rows: Sequence[dict[str, str]], legend: str) -> list[str]:
    """Heading, table and legend; nothing without lines."""
    if not rows:
        return []
    return [paragraph(title, tag="h2"), table(rows), *([paragraph(legend, "legend")] if legend else [])]


def _advice(found: Sequence[Json]) -> list[str]:
    if not found:
        return [paragraph("No figure looks bad.", "protocol")]
    texts = [f"{_sentence(each['problem'])} {each['reason']} {_sentence(each['change'])}" for each in found]
    return [paragraph(text, "bad") for text in texts]


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


def _level_rows(when: str, quality: Json) -> list[dict[str, str]]:
    return [
        {
            "level": f"{number} {when}",
            "codes": f"{level['size']:,}",
            "used": f"{level['used']:,}",
            "dead": f"{level['dead']:,}",
            "entropy (bits)": f"{level['entropy_bits']:.3f}",
            "perplexity": f"{level['perplexity']:.1f}",
            "Gini": f"{level['gini']:.3f}",
        }
        for number, level in enumerate(quality["levels"], start=1)
    ]


def _collision_rows(report: Json) -> list[dict[str, str]]:
    rows = [
        {
            "policy": when,
            "collision rate (%)": f"{100 * quality['collision_rate']:.2f}",
            "different semantic IDs": f"{quality['distinct_codes']:,}",
            "items that share theirs": f"{quality['items_sharing']:,}",
            "groups": f"{quality['colliding_groups']:,}",
            "largest group": f"{quality['largest_group']:,}",
            "fullest prefix": f"{quality['fullest_prefix']:,}",
            "settled": "",
            "exact copies": "",
            "crowded prefixes": "",
            "moved": "",
            "moved far": "",
        }
        for when, quality in (("before", report["before"]), ("after", report["after"]))
    ]
    copies = report["copies"]
    rows[1] |= {
        "settled": f"{report['settled_items']:,}",
        "exact copies": "–" if copies is None else f"{copies:,}",
        "crowded prefixes": f"{report['crowded_prefixes']:,}",
        "moved": f"{report['moved_items']:,}",
        "moved far": f"{report['moved_far']:,}",
    }
    return rows


def _vector_rows(report: Json) -> list[dict[str, str]]:
    found = report["duplicate_inputs"]
    return [
        {
            "figure": "reconstruction error (share of the variance)",
            "value": f"{report['relative_reconstruction_error']:.4f}",
        },
        {"figure": "items with the same vector as another", "value": f"{found['items']:,}"},
        {"figure": "most items with one vector", "value": f"{found['largest_group']:,}"},
    ]


def _purity_rows(purity: Json) -> list[dict[str, str]]:
    return [
        {
            "first codes": str(at["depth"]),
            "prefixes": f"{at['prefixes']:,}",
            "purity": f"{at['purity']:.3f}",
            "by chance": f"{at['random']:.3f}",
            "NMI": f"{at['nmi']:.3f}",
            "labels": f"{purity['labels']:,}",
            "labelled items": f"{purity['labelled']:,}",
        }
        for at in purity["depths"]
    ]


def _neighbour_rows(found: Json) -> list[dict[str, str]]:
    figures: list[tuple[str, Any]] = [("neighbours", found)]
    if found["random"]:
        figures.append(("by chance", found["random"]))
    return [
        {"pairs": name, "code similarity": f"{figure['code_similarity']:.4f}"}
        | {
            f"same first {depth} (%)": f"{100 * share:.2f}"
            for depth, share in enumerate(figure["same_prefix"], start=1)
        }
        for name, figure in figures
    ]


def _groups(title: str, groups: Sequence[Json]) -> list[str]:
    """Heading, and for each group of items its codes, size and some titles; nothing without groups."""
    if not groups:
        return []
    texts = ["\n".join([f"{group['codes']}  {group['items']:,} items", *group["titles"]]) for group in groups]
    return [paragraph(title, tag="h2"), *(paragraph(text, tag="pre") for text in texts)]
