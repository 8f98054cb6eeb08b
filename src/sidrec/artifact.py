"""Artefacts: self-contained directories that are whole or do not exist.

A directory is written under a temporary sibling name; `artifact.json`, the last file, names every
other one with its digest; then the directory is renamed into place. A directory without a valid
`artifact.json` is not an artefact. A killed writer leaves only the sibling, which the next one
removes.

Two hashes tell artefacts apart. The **digest** is of the content (kind and file digests): equal
content, equal digest, whatever the clock said. The **fingerprint** is of the request (kind, config,
seed, the parents' digests): a stage whose fingerprint stands on disk need not run again.
"""

import errno
import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from sidrec.errors import ArtifactError
from sidrec.types import Json
from sidrec.version import __version__

__all__ = [
    "Artifact",
    "ArtifactWriter",
    "create",
    "digest_of",
    "file_digest",
    "fingerprint",
    "lineage",
    "open_artifact",
]

MANIFEST = "artifact.json"
MAKERS = {
    "dataset": "prepare",
    "embeddings": "embed",
    "tokenizer": "tokenize",
    "recommender": "train",
    "evaluation": "evaluate",
    "comparison": "compare",
}
"""Kind → the command that makes it."""
FORMAT = 1
"""Number of the artefact layout; raised when an older reader could misread a newer directory."""


@dataclass(frozen=True)
class Artifact:
    """An artefact on disk whose files were checked.

    Attributes:
        path: the directory.
        kind: `dataset`, `embeddings`, `tokenizer`, `recommender`, `evaluation` or `comparison`.
        manifest: the whole of `artifact.json`.
    """

    path: Path
    kind: str
    manifest: Json

    @property
    def digest(self) -> str:
        """Hash of the content."""
        return self.manifest["digest"]

    @property
    def fingerprint(self) -> str:
        """Hash of the request that made it."""
        return self.manifest["fingerprint"]

    @property
    def config(self) -> Json:
        """The resolved configuration that made it."""
        return self.manifest["config"]

    @property
    def summary(self) -> Json:
        """Figures worth printing; not part of the digest."""
        return self.manifest["summary"]

    @property
    def parents(self) -> dict[str, str]:
        """Role → digest of every artefact this one was made from."""
        return {role: parent["digest"] for role, parent in self.manifest["parents"].items()}


@dataclass
class ArtifactWriter:
    """Handed out by `create`: write files under `path`, fill `summary`."""

    path: Path
    summary: Json = field(default_factory=dict)


def digest_of(value: object) -> str:
    """SHA-256 of a JSON-able value in canonical form.

    >>> digest_of({"b": 1, "a": 2}) == digest_of({"a": 2, "b": 1})
    True
    """
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fingerprint(kind: str, config: Json, seed: int, parents: Mapping[str, Artifact | str]) -> str:
    """Hash of a request: what would be made from what, with which settings."""
    return digest_of([kind, FORMAT, config, seed, _digests(parents)])


def _digests(parents: Mapping[str, Artifact | str]) -> dict[str, str]:
    return {role: p if isinstance(p, str) else p.digest for role, p in parents.items()}


@contextmanager
def create(
    path: Path,
    *,
    kind: str,
    config: Json,
    seed: int = 0,
    parents: Mapping[str, Artifact | str] | None = None,
) -> Generator[ArtifactWriter]:
    """Write an artefact: all of it appears at `path`, or nothing does.

    Args:
        path: the final directory; an artefact already there is replaced only at the very end.
        kind: what it is.
        config: the resolved configuration.
        seed: the run's seed.
        parents: role → artefact (or the digest of an outside source) it is made from.

    Raises:
        ArtifactError: the disk is full or the place cannot be written.
    """
    parents = parents or {}
    with _file_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        _recover(path)
        for stale in _siblings(path, "partial"):
            shutil.rmtree(stale, ignore_errors=True)
        partial = path.with_name(f".{path.name}.partial-{os.getpid()}")
        partial.mkdir()
    writer = ArtifactWriter(partial)
    try:
        with _file_errors(path):
            yield writer
            files = _file_digests(partial)
            manifest = {
                "kind": kind,
                "format": FORMAT,
                "version": __version__,
                "source": _source_state(),
                "config": config,
                "seed": seed,
                "parents": {
                    role: {"digest": digest, "path": _relative(parents[role], path)}
                    for role, digest in _digests(parents).items()
                },
                "files": files,
                "digest": digest_of([kind, files]),
                "fingerprint": fingerprint(kind, config, seed, parents),
                "summary": writer.summary,
            }
            _write_synced(partial / MANIFEST, json.dumps(manifest, indent=1, ensure_ascii=False))
            _swap(partial, path)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def open_artifact(path: Path | str, kind: str | None = None) -> Artifact:
    """Read an artefact and check that it is whole and of the right kind.

    Raises:
        ArtifactError: missing, of another kind or format, or a file does not match its digest.
    """
    path = Path(path)
    _recover(path)
    manifest_path = path / MANIFEST
    if not manifest_path.is_file():
        raise ArtifactError(
            f"there is no artefact at {path}",
            expected=f"a directory with {MANIFEST}",
            next=_what_is_there(path, kind),
        )
    try:
        manifest: Json = json.loads(manifest_path.read_text(encoding="utf-8"))
        found_kind, found_format, files = manifest["kind"], manifest["format"], manifest["files"]
    except (ValueError, KeyError, TypeError) as error:
        raise ArtifactError(
            "the manifest cannot be read", where=str(manifest_path), next="make the artefact again"
        ) from error
    if found_format != FORMAT:
        raise ArtifactError(
            f"the artefact has format {found_format}",
            where=str(path),
            expected=f"format {FORMAT}, which sidrec {__version__} reads",
            next="make it again, or use the version that wrote it: " + str(manifest.get("version")),
        )
    if kind is not None and found_kind != kind:
        raise ArtifactError(f"this is a {found_kind}", where=str(path), expected=f"a {kind}")
    for name, digest in files.items():
        file = path / name
        if not file.is_file() or file_digest(file) != digest:
            raise ArtifactError(
                f"the file '{name}' is missing or was changed after it was written",
                where=str(path),
                expected=f"SHA-256 {digest[:12]}…",
                next="delete the directory and run the stage again",
            )
    return Artifact(path, found_kind, manifest)


