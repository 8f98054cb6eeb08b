"""Semantic IDs out of a run and back into it; vectors as they were."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from sidrec.artifact import create
from sidrec.config import RunSettings
from sidrec.data.catalog import Catalog
from sidrec.data.dataset import Dataset
from sidrec.embeddings.base import ItemEmbeddings
from sidrec.embeddings.tfidf import TfidfEmbedder
from sidrec.errors import ArtifactError, DataError
from sidrec.stages.embed import embed
from sidrec.stages.export import export
from sidrec.stages.layout import RunFolder
from sidrec.stages.tokenize import load_semantic_ids, tokenize
from sidrec.testing.toy import cycle_dataset
from sidrec.tokenizers.given import Given
from sidrec.tokenizers.rqkmeans import RQKMeans

RUN = RunSettings(device="cpu")


def write_dataset(folder: RunFolder, dataset: Dataset) -> None:
    with create(folder.dataset, kind="dataset", config={}) as writer:
        dataset.save(writer.path)


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    folder = RunFolder(tmp_path / "run")
    write_dataset(folder, cycle_dataset())
    embed(folder, TfidfEmbedder.Config(dims=8), RUN)
    tokenize(folder, RQKMeans.Config(levels=2, codebook_size=4), RUN)
    return folder


@pytest.mark.parametrize("name", ["X.index.json", "X.txt"])
@pytest.mark.parametrize("upper", [False, True])
def test_codes_come_back(folder: RunFolder, tmp_path: Path, name: str, upper: bool) -> None:
    target = tmp_path / "out" / name
    assert export(folder.tokenizer("rqkmeans"), target, upper=upper) == [target]
    assert ("<A_" in target.read_text()) == upper
    back = tokenize(folder, Given.Config(path=str(target)), RUN).artifact.path
    assert np.array_equal(load_semantic_ids(back).codes, load_semantic_ids(folder.tokenizer("rqkmeans")).codes)


def test_numbers_come_with_a_map(folder: RunFolder, tmp_path: Path) -> None:
    index, item_map = export(folder.tokenizer("rqkmeans"), tmp_path / "X.index.json", numbers=True)
    assert list(json.loads(index.read_text())) == [str(row) for row in range(24)]
    assert item_map == tmp_path / "X.item2id"
    assert item_map.read_text().splitlines()[3] == "item-3\t3"
    back = tokenize(folder, Given.Config(path=str(index), item_map=str(item_map)), RUN)
    assert set(back.artifact.parents) == {"dataset", "index", "item map"}
    codes = load_semantic_ids(folder.tokenizer("rqkmeans")).codes
    assert np.array_equal(load_semantic_ids(back.artifact.path).codes, codes)
    item_map.write_text("".join(item_map.read_text().splitlines(keepends=True)[1:]))
    with pytest.raises(DataError, match="1 items of the index have no line in the item map, the first is '0'"):
        tokenize(folder, Given.Config(path=str(index), item_map=str(item_map)), RUN)


def test_info_lines_have_titles(folder: RunFolder, tmp_path: Path) -> None:
    export(folder.tokenizer("rqkmeans"), tmp_path / "X.txt")
    code, title, item = (tmp_path / "X.txt").read_text().splitlines()[5].split("\t")
    assert (title, item) == ("Part 5 of the cycle, colour blue", "item-5")
    assert code == load_semantic_ids(folder.tokenizer("rqkmeans")).text(5)


def test_vectors_are_rows_of_the_catalogue(folder: RunFolder, tmp_path: Path) -> None:
    export(folder.embeddings("tfidf"), tmp_path / "X.emb-tfidf.npy")
    vectors = np.load(tmp_path / "X.emb-tfidf.npy", allow_pickle=False)
    assert np.array_equal(vectors, ItemEmbeddings.load(folder.embeddings("tfidf")).vectors)


def test_a_file_in_the_way_is_kept(folder: RunFolder, tmp_path: Path) -> None:
    mine = tmp_path / "mine.json"
    mine.write_text("mine")
    with pytest.raises(DataError, match="there is a file already"):
        export(folder.tokenizer("rqkmeans"), mine)
    assert mine.read_text() == "mine"
    export(folder.tokenizer("rqkmeans"), mine, force=True)
    assert mine.read_text().startswith("{")


def test_what_cannot_be_exported_is_said(folder: RunFolder, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"'\.csv' is no ending[\s\S]*\.json: index file"):
        export(folder.tokenizer("rqkmeans"), tmp_path / "x.csv")
    with pytest.raises(ArtifactError, match="a dataset cannot be exported"):
        export(folder.dataset, tmp_path / "x.json")
    with pytest.raises(ArtifactError, match="no artefact"):
        export(tmp_path / "nowhere", tmp_path / "x.json")


def test_titles_of_another_dataset_are_refused(folder: RunFolder, tmp_path: Path) -> None:
    dataset = cycle_dataset()
    renamed = Catalog(dataset.catalog.items.with_columns(pl.lit("other").alias("title")))
    write_dataset(folder, replace(dataset, catalog=renamed))
    with pytest.raises(ArtifactError, match="prepared again since"):
        export(folder.tokenizer("rqkmeans"), tmp_path / "X.txt")
    export(folder.tokenizer("rqkmeans"), tmp_path / "X.json")
