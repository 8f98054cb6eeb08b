"""A whole recipe, stage by stage; what is up to date is not done again."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sidrec.artifact import open_artifact
from sidrec.config import Config, RunSettings, kind_of
from sidrec.data.dataset import Dataset
from sidrec.errors import ConfigError
from sidrec.stages.embed import embed, embeddings_name
from sidrec.stages.evaluate import evaluate
from sidrec.stages.layout import RunFolder, StageResult, name_for
from sidrec.stages.prepare import prepare
from sidrec.stages.recipe import Recipe, needs_item_embeddings, needs_semantic_ids
from sidrec.stages.tokenize import needs_collaborative, needs_embeddings, tokenize, tokenizer_name
from sidrec.stages.train import train, trained_name
from sidrec.stages.tune import algorithm_of, tune

__all__ = ["Announce", "Step", "run_recipe"]


@dataclass(frozen=True)
class Step:
    """One finished stage of a run.

    Attributes:
        stage: `prepare`, `embed`, `tokenize`, `train`, `tune` or `evaluate`.
        result: what it left behind.
    """

    stage: str
    result: StageResult


Announce = Callable[[str, StageResult | None], None]
"""Told the name of every stage: with None before it begins, with its result after."""

Do = Callable[[str, Callable[[], StageResult]], StageResult]
"""Runs the work of a named stage and announces it."""


def run_recipe(
    folder: RunFolder,
    recipe: Recipe,
    run: RunSettings,
    *,
    name: str | None = None,
    force: bool = False,
    source: Path | None = None,
    announce: Announce | None = None,
) -> list[Step]:
    """Prepare, embed, tokenize, train, tune and evaluate on the test part: the stages that the recipe needs.

    Where the recipe tunes, the recommender that it starts from stays in the run, as `NAME-start` unless the same
    training stands there under another name.

    Args:
        folder: the run.
        recipe: settings of every stage.
        run: seed, device, progress.
        name: what the recommender is called; None takes its kind.
        force: do every stage even if it is up to date.
        source: raw data to prepare; None takes the run's dataset as it stands.
        announce: hears of every stage.

    Raises:
        ArtifactError: there is no source and the run has no dataset.
        ConfigError: there is a source and the recipe does not say how to read it; or there is none and
            the run's dataset was prepared otherwise than the recipe says.
    """
    name = name_for(recipe.recommender.kind, name)
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
    vectors = _vectors(folder, recipe.embeddings, run, force, do) if needs_item_embeddings(recipe) else None
    trained = name
    if recipe.algorithm is not None:
        trained = trained_name(folder, recipe, run, f"{name}-start", tokenizer=tokenizer, embeddings=vectors)
    do("train", lambda: train(folder, recipe, run, name=trained, force=force, tokenizer=tokenizer, embeddings=vectors))
    if recipe.algorithm is not None:
        _tune(folder, recipe, run, trained, name, force, do)
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
    do: Do,
) -> str:
    """Make the semantic IDs of the recipe and say what they are called; vectors only where they are needed.

    Vectors and semantic IDs of other recipes in the run stay: the recommenders trained on them name them.
    """
    vectors = None
    if needs_embeddings(recipe.tokenizer, Dataset.load(folder.dataset)):
        vectors = _vectors(folder, recipe.embeddings, run, force, do)
    collaborative = _collaborative(folder, recipe, run, force, do)
    name = tokenizer_name(folder, recipe.tokenizer, run, vectors, collaborative)
    do(
        "tokenize",
        lambda: tokenize(
            folder,
            recipe.tokenizer,
            run,
            name=name,
            force=force,
            embeddings=vectors,
            collaborative=collaborative,
        ),
    )
    return name


def _tune(folder: RunFolder, recipe: Recipe, run: RunSettings, start: str, name: str, force: bool, do: Do) -> None:
    """Tune the trained recommender, on vectors of the recipe where the algorithm needs some."""
    vectors = None
    if algorithm_of(recipe).needs_embeddings:
        vectors = embeddings_name(folder, recipe.embeddings, run)
        do("embed", lambda: embed(folder, recipe.embeddings, run, name=vectors, force=force))
    do("tune", lambda: tune(folder, recipe, run, start=start, name=name, force=force, embeddings=vectors))


def _collaborative(folder: RunFolder, recipe: Recipe, run: RunSettings, force: bool, do: Do) -> str | None:
    """Make the collaborative vectors where the tokenizer wants them, and say what they are called.

    Raises:
        ConfigError: it wants them and the recipe has none.
    """
    if not needs_collaborative(recipe.tokenizer):
        return None
    config = recipe.collaborative
    if config is None:
        raise ConfigError(
            f"collaborative: a tokenizer of kind '{kind_of(recipe.tokenizer)}' learns from collaborative vectors too",
            next="add collaborative.kind=collaborative",
        )
    return _vectors(folder, config, run, force, do)


def _vectors(folder: RunFolder, config: Config, run: RunSettings, force: bool, do: Do) -> str:
    """Make vectors of the items and say what they are called."""
    name = embeddings_name(folder, config, run)
    do("embed", lambda: embed(folder, config, run, name=name, force=force))
    return name
