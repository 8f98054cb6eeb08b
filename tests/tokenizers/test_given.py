"""Index files, good and bad."""

import gzip
import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from sidrec.data.catalog import Catalog
from sidrec.errors import ConfigError, DataError
from sidrec.testing.toy import cycle_dataset
from sidrec.tokenizers.auto import Auto, resolve_auto
from sidrec.tokenizers.given import Given
from sidrec.tokenizers.quality import code_quality
from sidrec.tokenizers.rqkmeans import RQKMeans

CATALOG = Catalog(pl.DataFrame({"item_id": ["x", "y", "z"]}))
GOOD = {"z": ["<a_3>", "<b_0>"], "x": ["<a_1>", "<b_20>"], "y": ["<a_1>", "<b_20>"]}


def write(folder: Path, content: object) -> Path:
    path = folder / "index.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def codes_of(path: Path, catalog: Catalog = CATALOG) -> list[list[int]]:
    dataset = replace(cycle_dataset(len(catalog), len(catalog), 5), catalog=catalog)
    return Given(path=str(path)).codes(dataset)[0].tolist()


def test_rows_follow_the_catalogue(tmp_path: Path) -> None:
    assert codes_of(write(tmp_path, GOOD)) == [[1, 20], [1, 20], [3, 0]]


def test_a_zipped_index_is_found_under_either_name(tmp_path: Path) -> None:
    plain = write(tmp_path, GOOD)
    zipped = tmp_path / "index.json.gz"
    zipped.write_bytes(gzip.compress(plain.read_bytes()))
    plain.unlink()
    assert codes_of(zipped) == codes_of(plain) == [[1, 20], [1, 20], [3, 0]]
    assert Given(path=str(plain)).sources() == Given(path=str(zipped)).sources()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({**GOOD, "w": ["<a_1>", "<b_1>"]}, "1 items of the index are unknown to the catalogue, the first is 'w'"),
        ({"x": ["<a_1>", "<b_1>"]}, "2 items of the index are missing, the first is 'y'"),
        ({**GOOD, "y": ["<a_1>", "b_20"]}, "malformed token 'b_20'"),
    ],
)
def test_an_index_of_other_items_is_refused(tmp_path: Path, content: object, message: str) -> None:
    with pytest.raises(DataError) as error:
        codes_of(write(tmp_path, content))
    assert message in str(error.value)
    assert "index.json" in str(error.value)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such index file"):
        Given(path=str(tmp_path / "none.json")).sources()


def test_only_policies_that_need_no_vectors() -> None:
    assert Given(collisions="append_level").config.collisions.kind == "append_level"
    with pytest.raises(ConfigError, match="imported codes have no vectors"):
        Given(collisions="nearest_free")


def test_sizes_are_checked(tmp_path: Path) -> None:
    path = str(write(tmp_path, GOOD))
    dataset = replace(cycle_dataset(3, 3, 5), catalog=CATALOG)
    assert Given(path=path).codes(dataset)[1] == (4, 21)
    assert Given(path=path, sizes=(256, 256)).codes(dataset)[1] == (256, 256)
    with pytest.raises(DataError, match="do not fit sizes"):
        Given(path=path, sizes=(4, 20)).codes(dataset)


def test_codes_of_the_dataset() -> None:
    dataset = cycle_dataset(4, 4, 5)
    with pytest.raises(DataError, match="no semantic IDs came with this dataset"):
        Given().codes(dataset)
    codes = np.array([[0, 1], [1, 0], [1, 1], [2, 2]], np.int32)
    assert Given().codes(replace(dataset, given_codes=codes))[0].tolist() == codes.tolist()
    with pytest.raises(DataError, match="3 items have codes"):
        Given().codes(replace(dataset, given_codes=codes[:3]))


def test_auto_takes_what_is_there() -> None:
    dataset = cycle_dataset(4, 4, 5)
    plain = resolve_auto(Auto.Config(levels=2, codebook_size=7), dataset)
    assert isinstance(plain, RQKMeans.Config)
    assert (plain.levels, plain.codebook_size) == (2, 7)
    assert isinstance(
        resolve_auto(Auto.Config(), replace(dataset, given_codes=np.zeros((4, 1), np.int32))), Given.Config
    )
    assert resolve_auto(plain, dataset) is plain


DATA = os.environ.get("SIDREC_DATA", "")


def published(name: str) -> np.ndarray:
    path = Path(DATA) / name
    items = json.loads(path.read_text())
    return np.array(codes_of(path, Catalog(pl.DataFrame({"item_id": list(items)}))))


@pytest.mark.skipif(not DATA, reason="SIDREC_DATA is not set: the published index files are not checked")
def test_published_instruments_index() -> None:
    codes = published("letter/Instruments/Instruments.index.json")
    report = code_quality(codes, tuple(codes.max(axis=0) + 1))
    assert (report["items"], report["distinct_codes"]) == (9922, 9897)
    assert report["collision_rate"] == pytest.approx(0.00252, abs=5e-6)
    assert (report["colliding_groups"], report["items_sharing"], report["largest_group"]) == (23, 48, 3)
    assert [round(level["entropy_bits"], 2) for level in report["levels"]] == [6.16, 7.95, 7.94, 7.93]
    assert [level["used"] for level in report["levels"]] == [150, 256, 256, 256]


@pytest.mark.skipif(not DATA, reason="SIDREC_DATA is not set: the published index files are not checked")
def test_other_published_indexes() -> None:
    beauty = published("letter/Beauty/Beauty.index.json")
    report = code_quality(beauty, tuple(beauty.max(axis=0) + 1))
    assert (report["distinct_codes"], report["colliding_groups"], report["items_sharing"]) == (12088, 11, 24)
    lcrec = published("lcrec/Instruments/Instruments.index.json")
    assert len(np.unique(lcrec, axis=0)) == 9897
    assert published("minionerec/Amazon/index/Industrial_and_Scientific.index.json").shape[1] == 3
