"""Dataset and semantic IDs → a recommender that can serve by itself."""

import shutil
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

from sidrec.artifact import Artifact, ArtifactWriter, fingerprint, open_artifact
from sidrec.config import RunSettings, build
from sidrec.data.dataset import Dataset
from sidrec.embeddings.base import ItemEmbeddings
from sidrec.errors import ArtifactError, ConfigError, nearest
from sidrec.evaluation.protocol import Protocol
from sidrec.evaluation.validation import validation
from sidrec.recommenders.base import Recommender
from sidrec.stages.layout import Request, RunFolder, StageResult, check_dataset, make_artifact, name_for
from sidrec.stages.recipe import Recipe
from sidrec.stages.tokenize import load_semantic_ids
from sidrec.training.config import TrainingConfig
from sidrec.types import Json

__all__ = ["SCRATCH_DIGITS", "selection_of", "train", "trained_name"]

SCRATCH_DIGITS = 12
"""Digits of the request's fingerprint in the name of a scratch folder."""


def train(
    folder: RunFolder,
    recipe: Recipe,
    run: RunSettings,
    *,
    name: str | None = None,
    force: bool = False,
    tokenizer: str | None = None,
    embeddings: str | None = None,
) -> StageResult:
    """Train the recipe's recommender on the run's dataset into `recommenders/NAME`.

    A killed training goes on from its last checkpoint when the same training is asked for again.

    Args:
        folder: the run.
        recipe: recommender, training and evaluation settings.
        run: seed, device, progress; its scratch folder, if it has one, is left to the caller. With a team, every
            process trains on its share of each batch.
        name: what the recommender is called; None takes its kind.
        force: train even if the same recommender stands already.
        tokenizer: name of the semantic IDs in the run; None takes the only ones there are.
        embeddings: name of the vectors that a recommender starts from; None takes the only ones there are.

    Raises:
        ArtifactError: the dataset, semantic IDs or vectors are missing, or there are several and none was named.
        ConfigError: the run lacks a recommender that this one is made of.
        DataError: the semantic IDs, the vectors or the members were made from another dataset.
    """
    name = name_for(recipe.recommender.kind, name)
    recommender: Recommender = build("recommender", recipe.recommender)
    selection = selection_of(recipe.evaluation)
    if name in recommender.member_names:
        raise ConfigError(
            f"recommender.members: '{name}' cannot be a member of itself",
            next="choose another --name for the ensemble",
        )
    request = _request(folder, recipe, recommender, selection, run, {"tokenizer": tokenizer, "embeddings": embeddings})
    scratch = run.scratch or folder.scratch(f"{name}-{fingerprint(**request)[:SCRATCH_DIGITS]}")
    parents = request["parents"]

    def write(writer: ArtifactWriter) -> None:
        _fit(recommender, recipe.training, selection, parents, replace(run, scratch=scratch), writer)

    result = make_artifact(folder.recommender(name), **request, write=write, force=force, team=run.team)
    if run.scratch is None and run.team.leads:
        _remove_scratch(folder, name)
    return result


def trained_name(
    folder: RunFolder,
    recipe: Recipe,
    run: RunSettings,
    name: str,
    *,
    tokenizer: str | None = None,
    embeddings: str | None = None,
) -> str:
    """What the recommender of this training is called in the run, if it stands there already; else `name`."""
    recommender: Recommender = build("recommender", recipe.recommender)
    named = {"tokenizer": tokenizer, "embeddings": embeddings}
    request = _request(folder, recipe, recommender, selection_of(recipe.evaluation), run, named)
    wanted = fingerprint(**request)
    for known in folder.names("recommender"):
        with suppress(ArtifactError):
            if open_artifact(folder.recommender(known), "recommender").fingerprint == wanted:
                return known
    return name


