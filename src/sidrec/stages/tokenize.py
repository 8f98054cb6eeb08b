"""Stage `tokenize`: item vectors or imported codes → a tokenizer with its semantic IDs and their quality."""

import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from sidrec.artifact import Artifact, ArtifactWriter, open_artifact
from sidrec.config import Config, RunSettings, build, kind_of
from sidrec.data.catalog import Catalog
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
from sidrec.tokenizers.vector_quality import vector_quality
from sidrec.types import FloatArray, Json

__all__ = ["assessed", "load_semantic_ids", "needs_embeddings", "tokenize", "tokenizer_name", "write_codes"]


def tokenize(
    folder: RunFolder,
    config: Config,
    run: RunSettings,
    *,
    name: str | None = None,
    force: bool = False,
    embeddings: str | None = None,
    collaborative: str | None = None,
) -> StageResult:
    """Make a tokenizer artefact: fitted state, semantic IDs, their quality report.

    Args:
        folder: the run.
        config: of a tokenizer; `auto` is resolved here and the artefact records what it became.
        run: seed, device, progress.
        name: of the artefact; the tokenizer's kind by default, with a part of its fingerprint where other semantic
            IDs of that name are those of a recommender.
        force: make it even if it is up to date.
        embeddings: name of the vectors; None takes the only ones there are.
        collaborative: name of vectors learnt from what users did, for tokenizers that want them.

    A killed training goes on from its last checkpoint when the same tokenizer is asked for again.

    Raises:
        ArtifactError: vectors are needed and missing, or there are several and none was named.
        DataError: the vectors were made from another dataset.
    """
    dataset = Dataset.load(folder.dataset)
    config = resolve_auto(config, dataset)
    tokenizer: Tokenizer = build("tokenizer", config)
    request = _request(folder, tokenizer, dataset, run, embeddings, collaborative)
    if name is None:
        name = name_for(kind_of(config))
        if _has_recommender(folder, name):
            name = own_name(folder.tokenizer(name), request)
    name = name_for(kind_of(config), name)
    scratch = run.scratch or folder.scratch(f"tokenize-{name}")

    def write(writer: ArtifactWriter) -> None:
        _write(writer, tokenizer, dataset, request["parents"], replace(run, scratch=scratch))

    result = make_artifact(folder.tokenizer(name), **request, write=write, force=force)
    if run.scratch is None:
        shutil.rmtree(scratch, ignore_errors=True)
    return result


def _has_recommender(folder: RunFolder, name: str) -> bool:
    """Whether a recommender of the run was made from these semantic IDs as they stand."""
    try:
        digest = open_artifact(folder.tokenizer(name), "tokenizer").digest
    except ArtifactError:
        return False
    made = (open_artifact(folder.recommender(each), "recommender") for each in folder.names("recommender"))
    return any(each.parents.get("tokenizer") == digest for each in made)


def needs_embeddings(config: Config, dataset: Dataset) -> bool:
    """Whether `tokenize` with this configuration needs item vectors for this dataset."""
    return build("tokenizer", resolve_auto(config, dataset)).needs_embeddings


def needs_collaborative(config: Config) -> bool:
    """Whether `tokenize` with this configuration needs vectors learnt from what users did."""
    return build("tokenizer", config).needs_collaborative


def tokenizer_name(
    folder: RunFolder,
    config: Config,
    run: RunSettings,
    embeddings: str | None = None,
    collaborative: str | None = None,
) -> str:
    """A name for the tokenizer of a configuration that replaces no other of the dataset."""
    dataset = Dataset.load(folder.dataset)
    config = resolve_auto(config, dataset)
    request = _request(folder, build("tokenizer", config), dataset, run, embeddings, collaborative)
    return own_name(folder.tokenizer(name_for(kind_of(config))), request)


def load_semantic_ids(path: Path | str) -> SemanticIds:
    """The semantic IDs of a tokenizer artefact.

    Raises:
        ArtifactError: it is missing, damaged or something else.
    """
    return SemanticIds.load(open_artifact(path, "tokenizer").path)


def _request(
    folder: RunFolder,
    tokenizer: Tokenizer,
    dataset: Dataset,
    run: RunSettings,
    embeddings: str | None,
    collaborative: str | None,
) -> Request:
    """What decides the codes; the seed only where something is learned."""
    assert dataset.artifact is not None, "a loaded dataset knows its artefact"
    parents: dict[str, Artifact | str] = {"dataset": dataset.artifact, **tokenizer.sources()}
    if tokenizer.needs_embeddings:
        parents["embeddings"] = _embeddings(folder, embeddings, dataset)
    if tokenizer.needs_collaborative:
        parents["collaborative"] = _collaborative(folder, collaborative, dataset)
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
    found = folder.only("embeddings", name or _only_content(folder))
    check_dataset(found, dataset.artifact)
    return found


