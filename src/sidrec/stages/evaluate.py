"""Recommender and dataset → evaluation: per-user values, means, slices, lists.

The dataset is the one of the run in which the recommender stands. Speed goes into the summary only,
so that equal results have equal digests.
"""

import json
import time
from pathlib import Path

import numpy as np

from sidrec.artifact import Artifact, ArtifactWriter, open_artifact
from sidrec.config import RunSettings
from sidrec.data.dataset import Dataset
from sidrec.errors import DataError
from sidrec.evaluation.evaluator import evaluate as run_evaluation
from sidrec.evaluation.protocol import Protocol, ScoredPart
from sidrec.evaluation.results import example_groups, headline, metrics_json, per_user_table
from sidrec.recommenders.base import Recommender
from sidrec.stages.layout import RunFolder, StageResult, make_artifact

__all__ = ["LISTS", "METRICS", "PER_USER", "check_dataset", "evaluate"]

PER_USER, METRICS, LISTS = "per_user.parquet", "metrics.json", "lists.npz"


def evaluate(
    recommender: Path,
    part: ScoredPart,
    protocol: Protocol,
    run: RunSettings,
    *,
    force: bool = False,
) -> StageResult:
    """Score a recommender on a part of its run's dataset into `evaluations/NAME-PART`.

    Writes `per_user.parquet` (one line an example), `metrics.json` (means, intervals, slices, rates) and
    `lists.npz` (what was recommended).

    Args:
        recommender: `RUN/recommenders/NAME`.
        part: which targets are scored.
        protocol: the rules.
        run: seed, device, progress; with a team, every process ranks its share of the users.
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
        team=run.team,
    )


def _evaluate(
    parents: dict[str, Artifact],
    part: ScoredPart,
    protocol: Protocol,
    run: RunSettings,
    writer: ArtifactWriter,
) -> None:
    start = time.perf_counter()
    dataset = Dataset.load(parents["dataset"].path)
    recommender = Recommender.load(parents["recommender"].path)
    found = run_evaluation(recommender, dataset, part, protocol, run)
    groups = example_groups(dataset, part, found, protocol)
    table = per_user_table(dataset, part, found, groups)
    table.write_parquet(writer.path / PER_USER)
    np.savez(writer.path / LISTS, rows=found.recommended.rows, scores=found.recommended.scores)
    metrics = metrics_json(found, table, groups, run.seed) | {
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
        headline(found, protocol),
        users=metrics["users"],
        examples=metrics["examples"],
        protocol=metrics["protocol"],
        users_per_second=found.users_per_second,
        seconds=time.perf_counter() - start,
    )


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
