"""Dataset and semantic IDs → a recommender that can serve by itself."""

import shutil
import time
from dataclasses import replace
from typing import cast

from sidrec.artifact import MANIFEST, Artifact, ArtifactWriter, fingerprint, open_artifact
from sidrec.config import RunSettings
from sidrec.data.dataset import Dataset
from sidrec.errors import ArtifactError
from sidrec.evaluation.protocol import Protocol
from sidrec.evaluation.validation import validator
from sidrec.recommenders.base import Recommender
from sidrec.registry import load_class
from sidrec.stages.layout import RunFolder, StageResult, make_artifact
from sidrec.stages.recipe import Recipe
from sidrec.stages.tokenize import load_semantic_ids
from sidrec.training.config import TrainingConfig
from sidrec.types import Json

__all__ = ["train"]


def train(
    folder: RunFolder,
    recipe: Recipe,
    run: RunSettings,
    name: str | None = None,
    tokenizer: str | None = None,
    force: bool = False,
) -> StageResult:
    """Train the recipe's recommender on the run's dataset into `recommenders/NAME`.

    A killed training goes on from its last checkpoint when the same training is asked for again.

    Args:
        folder: the run.
        recipe: recommender, training and evaluation settings.
        run: seed, device, progress.
        name: what the recommender is called; None takes its kind.
        tokenizer: name of the semantic IDs in the run; None takes the only ones there are.
        force: train even if the same recommender stands already.

    Raises:
        ArtifactError: the dataset or the semantic IDs are missing.
    """
    name = name or recipe.default_name
    part = cast(type[Recommender], load_class("recommender", recipe.recommender.kind))
    parents = {"dataset": open_artifact(folder.dataset, "dataset")}
    if part.needs_semantic_ids:
        parents["tokenizer"] = _tokenizer(folder, tokenizer)
    selection = _selection(recipe.evaluation)
    config: Json = recipe.model_dump(mode="json", include={"recommender", "training"})
    config["selection"] = selection.model_dump(mode="json")
    scratch = folder.scratch(f"{name}-{fingerprint('recommender', config, run.seed, parents)[:12]}")

    def write(writer: ArtifactWriter) -> None:
        _fit(part(recipe.recommender), recipe.training, selection, parents, replace(run, scratch=scratch), writer)

    result = make_artifact(
        folder.recommender(name),
        kind="recommender",
        config=config,
        seed=run.seed,
        parents=parents,
        write=write,
        force=force,
    )
    shutil.rmtree(scratch, ignore_errors=True)
    return result


def _selection(protocol: Protocol) -> Protocol:
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
    parents: dict[str, Artifact],
    run: RunSettings,
    writer: ArtifactWriter,
) -> None:
    dataset = Dataset.load(parents["dataset"].path)
    ids = load_semantic_ids(parents["tokenizer"].path) if "tokenizer" in parents else None
    has_valid = len(dataset.examples("valid")) > 0
    validate = validator(dataset, selection, training.validate_users, run) if has_valid else None
    start = time.perf_counter()
    report = recommender.fit(dataset, training, run, semantic_ids=ids, validate=validate)
    seconds = time.perf_counter() - start
    recommender.save(writer.path)
    writer.summary.update(train_seconds=seconds, parameters=recommender.num_parameters, report=report.as_json())


def _tokenizer(folder: RunFolder, name: str | None) -> Artifact:
    """The tokenizer called `name`, or the only one of the run.

    Raises:
        ArtifactError: it is missing, or there are several and none was named.
    """
    if name is not None:
        return open_artifact(folder.tokenizer(name), "tokenizer")
    home = folder.tokenizer("")
    names = sorted(path.parent.name for path in home.glob(f"[!.]*/{MANIFEST}"))
    if len(names) == 1:
        return open_artifact(folder.tokenizer(names[0]), "tokenizer")
    if not names:
        raise ArtifactError(
            "the run has no semantic IDs",
            where=str(home),
            next=f"make them with 'sidrec tokenize --run {folder.path}', or use 'sidrec run', which does",
        )
    raise ArtifactError(
        f"the run has {len(names)} tokenizers: {', '.join(names)}",
        where=str(home),
        expected="one of them named",
        next="add --tokenizer NAME",
    )
