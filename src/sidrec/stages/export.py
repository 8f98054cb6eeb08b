"""Semantic IDs and item vectors of a run as the files that the published systems read."""

from pathlib import Path

import numpy as np

from sidrec.artifact import Artifact, lineage, open_artifact
from sidrec.data.dataset import Dataset
from sidrec.data.index import index_text, info_text, item_map_text
from sidrec.embeddings.base import ItemEmbeddings
from sidrec.errors import ArtifactError, DataError
from sidrec.stages.extend import grown_catalog
from sidrec.tokenizers.semantic_ids import SemanticIds

__all__ = ["export"]

ENDINGS = {
    "tokenizer": {
        ".json": "index file of LETTER, LC-Rec, GRec, MQL4GRec and MiniOneRec",
        ".txt": "info file of MiniOneRec",
    },
    "embeddings": {".npy": "vectors as LETTER and LC-Rec read them"},
}
"""Kind of artefact → what its files can be, by their ending."""
ITEM_MAP = ".item2id"


def export(
    path: Path | str, target: Path, *, upper: bool = False, numbers: bool = False, force: bool = False
) -> list[Path]:
    """Write semantic IDs or item vectors as a file of another system; the ending of its name says which.

    Args:
        path: a tokenizer's or embeddings' artefact.
        target: the file: `.json` an index, `.txt` an info file, `.npy` vectors.
        upper: write the letters of codes as in `<A_17>`.
        numbers: name items by their row, and write the item map that says which is which beside the file.
        force: replace files that are there.

    Returns:
        The files that were written.

    Raises:
        ArtifactError: there is no such artefact, or its dataset, which has the titles, is gone.
        DataError: the ending is not known, a file is in the way, or there are more levels than letters.
    """
    artifact = open_artifact(path)
    _check_ending(artifact, target)
    item_map = target.with_name(target.name.split(".")[0] + ITEM_MAP)
    written = [target, *([item_map] if numbers else [])]
    for file in written:
        if file.exists() and not force:
            raise DataError("there is a file already", where=str(file), next="choose another name, or add --force")
    target.parent.mkdir(parents=True, exist_ok=True)
    if artifact.kind == "embeddings":
        items = _dataset(artifact).catalog.ids if numbers else []
        np.save(target, ItemEmbeddings.of_artifact(artifact).vectors, allow_pickle=False)
    else:
        items = SemanticIds.item_ids(artifact.path)
        target.write_text(_codes_text(artifact, target, items, upper=upper, numbers=numbers), encoding="utf-8")
    if numbers:
        item_map.write_text(item_map_text(items), encoding="utf-8")
    return written


def _check_ending(artifact: Artifact, target: Path) -> None:
    known = ENDINGS.get(artifact.kind)
    if known is None:
        raise ArtifactError(
            f"a {artifact.kind} cannot be exported",
            where=str(artifact.path),
            expected="a tokenizer or embeddings",
            next="name one of the folders under 'tokenizers' or 'embeddings' of the run",
        )
    if target.suffix not in known:
        raise DataError(
            f"'{target.suffix}' is no ending of a file that {artifact.kind} can be written to",
            where=str(target),
            expected="; ".join(f"{ending}: {what}" for ending, what in known.items()),
        )


def _codes_text(artifact: Artifact, target: Path, items: list[str], *, upper: bool, numbers: bool) -> str:
    codes = SemanticIds.load(artifact.path).codes
    names = [str(row) for row in range(len(items))] if numbers else items
    if target.suffix == ".json":
        return index_text(names, codes, upper=upper)
    catalog = grown_catalog(artifact, _dataset(artifact))
    return info_text(names, catalog.titles_of(range(len(items))), codes, upper=upper)


def _dataset(artifact: Artifact) -> Dataset:
    """The dataset that an artefact was made from."""
    path = next(path for role, path, _ in lineage(artifact) if role == "dataset")
    dataset = Dataset.load(path)
    wanted = artifact.parents["dataset"]
    if dataset.artifact is None or dataset.artifact.digest != wanted:
        raise ArtifactError(
            f"the dataset of the {artifact.kind} was prepared again since",
            where=str(path),
            expected=f"digest {wanted[:12]}",
            next="run 'sidrec run' again, which does what is needed",
        )
    return dataset
