"""Stage `embed`: a prepared dataset → one vector an item."""

import shutil
from dataclasses import replace

from sidrec.artifact import ArtifactWriter, open_artifact
from sidrec.config import Config, RunSettings
from sidrec.data.dataset import Dataset
from sidrec.embeddings.base import Embedder
from sidrec.registry import load_class
from sidrec.stages.layout import RunFolder, StageResult, make_artifact

__all__ = ["embed"]


def embed(
    folder: RunFolder, config: Config, run: RunSettings, name: str | None = None, force: bool = False
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
    dataset = open_artifact(folder.dataset, "dataset")
    settings = config.model_dump(mode="json")
    kind: str = settings["kind"]
    embedder: Embedder = load_class("embedder", kind)(config)
    name = name or kind.rpartition(":")[2]
    scratch = run.scratch or folder.scratch(f"embed-{name}")

    def write(writer: ArtifactWriter) -> None:
        catalog = Dataset.load(folder.dataset).catalog
        facts = embedder.facts(catalog)
        embeddings = embedder.embed(catalog, replace(run, scratch=scratch))
        embeddings.check_fits(catalog)
        embeddings.save(writer.path)
        items, dims = embeddings.vectors.shape
        writer.summary.update({"encoder": embeddings.encoder, "items": items, "dims": dims, **facts})

    result = make_artifact(
        folder.embeddings(name),
        kind="embeddings",
        config=settings,
        seed=run.seed,
        parents={"dataset": dataset, **embedder.sources()},
        write=write,
        force=force,
    )
    if run.scratch is None:
        shutil.rmtree(scratch, ignore_errors=True)
    return result
