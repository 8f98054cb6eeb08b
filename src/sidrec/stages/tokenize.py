"""Stage `tokenize`: item vectors or imported codes → a tokenizer with its semantic IDs and their quality."""

from pathlib import Path
from typing import Any

from sidrec.artifact import Artifact, ArtifactWriter, open_artifact
from sidrec.config import Config, RunSettings, build, kind_of
from sidrec.data.dataset import Dataset
from sidrec.embeddings.base import ItemEmbeddings
from sidrec.errors import ArtifactError
from sidrec.stages.layout import Request, RunFolder, StageResult, check_dataset, make_artifact, name_for, own_name
from sidrec.stages.quality import write_quality
from sidrec.tokenizers.auto import resolve_auto
from sidrec.tokenizers.base import ImportingTokenizer, Tokenizer, VectorTokenizer
from sidrec.tokenizers.collisions import as_semantic_ids, settle_codes
from sidrec.tokenizers.placement import Quantized
from sidrec.tokenizers.semantic_ids import SemanticIds
from sidrec.tokenizers.vector_quality import duplicate_vectors, reconstruction_error
from sidrec.types import Json

__all__ = ["load_semantic_ids", "needs_embeddings", "tokenize", "tokenizer_name"]


def tokenize(
    folder: RunFolder,
    config: Config,
    run: RunSettings,
    *,
    name: str | None = None,
    force: bool = False,
    embeddings: str | None = None,
) -> StageResult:
    """Make a tokenizer artefact: fitted state, semantic IDs, their quality report.

    Args:
        folder: the run.
        config: of a tokenizer; `auto` is resolved here and the artefact records what it became.
        run: seed, device, progress.
        name: of the artefact; the tokenizer's kind by default.
        force: make it even if it is up to date.
        embeddings: name of the vectors; None takes the only ones there are.

    Raises:
        ArtifactError: vectors are needed and missing, or there are several and none was named.
        DataError: the vectors were made from another dataset.
    """
    dataset = Dataset.load(folder.dataset)
    config = resolve_auto(config, dataset)
    name = name_for(kind_of(config), name)
    tokenizer: Tokenizer = build("tokenizer", config)
    request = _request(folder, tokenizer, dataset, run, embeddings)
    vectors = request["parents"].get("embeddings")
    return make_artifact(
        folder.tokenizer(name),
        **request,
        write=lambda writer: _write(writer, tokenizer, dataset, vectors, run),
        force=force,
    )


def needs_embeddings(config: Config, dataset: Dataset) -> bool:
    """Whether `tokenize` with this configuration needs item vectors for this dataset."""
    return build("tokenizer", resolve_auto(config, dataset)).needs_embeddings


def tokenizer_name(folder: RunFolder, config: Config, run: RunSettings, embeddings: str | None = None) -> str:
    """A name for the tokenizer of a configuration that replaces no other of the dataset."""
    dataset = Dataset.load(folder.dataset)
    config = resolve_auto(config, dataset)
    request = _request(folder, build("tokenizer", config), dataset, run, embeddings)
    return own_name(folder.tokenizer(name_for(kind_of(config))), request)


def load_semantic_ids(path: Path | str) -> SemanticIds:
    """The semantic IDs of a tokenizer artefact.

    Raises:
        ArtifactError: it is missing, damaged or something else.
    """
    return SemanticIds.load(open_artifact(path, "tokenizer").path)


def _request(
    folder: RunFolder, tokenizer: Tokenizer, dataset: Dataset, run: RunSettings, embeddings: str | None
) -> Request:
    """What decides the codes; the seed only where something is learned."""
    assert dataset.artifact is not None, "a loaded dataset knows its artefact"
    parents: dict[str, Artifact | str] = {"dataset": dataset.artifact, **tokenizer.sources()}
    if tokenizer.needs_embeddings:
        parents["embeddings"] = _embeddings(folder, embeddings, dataset)
    seed = run.seed if tokenizer.uses_seed else 0
    return {"kind": "tokenizer", "config": tokenizer.describe(), "seed": seed, "parents": parents}


def _embeddings(folder: RunFolder, name: str | None, dataset: Dataset) -> Artifact:
    """The artefact of the named vectors, or of the only ones of the run."""
    assert dataset.artifact is not None, "a loaded dataset knows its artefact"
    if name is None and not folder.names("embeddings") and not dataset.catalog.text_fields:
        raise ArtifactError(
            "semantic IDs are learned from item vectors; there are none, and no text to make them of",
            where=str(folder.home("embeddings")),
            next="import vectors with an embedder of kind 'import', "
            "or an index of codes with tokenizer.kind=given tokenizer.path=FILE",
        )
    found = folder.only("embeddings", name)
    check_dataset(found, dataset.artifact)
    return found


def _write(
    writer: ArtifactWriter, tokenizer: Tokenizer, dataset: Dataset, source: Artifact | str | None, run: RunSettings
) -> None:
    facts: Json = {}
    if isinstance(tokenizer, VectorTokenizer):
        assert isinstance(source, Artifact), "a tokenizer that needs vectors has them as a parent"
        quantized, facts = _learned(tokenizer, ItemEmbeddings.of_artifact(source), dataset, run)
    else:
        assert isinstance(tokenizer, ImportingTokenizer), f"{type(tokenizer).__name__} neither learns nor imports"
        quantized = Quantized(*tokenizer.codes(dataset, run))
    policy: Any = tokenizer.config.collisions
    settled = settle_codes(policy, quantized)
    tokenizer.save(writer.path)
    as_semantic_ids(settled, dataset.catalog.digest).save(writer.path, dataset.catalog)
    writer.summary.update(write_quality(writer.path, quantized, settled, policy.kind, dataset, facts))


def _learned(
    tokenizer: VectorTokenizer, embeddings: ItemEmbeddings, dataset: Dataset, run: RunSettings
) -> tuple[Quantized, Json]:
    """The codes of a fitted tokenizer, and what the vectors say about them."""
    embeddings.check_fits(dataset.catalog)
    tokenizer.fit(embeddings, run)
    vectors = embeddings.vectors
    with run.progress("encode items", None) as advance:
        quantized = tokenizer.quantized(vectors)
        error = reconstruction_error(vectors, quantized.codes, tokenizer.reconstruct, tokenizer.compared)
        facts = {
            "relative_reconstruction_error": error,
            "duplicate_inputs": duplicate_vectors(vectors, dataset.catalog.ids),
        }
        advance()
    return quantized, facts