def _request(
    folder: RunFolder,
    recipe: Recipe,
    recommender: Recommender,
    selection: Protocol,
    run: RunSettings,
    named: Mapping[str, str | None],
) -> Request:
    """What decides the recommender; training settings, selection and seed only where it reads them."""
    dataset = open_artifact(folder.dataset, "dataset")
    parents = {"dataset": dataset}
    needs = {"tokenizer": recommender.needs_semantic_ids, "embeddings": recommender.needs_item_embeddings}
    for kind in [kind for kind, is_needed in needs.items() if is_needed]:
        parents[kind] = folder.only(kind, named[kind])
        check_dataset(parents[kind], dataset)
    for name, member in _members(folder, recommender).items():
        parents[_member(name)] = member
        check_dataset(member, dataset)
    config: Json = recipe.model_dump(mode="json", include={"recommender"})
    if recommender.training_fields:
        config |= recipe.model_dump(mode="json", include={"training": recommender.training_fields})
        config["selection"] = selection.model_dump(mode="json")
    seed = run.seed if recommender.training_fields else 0
    return {"kind": "recommender", "config": config, "seed": seed, "parents": parents}


def _member(name: str) -> str:
    """The role of a member among the parents."""
    return f"member {name}"


def _members(folder: RunFolder, recommender: Recommender) -> dict[str, Artifact]:
    """The recommenders of the run that this one is made of.

    Raises:
        ConfigError: the run has none of a name.
    """
    known = folder.names("recommender")
    missing = [name for name in recommender.member_names if name not in known]
    if missing:
        raise ConfigError(
            [f"recommender.members: the run has no recommender '{name}'; {nearest(name, known)}" for name in missing],
            where=str(folder.home("recommender")),
            next=f"train the members first, such as with 'sidrec run RECIPE --run {folder.path}'",
        )
    return {name: open_artifact(folder.recommender(name), "recommender") for name in recommender.member_names}


def _remove_scratch(folder: RunFolder, name: str) -> None:
    """Remove what trainings of this name left for resuming, also those with other settings that were given up."""
    for path in folder.scratch("").glob(f"{name}-{'[0-9a-f]' * SCRATCH_DIGITS}"):
        shutil.rmtree(path, ignore_errors=True)


def selection_of(protocol: Protocol) -> Protocol:
    """The rules by which checkpoints are chosen: only what the primary metric depends on.

    A setting that changes reports alone (more cut-offs, other slices) must not train again.
    """
    cutoff = int(protocol.primary.rpartition("@")[2])
    kept = protocol.model_dump(include={"primary", "exclude_seen", "ties", "exact"})
    return Protocol(k=(cutoff,), **kept)


def _fit(
    recommender: Recommender,
    training: TrainingConfig,
    selection: Protocol,
    parents: Mapping[str, Artifact | str],
    run: RunSettings,
    writer: ArtifactWriter,
) -> None:
    artifacts = {role: parent for role, parent in parents.items() if isinstance(parent, Artifact)}
    paths = {role: artifact.path for role, artifact in artifacts.items()}
    dataset = Dataset.load(paths["dataset"])
    ids = load_semantic_ids(paths["tokenizer"]) if "tokenizer" in paths else None
    vectors = ItemEmbeddings.load(paths["embeddings"]) if "embeddings" in paths else None
    validate = validation(dataset, selection, training, run)
    members = {name: artifacts[_member(name)] for name in recommender.member_names}
    start = time.perf_counter()
    needed: dict[str, Any] = {} if vectors is None else {"item_embeddings": vectors}
    if members:
        needed["members"] = {name: Recommender.from_directory(member.path) for name, member in members.items()}
    report = recommender.fit(dataset, training, run, semantic_ids=ids, validate=validate, **needed)
    # What it costs to have this recommender: what killed processes did of it, and the training of its members too.
    seconds = time.perf_counter() - start + report.all_seconds_before
    seconds += sum(member.summary.get("train_seconds", 0.0) for member in members.values())
    if run.team.leads:
        recommender.save(writer.path)
    writer.summary.update(train_seconds=seconds, parameters=recommender.num_parameters, report=report.as_json())
