"""A whole recipe, stage by stage; what is up to date is not done again."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sidrec.artifact import open_artifact
from sidrec.config import RunSettings
from sidrec.data.dataset import Dataset
from sidrec.errors import ConfigError
from sidrec.stages.embed import embed
from sidrec.stages.evaluate import evaluate
from sidrec.stages.layout import RunFolder, StageResult
from sidrec.stages.prepare import prepare
from sidrec.stages.recipe import Recipe, needs_semantic_ids
from sidrec.stages.tokenize import needs_embeddings, tokenize
from sidrec.stages.train import train

__all__ = ["Announce", "Step", "run_recipe"]


@dataclass(frozen=True)
class Step:
    """One finished stage of a run.

    Attributes:
        stage: `prepare`, `embed`, `tokenize`, `train` or `evaluate`.
        result: what it left behind.
    """

    stage: str
    result: StageResult


Announce = Callable[[str, StageResult | None], None]
"""Told the name of every stage: with None before it begins, with its result after."""


def run_recipe(
    folder: RunFolder,
    recipe: Recipe,
    run: RunSettings,
    name: str | None = None,
    source: Path | None = None,
    force: bool = False,
    announce: Announce | None = None,
) -> list[Step]:
    """Prepare, embed, tokenize, train and evaluate on the test part: the stages that the recipe needs.

    Args:
        folder: the run.
        recipe: settings of every stage.
        run: seed, device, progress.
        name: what the recommender is called; None takes its kind.
        source: raw data to prepare; None takes the run's dataset as it stands.
        force: do every stage even if it is up to date.
        announce: hears of every stage.

    Raises:
        ArtifactError: there is no source and the run has no dataset.
        ConfigError: there is a source and the recipe does not say how to read it; or there is none and
            the run's dataset was prepared otherwise than the recipe says.
    """
    name = name or recipe.default_name
    steps: list[Step] = []

    def do(stage: str, work: Callable[[], StageResult]) -> StageResult:
        if announce:
            announce(stage, None)
        result = work()
        if announce:
            announce(stage, result)
        steps.append(Step(stage, result))
        return result

    if source is None:
        _check_dataset(folder, recipe)
    else:
        data = recipe.data
        if data is None:
            raise ConfigError("data: the recipe does not say how to read the data", next="add --reader NAME")
        do("prepare", lambda: prepare(folder, data, source, run, force=force))
    tokenizer = None
    if needs_semantic_ids(recipe):
        tokenizer = _semantic_ids(folder, recipe, run, force, do)
    do("train", lambda: train(folder, recipe, run, name, tokenizer=tokenizer, force=force))
    do("evaluate", lambda: evaluate(folder.recommender(name), "test", recipe.evaluation, run, force=force))
    return steps


def _check_dataset(folder: RunFolder, recipe: Recipe) -> None:
    """Refuse a dataset that is missing, or that the recipe's own settings would have made differently."""
    dataset = open_artifact(folder.dataset, "dataset")
    if recipe.data is not None and recipe.data.model_dump(mode="json") != dataset.config:
        raise ConfigError(
            "data: the run's dataset was prepared with other settings than the recipe's",
            where=str(folder.dataset),
            next="name the raw data with --path to prepare it again, or leave the recipe's 'data' out",
        )


def _semantic_ids(
    folder: RunFolder,
    recipe: Recipe,
    run: RunSettings,
    force: bool,
    do: Callable[[str, Callable[[], StageResult]], StageResult],
) -> str:
    """Make the semantic IDs of the recipe and say what they are called; vectors only where they are needed."""
    vectors = None
    if needs_embeddings(recipe.tokenizer, Dataset.load(folder.dataset)):
        made = do("embed", lambda: embed(folder, recipe.embeddings, run, force=force))
        vectors = made.artifact.path.name
    ids = do("tokenize", lambda: tokenize(folder, recipe.tokenizer, run, embeddings=vectors, force=force))
    return ids.artifact.path.name
