"""Recommender and dataset → a recommender that was tuned further, or the same one where that did not help."""

import shutil
import time
from collections.abc import Mapping
from dataclasses import replace

from sidrec.algorithms.base import Algorithm, TuneReport
from sidrec.artifact import Artifact, ArtifactWriter, fingerprint, open_artifact
from sidrec.config import RunSettings, build, kind_of
from sidrec.data.dataset import Dataset
from sidrec.embeddings.base import ItemEmbeddings
from sidrec.errors import ConfigError, DataError
from sidrec.evaluation.protocol import Protocol
from sidrec.evaluation.validation import validator
from sidrec.recommenders.base import Recommender
from sidrec.stages.layout import Request, RunFolder, StageResult, check_dataset, make_artifact, name_for
from sidrec.stages.recipe import Recipe
from sidrec.stages.train import SCRATCH_DIGITS, selection_of
from sidrec.types import Json

__all__ = ["algorithm_of", "tune"]


def tune(
    folder: RunFolder,
    recipe: Recipe,
    run: RunSettings,
    *,
    start: str,
    name: str | None = None,
    force: bool = False,
    embeddings: str | None = None,
) -> StageResult:
    """Tune a recommender of the run by the recipe's algorithm into `recommenders/NAME`.

    The start is kept, weights and all, unless the primary metric improves on validation users: the same
    evaluator and rules that chose its own checkpoint. A killed tuning goes on when it is asked for again.

    Args:
        folder: the run.
        recipe: algorithm and evaluation settings; what it says about the recommender is not used.
        run: seed, device, progress; its scratch folder, if it has one, is left to the caller.
        start: name of the recommender to start from, of any kind; it stays as it is.
        name: what the tuned one is called; None takes the start's name and the algorithm.
        force: do it even if it is up to date.
        embeddings: name of item vectors, where the pairs need some; None takes the only ones there are.

    Raises:
        ConfigError: the recipe has no algorithm, or the name is the start's.
        ArtifactError: dataset, start or vectors are missing.
        DataError: they were made from another dataset, or there is nothing to validate on.
    """
    algorithm = algorithm_of(recipe)
    name = name_for("", name or f"{start}-{name_for(kind_of(algorithm.config))}")
    if name == start:
        raise ConfigError(
            f"--name: '{name}' is the recommender that is tuned, which stays as it is", next="choose another --name"
        )
    selection = selection_of(recipe.evaluation)
    request = _request(folder, algorithm, selection, run, start, embeddings)
    scratch = run.scratch or folder.scratch(f"tune-{name}-{fingerprint(**request)[:SCRATCH_DIGITS]}")

    def write(writer: ArtifactWriter) -> None:
        _tune(algorithm, selection, request["parents"], replace(run, scratch=scratch), writer)

    result = make_artifact(folder.recommender(name), **request, write=write, force=force)
    if run.scratch is None:
        for path in folder.scratch("").glob(f"tune-{name}-{'[0-9a-f]' * SCRATCH_DIGITS}"):
            shutil.rmtree(path, ignore_errors=True)
    return result


def algorithm_of(recipe: Recipe) -> Algorithm:
    """The algorithm of a recipe.

    Raises:
        ConfigError: it has none.
    """
    if recipe.algorithm is None:
        raise ConfigError("algorithm: the recipe names none to tune by", next="add algorithm.kind=dpo")
    return build("algorithm", recipe.algorithm)


def _request(
    folder: RunFolder,
    algorithm: Algorithm,
    selection: Protocol,
    run: RunSettings,
    start: str,
    embeddings: str | None,
) -> Request:
    dataset, first = open_artifact(folder.dataset, "dataset"), folder.only("recommender", start)
    check_dataset(first, dataset)
    parents: dict[str, Artifact | str] = {"dataset": dataset, "start": first, **algorithm.sources()}
    if algorithm.needs_embeddings:
        vectors = folder.only("embeddings", embeddings)
        check_dataset(vectors, dataset)
        parents["embeddings"] = vectors
    config: Json = {
        "recommender": first.config["recommender"],
        "algorithm": algorithm.config.model_dump(mode="json"),
        "selection": selection.model_dump(mode="json"),
    }
    return {"kind": "recommender", "config": config, "seed": run.seed, "parents": parents}


def _tune(
    algorithm: Algorithm,
    selection: Protocol,
    parents: Mapping[str, Artifact | str],
    run: RunSettings,
    writer: ArtifactWriter,
) -> None:
    artifacts = {role: parent for role, parent in parents.items() if isinstance(parent, Artifact)}
    dataset = Dataset.load(artifacts["dataset"].path)
    if not len(dataset.examples("valid")):
        raise DataError(
            "there are no validation users, by whom it is decided whether tuning helped",
            where=f"split '{dataset.split.name}'",
            next="prepare the dataset with a split that has a validation part",
        )
    first = artifacts["start"]
    recommender = Recommender.from_directory(first.path)
    vectors = ItemEmbeddings.of_artifact(artifacts["embeddings"]) if "embeddings" in artifacts else None
    validate = validator(dataset, selection, algorithm.config.training.validate_users, run)
    began = time.perf_counter()
    report = algorithm.tune(recommender, dataset, run, validate=validate, embeddings=vectors)
    seconds = time.perf_counter() - began + report.training.all_seconds_before
    recommender.save(writer.path)
    writer.summary.update(
        # What it costs to have this recommender: the start's training too.
        train_seconds=first.summary.get("train_seconds", 0.0) + seconds,
        tune_seconds=seconds,
        parameters=recommender.num_parameters,
        gate=_gate(report, selection),
        **report.figures,
        report=report.training.as_json(),
    )


def _gate(report: TuneReport, selection: Protocol) -> Json:
    """What was decided on validation users, and by which figures."""
    start, tuned = report.training.start_metric, report.training.trained_metric
    return {
        "metric": selection.primary,
        "start": start,
        "tuned": tuned,
        "difference": None if start is None or tuned is None else tuned - start,
        "kept": "start" if report.kept_start else "tuned",
    }
