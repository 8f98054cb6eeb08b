"""What an artefact is, what it was made from, and which figures stand in it."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from sidrec.artifact import MANIFEST, Artifact, lineage, open_artifact
from sidrec.errors import ArtifactError
from sidrec.types import Json

__all__ = ["Inspection", "Node", "inspect"]


@dataclass(frozen=True)
class Node:
    """One artefact in a lineage.

    Attributes:
        role: what it is to the artefact made from it; the kind for the root.
        path: where it stands, or the name of an outside source.
        digest: digest that was recorded when it was used.
        state: `present`; `changed` where something else stands there now; `gone`; or `source` for
            data from outside.
        parents: what it was made from.
    """

    role: str
    path: str
    digest: str
    state: Literal["present", "changed", "gone", "source"]
    parents: tuple["Node", ...] = ()

    def as_json(self) -> Json:
        """The tree as JSON."""
        return {
            "role": self.role,
            "path": self.path,
            "digest": self.digest,
            "state": self.state,
            "parents": [parent.as_json() for parent in self.parents],
        }


@dataclass(frozen=True)
class Inspection:
    """Everything worth knowing about an artefact.

    Attributes:
        artifact: the artefact, its files checked.
        lineage: what it was made from.
        evaluations: name → summary of the evaluations made of it that stand in the same run.
    """

    artifact: Artifact
    lineage: Node
    evaluations: dict[str, Json] = field(default_factory=dict)

    def as_json(self) -> Json:
        """The inspection as JSON."""
        manifest = self.artifact.manifest
        kept = ("kind", "version", "source", "seed", "config", "digest", "fingerprint", "summary")
        return {
            "path": str(self.artifact.path),
            **{key: manifest[key] for key in kept},
            "lineage": self.lineage.as_json(),
            "evaluations": self.evaluations,
        }


def inspect(path: Path | str) -> list[Inspection]:
    """Read one artefact, or all artefacts of a run folder, and follow where they come from.

    Raises:
        ArtifactError: there is no artefact, or one is damaged.
    """
    path = Path(path)
    if (path / MANIFEST).is_file() or not path.is_dir():
        return [_inspect(path)]
    found = sorted(manifest.parent for manifest in _manifests(path))
    if not found:
        raise ArtifactError(
            f"there is no artefact in {path}",
            expected="an artefact, or the folder of a run",
            next="make a dataset with 'sidrec prepare'",
        )
    return [_inspect(directory) for directory in found]


def _manifests(run: Path) -> Iterator[Path]:
    """Manifests of a run folder; half-written and scratch directories begin with a dot."""
    for pattern in (f"[!.]*/{MANIFEST}", f"[!.]*/[!.]*/{MANIFEST}"):
        yield from run.glob(pattern)


def _inspect(path: Path) -> Inspection:
    artifact = open_artifact(path)
    root = Node(artifact.kind, str(artifact.path), artifact.digest, "present", _parents(artifact))
    return Inspection(artifact, root, _evaluations(artifact))


def _parents(artifact: Artifact) -> tuple[Node, ...]:
    recorded: Json = artifact.manifest["parents"]
    nodes = []
    for role, path, manifest in lineage(artifact):
        nodes.append(_node(role, path, str(recorded[role]["digest"]), str(recorded[role]["path"]), manifest))
    return tuple(nodes)


def _node(role: str, path: Path, digest: str, recorded_path: str, manifest: Any) -> Node:
    if recorded_path == digest:
        return Node(role, "data from outside", digest, "source")
    if manifest is None:
        return Node(role, str(path), digest, "gone")
    if manifest["digest"] != digest:
        return Node(role, str(path), digest, "changed")
    return Node(role, str(path), digest, "present", _parents(Artifact(path, manifest["kind"], manifest)))


def _evaluations(artifact: Artifact) -> dict[str, Json]:
    """Summaries of the evaluations beside a recommender that were made of exactly this one."""
    if artifact.kind != "recommender":
        return {}
    out: dict[str, Json] = {}
    for manifest in sorted((artifact.path.parent.parent / "evaluations").glob(f"[!.]*/{MANIFEST}")):
        content: Json = json.loads(manifest.read_text(encoding="utf-8"))
        if any(parent["digest"] == artifact.digest for parent in content["parents"].values()):
            out[manifest.parent.name] = content["summary"]
    return out
