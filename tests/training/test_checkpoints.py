"""Which checkpoint a run goes on from, and what it makes of those of others."""

from pathlib import Path

import pytest

from sidrec.training.checkpoints import find_checkpoint, keep_only


def test_only_the_newest_of_the_very_same_run(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "checkpoints"
    assert find_checkpoint(folder, "one") is None
    for step in (9, 10):
        (folder / f"checkpoint-{step}").mkdir()
    assert find_checkpoint(folder, "one") == folder / "checkpoint-10"
    keep_only(folder / "checkpoint-10")
    assert sorted(path.name for path in folder.iterdir()) == ["checkpoint-10", "start.json"]
    (folder / "training.safetensors").touch()
    assert find_checkpoint(folder, "two") is None
    assert [path.name for path in folder.iterdir()] == ["start.json"]


@pytest.mark.parametrize("content", [b"", b'"on', b"\xff"])
def test_a_torn_file_is_that_of_another_run(tmp_path: Path, content: bytes) -> None:
    find_checkpoint(tmp_path, "one")
    (tmp_path / "checkpoint-3").mkdir()
    (tmp_path / "start.json").write_bytes(content)
    assert find_checkpoint(tmp_path, "one") is None
    assert not (tmp_path / "checkpoint-3").exists()
    (tmp_path / "checkpoint-4").mkdir()
    assert find_checkpoint(tmp_path, "one") == tmp_path / "checkpoint-4"
