"""Stage `cold-start`: how well a recipe recommends items that came to the catalogue after training.

Whole items are held out, the recipe runs without them in a folder of its own inside the run, the items are
appended by content, and the grown recommender is scored. All steps are artefacts, so what stands is not done
again. What is held out and what is asked is decided in `sidrec.evaluation.cold_start` and its neighbours.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from sidrec.artifact import Artifact, ArtifactWriter, open_artifact
from sidrec.config import RunSettings, build, kind_of
from sidrec.data.dataset import Dataset
from sidrec.data.index import index_text
from sidrec.data.statistics import dataset_statistics
from sidrec.embeddings.base import ContentEmbedder, Embedder
from sidrec.embeddings.imported import ImportedVectors
from sidrec.errors import ConfigError, DataError
from sidrec.evaluation.cold_start import ColdStartConfig, HeldOut, draw_new_items, hold_out
from sidrec.evaluation.cold_start_report import as_markdown
from sidrec.evaluation.cold_start_scoring import NEW, Answer, Questions
from sidrec.evaluation.protocol import Protocol
from sidrec.evaluation.table import MetricTable
from sidrec.stages.evaluate import LISTS, METRICS, PER_USER
from sidrec.stages.extend import extend, grown_vectors
from sidrec.stages.layout import RunFolder, StageResult, make_artifact, name_for
from sidrec.stages.recipe import Recipe, needs_semantic_ids
from sidrec.stages.recommend import load_recommender
from sidrec.stages.run import Announce, run_recipe
from sidrec.stages.tokenize import needs_collaborative, needs_embeddings
from sidrec.tokenizers.auto import resolve_auto
from sidrec.types import Json

__all__ = ["cold_start", "cold_start_report"]

PART = "cold-start"
REPORT = "report.md"


def cold_start(
    folder: RunFolder,
    recipe: Recipe,
    run: RunSettings,
    *,
    config: ColdStartConfig | None = None,
    name: str | None = None,
    force: bool = False,
    announce: Announce | None = None,
) -> StageResult:
    """Hold items out, run the recipe without them in `RUN/cold-start-NAME`, append them and score the result.

    Writes `evaluations/NAME-cold-start` with `metrics.json`, `report.md` and `per_user.parquet` (one line an
    example, after growth).

    Args:
        folder: the run, with its dataset.
        recipe: settings of every stage; the rules of its `evaluation` hold for every figure.
        run: seed (also of the draw of items), device, progress.
        config: how many items are held out.
        name: what the recommender is called; None takes its kind.
        force: do every step even if it is up to date.
        announce: hears of every step.

    Raises:
        ConfigError: the recipe's recommender writes no semantic IDs, or its codes come from an index file.
        DataError: its vectors are not made from content, or the held-out items leave nothing to learn or to ask.
        ArtifactError: the run has no dataset.
    """
    config = config or ColdStartConfig()
    dataset = Dataset.load(folder.dataset)
    _check(recipe, dataset)
    name = name_for(recipe.recommender.kind, name)
    work = RunFolder(folder.path / f"{PART}-{name}")
    counts = np.bincount(dataset.sequences.rows, minlength=len(dataset.catalog))
    held = hold_out(dataset, draw_new_items(counts, config.share, run.seed))

    def do(stage: str, step: Callable[[], StageResult]) -> StageResult:
        if announce:
            announce(stage, None)
        result = step()
        if announce:
            announce(stage, result)
        return result

    do("hold out", lambda: _save_dataset(work, dataset, held, config, run, force))
    recipe, new = _without_new_items(work, recipe, dataset, held, run)
    run_recipe(work, recipe, run, name=name, force=force, announce=announce)
    recommender = open_artifact(work.recommender(name), "recommender")
    tokenizer = Path(recommender.manifest["parents"]["tokenizer"]["path"]).name
    grown = do(
        "extend",
        lambda: extend(
            work, new.items, run, tokenizer=tokenizer, vectors=new.vectors, overrides=new.overrides, force=force
        ),
    ).artifact
    before = open_artifact(work.evaluation(name, "test"), "evaluation")
    questions = Questions(held, recipe.evaluation, config, run)
    return do(
        PART,
        lambda: make_artifact(
            folder.evaluation(name, PART),
            kind="evaluation",
            config={
                "part": PART,
                "protocol": recipe.evaluation.model_dump(mode="json"),
                "cold_start": config.model_dump(mode="json"),
            },
            seed=run.seed,
            parents={"recommender": recommender, "tokenizer": grown, "dataset": _artifact_of(dataset)},
            write=lambda writer: _write(writer, questions, recommender, grown, before),
            force=force,
        ),
    )


def cold_start_report(artifact: Artifact) -> Json:
    """The report of a cold-start evaluation; its form is in `sidrec.evaluation.cold_start_report`."""
    return json.loads((artifact.path / METRICS).read_text(encoding="utf-8"))


def _artifact_of(dataset: Dataset) -> Artifact:
    assert dataset.artifact is not None, "a loaded dataset knows its artefact"
    return dataset.artifact


def _check(recipe: Recipe, dataset: Dataset) -> None:
    """Refuse at once what would fail after the training."""
    if not needs_semantic_ids(recipe):
        raise ConfigError(
            f"recommender: '{recipe.recommender.kind}' cannot recommend items that it was not trained on",
            next="use a recommender that writes semantic IDs, such as tiger or decoder",
        )
    tokenizer: Any = resolve_auto(recipe.tokenizer, dataset)
    if kind_of(tokenizer) == "given" and tokenizer.path:
        raise ConfigError(
            "tokenizer.path: items cannot be held out of an index file",
            where=tokenizer.path,
            next="prepare the dataset together with its codes, which are then held out with the items",
        )
    if needs_collaborative(tokenizer) and kind_of(recipe.collaborative or recipe.embeddings) != "collaborative":
        raise ConfigError(
            "collaborative: only vectors that are learnt from the remaining events do not know the new items",
            next="set collaborative.kind=collaborative, or tokenizer.alpha=0",
        )
    embedder: Embedder = build("embedder", recipe.embeddings)
    if needs_embeddings(tokenizer, dataset) and not isinstance(embedder, ContentEmbedder):
        raise DataError(
            f"vectors of kind '{kind_of(recipe.embeddings)}' cannot be made for new items",
            expected="vectors of item content: tfidf, text or import",
            next="choose them with embeddings.kind=tfidf",
        )


def _save_dataset(
    work: RunFolder, dataset: Dataset, held: HeldOut, config: ColdStartConfig, run: RunSettings, force: bool
) -> StageResult:
    def write(writer: ArtifactWriter) -> None:
        held.warm.save(writer.path)
        writer.summary.update(dataset_statistics(held.warm) | {"held_out": held.figures})

    return make_artifact(
        work.dataset,
        kind="dataset",
        config={"held_out": config.share},
        seed=run.seed,
        parents={"dataset": _artifact_of(dataset)},
        write=write,
        force=force,
    )


@dataclass(frozen=True)
class _NewItems:
    """What the new items bring, as `extend` wants it: texts, and vectors or codes where these are imported."""

    items: Path
    vectors: Path | None = None
    overrides: tuple[str, ...] = ()


def _without_new_items(
    work: RunFolder, recipe: Recipe, dataset: Dataset, held: HeldOut, run: RunSettings
) -> tuple[Recipe, _NewItems]:
    """The recipe for the dataset as it stands in the work folder, and the files of the new items."""
    num_old, items = len(held.warm.catalog), work.path / "new_items.parquet"
    held.grown.catalog.tail(num_old).items.write_parquet(items)
    recipe = recipe.model_copy(update={"data": None})
    if kind_of(resolve_auto(recipe.tokenizer, dataset)) == "given":
        return recipe, _NewItems(items, overrides=_new_codes(work, dataset, held))
    if not needs_embeddings(recipe.tokenizer, dataset):
        return recipe, _NewItems(items)
    if not isinstance(recipe.embeddings, ImportedVectors.Config):
        return recipe, _NewItems(items)
    # Rows of an imported file are those of the whole catalogue.
    vectors = ImportedVectors(recipe.embeddings).embed(dataset.catalog, run).vectors
    ordered = vectors[dataset.catalog.rows(held.grown.catalog.ids)]
    old, new = work.path / "old_vectors.npy", work.path / "new_vectors.npy"
    np.save(old, ordered[:num_old])
    np.save(new, ordered[num_old:])
    embeddings = ImportedVectors.Config(path=str(old), rows="catalogue order")
    return recipe.model_copy(update={"embeddings": embeddings}), _NewItems(items, new)


def _new_codes(work: RunFolder, dataset: Dataset, held: HeldOut) -> tuple[str, ...]:
    """The setting that names an index file of the new items, whose codes came with the data."""
    if dataset.given_codes is None:
        return ()  # The tokenizer will say that there are none.
    new = held.grown.catalog.ids[len(held.warm.catalog) :]
    file = work.path / "new_items.index.json"
    file.write_text(index_text(new, dataset.given_codes[dataset.catalog.rows(new)]), encoding="utf-8")
    return (f"path={file}",)


def _write(
    writer: ArtifactWriter, questions: Questions, recommender: Artifact, tokenizer: Artifact, before: Artifact
) -> None:
    protocol = questions.protocol
    grown = load_recommender(recommender.path, tokenizer.path)
    found, per_user = questions.report(grown, _answer(before, protocol), grown_vectors(tokenizer))
    rules = protocol.describe(questions.held.warm.split.name, "test", protocol.search or grown.config.search)
    report: Json = {
        "recommender": recommender.path.name,
        "kind": grown.config.kind,
        "part": PART,
        "protocol": f"{rules} · {questions.config.describe(_origin_of_codes(tokenizer))}",
        **found,
    }
    per_user.write_parquet(writer.path / PER_USER)
    (writer.path / METRICS).write_text(json.dumps(report, indent=1, ensure_ascii=False), encoding="utf-8")
    (writer.path / REPORT).write_text(as_markdown(report), encoding="utf-8")
    new = next(line for line in report["lines"] if line["name"] == NEW)
    names = [protocol.primary, *(name for name in protocol.names if not name.startswith("recall"))]
    writer.summary.update(
        {name: new["metrics"][name] for name in names},
        certified=new["certified"],
        users=new["users"],
        examples=new["examples"],
        protocol=report["protocol"],
    )


def _origin_of_codes(tokenizer: Artifact) -> str:
    """How new items got their codes; only of what was learnt here is it known what it was learnt from."""
    kind = tokenizer.config["kind"]
    known = {"given": "that came with the data and may know the new items", "random": "at random"}
    return known.get(kind, "by content")


def _answer(evaluation: Artifact, protocol: Protocol) -> Answer:
    """What the recommender answered before growth, from its ordinary evaluation."""
    table = pl.read_parquet(evaluation.path / PER_USER)
    values = {name: table[name].to_numpy() for name in table.columns if name.removeprefix("sid_") in protocol.names}
    with np.load(evaluation.path / LISTS, allow_pickle=False) as file:
        return Answer(MetricTable(values, protocol.primary), file["rows"], table["certified"].to_numpy())
