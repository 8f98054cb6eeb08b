"""Artefacts are whole or absent, whatever happens while they are written."""

import errno
import json
import os
from pathlib import Path

import pytest

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


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("boom")])
def test_a_failed_write_leaves_the_old_artefact_and_nothing_else(tmp_path: Path, error: BaseException) -> None:
    write(tmp_path / "dataset", "old")
    with (
        pytest.raises(type(error)),
        create(tmp_path / "dataset", kind="dataset", config={}) as writer,
    ):
        (writer.path / "data.txt").write_text("half")
        raise error
    assert entries(tmp_path) == ["dataset"]
    assert (open_artifact(tmp_path / "dataset").path / "data.txt").read_text() == "old"


def test_full_disk_is_said_plainly(tmp_path: Path) -> None:
    with (
        pytest.raises(ArtifactError, match=r"the disk is full; nothing finished was lost[\s\S]*next: free space"),
        create(tmp_path / "dataset", kind="dataset", config={}),
    ):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert entries(tmp_path) == []


def test_leftovers_of_a_killed_writer_are_removed(tmp_path: Path) -> None:
    (tmp_path / ".dataset.partial-1").mkdir()
    write(tmp_path / "dataset")
    assert entries(tmp_path) == ["dataset"]


def test_a_swap_killed_half_way_brings_the_old_artefact_back(tmp_path: Path) -> None:
    write(tmp_path / "dataset", "old")
    (tmp_path / "dataset").rename(tmp_path / ".dataset.old-1")
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


def test_lineage_follows_parents_that_still_stand(tmp_path: Path) -> None:
    write(tmp_path / "dataset")
    parent = open_artifact(tmp_path / "dataset")
    write(tmp_path / "tokenizers" / "rq", kind="tokenizer", parents={"dataset": parent, "source": "abc"})
    child = open_artifact(tmp_path / "tokenizers" / "rq")
    found = {role: manifest for role, _, manifest in lineage(child)}
    assert found["dataset"]["digest"] == parent.digest == child.parents["dataset"]
    assert found["source"] is None
