"""Where the artefacts of a run stand, and how a stage decides that it need not run."""

import re
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypedDict

from sidrec.artifact import (
    MAKERS,
    MANIFEST,
    Artifact,
    ArtifactWriter,
    check_replaceable,
    create,
    fingerprint,
    open_artifact,
)
from sidrec.errors import ArtifactError, ConfigError, DataError
from sidrec.team import ALONE, Team
from sidrec.types import Json

__all__ = ["Request", "RunFolder", "StageResult", "check_dataset", "make_artifact", "name_for", "own_name"]

HOMES = {
    "facts": "facts",
    "embeddings": "embeddings",
    "tokenizer": "tokenizers",
    "recommender": "recommenders",
    "evaluation": "evaluations",
}
"""Kind → the folder of a run that holds its artefacts."""


@dataclass(frozen=True)
class RunFolder:
    """The folder of one run: one dataset and everything made from it."""

    path: Path

    @property
    def dataset(self) -> Path:
        """The prepared dataset."""
        return self.path / "dataset"

    def facts(self, name: str) -> Path:
        """Facts about items from outside, called `name`."""
        return self.home("facts") / name

    def embeddings(self, name: str) -> Path:
        """Item vectors called `name`."""
        return self.home("embeddings") / name

    def tokenizer(self, name: str) -> Path:
        """A tokenizer and its semantic IDs."""
        return self.home("tokenizer") / name

    def recommender(self, name: str) -> Path:
        """A trained recommender."""
        return self.home("recommender") / name

    def evaluation(self, name: str, part: str) -> Path:
        """The evaluation of the recommender `name` on `valid` or `test`."""
        return self.home("evaluation") / f"{name}-{part}"

    @property
    def comparison(self) -> Path:
        """The table of all recommenders of the run."""
        return self.path / "comparison"

    def scratch(self, name: str) -> Path:
        """Files that let a killed stage resume."""
        return self.path / ".scratch" / name

    def home(self, kind: str) -> Path:
        """The folder of all artefacts of a kind."""
        return self.path / HOMES[kind]

    def names(self, kind: str) -> list[str]:
        """Names of the artefacts of a kind that stand in the run, sorted."""
        return sorted(path.parent.name for path in self.home(kind).glob(f"[!.]*/{MANIFEST}"))

    def of_other_datasets(self) -> list[str]:
        """Artefacts that were made from another dataset than the run's, such as `recommenders/sasrec`."""
        digest, found = open_artifact(self.dataset, "dataset").digest, list[str]()
        for kind, folder in HOMES.items():
            for name in self.names(kind):
                with suppress(ArtifactError):
                    if open_artifact(self.home(kind) / name).parents.get("dataset", digest) != digest:
                        found.append(f"{folder}/{name}")
        return found

    def only(self, kind: str, name: str | None = None) -> Artifact:
        """The artefact called `name`, or the only one of its kind.

        Raises:
            ArtifactError: it is missing or damaged, or there are several and none was named.
        """
        names = self.names(kind)
        if name is None and len(names) != 1:
            what = {"tokenizer": "semantic IDs", "embeddings": "item vectors"}.get(kind, kind)
            raise ArtifactError(
                f"the run has several {what}: {', '.join(names)}" if names else f"the run has no {what}",
                where=str(self.home(kind)),
                expected=f"one of them named with --{kind} NAME" if names else "",
                next="" if names else f"run 'sidrec {MAKERS[kind]} --run {self.path}' first, or 'sidrec run'",
            )
        return open_artifact(self.home(kind) / (name or names[0]), kind)


class Request(TypedDict):
    """What decides the content of an artefact; the arguments of `artifact.fingerprint`."""

    kind: str
    config: Json
    seed: int
    parents: Mapping[str, Artifact | str]


def name_for(kind: str, chosen: str | None = None) -> str:
    """What an artefact is called: as chosen, else after the kind of its maker; of a foreign kind, the class.

    >>> name_for("rqvae"), name_for("my_package.tokenizers:Mine"), name_for("tiger", "large")
    ('rqvae', 'Mine', 'large')

    Raises:
        ConfigError: the chosen name could not be one folder's.
    """
    if chosen is None:
        return kind.rpartition(":")[2]
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", chosen, re.ASCII):
        raise ConfigError(
            f"'{chosen}' cannot be a name", next="use letters, digits, '_', '.' and '-', a letter or digit first"
        )
    return chosen


def own_name(path: Path, request: Request) -> str:
    """A name beside `path` under which nothing useful is replaced.

    That is `path`'s own if it is free, or the same request or something of an older dataset stands there;
    else the name with the request's fingerprint.
    """
    try:
        found = open_artifact(path, request["kind"])
    except ArtifactError:
        return path.name
    wanted, dataset = fingerprint(**request), request["parents"]["dataset"]
    is_older = isinstance(dataset, Artifact) and found.parents.get("dataset") != dataset.digest
    return path.name if is_older or found.fingerprint == wanted else f"{path.name}-{wanted[:8]}"


def check_dataset(parent: Artifact, dataset: Artifact) -> None:
    """Refuse an artefact that was made from another dataset than the one beside it.

    Raises:
        DataError: the dataset was prepared again since.
    """
    theirs = parent.parents.get("dataset", "none")
    if theirs != dataset.digest:
        raise DataError(
            f"the {parent.kind} '{parent.path.name}' was made from another dataset than the run's",
            where=f"{parent.path} was made from {theirs[:12]}, {dataset.path} is {dataset.digest[:12]}",
            next=f"run 'sidrec {MAKERS[parent.kind]}' again, or 'sidrec run', which does what is needed",
        )


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
    team: Team = ALONE,
) -> StageResult:
    """Make an artefact unless one from the same request stands already.

    Where several processes share the work, the first one decides, and what the others write is thrown away.

    Args:
        path: where it belongs.
        kind: what it is.
        config: everything that decides its content, apart from seed and parents.
        seed: the run's seed.
        parents: role → what it is made from.
        write: fills the directory.
        force: make it even if it is up to date.
        team: this process among those that all make this artefact.

    Raises:
        ArtifactError: something else stands there, or it cannot be written.
        TeamError: another process has ended.
    """
    start = time.perf_counter()
    if not team.leads:
        (is_needed,) = team.told([0])
        if is_needed:
            with TemporaryDirectory() as aside:
                write(ArtifactWriter(Path(aside)))
        team.meet()
        return StageResult(open_artifact(path, kind), not is_needed, time.perf_counter() - start)
    check_replaceable(path, kind)
    if not force:
        try:
            found = open_artifact(path, kind)
        except ArtifactError:
            found = None
        if found is not None and found.fingerprint == fingerprint(kind, config, seed, parents):
            team.told([0])
            team.meet()
            return StageResult(found, True, time.perf_counter() - start)
    team.told([1])
    with create(path, kind=kind, config=config, seed=seed, parents=parents) as writer:
        write(writer)
    team.meet()
    return StageResult(open_artifact(path, kind), False, time.perf_counter() - start)
