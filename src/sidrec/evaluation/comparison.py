"""Several evaluations of the same users side by side: differences with intervals, and readable examples.

Leaves out how the comparison looks (`sidrec.evaluation.report`, `sidrec.evaluation.plots`).
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl

from sidrec.data.columns import Columns
from sidrec.data.dataset import Dataset
from sidrec.errors import DataError
from sidrec.evaluation.protocol import ScoredPart
from sidrec.evaluation.significance import paired_bootstrap
from sidrec.random import generator
from sidrec.tokenizers.semantic_ids import SemanticIds
from sidrec.types import IntArray, Json

__all__ = ["Scored", "compared_rows", "example_texts"]

SHOWN_HISTORY, SHOWN_ITEMS = 8, 5
"""Newest history items and recommended items that an example shows."""
COPIED = ("kind", "generative", "search", "users", "examples", "metrics", "figures", "slices")
"""What a row takes over from the figures of an evaluation."""


@dataclass(frozen=True)
class Scored:
    """One recommender's evaluation.

    Attributes:
        metrics: figures of `sidrec.evaluation.results.metrics_json`, with `kind`, `generative` and `search`.
        table: of `sidrec.evaluation.results.per_user_table`.
        cost: `train_seconds`, `users_per_second`, `parameters`; None where unknown.
    """

    metrics: Json
    table: pl.DataFrame
    cost: Mapping[str, float | None]


def compared_rows(scored: Mapping[str, Scored], primary: str, seed: int) -> tuple[list[Json], str]:
    """Rows best first, and the reference: the best recommender without semantic IDs, else the best.

    Args:
        scored: name → evaluation, at least one.
        primary: the metric that orders.
        seed: of the paired bootstrap over users.

    Raises:
        DataError: the evaluations are not of the same examples.
    """
    names = sorted(scored, key=lambda name: (-scored[name].metrics["metrics"][primary], name))
    reference = next((name for name in names if not scored[name].metrics["generative"]), names[0])
    rows: list[Json] = []
    for name in names:
        ours, theirs = scored[name].table, scored[reference].table
        _check_same_examples(ours, theirs, name, reference)
        users = ours[Columns.USER].to_numpy()
        difference = paired_bootstrap(ours[primary].to_numpy(), theirs[primary].to_numpy(), seed, users=users)
        metrics = scored[name].metrics
        rows.append(
            {key: metrics[key] for key in COPIED}
            | {
                "name": name,
                "interval": metrics["intervals"][primary],
                "difference": None if name == reference else vars(difference),
                "cost": dict(scored[name].cost),
            }
        )
    return rows, reference


def _check_same_examples(ours: pl.DataFrame, theirs: pl.DataFrame, name: str, reference: str) -> None:
    who = ["example", Columns.USER, Columns.TARGET]
    if not ours.select(who).equals(theirs.select(who)):
        raise DataError(
            f"'{name}' and '{reference}' were scored on different users",
            expected="evaluations of the same users",
            next="run the comparison with --force",
        )


def example_texts(
    dataset: Dataset,
    part: ScoredPart,
    table: pl.DataFrame,
    lists: IntArray,
    semantic_ids: SemanticIds | None,
    num: int,
    seed: int,
) -> list[str]:
    """Readable example users, drawn by seed among the scored ones, never picked.

    Args:
        dataset: what was scored.
        part: which targets.
        table: of `sidrec.evaluation.results.per_user_table`.
        lists: int32[U, k], the recommended items of the table's lines; -1 is no item.
        semantic_ids: codes to show beside the titles.
        num: example users.
        seed: of the draw.
    """
    drawn = np.sort(generator(seed, "example users").choice(len(table), size=min(num, len(table)), replace=False))
    pairs, positions = dataset.examples(part), table["example"].to_numpy()[drawn]
    users, cuts = pairs.users[positions], pairs.cuts[positions]
    histories, targets = dataset.sequences.before(users, cuts), dataset.sequences.targets(users, cuts)
    return [
        f"User {table[Columns.USER][int(line)]}\n"
        + _example(dataset, semantic_ids, histories[number], lists[line], int(targets[number]))
        for number, line in enumerate(drawn)
    ]


def _example(
    dataset: Dataset, semantic_ids: SemanticIds | None, history: IntArray, listed: IntArray, target: int
) -> str:
    """The newest history items, the first recommendations, the held-out item."""

    def named(row: int) -> str:
        title = dataset.catalog.titles_of([row])[0]
        return f"{title}  {semantic_ids.text(row)}" if semantic_ids is not None else title

    listed = listed[listed >= 0]
    place = np.flatnonzero(listed == target)
    found = f"place {place[0] + 1}" if len(place) else f"not among the first {len(listed)}"
    earlier = f" (newest {SHOWN_HISTORY} of {len(history)})" if len(history) > SHOWN_HISTORY else ""
    lines = [f"  history{earlier}, oldest first:"]
    lines += [f"    · {named(int(row))}" for row in history[-SHOWN_HISTORY:]]
    lines.append("  recommended:")
    lines += [
        f"  {'→' if row == target else ' '} {rank:2d}. {named(int(row))}"
        for rank, row in enumerate(listed[:SHOWN_ITEMS], start=1)
    ]
    lines.append(f"  held out: {named(target)} ({found})")
    return "\n".join(lines)
