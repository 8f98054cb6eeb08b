"""Stage `embed`: a prepared dataset → one vector an item."""

import shutil
from dataclasses import replace

from sidrec.artifact import ArtifactWriter, open_artifact
from sidrec.config import Config, RunSettings, build, kind_of
from sidrec.data.dataset import Dataset
from sidrec.embeddings.base import Embedder
from sidrec.stages.layout import Request, RunFolder, StageResult, make_artifact, name_for, own_name

__all__ = ["embed", "embeddings_name"]


def embed(
    folder: RunFolder, config: Config, run: RunSettings, *, name: str | None = None, force: bool = False
) -> StageResult:
    """Make an embeddings artefact; a killed run resumes where it stopped.

    Args:
        folder: the run.
        config: of an embedder.
        run: seed, device, progress.
        name: of the artefact; the embedder's kind by default.
        force: make it even if it is up to date.

    Raises:
        DataError: the catalogue has no text, or the imported vectors do not fit it.
    """
    name = name_for(kind_of(config), name)
    embedder: Embedder = build("embedder", config)
    scratch = run.scratch or folder.scratch(f"embed-{name}")

    def write(writer: ArtifactWriter) -> None:
        dataset = Dataset.load(folder.dataset)
        facts = embedder.facts(dataset.catalog)
        embeddings = embedder.embed_items(dataset, replace(run, scratch=scratch))
        embeddings.check_fits(dataset.catalog)
        embeddings.save(writer.path)
        embedder.save(writer.path)
        items, dims = embeddings.vectors.shape
        writer.summary.update({"encoder": embeddings.encoder, "items": items, "dims": dims, **facts})

    result = make_artifact(folder.embeddings(name), **_request(folder, embedder, run), write=write, force=force)
    if run.scratch is None:
        shutil.rmtree(scratch, ignore_errors=True)
    return result


def embeddings_name(folder: RunFolder, config: Config, run: RunSettings) -> str:
    """A name for the vectors of a configuration that replaces no others of the dataset."""
    request = _request(folder, build("embedder", config), run)
    return own_name(folder.embeddings(name_for(kind_of(config))), request)


def _request(folder: RunFolder, embedder: Embedder, run: RunSettings) -> Request:
    return {
        "kind": "embeddings",
        "config": embedder.config.model_dump(mode="json"),
        "seed": run.seed,
        "parents": {"dataset": open_artifact(folder.dataset, "dataset"), **embedder.sources()},
    }
