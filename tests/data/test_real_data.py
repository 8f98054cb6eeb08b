"""Published counts on published files; needs a folder with them, named by SIDREC_DATA."""

import os
from pathlib import Path

import pytest

from sidrec.config import RunSettings, parse
from sidrec.data.dataset import PARTS
from sidrec.data.preparation import PrepareConfig, build_dataset, reader_of

DATA = Path(os.environ.get("SIDREC_DATA", "/nonexistent"))
pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason="set SIDREC_DATA to the folder with the published data sets")


def load(path, reader, **fields):
    config = parse(PrepareConfig, {"reader": reader} | fields)
    return build_dataset(reader_of(config).read(DATA / path), config, RunSettings())[0]


def shape(data):
    return len(data.sequences), len(data.catalog), len(data.sequences.rows)


def parts(data):
    return tuple(len(data.examples(part)) for part in PARTS)


def test_letter_instruments():
    data = load("letter/Instruments", "letter")
    assert shape(data) == (24_772, 9_922, 206_153)
    assert parts(data) == (131_837, 24_772, 24_772)
    first = data.sequences.rows[: data.sequences.offsets[1]]
    assert data.catalog.ids_of(first) == [str(item) for item in range(19)]
    assert data.catalog.ids == [str(item) for item in range(9_922)]
    assert data.given_codes is not None
    assert data.given_codes.shape == (9_922, 4)
    assert data.given_codes[0].tolist() == [128, 241, 146, 235]


def test_letter_beauty():
    data = load("letter/Beauty", "letter")
    assert shape(data) == (22_363, 12_101, 198_502)
    assert parts(data) == (131_413, 22_363, 22_363)


def test_scientific_with_text_and_an_index_of_another_folder():
    index = "indexes/rkmeans_native/Scientific.index.json"
    data = load("collisiongenrec/Scientific", {"kind": "letter", "index_file": index})
    assert shape(data) == (8_317, 4_344, 58_492)
    assert data.catalog.text_fields == ["title", "description", "brand", "categories"]
    assert data.given_codes is not None
    codes = [tuple(row) for row in data.given_codes.tolist()]
    assert sum(codes.count(code) > 1 for code in codes) == 1_326


def test_ml_100k_ties():
    from sidrec.data.statistics import dataset_statistics

    data = load("recbole/ml-100k", "recbole", user_core=0, item_core=0)
    assert shape(data) == (943, 1_682, 100_000)
    assert dataset_statistics(data)["ties"] == {"events": 75_772, "last_items": 415}
    assert parts(data) == (100_000 - 3 * 943, 943, 943)
    # Three shares by time instead: the cut does not separate events of one second.
    split = load("recbole/ml-100k", "recbole", user_core=0, item_core=0, split="time-ratio").split
    assert len(split.train) > 8 * len(split.test) * 0.9


def test_lcrec_games():
    data = load("lcrec/Games", "letter")
    assert shape(data) == (50_546, 16_859, 452_989)


def test_mql4grec_both_layouts_agree():
    whole = load("mql4grec/Instruments", {"kind": "letter", "index_file": ".index_vitemb.json"})
    assert shape(whole) == (17_112, 6_250, 136_226)
    given = load("mql4grec/Instruments", "recbole")
    assert given.split.name == "given"
    assert parts(given) == parts(whole)
    assert shape(given) == shape(whole)
    assert given.sequences.rows.tolist() == whole.sequences.rows.tolist()


def test_minionerec_given_split():
    data = load("minionerec/Amazon", "minionerec")
    assert shape(data) == (3_285, 3_686, 22_743)
    assert parts(data) == (0, 4_532, 4_533)
    assert data.given_codes is not None
    assert data.given_codes[7].tolist() == data.given_codes[8].tolist() == [210, 231, 0]
