"""Stage `tokenize`: item vectors or imported codes → a tokenizer with its semantic IDs and their quality."""

import json
from pathlib import Path
from typing import Any

from sidrec.artifact import Artifact, ArtifactWriter, open_artifact
from sidrec.config import Config, RunSettings
from sidrec.data.dataset import Dataset
from sidrec.embeddings.base import ItemEmbeddings
from sidrec.errors import DataError, nearest
from sidrec.registry import load_class
from sidrec.stages.layout import RunFolder, StageResult, make_artifact
from sidrec.tokenizers.auto import resolve_auto
from sidrec.tokenizers.base import ImportingTokenizer, Tokenizer, VectorTokenizer
from sidrec.tokenizers.collisions import as_semantic_ids, settle_codes
from sidrec.tokenizers.placement import Quantized
from sidrec.tokenizers.plots import draw_quality
from sidrec.tokenizers.quality import quality_report, quality_summary, vector_quality
from sidrec.tokenizers.semantic_ids import SemanticIds
from sidrec.types import Json

__all__ = ["load_semantic_ids", "needs_embeddings", "tokenize"]

REPORT, PICTURE = "quality.json", "quality.png"


def tokenize(
    folder: RunFolder,
    config: Config,
    run: RunSettings,
    embeddings: str | None = None,
    name: str | None = None,
    force: bool = False,
) -> StageResult:
    """Make a tokenizer artefact: fitted state, semantic IDs, `quality.json` and `quality.png`.

    Args:
        folder: the run.
        config: of a tokenizer; `auto` is resolved here and the artefact records what it became.
        run: seed, device, progress.
        embeddings: name of the vectors; None takes the only ones there are.
        name: of the artefact; the tokenizer's kind by default.
        force: make it even if it is up to date.

    Raises:
        DataError: vectors are needed and missing, or do not fit the catalogue.
    """
    dataset = Dataset.load(folder.dataset)
    config = resolve_auto(config, dataset)
    kind: str = config.model_dump()["kind"]
    tokenizer: Tokenizer = load_class("tokenizer", kind)(config)
    assert dataset.artifact is not None, "a loaded dataset knows its artefact"
    parents: dict[str, Artifact | str] = {"dataset": dataset.artifact, **tokenizer.sources()}
    if tokenizer.needs_embeddings:
        parents["embeddings"] = _embeddings(folder, embeddings, dataset)
    return make_artifact(
        folder.tokenizer(name or kind.rpartition(":")[2]),
        kind="tokenizer",
        config=tokenizer.describe(),
        seed=run.seed,
        parents=parents,
        write=lambda writer: _write(writer, tokenizer, dataset, parents.get("embeddings"), run),
        force=force,
    )


def needs_embeddings(config: Config, dataset: Dataset) -> bool:
    """Whether `tokenize` with this configuration needs item vectors for this dataset."""
    config = resolve_auto(config, dataset)
    return load_class("tokenizer", config.model_dump()["kind"]).needs_embeddings


def load_semantic_ids(path: Path | str) -> SemanticIds:
    """The semantic IDs of a tokenizer artefact.

    Raises:
        ArtifactError: it is missing, damaged or something else.
    """
    return SemanticIds.load(open_artifact(path, "tokenizer").path)


def _embeddings(folder: RunFolder, name: str | None, dataset: Dataset) -> Artifact:
    """The artefact of the named vectors, or of the only ones of the run."""
    place = folder.embeddings("-").parent
    names = sorted(path.parent.name for path in place.glob("[!.]*/artifact.json"))
    if name is None and len(names) == 1:
        name = names[0]
    if name is not None:
        return open_artifact(folder.embeddings(name), "embeddings")
    if names:
        raise DataError("several item vectors stand here; which are to be tokenized?", expected=nearest("", names))
    if dataset.catalog.text_fields:
        step = "run 'sidrec embed' first"
    else:
        step = (
            "the catalogue has no text either: import vectors with an embedder of kind 'import', "
            "or an index of codes with tokenizer.kind=given tokenizer.path=FILE"
        )
    raise DataError("semantic IDs are learned from item vectors, and there are none", where=str(place), next=step)


def _write(
    writer: ArtifactWriter, tokenizer: Tokenizer, dataset: Dataset, source: Artifact | str | None, run: RunSettings
) -> None:
    facts: Json = {}
    if isinstance(tokenizer, VectorTokenizer):
        assert isinstance(source, Artifact), "a tokenizer that needs vectors has them as a parent"
        quantized, facts = _learned(tokenizer, ItemEmbeddings.of_artifact(source), dataset, run)
    else:
        assert isinstance(tokenizer, ImportingTokenizer), f"{type(tokenizer).__name__} neither learns nor imports"
        quantized = Quantized(*tokenizer.codes(dataset))
    policy: Any = tokenizer.config.collisions
    settled = settle_codes(policy, quantized)
    tokenizer.save(writer.path)
    as_semantic_ids(settled, dataset.catalog.digest).save(writer.path, dataset.catalog)
    report = quality_report(quantized, settled, policy.kind) | facts
    (writer.path / REPORT).write_text(json.dumps(report, indent=1, ensure_ascii=False), encoding="utf-8")
    draw_quality(writer.path / PICTURE, settled.codes, settled.sizes, report["before"], report["after"])
    writer.summary.update(quality_summary(report))


def _learned(
    tokenizer: VectorTokenizer, embeddings: ItemEmbeddings, dataset: Dataset, run: RunSettings
) -> tuple[Quantized, Json]:
    """The codes of a fitted tokenizer, and what the vectors say about them."""
    embeddings.check_fits(dataset.catalog)
    tokenizer.fit(embeddings, run)
    vectors = embeddings.vectors
    with run.progress("encode items", None) as advance:
        quantized = tokenizer.quantized(vectors)
        rebuilt = tokenizer.reconstruct(quantized.codes)
        facts = vector_quality(vectors, tokenizer.compared(vectors), rebuilt, dataset.catalog.ids)
        advance()
    return quantized, facts
