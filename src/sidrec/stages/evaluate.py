"""Recommender and dataset → evaluation: per-user values, means, slices, lists.

The dataset is the one of the run in which the recommender stands. Speed goes into the summary only,
so that equal results have equal digests.
"""

import json
import time
from pathlib import Path
from typing import Literal

import numpy as np
import polars as pl

from sidrec.artifact import Artifact, ArtifactWriter, open_artifact
from sidrec.config import RunSettings
from sidrec.data.columns import Columns
from sidrec.data.dataset import Dataset
from sidrec.errors import DataError
from sidrec.evaluation.evaluator import Evaluation
from sidrec.evaluation.evaluator import evaluate as run_evaluation
from sidrec.evaluation.protocol import Protocol
from sidrec.evaluation.significance import bootstrap_mean
from sidrec.evaluation.slices import history_slices, popularity_slices, training_counts
from sidrec.recommenders.base import Recommender
from sidrec.stages.layout import RunFolder, StageResult, make_artifact
from sidrec.types import IntArray, Json

__all__ = ["LISTS", "METRICS", "PER_USER", "check_dataset", "evaluate"]

PER_USER, METRICS, LISTS = "per_user.parquet", "metrics.json", "lists.npz"


def evaluate(
    recommender: Path,
    part: Literal["valid", "test"],
    protocol: Protocol,
    run: RunSettings,
    force: bool = False,
) -> StageResult:
    """Score a recommender on a part of its run's dataset into `evaluations/NAME-PART`.

    Writes `per_user.parquet` (one line a user), `metrics.json` (means, intervals, slices, rates) and
    `lists.npz` (what was recommended).

    Args:
        recommender: `RUN/recommenders/NAME`.
        part: which targets are scored.
        protocol: the rules.
        run: seed, device, progress.
        force: do it even if the same evaluation stands already.

    Raises:
        ArtifactError: recommender or dataset are missing or damaged.
        DataError: the recommender was trained on another dataset, or the part is empty.
    """
    artifact = open_artifact(recommender, "recommender")
    home = recommender
    if len(home.parts) < len(("RUN", "recommenders", "NAME")) or ".." in home.parts:
        home = home.resolve()
    folder = RunFolder(home.parent.parent)
    parents = {"recommender": artifact, "dataset": open_artifact(folder.dataset, "dataset")}
    check_dataset(artifact, parents["dataset"])

    def write(writer: ArtifactWriter) -> None:
        _evaluate(parents, part, protocol, run, writer)

    return make_artifact(
        folder.evaluation(home.name, part),
        kind="evaluation",
        config={"part": part, "protocol": protocol.model_dump(mode="json")},
        seed=run.seed,
        parents=parents,
        write=write,
        force=force,
    )


def _evaluate(
    parents: dict[str, Artifact],
    part: Literal["valid", "test"],
    protocol: Protocol,
    run: RunSettings,
    writer: ArtifactWriter,
) -> None:
    start = time.perf_counter()
    dataset = Dataset.load(parents["dataset"].path)
    recommender = Recommender.load(parents["recommender"].path)
    found = run_evaluation(recommender, dataset, part, protocol, run)
    slices = _slices(dataset, part, found, protocol)
    _per_user(dataset, part, found, slices).write_parquet(writer.path / PER_USER)
    np.savez(writer.path / LISTS, rows=found.recommended.rows, scores=found.recommended.scores)
    metrics = _metrics(found, slices, run.seed) | {
        "recommender": parents["recommender"].path.name,
        "kind": recommender.config.kind,
        "generative": recommender.needs_semantic_ids,
        "search": found.search and found.search.model_dump(mode="json"),
        "part": part,
        "protocol": protocol.describe(dataset.split.name, part, found.search),
        "primary": protocol.primary,
    }
    (writer.path / METRICS).write_text(json.dumps(metrics, indent=1, ensure_ascii=False), encoding="utf-8")
    writer.summary.update(
        _headline(found, protocol),
        users=len(found.table),
        certified=found.figures["certified"],
        seen_targets=found.figures["seen_targets"],
        protocol=metrics["protocol"],
        users_per_second=found.users_per_second,
        seconds=time.perf_counter() - start,
    )


def _headline(found: Evaluation, protocol: Protocol) -> dict[str, float]:
    """Means worth printing: item level at every k, SID level and the figures of the lists at the primary's k.

    Recall equals hit (one target a user) and is left to the files.
    """
    at = "@" + protocol.primary.partition("@")[2]
    means = {
        name: value
        for name, value in found.table.means().items()
        if (name == protocol.primary or "recall@" not in name) and (not name.startswith("sid_") or name.endswith(at))
    }
    return means | {name: value for name, value in found.figures.items() if name.endswith(at)}


def check_dataset(recommender: Artifact, dataset: Artifact) -> None:
    """Refuse a recommender of another dataset: what it learnt from may hold the targets that are scored.

    Raises:
        DataError: it was trained on another dataset, or on the same one prepared otherwise.
    """
    theirs = recommender.parents.get("dataset")
    if theirs != dataset.digest:
        name = recommender.path.name
        raise DataError(
            f"trained on another dataset than this run's: {name}",
            where=f"'{name}' was trained on {(theirs or 'none')[:12]}, {dataset.path} is {dataset.digest[:12]}",
            expected="a recommender trained on the dataset as it stands",
            next=f"train it again with 'sidrec train', or remove {recommender.path}",
        )


def _slices(
    dataset: Dataset, part: Literal["valid", "test"], found: Evaluation, protocol: Protocol
) -> dict[str, tuple[IntArray, list[str]]]:
    """Column name → (group of each user, names of the groups)."""
    lengths = dataset.examples(part).cuts[found.examples]
    return {
        "history_slice": history_slices(lengths, protocol.slices),
        "target_slice": popularity_slices(found.targets, training_counts(dataset), protocol.slices),
    }


def _per_user(
    dataset: Dataset,
    part: Literal["valid", "test"],
    found: Evaluation,
    slices: dict[str, tuple[IntArray, list[str]]],
) -> pl.DataFrame:
    pairs = dataset.examples(part)
    users = dataset.sequences.users
    ranks = [float(rank) if np.isfinite(rank) else None for rank in found.ranks]
    return pl.DataFrame(
        {
            Columns.USER: [users[user] for user in pairs.users[found.examples]],
            Columns.TARGET: dataset.catalog.ids_of(found.targets),
            "example": found.examples,
            "history_length": pairs.cuts[found.examples],
            "rank": pl.Series(ranks, dtype=pl.Float64),
            "certified": found.recommended.exact,
            **{name: np.asarray(names)[groups] for name, (groups, names) in slices.items()},
            **found.table.values,
        }
    )


def _metrics(found: Evaluation, slices: dict[str, tuple[IntArray, list[str]]], seed: int) -> Json:
    """Means with intervals, slices, and the figures of the lists as JSON."""
    table = found.table
    groups = {
        label: np.flatnonzero(group == number) for group, names in slices.values() for number, label in enumerate(names)
    }
    intervals = {name: bootstrap_mean(column, seed) for name, column in table.values.items()}
    return {
        "users": len(table),
        "metrics": table.means(),
        "intervals": {name: [found.low, found.high] for name, found in intervals.items()},
        "figures": found.figures,
        "slices": {
            label: {"users": len(users), **table.take(users).means()} for label, users in groups.items() if len(users)
        },
    }
