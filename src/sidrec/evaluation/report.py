"""A comparison as plain cells, Markdown and one HTML file that loads nothing from elsewhere.

A comparison is a JSON object: `title`, `part`, `protocol`, `primary`, `reference`, `dataset` (name →
number), `rows` (best first) and `examples`. A row has `name`, `kind`, `generative`, `search` (of the
evaluation; null where items are not searched for), `users`, `examples`, `metrics`, `interval`,
`difference` (mean, low, high against the reference, or null), `figures`, `slices` and `cost`
(`train_seconds`, `users_per_second`, `parameters`; null where unknown).
"""

import html
from collections.abc import Sequence
from typing import Any

from sidrec.evaluation.significance import Interval
from sidrec.page import page, paragraph, picture, table
from sidrec.types import Json

__all__ = [
    "as_html",
    "as_markdown",
    "cells",
    "exact_note",
    "part_note",
    "remarks",
    "slice_cells",
    "slice_names",
    "terminal_cells",
]

NOTES = {
    "test": "These are test figures: no checkpoint was chosen on these targets.",
    "valid": "These are validation figures: checkpoints were chosen on these targets, so they flatter. "
    "Compare recommenders on the test part.",
}


def part_note(part: str) -> str:
    """What the reader must know about the part that was scored."""
    return NOTES[part]


def exact_note(certified: float) -> str:
    """How to make the lists exact that are not, and what it costs."""
    return (
        f"{100 * certified:.1f} % of the lists are certified to be the true top of the whole catalogue. To make all "
        "exact, add the setting exact=true (evaluate, compare) or the option --exact (recommend): the search goes "
        "on with what it dropped for the users that lack the certificate, which needs no training and takes two to "
        "four times as long. search.beams=N searches with more beams from the start."
    )


def cells(comparison: Json) -> list[dict[str, str]]:
    """The main table, one dictionary a recommender: column title with unit → text.

    Args:
        comparison: see the head of this module.
    """
    return [_cells(row, comparison) for row in comparison["rows"]]


def terminal_cells(comparison: Json) -> list[list[str]]:
    """The columns of the main table that fit a terminal: titles first, then one line a recommender."""
    rows = cells(comparison)
    left_out = tuple(f"{name}@" for name in ("mrr", "Gini", "novelty"))
    titles = [title for title in rows[0] if not title.startswith(left_out) or title == comparison["primary"]]
    return [titles, *([row[title] for title in titles] for row in rows)]


def _cells(row: Json, comparison: Json) -> dict[str, str]:
    primary, cost = comparison["primary"], row["cost"]
    k = primary.partition("@")[2]
    metric = row["metrics"]
    out = {
        "recommender": row["name"],
        primary: f"{metric[primary]:.4f}",
        "95 % interval": f"{row['interval'][0]:.4f} to {row['interval'][1]:.4f}",
        f"Δ to {comparison['reference']} (95 %)": _difference(row["difference"]),
    }
    out |= {name: f"{metric[name]:.4f}" for name in (f"hit@{k}", f"ndcg@{k}", f"mrr@{k}") if name != primary}
    out[f"SID-level {primary}"] = _number(metric.get(f"sid_{primary}"), ".4f")
    out |= {
        f"coverage@{k} (%)": _percent(row["figures"].get(f"coverage@{k}")),
        f"Gini@{k}": _number(row["figures"].get(f"gini@{k}"), ".3f"),
        f"novelty@{k} (bits)": _number(row["figures"].get(f"novelty@{k}"), ".2f"),
        f"invalid@{k} (%)": _percent(row["figures"].get(f"invalid@{k}")),
        f"duplicate@{k} (%)": _percent(row["figures"].get(f"duplicate@{k}")),
        "search": _search(row["search"]),
        "certified (%)": _percent(row["figures"].get("certified")),
        "train (s)": _number(cost["train_seconds"], ",.1f"),
        "users/s": _number(cost["users_per_second"], ",.0f"),
        "parameters": _number(cost["parameters"], ",d"),
    }
    return out


