"""A comparison as plain cells, Markdown and one HTML file that loads nothing from elsewhere.

A comparison is a JSON object: `title`, `part`, `protocol`, `primary`, `reference`, `dataset` (name →
number), `rows` (best first) and `examples`. A row has `name`, `kind`, `generative`, `search` (of the
evaluation; null where items are not searched for), `users`, `examples`, `metrics`, `interval`,
`difference` (mean, low, high against the reference, or null), `figures`, `slices` and `cost`
(`train_seconds`, `users_per_second`, `parameters`; null where unknown).
"""

import base64
import html
from collections.abc import Sequence
from typing import Any

from sidrec.evaluation.significance import Interval
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
        "exact, add the setting exact=true (evaluate, compare) or the option --exact (recommend): the search is "
        "repeated with ever more beams for the users that lack the certificate, which needs no training and takes "
        "several times as long. search.beams=N searches with more beams from the start."
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


STYLE = """
:root { color-scheme: light; }
body { font: 15px/1.55 system-ui, sans-serif; color: #1c1c1e; background: #fafafa; margin: 0; }
main { max-width: 1640px; margin: 0 auto; padding: 2rem 1.2rem 4rem; }
h1 { font-size: 1.6rem; margin: 0 0 .3rem; } h2 { font-size: 1.15rem; margin: 2.2rem 0 .6rem; }
.protocol { background: #eef3f8; border-left: 4px solid #0072b2; padding: .6rem .9rem; }
.note, .legend { color: #55555a; font-size: .9rem; }
.scroll { overflow-x: auto; background: #fff; border: 1px solid #e2e2e6; border-radius: 6px; }
table { border-collapse: collapse; font-size: .8rem; font-variant-numeric: tabular-nums; }
th, td { padding: .35rem .5rem; text-align: right; white-space: nowrap; border-bottom: 1px solid #eeeeee; }
th:first-child, td:first-child { text-align: left; position: sticky; left: 0; background: #fff; font-weight: 600; }
th { color: #55555a; font-weight: 600; white-space: normal; vertical-align: bottom; }
tr:last-child td { border-bottom: 0; }
figure { margin: 1rem 0; background: #fff; border: 1px solid #e2e2e6; border-radius: 6px; padding: .6rem; }
figure img { max-width: min(100%, 1080px); height: auto; display: block; margin: 0 auto; }
pre { background: #fff; border: 1px solid #e2e2e6; border-radius: 6px; padding: .8rem; overflow-x: auto;
  font-size: .84rem; }
"""


def as_html(comparison: Json, pictures: dict[str, str]) -> str:
    """The comparison as one HTML file with its pictures inside.

    Args:
        comparison: see the head of this module.
        pictures: description → SVG text.
    """
    title = html.escape(comparison["title"])
    parts = [
        f"<h1>{title}</h1>",
        f'<p class="note">{html.escape(_facts(comparison))}</p>',
        f'<p class="protocol"><strong>Protocol</strong> {html.escape(comparison["protocol"])}</p>',
        f"<p>{html.escape(part_note(comparison['part']))}</p>",
        _html_table(cells(comparison)),
        f'<p class="legend">{html.escape(_legend(comparison))}</p>',
        *(f'<p class="legend">{html.escape(text)}</p>' for text in remarks(comparison)),
        *(_picture(text, svg) for text, svg in pictures.items()),
        f"<h2>{html.escape(comparison['primary'])} by group of users</h2>",
        _html_table(slice_cells(comparison)),
    ]
    if comparison["examples"]:
        parts.append(f"<h2>Examples of {html.escape(comparison['examples_of'])}</h2>")
        parts += [f"<pre>{html.escape(text)}</pre>" for text in comparison["examples"]]
    body = "\n".join(parts)
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8" />\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1" />\n<title>{title}</title>\n'
        f"<style>{STYLE}</style>\n</head>\n<body>\n<main>\n{body}\n</main>\n</body>\n</html>\n"
    )


def _picture(description: str, svg: str) -> str:
    # As an image, not inline: the ids inside one SVG cannot meet those of another.
    data = base64.b64encode(svg.encode()).decode()
    alt = html.escape(description)
    return f'<figure><img alt="{alt}" src="data:image/svg+xml;base64,{data}" /><figcaption>{alt}</figcaption></figure>'


def _html_table(rows: Sequence[dict[str, str]]) -> str:
    if not rows:
        return ""
    head = "".join(f"<th>{html.escape(name)}</th>" for name in rows[0])
    lines = ["".join(f"<td>{html.escape(cell)}</td>" for cell in row.values()) for row in rows]
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
