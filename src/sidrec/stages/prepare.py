"""Stage `prepare`: files → filtered, ordered, split `Dataset`. How is decided in `sidrec.data.preparation`."""

from collections.abc import Sequence
from pathlib import Path

from sidrec.artifact import ArtifactWriter, digest_of, file_digest
from sidrec.config import RunSettings
from sidrec.data.dataset import Dataset
from sidrec.data.preparation import PrepareConfig, build_dataset, reader_of
from sidrec.data.statistics import dataset_statistics
from sidrec.errors import DataError
from sidrec.stages.layout import RunFolder, StageResult, make_artifact

__all__ = ["prepare"]


def prepare(
    folder: RunFolder, config: PrepareConfig, path: Path, run: RunSettings, *, force: bool = False
) -> StageResult:
    """Make the dataset of a run from files, unless it stands already.

    Args:
        folder: the run.
        config: reader, filters and split.
        path: the file or folder to read.
        run: progress.
        force: make it even if it is up to date.

    Raises:
        DataError: the files are missing or wrong, or leave no training example.
    """
    reader = reader_of(config)
    sources = reader.sources(path)
    _check_apart(sources, folder.dataset)
    source = digest_of([[file.name, file_digest(file)] for file in sources])

    def write(writer: ArtifactWriter) -> None:
        dataset, drops = build_dataset(reader.read(path), config, run)
        _check_examples(dataset)
        dataset.save(writer.path)
        writer.summary.update(dataset_statistics(dataset, drops))
        writer.summary["source"] = [file.name for file in sources]

    return make_artifact(
        folder.dataset,
        kind="dataset",
        config=config.model_dump(mode="json"),
        seed=0,  # Nothing is drawn.
        parents={"source": source},
        write=write,
        force=force,
    )


def _check_examples(dataset: Dataset) -> None:
    """Refuse a dataset that nothing can be learnt from."""
    if not len(dataset.examples("train")):
        users, events = len(dataset.sequences.users), len(dataset.sequences.rows)
        raise DataError(
            "the split leaves no training example",
            where=f"{events} events of {users} users, split '{dataset.split.name}'",
            expected="users with enough events: leave-one-out takes the last two and needs a history before the rest",
            next="loosen the filters, or choose another split with split.kind=NAME",
        )


def _check_apart(sources: Sequence[Path], target: Path) -> None:
    """Refuse to write the dataset where a file lies that it is read from."""
    home = target.resolve()
    inside = [file for file in sources if file.resolve().is_relative_to(home)]
    if inside:
        raise DataError(
            "the data lie in the folder that the dataset is written to",
            where=str(inside[0]),
            expected="raw data outside of the run",
            next="move them, or choose another --run folder",
        )