def _only_content(folder: RunFolder) -> str | None:
    """The name of the only vectors that are not learnt from what users did, if there is just one."""
    content = [
        name
        for name in folder.names("embeddings")
        if open_artifact(folder.embeddings(name), "embeddings").config["kind"] != "collaborative"
    ]
    return content[0] if len(content) == 1 else None


def _collaborative(folder: RunFolder, name: str | None, dataset: Dataset) -> Artifact:
    """The artefact of the named vectors; they are never guessed among others."""
    assert dataset.artifact is not None, "a loaded dataset knows its artefact"
    if name is None:
        raise ArtifactError(
            "this tokenizer learns from vectors of what users did, too, and none were named",
            where=str(folder.home("embeddings")),
            expected=f"--collaborative NAME, one of: {', '.join(folder.names('embeddings')) or 'none yet'}",
            next=f"make them with 'sidrec embed --kind collaborative --run {folder.path}'",
        )
    found = folder.only("embeddings", name)
    check_dataset(found, dataset.artifact)
    return found


def _vectors(parent: Artifact | str | None) -> ItemEmbeddings | None:
    return ItemEmbeddings.of_artifact(parent) if isinstance(parent, Artifact) else None


def _write(
    writer: ArtifactWriter,
    tokenizer: Tokenizer,
    dataset: Dataset,
    parents: Mapping[str, Artifact | str],
    run: RunSettings,
) -> None:
    facts: Json = {}
    if isinstance(tokenizer, VectorTokenizer):
        embeddings = _vectors(parents.get("embeddings"))
        assert embeddings is not None, "a tokenizer that needs vectors has them as a parent"
        collaborative = _vectors(parents.get("collaborative"))
        quantized, facts = _learned(tokenizer, embeddings, collaborative, dataset, run)
    else:
        assert isinstance(tokenizer, ImportingTokenizer), f"{type(tokenizer).__name__} neither learns nor imports"
        quantized = Quantized(*tokenizer.codes(dataset, run))
    write_codes(writer, tokenizer, dataset, quantized, facts)


def write_codes(
    writer: ArtifactWriter,
    tokenizer: Tokenizer,
    dataset: Dataset,
    quantized: Quantized,
    facts: Json,
    extends: SemanticIds | None = None,
) -> None:
    """Settle collisions and write the tokenizer, its semantic IDs and their quality.

    Args:
        writer: of a tokenizer artefact.
        tokenizer: fitted, or importing.
        dataset: the items, and what users did with them.
        quantized: codes of the items.
        facts: what the vectors say about the codes.
        extends: earlier semantic IDs of the catalogue's first items; these keep their codes.
    """
    policy: Any = tokenizer.config.collisions
    catalog = dataset.catalog
    settled = settle_codes(policy, quantized, extends)
    ids = as_semantic_ids(settled, catalog.digest, extends)
    if extends is not None:
        ids.check_extends(extends, catalog)
    tokenizer.save(writer.path)
    ids.save(writer.path, catalog)
    if extends is not None:
        # What the policy did it did to the new items alone.
        facts = facts | {"settled_items": len(ids) - len(extends)}
    facts = facts | {"tokenizer": kind_of(tokenizer.config)}
    writer.summary.update(write_quality(writer.path, quantized, settled, policy.kind, dataset, facts))


def _learned(
    tokenizer: VectorTokenizer,
    embeddings: ItemEmbeddings,
    collaborative: ItemEmbeddings | None,
    dataset: Dataset,
    run: RunSettings,
) -> tuple[Quantized, Json]:
    """The codes of a tokenizer after fitting, and what the vectors say about them."""
    for vectors in (embeddings, collaborative):
        if vectors is not None:
            vectors.check_fits(dataset.catalog)
    tokenizer.fit(embeddings, run, collaborative)
    return assessed(tokenizer, embeddings.vectors, dataset.catalog, run)


def assessed(
    tokenizer: VectorTokenizer, vectors: FloatArray, catalog: Catalog, run: RunSettings
) -> tuple[Quantized, Json]:
    """The codes of a fitted tokenizer, and what the vectors float32[N, D] say about them."""
    with run.progress("encode items", None) as advance:
        quantized = tokenizer.quantized(vectors)
        facts = vector_quality(tokenizer, vectors, quantized.codes, catalog.ids)
        advance()
    return quantized, facts
