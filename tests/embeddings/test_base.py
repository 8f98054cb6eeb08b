import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from sidrec.artifact import create
from sidrec.embeddings import base
from sidrec.embeddings.base import ItemEmbeddings
from sidrec.errors import DataError


def test_bad_rows_are_found_in_every_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "PIECE", 4)
    vectors = np.ones((11, 2), np.float32)
    assert len(ItemEmbeddings(vectors, "by hand", "digest").vectors) == 11
    vectors[6, 1], vectors[10, 0] = np.nan, np.inf
    with pytest.raises(DataError, match="2 item vectors hold NaN or infinity, the first is row 6"):
        ItemEmbeddings(vectors, "by hand", "digest")


def test_rows_about_which_nothing_was_known_are_kept_and_checked(tmp_path: Path) -> None:
    vectors = np.ones((4, 2), np.float32)
    for missing in ([], [1, 3]):
        made = ItemEmbeddings(vectors, "by hand", "digest", np.array(missing, np.int64))
        path = tmp_path / f"vectors-{len(missing)}"
        with create(path, kind="embeddings", config={}) as writer:
            made.save(writer.path)
        assert ItemEmbeddings.load(path).missing.tolist() == missing
    for row in (-1, 4):
        with pytest.raises(DataError, match="cannot be missing"):
            ItemEmbeddings(vectors, "by hand", "digest", np.array([row]))


PROGRAM = """
import re, sys
from pathlib import Path
import torch
from sidrec import ItemEmbeddings
from sidrec.artifact import open_artifact

def peak():
    return 1024 * int(re.search("VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])

artifact = open_artifact(sys.argv[1], "embeddings")
before = peak()
vectors = ItemEmbeddings.of_artifact(artifact).vectors
print(peak() - before, vectors.sum(dtype=float))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from /proc")
def test_loading_maps_the_file_instead_of_reading_it(tmp_path: Path) -> None:
    vectors = np.ones((200_000, 100), np.float32)
    with create(tmp_path / "vectors", kind="embeddings", config={}) as writer:
        ItemEmbeddings(vectors, "by hand", "digest").save(writer.path)
    found = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path / "vectors")], capture_output=True, text=True, check=True
    )
    grown, total = map(float, found.stdout.split())
    assert total == vectors.size
    assert grown < 1.4 * vectors.nbytes, "the vectors are in memory once, not twice"
