"""Where the artefacts of a run stand, and how a stage decides that it need not run."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from sidrec.artifact import Artifact, ArtifactWriter, create, fingerprint, open_artifact
from sidrec.errors import ArtifactError
from sidrec.types import Json

__all__ = ["RunFolder", "StageResult", "make_artifact"]


@dataclass(frozen=True)
class RunFolder:
    """The folder of one run: one dataset and everything made from it."""

    path: Path

    @property
    def dataset(self) -> Path:
        """The prepared dataset."""
        return self.path / "dataset"

    def embeddings(self, name: str) -> Path:
        """Item vectors called `name`."""
        return self.path / "embeddings" / name

    def tokenizer(self, name: str) -> Path:
        """A tokenizer and its semantic IDs."""
        return self.path / "tokenizers" / name

    def recommender(self, name: str) -> Path:
        """A trained recommender."""
        return self.path / "recommenders" / name

    def evaluation(self, name: str, part: str) -> Path:
        """The evaluation of the recommender `name` on `valid` or `test`."""
        return self.path / "evaluations" / f"{name}-{part}"

    @property
    def comparison(self) -> Path:
        """The table of all recommenders of the run."""
        return self.path / "comparison"

    def scratch(self, name: str) -> Path:
        """Files that let a killed stage resume."""
        return self.path / ".scratch" / name


@dataclass(frozen=True)
class StageResult:
    """What a stage left behind.

    Attributes:
        artifact: the artefact, new or found up to date.
        skipped: whether it stood already and nothing was done.
        seconds: wall-clock seconds of this call.
    """

    artifact: Artifact
    skipped: bool
    seconds: float


def make_artifact(
    path: Path,
    *,
    kind: str,
    config: Json,
    seed: int,
    parents: Mapping[str, Artifact | str],
    write: Callable[[ArtifactWriter], None],
    force: bool = False,
) -> StageResult:
    """Make an artefact unless one from the same request stands already.

    Args:
        path: where it belongs.
        kind: what it is.
        config: everything that decides its content, apart from seed and parents.
        seed: the run's seed.
        parents: role → what it is made from.
        write: fills the directory.
        force: make it even if it is up to date.
    """
    start = time.perf_counter()
    if not force:
        try:
            found = open_artifact(path, kind)
        except ArtifactError:
            found = None
        if found is not None and found.fingerprint == fingerprint(kind, config, seed, parents):
            return StageResult(found, True, time.perf_counter() - start)
    with create(path, kind=kind, config=config, seed=seed, parents=parents) as writer:
        write(writer)
    return StageResult(open_artifact(path, kind), False, time.perf_counter() - start)
