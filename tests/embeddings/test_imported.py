import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from sidrec.config import RunSettings
from sidrec.data.catalog import Catalog
from sidrec.embeddings.imported import ImportedVectors
from sidrec.errors import ConfigError, DataError

CATALOG = Catalog(pl.DataFrame({"item_id": ["x", "y", "z"]}))
MATRIX = np.arange(8, dtype=np.float32).reshape(4, 2)


def vectors_file(folder: Path, matrix: np.ndarray) -> str:
    path = folder / "vectors.npy"
    np.save(path, matrix)
    return str(path)


def ids_file(folder: Path, ids: list[str], form: str) -> str:
    path = folder / f"ids.{form}"
    if form == "parquet":
        pl.DataFrame({"item_id": ids}).write_parquet(path)
    else:
        path.write_text(json.dumps(ids) if form == "json" else "\n".join(ids) + "\n")
    return str(path)


def embed(**fields: object) -> np.ndarray:
    return ImportedVectors(**fields).embed(CATALOG, RunSettings()).vectors


@pytest.mark.parametrize("form", ["txt", "json", "parquet"])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_rows_follow_the_ids(tmp_path: Path, form: str, dtype: type) -> None:
    path = vectors_file(tmp_path, MATRIX.astype(dtype))
    embedder = ImportedVectors(path=path, ids=ids_file(tmp_path, ["z", "w", "x", "y"], form))
    embeddings = embedder.embed(CATALOG, RunSettings())
    assert embeddings.vectors.tolist() == [[4, 5], [6, 7], [0, 1]]
    assert embeddings.vectors.dtype == np.float32
    assert embedder.facts(CATALOG) == {"rows": 4, "rows_of_unknown_items": 1}
    assert set(embedder.sources()) == {"vectors", "ids"}
    embeddings.check_fits(CATALOG)


def test_catalogue_order_and_padding_row(tmp_path: Path) -> None:
    assert embed(path=vectors_file(tmp_path, MATRIX), rows="catalogue order", skip_first_row=True).tolist() == [
        [2, 3],
        [4, 5],
        [6, 7],
    ]


def test_a_row_too_many_is_not_guessed_away(tmp_path: Path) -> None:
    path = vectors_file(tmp_path, MATRIX)
    with pytest.raises(DataError, match="4 rows do not match 3 items in the catalogue; if row 0 is padding"):
        embed(path=path, rows="catalogue order")
    with pytest.raises(DataError, match="3 rows do not match 4 rows in"):
        embed(path=path, ids=ids_file(tmp_path, ["x", "y", "z"], "txt"))


def test_the_order_must_be_said() -> None:
    for fields in ({}, {"ids": "a.txt", "rows": "catalogue order"}):
        with pytest.raises(ConfigError, match="how rows belong to items"):
            ImportedVectors(path="a.npy", **fields)


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (["x", "y", "x", "z"], "1 item ids occur more than once, the first is 'x'"),
        (["x", "q", "r", "s"], "2 item ids of the catalogue have no vector, the first is 'y'"),
    ],
)
def test_ids_that_do_not_match(tmp_path: Path, ids: list[str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        embed(path=vectors_file(tmp_path, MATRIX), ids=ids_file(tmp_path, ids, "json"))


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        (np.zeros(3, np.float32), "float32 of shape"),
        (np.zeros((3, 2), np.int64), "int64 of shape"),
        (np.array([["a", "b"]] * 3), "expected: a float matrix"),
        (np.array([[1, np.nan]] * 3, np.float32), "3 item vectors hold NaN"),
        (np.array([[1, np.inf]] * 3, np.float16), "3 item vectors hold NaN or infinity"),
    ],
)
def test_wrong_matrices(tmp_path: Path, matrix: np.ndarray, message: str) -> None:
    with pytest.raises(DataError, match=message):
        embed(path=vectors_file(tmp_path, matrix), rows="catalogue order")


def test_pickles_archives_and_rubbish_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "vectors.npy"
    np.save(path, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    rubbish, archive, cut = (tmp_path / name for name in ("rubbish.npy", "archive.npz", "cut.npy"))
    rubbish.write_bytes(b"not an array")
    np.savez(archive, a=MATRIX)
    np.save(cut, MATRIX)
    cut.write_bytes(cut.read_bytes()[:-8])
    for file in (path, rubbish, archive, cut):
        with pytest.raises(DataError) as error:
            embed(path=str(file), rows="catalogue order")
        assert file.name in str(error.value)


def test_missing_files(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        embed(path=str(tmp_path / "none.npy"), rows="catalogue order")
    (tmp_path / "ids.json").write_text("{")
    with pytest.raises(DataError, match="ids cannot be read"):
        embed(path=vectors_file(tmp_path, MATRIX), ids=str(tmp_path / "ids.json"))