def _what_is_there(path: Path, kind: str | None) -> str:
    parent = path.parent
    names = sorted(p.name for p in parent.iterdir() if (p / MANIFEST).is_file()) if parent.is_dir() else []
    there = f"artefacts in {parent}: {', '.join(names)}" if names else f"there is none in {parent} either"
    return f"make it with 'sidrec {MAKERS[kind]}'; {there}" if kind in MAKERS else there


def _file_digests(directory: Path) -> dict[str, str]:
    files = sorted(p for p in directory.rglob("*") if p.is_file())
    return {p.relative_to(directory).as_posix(): file_digest(p) for p in files}


def _siblings(path: Path, role: str) -> list[Path]:
    return sorted(path.parent.glob(f".{path.name}.{role}-*"))


def _swap(partial: Path, path: Path) -> None:
    """Put `partial` at `path`; an old directory stands aside until the new one is in place."""
    if not path.exists():
        partial.rename(path)
        return
    aside = path.with_name(f".{path.name}.old-{os.getpid()}")
    path.rename(aside)
    partial.rename(path)
    shutil.rmtree(aside, ignore_errors=True)


def _recover(path: Path) -> None:
    """Finish a swap that was killed half way: the old artefact comes back if the new one is missing."""
    for aside in _siblings(path, "old"):
        if path.exists():
            shutil.rmtree(aside, ignore_errors=True)
        elif (aside / MANIFEST).is_file():
            aside.rename(path)


def _write_synced(path: Path, text: str) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _relative(parent: Artifact | str, path: Path) -> str:
    return parent if isinstance(parent, str) else os.path.relpath(parent.path, path.parent)


@contextmanager
def _file_errors(path: Path) -> Generator[None]:
    """Turn a full disk and a forbidden folder into errors that say what to do."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            what, step = "the disk is full; nothing finished was lost", "free space and run the command again"
        elif error.errno in (errno.EACCES, errno.EROFS, errno.EPERM):
            what, step = "the folder cannot be written", "choose another --run folder or its permissions"
        else:
            raise
        raise ArtifactError(what, where=f"{path} ({error.strerror})", next=step) from error


@cache
def _source_state() -> Json:
    """Commit and dirty flag of the source tree the library runs from; empty if installed."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return {}
    try:
        commit, status = (
            subprocess.run(["git", *args], cwd=root, capture_output=True, text=True, check=True).stdout
            for args in (["rev-parse", "HEAD"], ["status", "--porcelain"])
        )
    except (OSError, subprocess.CalledProcessError):
        return {}
    return {"commit": commit.strip(), "dirty": bool(status.strip())}


def lineage(artifact: Artifact) -> Sequence[tuple[str, Path, Any]]:
    """The parents of an artefact that still stand where they were: (role, path, manifest or None)."""
    out: list[tuple[str, Path, Any]] = []
    for role, parent in artifact.manifest["parents"].items():
        path = (artifact.path.parent / parent["path"]).resolve()
        manifest = path / MANIFEST
        known = json.loads(manifest.read_text(encoding="utf-8")) if manifest.is_file() else None
        out.append((role, path, known))
    return out
