"""Dataset in, vectors and semantic IDs out, nothing done twice."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from sidrec.artifact import create, open_artifact
from sidrec.config import RunSettings
from sidrec.data.catalog import Catalog
from sidrec.data.dataset import Dataset
from sidrec.embeddings.base import ItemEmbeddings
from sidrec.embeddings.imported import ImportedVectors
from sidrec.embeddings.tfidf import TfidfEmbedder
from sidrec.errors import ArtifactError, DataError
from sidrec.stages.embed import embed
from sidrec.stages.layout import RunFolder
from sidrec.stages.tokenize import load_semantic_ids, needs_embeddings, tokenize
from sidrec.testing.toy import cycle_dataset
from sidrec.tokenizers.auto import Auto
from sidrec.tokenizers.base import load_tokenizer
from sidrec.tokenizers.given import Given
from sidrec.tokenizers.rqkmeans import RQKMeans

RUN = RunSettings(device="cpu")
SMALL = RQKMeans.Config(levels=2, codebook_size=4)
VECTORS = TfidfEmbedder.Config(dims=8)


def run_with(path: Path, dataset: Dataset) -> RunFolder:
    folder = RunFolder(path)
    with create(folder.dataset, kind="dataset", config={}) as writer:
        dataset.save(writer.path)
    return folder


def textless(dataset: Dataset) -> Dataset:
    return replace(dataset, catalog=Catalog(dataset.catalog.items.select("item_id")))


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return run_with(tmp_path, cycle_dataset())


def test_the_path_from_text_to_semantic_ids(folder: RunFolder) -> None:
    catalog = Dataset.load(folder.dataset).catalog
    vectors = embed(folder, VECTORS, RUN)
    assert vectors.artifact.summary["items"] == 24
    assert vectors.artifact.summary["items_without_text"] == 0
    ItemEmbeddings.load(folder.embeddings("tfidf")).check_fits(catalog)
    result = tokenize(folder, SMALL, RUN, embeddings="tfidf")
    assert set(result.artifact.parents) == {"dataset", "embeddings"}
    assert result.artifact.parents["embeddings"] == vectors.artifact.digest
    ids = load_semantic_ids(folder.tokenizer("rqkmeans"))
    ids.check_fits(catalog)
    assert ids.num_collided == 0
    embeddings = ItemEmbeddings.load(folder.embeddings("tfidf"))
    assert load_tokenizer(result.artifact.path).encode(embeddings).digest == ids.digest


def test_the_report(folder: RunFolder) -> None:
    embed(folder, VECTORS, RUN)
    result = tokenize(folder, SMALL, RUN)
    report = json.loads((result.artifact.path / "quality.json").read_text())
    assert report["policy"] == "append_level"
    assert report["before"]["collision_rate"] > 0 == report["after"]["collision_rate"]
    assert len(report["before"]["levels"]) == 2
    assert len(report["after"]["levels"]) == 3
    assert 0 < report["relative_reconstruction_error"] < 1
    assert result.artifact.summary["collision_rate_before"] == report["before"]["collision_rate"]
    assert result.artifact.summary["codebook_sizes"] == list(load_semantic_ids(result.artifact.path).sizes)
    assert (result.artifact.path / "quality.png").stat().st_size > 1000
    page = (result.artifact.path / "quality.html").read_text()
    # The titles name three colours, but no field of the catalogue is one of categories.
    assert report["purity"] is None
    assert report["neighbours"]["pairs"] == 96 * 6
    for text in (
        "Part 0 of the cycle",
        f"{100 * report['before']['collision_rate']:.2f}",
        "Prefixes against neighbours",
    ):
        assert text in page
    assert result.artifact.summary["levels"] == 3
    assert result.artifact.summary["neighbours"]["code_similarity"] == report["neighbours"]["code_similarity"]
    assert any("Collision rate" in each["problem"].capitalize() for each in report["advice"])
    assert len(result.artifact.summary["advice"]) == len(report["advice"])


def test_categories_of_the_catalogue_are_held_against_the_prefixes(tmp_path: Path) -> None:
    dataset = cycle_dataset()
    kinds = pl.Series("category", [f"kind {row % 3}" for row in range(24)])
    codes = np.stack([np.arange(24) % 3, np.arange(24) // 3], axis=1).astype(np.int32)
    catalog = Catalog(dataset.catalog.items.with_columns(kinds))
    folder = run_with(tmp_path, replace(dataset, catalog=catalog, given_codes=codes))
    summary = tokenize(folder, Given.Config(), RUN).artifact.summary
    assert summary["purity"]["field"] == "category"
    assert summary["purity"]["level_1"] == 1 > summary["purity"]["random"]


def test_nothing_is_done_twice_and_changes_are_seen(folder: RunFolder) -> None:
    assert not embed(folder, VECTORS, RUN).skipped
    assert embed(folder, VECTORS, RUN).skipped
    first = tokenize(folder, SMALL, RUN)
    assert not first.skipped
    assert tokenize(folder, SMALL, RUN).skipped
    forced = tokenize(folder, SMALL, RUN, force=True)
    assert not forced.skipped
    assert forced.artifact.digest == first.artifact.digest, "bit for bit the same"
    assert not tokenize(folder, RQKMeans.Config(levels=3, codebook_size=4), RUN).skipped
    assert not embed(folder, TfidfEmbedder.Config(dims=6), RUN).skipped
    assert not tokenize(folder, RQKMeans.Config(levels=3, codebook_size=4), RUN).skipped, "other vectors"


def test_several_vectors_must_be_chosen_from(folder: RunFolder) -> None:
    embed(folder, VECTORS, RUN)
    embed(folder, TfidfEmbedder.Config(dims=4), RUN, name="small")
    with pytest.raises(ArtifactError, match="several item vectors") as error:
        tokenize(folder, SMALL, RUN)
    assert "small, tfidf" in str(error.value)
    assert tokenize(folder, SMALL, RUN, embeddings="small", name="mine").artifact.path == folder.tokenizer("mine")


def test_missing_vectors_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"no item vectors[\s\S]*run 'sidrec embed --run .*' first"):
        tokenize(run_with(tmp_path / "text", cycle_dataset()), SMALL, RUN)
    bare = run_with(tmp_path / "bare", textless(cycle_dataset()))
    with pytest.raises(ArtifactError, match=r"no text to make them of(.|\n)*kind=given"):
        tokenize(bare, Auto.Config(), RUN)
    with pytest.raises(DataError, match=r"no item of the catalogue has any text(.|\n)*kind=given"):
        embed(bare, VECTORS, RUN)
    with pytest.raises(ArtifactError, match="no artefact"):
        tokenize(bare, SMALL, RUN, embeddings="typo")


def test_auto_prefers_the_codes_of_the_data(tmp_path: Path) -> None:
    codes = np.stack([np.arange(24) // 4, np.arange(24) % 3], axis=1).astype(np.int32)
    dataset = replace(textless(cycle_dataset()), given_codes=codes)
    folder = run_with(tmp_path, dataset)
    assert not needs_embeddings(Auto.Config(), Dataset.load(folder.dataset))
    result = tokenize(folder, Auto.Config(), RUN)
    assert result.artifact.path == folder.tokenizer("given")
    assert result.artifact.config["kind"] == "given"
    assert np.array_equal(load_semantic_ids(result.artifact.path).codes, codes)
    assert tokenize(folder, Auto.Config(), replace(RUN, seed=9)).skipped, "nothing is drawn"
    report = json.loads((result.artifact.path / "quality.json").read_text())
    assert "relative_reconstruction_error" not in report
    assert report["before"] == report["after"]
    with pytest.raises(ArtifactError, match="were imported"):
        load_tokenizer(result.artifact.path)
    counted = tokenize(folder, Given.Config(collisions="append_level"), RUN)
    assert load_semantic_ids(counted.artifact.path).num_collided == 0


def test_auto_without_codes_learns(folder: RunFolder) -> None:
    assert needs_embeddings(Auto.Config(), Dataset.load(folder.dataset))
    embed(folder, VECTORS, RUN)
    result = tokenize(folder, Auto.Config(levels=2, codebook_size=4), RUN)
    assert result.artifact.config == RQKMeans.Config(levels=2, codebook_size=4).model_dump(mode="json")


def test_a_changed_index_file_is_another_request(folder: RunFolder, tmp_path: Path) -> None:
    path = tmp_path / "index.json"
    ids = Dataset.load(folder.dataset).catalog.ids
    for shift in (0, 1):
        index = {item: [f"<a_{row + shift}>"] for row, item in enumerate(ids)}
        path.write_text(json.dumps(index))
        config = Given.Config(path=str(path))
        assert not tokenize(folder, config, RUN).skipped
        assert tokenize(folder, config, RUN).skipped
        assert load_semantic_ids(folder.tokenizer("given")).codes[0, 0] == shift


def test_vectors_of_an_older_dataset_are_refused(folder: RunFolder) -> None:
    embed(folder, VECTORS, RUN)
    run_with(folder.path, cycle_dataset(num_items=30))
    with pytest.raises(DataError, match=r"made from another dataset[\s\S]*next: run 'sidrec embed' again"):
        tokenize(folder, SMALL, RUN)
    assert not (folder.path / "tokenizers" / "rqkmeans").exists()


def test_imported_vectors(folder: RunFolder, tmp_path: Path) -> None:
    np.save(tmp_path / "vectors.npy", np.random.default_rng(0).normal(size=(24, 5)))
    config = ImportedVectors.Config(path=str(tmp_path / "vectors.npy"), rows="catalogue order")
    result = embed(folder, config, RUN)
    assert set(result.artifact.parents) == {"dataset", "vectors"}
    assert embed(folder, config, RUN).skipped
    np.save(tmp_path / "vectors.npy", np.ones((24, 5)))
    assert not embed(folder, config, RUN).skipped


def test_identical_items_are_reported_and_still_told_apart(tmp_path: Path) -> None:
    dataset = cycle_dataset()
    items = dataset.catalog.items.with_columns(pl.lit("the same title").alias("title"))
    folder = run_with(tmp_path, replace(dataset, catalog=Catalog(items)))
    embed(folder, VECTORS, RUN)
    result = tokenize(folder, SMALL, RUN)
    assert result.artifact.summary["num_duplicates"] == 24
    assert load_semantic_ids(result.artifact.path).sizes == (1, 1, 24)


def test_a_kept_scratch_folder_is_the_callers(folder: RunFolder, tmp_path: Path) -> None:
    scratch = tmp_path / "mine"
    scratch.mkdir()
    embed(folder, VECTORS, RunSettings(device="cpu", scratch=scratch))
    assert scratch.is_dir()
    assert open_artifact(folder.embeddings("tfidf")).kind == "embeddings"