def slice_cells(comparison: Json) -> list[dict[str, str]]:
    """The primary metric by slice of users, one dictionary a slice."""
    primary, rows = comparison["primary"], comparison["rows"]
    return [
        {"slice": name, "users": f"{rows[0]['slices'][name]['users']:,d}"}
        | {row["name"]: _number(row["slices"].get(name, {}).get(primary), ".4f") for row in rows}
        for name in slice_names(rows)
    ]


def slice_names(rows: Sequence[Json]) -> list[str]:
    """Names of the slices, in the order in which they were written."""
    return list(rows[0]["slices"]) if rows else []


def _search(search: Json | None) -> str:
    return "every item" if search is None else f"{search['beams']} beams, {search['normalize']}"


def _difference(difference: Json | None) -> str:
    if difference is None:
        return "reference"
    found = Interval(**difference)
    return f"{found.mean:+.4f} ({found.low:+.4f} to {found.high:+.4f}){' *' if found.excludes_zero else ''}"


def _number(value: Any, form: str) -> str:
    return "–" if value is None else format(value, form)


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.1f}"


def _facts(comparison: Json) -> str:
    return ", ".join(f"{value:,d} {name}" for name, value in comparison["dataset"].items())


def _legend(comparison: Json) -> str:
    return (
        f"Ordered by {comparison['primary']}. * the paired bootstrap interval of the difference to "
        f"{comparison['reference']} excludes 0. SID-level: any item with the target's codes counts. Certified: share "
        "of lists known to be the true top of the whole catalogue, under the search beside it (beams, and over what "
        "log-probabilities are normalised). Invalid: places without an item."
    )


def remarks(comparison: Json) -> list[str]:
    """What to know about a comparison: a remark where not every list is exact."""
    shares = [row["figures"]["certified"] for row in comparison["rows"]]
    return [f"Under the least exact search, {exact_note(min(shares))}"] if min(shares) < 1 else []


def as_markdown(comparison: Json) -> str:
    """The comparison as Markdown, without pictures."""
    parts = [
        f"# {comparison['title']}",
        f"{_facts(comparison)}",
        f"Protocol: {comparison['protocol']}",
        part_note(comparison["part"]),
        _markdown_table(cells(comparison)),
        _legend(comparison),
        *remarks(comparison),
        f"## {comparison['primary']} by group of users",
        _markdown_table(slice_cells(comparison)),
    ]
    if comparison["examples"]:
        parts.append(f"## Examples of {comparison['examples_of']}")
        parts += ["```\n" + text + "\n```" for text in comparison["examples"]]
    return "\n\n".join(parts) + "\n"


def _markdown_table(rows: Sequence[dict[str, str]]) -> str:
    if not rows:
        return ""
    head = list(rows[0])
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *(list(row.values()) for row in rows)]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def as_html(comparison: Json, pictures: dict[str, str]) -> str:
    """The comparison as one HTML file with its pictures inside.

    Args:
        comparison: see the head of this module.
        pictures: description → SVG text.
    """
    parts = [
        paragraph(_facts(comparison), "note"),
        f'<p class="protocol"><strong>Protocol</strong> {html.escape(comparison["protocol"])}</p>',
        paragraph(part_note(comparison["part"])),
        table(cells(comparison)),
        paragraph(_legend(comparison), "legend"),
        *(paragraph(text, "legend") for text in remarks(comparison)),
        *(picture(text, svg.encode(), "image/svg+xml") for text, svg in pictures.items()),
        paragraph(f"{comparison['primary']} by group of users", tag="h2"),
        table(slice_cells(comparison)),
    ]
    if comparison["examples"]:
        parts.append(paragraph(f"Examples of {comparison['examples_of']}", tag="h2"))
        parts += [paragraph(text, tag="pre") for text in comparison["examples"]]
    return page(comparison["title"], parts)
