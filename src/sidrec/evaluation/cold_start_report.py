"""A cold-start report as cells, sentences and Markdown.

A report has `recommender`, `primary`, `protocol`, `held_out` (of `HeldOut.figures`), `growth_costs` (what growth
adds to the primary metric of old targets, with its interval) and `lines`, one for each question: `name`, `users`,
`examples`, `items` (that could be recommended), `metrics`, `interval` (of the primary metric), `content` and `chance`
(the yardsticks' metrics; content is null without vectors), `share_of_new` (by cut-off, of the listed items) and
`certified`.
"""

from sidrec.evaluation.cold_start_scoring import NEW
from sidrec.evaluation.report import exact_note
from sidrec.evaluation.significance import Interval
from sidrec.types import Json

__all__ = ["as_markdown", "cells", "remarks"]


def cells(report: Json) -> list[list[str]]:
    """The table of a report, titles first, then one line a question."""
    rows = [_cells(line, report["primary"]) for line in report["lines"]]
    return [list(rows[0]), *(list(row.values()) for row in rows)]


def _cells(line: Json, primary: str) -> dict[str, str]:
    k = primary.partition("@")[2]
    hit = f"hit@{k}"
    shown = dict.fromkeys((hit, primary))
    content = line["content"] or {}
    return {
        "targets": line["name"],
        "examples": f"{line['examples']:,d}",
        "items": f"{line['items']:,d}",
        **{name: f"{line['metrics'][name]:.4f}" for name in shown},
        "95 % interval": f"{line['interval'][0]:.4f} to {line['interval'][1]:.4f}",
        **{f"content {name}": f"{content[name]:.4f}" if content else "–" for name in shown},
        f"chance {hit}": f"{line['chance'][hit]:.4f}",
        f"new in lists@{k} (%)": f"{100 * line['share_of_new'][k]:.1f}",
        "certified (%)": f"{100 * line['certified']:.1f}",
    }


def remarks(report: Json) -> list[str]:
    """How to read the table, in sentences."""
    held, cost, primary = report["held_out"], Interval(**report["growth_costs"]), report["primary"]
    k = primary.partition("@")[2]
    of_items = 100 * held["new_items"] / held["items"]
    listed = next(line["share_of_new"][k] for line in report["lines"] if line["name"] == NEW)
    certified = min(line["certified"] for line in report["lines"])
    return [
        f"Held out: {held['new_items']:,d} of {held['items']:,d} items ({of_items:.1f} %) with "
        f"{held['events_held_out']:,d} of {held['events']:,d} events; {held['users_lost_for_training']:,d} users have "
        f"no training example left, {held['test_examples_without_history']:,d} test examples no history.",
        f"Growth changes {primary} of old targets by {cost.mean:+.4f} ({cost.low:+.4f} to {cost.high:+.4f}), since "
        "new items compete for the places.",
        f"New items take {100 * listed:.1f} % of the first {k} places of users who want one, and are "
        f"{of_items:.1f} % of the catalogue.",
        "content: the items whose vectors are nearest to the mean of the user's newest items. chance: a random order.",
        *([exact_note(certified)] if certified < 1 else []),
    ]


def as_markdown(report: Json) -> str:
    """The report as Markdown."""
    titles, *lines = cells(report)
    rule = ["---", *["---:"] * (len(titles) - 1)]
    table = "\n".join("| " + " | ".join(row) + " |" for row in (titles, rule, *lines))
    parts = [f"# Cold start of {report['recommender']}", f"Protocol: {report['protocol']}", table]
    return "\n\n".join(parts + remarks(report)) + "\n"
