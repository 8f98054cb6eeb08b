"""What an evaluation leaves to read: one line an example, and means with intervals. Writes no files."""

import numpy as np
import polars as pl

from sidrec.data.columns import Columns
from sidrec.data.dataset import Dataset
from sidrec.evaluation.evaluator import Evaluation
from sidrec.evaluation.protocol import Protocol, ScoredPart
from sidrec.evaluation.significance import bootstrap_mean
from sidrec.evaluation.slices import history_slices, popularity_slices
from sidrec.types import IntArray, Json

__all__ = ["Groups", "example_groups", "headline", "metrics_json", "per_user_table"]

Groups = dict[str, tuple[IntArray, list[str]]]
"""Column of the per-user table → (group number int64[U] of each example, names of the groups)."""


def example_groups(dataset: Dataset, part: ScoredPart, found: Evaluation, protocol: Protocol) -> Groups:
    """The groups that are reported apart: by length of the history and by popularity of the target."""
    lengths = dataset.examples(part).cuts[found.examples]
    return {
        "history_slice": history_slices(lengths, protocol.slices),
        "target_slice": popularity_slices(found.targets, dataset.training_counts(), protocol.slices),
    }


def per_user_table(dataset: Dataset, part: ScoredPart, found: Evaluation, groups: Groups) -> pl.DataFrame:
    """One line an example: user, target, where it stood, groups, and every metric.

    A user has one line for each held-out item: one under leave-one-out, several under a temporal split.
    """
    pairs, users = dataset.examples(part), dataset.sequences.users
    ranks = [float(rank) if np.isfinite(rank) else None for rank in found.ranks]
    return pl.DataFrame(
        {
            Columns.USER: [users[user] for user in pairs.users[found.examples]],
            Columns.TARGET: dataset.catalog.ids_of(found.targets),
            "example": found.examples,
            "history_length": pairs.cuts[found.examples],
            "rank": pl.Series(ranks, dtype=pl.Float64),
            "certified": found.recommended.exact,
            **{name: np.asarray(names)[numbers] for name, (numbers, names) in groups.items()},
            **found.table.values,
        }
    )


def metrics_json(found: Evaluation, table: pl.DataFrame, groups: Groups, seed: int) -> Json:
    """Means with 95 % intervals over users, the groups' means, and the figures of the lists.

    Args:
        found: the evaluation.
        table: of `per_user_table`.
        groups: of `example_groups`.
        seed: of the bootstrap.
    """
    users = table[Columns.USER].to_numpy()
    intervals = {name: bootstrap_mean(column, seed, users=users) for name, column in found.table.values.items()}
    slices: dict[str, Json] = {}
    for numbers, names in groups.values():
        for number, label in enumerate(names):
            inside = np.flatnonzero(numbers == number)
            if len(inside):
                counts = {"users": len(np.unique(users[inside])), "examples": len(inside)}
                slices[label] = counts | found.table.take(inside).means()
    return {
        "users": len(np.unique(users)),
        "examples": len(users),
        "metrics": found.table.means(),
        "intervals": {name: [interval.low, interval.high] for name, interval in intervals.items()},
        "figures": found.figures,
        "slices": slices,
    }


def headline(found: Evaluation, protocol: Protocol) -> dict[str, float]:
    """Means worth printing: item level at every k, SID level and the figures of the lists at the primary's k.

    Recall equals hit (one target an example) and is left to the files.
    """
    at = "@" + protocol.primary.partition("@")[2]
    means = {
        name: value
        for name, value in found.table.means().items()
        if (name == protocol.primary or "recall@" not in name) and (not name.startswith("sid_") or name.endswith(at))
    }
    return means | {name: value for name, value in found.figures.items() if name.endswith(at) or "@" not in name}
