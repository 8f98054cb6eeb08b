"""Artefacts: self-contained directories that are whole or do not exist.

A directory is written under a temporary sibling name; `artifact.json`, the last file, names every
other one with its digest; then the directory is renamed into place. A directory without a valid
`artifact.json` is not an artefact. A killed writer leaves only the sibling, which the next one
removes. Only an artefact of the same kind, without files of anybody else in it, is ever replaced.

Two hashes tell artefacts apart. The **digest** is of the content (kind and file digests): equal
content, equal digest, whatever the clock said. The **fingerprint** is of the request (kind, version
of the library, config, seed, the parents' digests): a stage whose fingerprint stands on disk need not run again.
"""

import errno
import glob
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

from sidrec.errors import ArtifactError, SidrecError, is_disk_full
from sidrec.types import Json
from sidrec.version import __version__

__all__ = [
    "Artifact",
    "ArtifactWriter",
    "check_replaceable",
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
    "facts": "enrich",
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
        kind: `dataset`, `facts`, `embeddings`, `tokenizer`, `recommender`, `evaluation` or `comparison`.
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
    return digest_of([kind, FORMAT, __version__, config, seed, _digests(parents)])


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
        ArtifactError: something else stands there, the disk is full, or the place cannot be written.
    """
    parents = parents or {}
    check_replaceable(path, kind)
    with _full_disk(path), _forbidden(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        _recover(path)
        for stale in _abandoned(path, "partial"):
            shutil.rmtree(stale, ignore_errors=True)
        partial = path.with_name(f".{path.name}.partial-{os.getpid()}")
        partial.mkdir()
    writer = ArtifactWriter(partial)
    try:
        with _full_disk(path):
            yield writer
            _share(partial)
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
            with _forbidden(path):
                _write_synced(partial / MANIFEST, json.dumps(manifest, indent=1, ensure_ascii=False))
                check_replaceable(path, kind)
                _swap(partial, path)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def check_replaceable(path: Path, kind: str) -> None:
    """Refuse a place where an artefact would replace anything but an artefact of its kind.

    Args:
        path: where an artefact is to be written.
        kind: what it will be.

    Raises:
        ArtifactError: a file, another directory, an artefact of another kind, or one with files of somebody else.
    """
    if not os.path.lexists(path):
        return
    found = _manifest_of(path)
    if found.get("kind") != kind:
        what = f"a {found['kind']} stands" if "kind" in found else "something that is no artefact stands"
        raise ArtifactError(
            f"{what} where a {kind} is to be written; nothing was changed",
            where=str(path),
            expected=f"an empty place, or a {kind} to replace",
            next="choose another --run folder or --name, or move what stands there",
        )
    ours = {MANIFEST, *found["files"]}
    others = [p.relative_to(path).as_posix() for p in path.rglob("*") if p.is_file() and not p.name.startswith(".")]
    strange = sorted(set(others) - ours)
    if strange:
        raise ArtifactError(
            f"the {kind} to be replaced holds files that are not its own: {', '.join(strange[:3])}",
            where=str(path),
            next="move them elsewhere and run the command again",
        )


def _manifest_of(path: Path) -> Json:
    """The manifest of a directory if there is a readable one, else nothing."""
    try:
        found: Any = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) and {"kind", "files"} <= found.keys() else {}


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


def _share(directory: Path) -> None:
    """Give every file the permissions that the user's files get; some writers keep theirs to the user alone."""
    os.umask(mask := os.umask(0))
    for path in filter(Path.is_file, directory.rglob("*")):
        path.chmod(0o666 & ~mask)


def _file_digests(directory: Path) -> dict[str, str]:
    files = sorted(p for p in directory.rglob("*") if p.is_file())
    return {p.relative_to(directory).as_posix(): file_digest(p) for p in files}


def _abandoned(path: Path, role: str) -> list[Path]:
    """Temporary siblings of `path` whose writers are gone."""
    found = sorted(path.parent.glob(f"{glob.escape(f'.{path.name}.{role}-')}*"))
    return [sibling for sibling in found if not _is_at_work(sibling.name.rpartition("-")[2])]


def _is_at_work(pid: str) -> bool:
    """Whether another process of this machine with that number lives; our own is not writing what it asks about."""
    if not pid.isdecimal() or int(pid) == os.getpid():
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


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
    for aside in _abandoned(path, "old"):
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
def _full_disk(path: Path) -> Generator[None]:
    """Turn a full disk into an error that says what to do; the libraries that write report it each in its own class."""
    try:
        yield
    except SidrecError:
        raise
    except Exception as error:
        if not is_disk_full(error):
            raise
        raise ArtifactError(
            "the disk is full; nothing finished was lost",
            where=str(path),
            next="free space and run the command again",
        ) from error


@contextmanager
def _forbidden(path: Path) -> Generator[None]:
    """Turn a forbidden folder into an error that says what to do; only around writes of our own."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EROFS, errno.EPERM):
            raise
        raise ArtifactError(
            "the folder cannot be written",
            where=f"{path} ({error.strerror})",
            next="choose another --run folder, or change the permissions of this one",
        ) from error


@cache
def _source_state() -> Json:
    """Commit of the source tree that the library runs from, and whether the library was changed; empty if installed."""
    package, root = Path(__file__).resolve().parent, Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return {}
    try:
        commit, status = (
            subprocess.run(["git", *args], cwd=root, capture_output=True, text=True, check=True).stdout
            for args in (["rev-parse", "HEAD"], ["status", "--porcelain", "--", str(package)])
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
