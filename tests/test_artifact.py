"""Artefacts are whole or absent, whatever happens while they are written."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from polars.exceptions import ComputeError
from safetensors import SafetensorError

from sidrec import artifact
from sidrec.artifact import create, fingerprint, lineage, open_artifact
from sidrec.errors import ArtifactError


def write(path: Path, text: str = "content", **changes: object) -> None:
    settings = {"kind": "dataset", "config": {"a": 1}, "seed": 3, **changes}
    with create(path, **settings) as writer:  # type: ignore[arg-type]
        (writer.path / "data.txt").write_text(text)
        writer.summary["users"] = 7


def entries(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def test_round_trip(tmp_path: Path) -> None:
    write(tmp_path / "dataset")
    found = open_artifact(tmp_path / "dataset", "dataset")
    assert (found.kind, found.config, found.summary) == ("dataset", {"a": 1}, {"users": 7})
    assert found.fingerprint == fingerprint("dataset", {"a": 1}, 3, {})


def test_digest_is_of_content_and_fingerprint_of_the_request(tmp_path: Path) -> None:
    for name, text, config in [("a", "x", {"a": 1}), ("b", "x", {"a": 2}), ("c", "y", {"a": 1})]:
        write(tmp_path / name, text, config=config)
    a, b, c = (open_artifact(tmp_path / name) for name in "abc")
    assert a.digest == b.digest != c.digest
    assert a.fingerprint == c.fingerprint != b.fingerprint


def test_another_version_of_the_library_is_another_request(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = fingerprint("dataset", {"a": 1}, 3, {})
    monkeypatch.setattr("sidrec.artifact.__version__", "99.0")
    assert fingerprint("dataset", {"a": 1}, 3, {}) != ours


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("boom")])
def test_a_failed_write_leaves_the_old_artefact_and_nothing_else(tmp_path: Path, error: BaseException) -> None:
    write(tmp_path / "dataset", "old")

    def fail_half_way() -> None:
        with create(tmp_path / "dataset", kind="dataset", config={}) as writer:
            (writer.path / "data.txt").write_text("half")
            raise error

    with pytest.raises(type(error)):
        fail_half_way()
    assert entries(tmp_path) == ["dataset"]
    assert (open_artifact(tmp_path / "dataset").path / "data.txt").read_text() == "old"


FULL = "I/O error: No space left on device (os error 28)"


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), SafetensorError(FULL), ComputeError(FULL)]
)
def test_full_disk_is_said_plainly_whoever_writes(tmp_path: Path, error: Exception) -> None:
    with (
        pytest.raises(ArtifactError, match=r"the disk is full; nothing finished was lost[\s\S]*next: free space"),
        create(tmp_path / "dataset", kind="dataset", config={}),
    ):
        raise error
    assert entries(tmp_path) == []


def test_an_input_that_may_not_be_read_is_not_blamed_on_the_target(tmp_path: Path) -> None:
    with (
        pytest.raises(PermissionError, match="secret"),
        create(tmp_path / "dataset", kind="dataset", config={}),
    ):
        raise PermissionError(errno.EACCES, "Permission denied", "secret")


def test_a_folder_that_may_not_be_written_is_said_plainly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("sidrec.artifact._swap", forbidden)
    with pytest.raises(ArtifactError, match=r"cannot be written[\s\S]*next: choose another --run folder, or change"):
        write(tmp_path / "dataset")
    assert entries(tmp_path) == []


def place_of(case: str, path: Path) -> None:
    """Put something at `path` that is no dataset of ours."""
    if case == "file":
        path.write_text("mine")
    elif case == "another kind":
        write(path, kind="tokenizer")
    elif case == "strange file inside":
        write(path)
        (path / "thesis.tex").write_text("mine")
    elif case == "broken manifest":
        path.mkdir()
        (path / "artifact.json").write_text("[]")
    else:
        path.mkdir()
        (path / "logs.parquet").write_text("mine")


@pytest.mark.parametrize("case", ["file", "folder", "another kind", "strange file inside", "broken manifest"])
def test_nothing_but_an_artefact_of_the_same_kind_is_replaced(tmp_path: Path, case: str) -> None:
    path = tmp_path / "dataset"
    place_of(case, path)
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    begun = []
    with (
        pytest.raises(ArtifactError, match=r"is to be written; nothing was changed|files that are not its own: thesis"),
        create(path, kind="dataset", config={}) as writer,
    ):
        begun.append(writer)
    assert not begun, "refused before any work"
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before


def test_what_appears_while_an_artefact_is_made_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "dataset"
    with (
        pytest.raises(ArtifactError, match="no artefact stands"),
        create(path, kind="dataset", config={}),
    ):
        place_of("folder", path)
    assert (path / "logs.parquet").read_text() == "mine"
    assert entries(tmp_path) == ["dataset"]


@pytest.fixture
def dead() -> int:
    """The number of a process that has ended."""
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    return child.pid


def test_leftovers_of_a_killed_writer_are_removed_and_those_of_a_living_one_stay(tmp_path: Path, dead: int) -> None:
    living = f".dataset.partial-{os.getppid()}"
    for name in (f".dataset.partial-{dead}", living):
        (tmp_path / name).mkdir()
    write(tmp_path / "dataset")
    assert entries(tmp_path) == [living, "dataset"]


def test_the_old_artefact_of_a_living_writer_is_left_to_it(tmp_path: Path) -> None:
    write(tmp_path / "dataset", "old")
    aside = tmp_path / f".dataset.old-{os.getppid()}"
    (tmp_path / "dataset").rename(aside)
    with pytest.raises(ArtifactError, match="no artefact at"):
        open_artifact(tmp_path / "dataset")
    assert aside.is_dir()


def test_a_swap_killed_half_way_brings_the_old_artefact_back(tmp_path: Path, dead: int) -> None:
    write(tmp_path / "dataset", "old")
    (tmp_path / "dataset").rename(tmp_path / f".dataset.old-{dead}")
    assert (open_artifact(tmp_path / "dataset").path / "data.txt").read_text() == "old"


def test_a_changed_file_is_noticed(tmp_path: Path) -> None:
    write(tmp_path / "dataset")
    (tmp_path / "dataset" / "data.txt").write_text("tampered")
    with pytest.raises(ArtifactError, match=r"'data.txt' is missing or was changed"):
        open_artifact(tmp_path / "dataset")


def test_missing_wrong_kind_wrong_format_and_unreadable(tmp_path: Path) -> None:
    write(tmp_path / "dataset")
    with pytest.raises(ArtifactError, match=r"no artefact at .*nothing[\s\S]*artefacts in .*: dataset"):
        open_artifact(tmp_path / "nothing")
    with pytest.raises(ArtifactError, match=r"this is a dataset[\s\S]*expected: a tokenizer"):
        open_artifact(tmp_path / "dataset", "tokenizer")
    manifest = tmp_path / "dataset" / artifact.MANIFEST
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"format": 99}))
    with pytest.raises(ArtifactError, match="the artefact has format 99"):
        open_artifact(tmp_path / "dataset")
    manifest.write_text("{")
    with pytest.raises(ArtifactError, match="the manifest cannot be read"):
        open_artifact(tmp_path / "dataset")


def test_a_directory_without_manifest_is_no_artefact(tmp_path: Path) -> None:
    (tmp_path / "dataset").mkdir()
    (tmp_path / "dataset" / "data.txt").write_text("half")
    with pytest.raises(ArtifactError, match="there is no artefact"):
        open_artifact(tmp_path / "dataset")


def test_only_changes_of_the_library_make_its_sources_dirty(tmp_path: Path, monkeypatch) -> None:
    def git(*words: str) -> str:
        identity = ["-c", "user.name=n", "-c", "user.email=e@example.org"]
        return subprocess.run(
            ["git", *identity, *words], cwd=tmp_path, check=True, capture_output=True, text=True
        ).stdout

    module, results = tmp_path / "src" / "sidrec" / "artifact.py", tmp_path / "results.json"
    module.parent.mkdir(parents=True)
    module.write_text("")
    results.write_text("")
    git("init")
    git("add", ".")
    git("commit", "-m", "first")
    monkeypatch.setattr(artifact, "__file__", str(module))
    head = git("rev-parse", "HEAD").strip()
    results.write_text("changed")
    assert artifact._source_state.__wrapped__() == {"commit": head, "dirty": False}
    (module.parent / "new.py").write_text("")
    assert artifact._source_state.__wrapped__() == {"commit": head, "dirty": True}


def test_lineage_follows_parents_that_still_stand(tmp_path: Path) -> None:
    write(tmp_path / "dataset")
    parent = open_artifact(tmp_path / "dataset")
    write(tmp_path / "tokenizers" / "rq", kind="tokenizer", parents={"dataset": parent, "source": "abc"})
    child = open_artifact(tmp_path / "tokenizers" / "rq")
    found = {role: manifest for role, _, manifest in lineage(child)}
    assert found["dataset"]["digest"] == parent.digest == child.parents["dataset"]
    assert found["source"] is None
