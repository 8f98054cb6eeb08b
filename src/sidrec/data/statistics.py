"""Figures of a prepared dataset, for the artefact's summary and for people, and how unevenly counts are spread.

Computed from the finished dataset, so they say what later stages will see. Plots are left out.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from sidrec.data.dataset import PARTS, Dataset
from sidrec.data.filters import Drop
from sidrec.data.interactions import Ties, count_ties
from sidrec.types import IntArray, Json

__all__ = ["TIE_RULE", "dataset_statistics", "gini", "statistics_table"]

TIE_RULE = "by time; events of a user at the same time keep the order of the input"
ORDER_RULE = "the order of the input, which has no timestamps"


def dataset_statistics(dataset: Dataset, drops: Sequence[Drop] = ()) -> Json:
    """Counts, lengths, ties, drops and examples of a dataset, JSON-able."""
    sequences = dataset.sequences
    lengths = sequences.lengths
    items, users = len(dataset.catalog), len(set(sequences.users))
    ties: Ties = count_ties(sequences.owners, sequences.times)
    tested = np.zeros(len(sequences), dtype=bool)
    tested[dataset.split.test.users] = True
    return {
        "users": users,
        "lines": len(sequences),
        "items": items,
        "unseen_items": items - int(np.count_nonzero(np.bincount(sequences.rows, minlength=items))),
        "interactions": len(sequences.rows),
        "density": len(sequences.rows) / (users * items),
        "length": {"mean": float(lengths.mean()), "median": float(np.median(lengths)), "max": int(lengths.max())},
        "order": ORDER_RULE if sequences.times is None else TIE_RULE,
        "ties": {"events": ties.events, "last_items": ties.last_items},
        "drops": [drop.as_json() for drop in drops],
        "split": dataset.split.name,
        "examples": {part: len(dataset.examples(part)) for part in PARTS},
        "users_without_test": int((~tested).sum()),
        "text_fields": list(dataset.catalog.text_fields),
        "given_codes": None if dataset.given_codes is None else int(dataset.given_codes.shape[1]),
    }


def statistics_table(summary: Json) -> list[tuple[str, str]]:
    """The summary as lines (name, value) for people."""
    length, ties, examples = summary["length"], summary["ties"], summary["examples"]
    levels = summary["given_codes"]
    rows = [
        ("users", f"{summary['users']:,}"),
        ("items", f"{summary['items']:,}" + _also(summary["unseen_items"], "never interacted with")),
        ("interactions", f"{summary['interactions']:,}"),
        ("density", f"{summary['density']:.4%}"),
        ("length", f"mean {length['mean']:.2f}, median {length['median']:g}, max {length['max']:,}"),
        ("order", summary["order"]),
    ]
    if ties["events"]:
        text = (
            f"{ties['events']:,} events share user and time; they decide the last item of {ties['last_items']:,} users"
        )
        rows.append(("ties in time", text))
    rows += [(f"dropped: {drop['name']}", _drop(drop)) for drop in summary["drops"]]
    rows.append(("split", summary["split"]))
    rows += [(f"{part} examples", f"{count:,}") for part, count in examples.items()]
    if summary["lines"] != summary["users"]:
        rows.append(("sequences", f"{summary['lines']:,}, since some users' examples contradict each other"))
    if summary["users_without_test"]:
        rows.append(("users without test", f"{summary['users_without_test']:,}"))
    rows.append(("item text", ", ".join(summary["text_fields"]) or "none"))
    rows.append(("semantic IDs in the data", f"yes, {levels} levels" if levels else "no"))
    return rows


def gini(counts: IntArray) -> float:
    """Gini coefficient of N non-negative counts: 0 if all are equal, (N-1)/N if one has everything; 0 without any.

    >>> gini(np.array([0, 0, 0, 4])), gini(np.array([2, 2]))
    (0.75, 0.0)
    """
    total, size = counts.sum(), len(counts)
    if not total:
        return 0.0
    place = np.arange(1, size + 1)
    return float(((2 * place - size - 1) * np.sort(counts)).sum() / (size * total))


def _also(count: int, what: str) -> str:
    return f" ({count:,} {what})" if count else ""


def _drop(drop: dict[str, Any]) -> str:
    if not drop["rows"]:
        return "nothing"
    return f"{drop['rows']:,} interactions, {drop['users']:,} users, {drop['items']:,} items"
