"""New items get codes behind the old ones, whose codes, vectors and artefacts stay."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from tests.stages.test_embed_tokenize import RUN, SMALL, VECTORS, run_with, textless

from sidrec.artifact import open_artifact
from sidrec.data.catalog import Catalog
from sidrec.data.dataset import Dataset
from sidrec.embeddings.base import ItemEmbeddings
from sidrec.embeddings.imported import ImportedVectors
from sidrec.errors import ArtifactError, ConfigError, DataError
from sidrec.registry import REGISTRY
from sidrec.stages.embed import embed
from sidrec.stages.export import export
from sidrec.stages.extend import extend, grown_catalog, grown_vectors
from sidrec.stages.layout import RunFolder
from sidrec.stages.tokenize import tokenize
from sidrec.testing.toy import cycle_dataset
from sidrec.tokenizers.base import load_tokenizer
from sidrec.tokenizers.given import Given
from sidrec.tokenizers.random_codes import RandomCodes
from sidrec.tokenizers.rqkmeans import RQKMeans
from sidrec.tokenizers.rqvae import RQVAE
from sidrec.tokenizers.semantic_ids import SemanticIds


def table(path: Path, ids: list[str], titles: list[str]) -> Path:
    pl.DataFrame({"item_id": ids, "title": titles, "unused": ids}).write_csv(path)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    folder = run_with(tmp_path / "run", cycle_dataset())
    embed(folder, VECTORS, RUN)
    return folder


@pytest.fixture
def new(tmp_path: Path) -> Path:
    """Three items, the first of which has the text of an old one."""
    title = cycle_dataset().catalog.items["title"][5]
    return table(tmp_path / "new.csv", ["n1", "n2", "n3"], [title, "something else entirely", ""])


def codes(folder: RunFolder, name: str) -> np.ndarray:
    return SemanticIds.load(folder.tokenizer(name)).codes


@pytest.mark.parametrize("policy", REGISTRY["collision"])
def test_old_codes_stay_and_new_ones_follow(folder: RunFolder, new: Path, policy: str) -> None:
    first = tokenize(folder, RQKMeans.Config(levels=3, codebook_size=8, collisions=policy), RUN)
    result = extend(folder, new, RUN)
    assert result.artifact.path.name == "rqkmeans-v2"
    assert open_artifact(first.artifact.path).digest == first.artifact.digest, "the old artefact stays"
    ids = SemanticIds.load(result.artifact.path)
    catalog = Catalog.load(result.artifact.path)
    ids.check_extends(SemanticIds.load(first.artifact.path), catalog)
    assert (len(ids), ids.version, catalog.ids[24:]) == (27, 2, ["n1", "n2", "n3"])
    assert "unused" not in catalog.items.columns
    if policy != "keep":
        assert ids.num_collided == 0
    same = RQKMeans.load(result.artifact.path)
    for ours, theirs in zip(same.codebooks, RQKMeans.load(first.artifact.path).codebooks, strict=True):
        assert np.array_equal(ours, theirs), "the tokenizer is the same"
    assert (result.artifact.summary["version"], result.artifact.summary["new_items"]) == (2, 3)
    assert result.artifact.summary["new_items_without_text"] == 1
    assert result.artifact.summary["items"] == 27


def test_vectors_of_old_items_stay_and_equal_texts_have_equal_vectors(folder: RunFolder, new: Path) -> None:
    tokenize(folder, SMALL, RUN)
    vectors = grown_vectors(extend(folder, new, RUN).artifact)
    assert vectors is not None
    old = ItemEmbeddings.load(folder.embeddings("tfidf")).vectors
    assert np.array_equal(vectors[:24], old)
    assert np.array_equal(vectors[24], old[5])
    assert not vectors[26].any(), "no word, no direction"


def test_nothing_is_done_twice_and_the_same_is_done_again(folder: RunFolder, new: Path, tmp_path: Path) -> None:
    tokenize(folder, SMALL, RUN)
    first = extend(folder, new, RUN)
    assert not first.skipped
    assert extend(folder, new, RUN, tokenizer="rqkmeans").skipped
    again = extend(folder, new, replace(RUN, seed=9), tokenizer="rqkmeans", force=True)
    assert again.artifact.digest == first.artifact.digest, "nothing is drawn"
    other = extend(folder, table(tmp_path / "b.csv", ["x"], ["other"]), RUN, tokenizer="rqkmeans")
    assert other.artifact.path.name.startswith("rqkmeans-v2-"), "the first extension stays"
    assert open_artifact(first.artifact.path).digest == first.artifact.digest


def test_an_extension_can_be_extended(folder: RunFolder, new: Path, tmp_path: Path) -> None:
    tokenize(folder, SMALL, RUN)
    extend(folder, new, RUN)
    third = extend(folder, table(tmp_path / "c.csv", ["n4"], ["red drum"]), RUN, tokenizer="rqkmeans-v2")
    assert third.artifact.path.name == "rqkmeans-v3"
    ids = SemanticIds.load(third.artifact.path)
    assert ids.version == 3
    assert np.array_equal(ids.codes[:27], codes(folder, "rqkmeans-v2"))
    vectors, before = grown_vectors(third.artifact), grown_vectors(open_artifact(folder.tokenizer("rqkmeans-v2")))
    assert vectors is not None
    assert before is not None
    assert np.array_equal(vectors[:27], before)
    record = json.loads((third.artifact.path / "growth.json").read_text())
    assert [(line["version"], line["first_row"], line["items"]) for line in record] == [(2, 24, 3), (3, 27, 1)]
    assert grown_catalog(third.artifact, Dataset.load(folder.dataset)).ids[24:] == ["n1", "n2", "n3", "n4"]


def test_an_extension_is_exported_with_the_titles_of_its_new_items(
    folder: RunFolder, new: Path, tmp_path: Path
) -> None:
    tokenize(folder, SMALL, RUN)
    extended = extend(folder, new, RUN).artifact
    export(extended.path, tmp_path / "info.txt")
    lines = (tmp_path / "info.txt").read_text().splitlines()
    titles = grown_catalog(extended, Dataset.load(folder.dataset)).titles_of(range(27))
    assert [line.split("\t")[1] for line in lines] == titles
    assert (
        extended.summary["moved_items"]
        <= json.loads((extended.path / "quality.json").read_text())["settled_items"]
        == 3
    )


def test_a_learned_tokenizer_extends_without_its_training(folder: RunFolder, new: Path) -> None:
    tokenize(folder, RQVAE.Config(levels=2, codebook_size=4, epochs=2, layers=(8,), latent_dim=4), RUN)
    extended = extend(folder, new, RUN)
    vectors = grown_vectors(extended.artifact)
    assert vectors is not None
    again = load_tokenizer(extended.artifact.path).quantize(vectors)
    assert np.array_equal(again[24:], codes(folder, "rqvae-v2")[24:, :2])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("item_id,title\n", "there are no new items"),
        ("item_id,title\nitem-3,again\n", "1 of the new items are in the catalogue already, the first is 'item-3'"),
        ("item_id,title\na,x\na,y\n", "1 item ids occur more than once, the first is 'a'"),
        ("item_id,name\na,x\n", r"no column 'title'[\s\S]*item_id, title"),
        ("id,title\na,x\n", "no column 'item_id'"),
        ("", "the file is empty"),
    ],
)
def test_wrong_tables(folder: RunFolder, tmp_path: Path, text: str, message: str) -> None:
    tokenize(folder, SMALL, RUN)
    (tmp_path / "new.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        extend(folder, tmp_path / "new.csv", RUN)
    assert folder.names("tokenizer") == ["rqkmeans"]


def test_imported_vectors_want_imported_vectors(tmp_path: Path, new: Path) -> None:
    folder = run_with(tmp_path / "imported", cycle_dataset())
    matrix = np.random.default_rng(0).normal(size=(27, 6)).astype(np.float32)
    np.save(tmp_path / "old.npy", matrix[:24])
    np.save(tmp_path / "new.npy", matrix[24:])
    embed(folder, ImportedVectors.Config(path=str(tmp_path / "old.npy"), rows="catalogue order"), RUN)
    tokenize(folder, SMALL, RUN)
    with pytest.raises(DataError, match=r"were imported(.|\n)*--vectors"):
        extend(folder, new, RUN)
    (tmp_path / "old.npy").unlink()
    made = extend(folder, new, RUN, vectors=tmp_path / "new.npy")
    found = grown_vectors(made.artifact)
    assert found is not None
    assert np.array_equal(found, matrix)
    assert "vectors" in made.artifact.parents
    np.save(tmp_path / "short.npy", matrix[24:26])
    np.save(tmp_path / "narrow.npy", matrix[24:, :5])
    for name, message in (("short", "2 rows do not match 3 new"), ("narrow", "have 5 dim"), ("none", "no such file")):
        with pytest.raises(DataError, match=message):
            extend(folder, new, RUN, tokenizer="rqkmeans", vectors=tmp_path / f"{name}.npy")


def test_made_vectors_want_no_file_and_the_ones_that_were_learnt_from(folder: RunFolder, new: Path) -> None:
    tokenize(folder, SMALL, RUN)
    with pytest.raises(DataError, match="leave --vectors out"):
        extend(folder, new, RUN, vectors=new)
    with pytest.raises(ConfigError, match="name of the semantic IDs that are extended"):
        extend(folder, new, RUN, name="rqkmeans")
    with pytest.raises(ConfigError, match="levels=3: an extension uses the tokenizer as it is"):
        extend(folder, new, RUN, overrides=["levels=3"])
    embed(folder, VECTORS.model_copy(update={"dims": 5}), RUN)
    with pytest.raises(DataError, match="made again since"):
        extend(folder, new, RUN)
    shutil.rmtree(folder.embeddings("tfidf"))
    with pytest.raises(ArtifactError, match="no artefact"):
        extend(folder, new, RUN)


def test_vectors_without_their_state_say_what_to_do(folder: RunFolder, new: Path, tmp_path: Path) -> None:
    from sidrec.artifact import create

    bare = run_with(tmp_path / "bare", cycle_dataset())
    dataset = open_artifact(bare.dataset)
    config = VECTORS.model_dump(mode="json")
    with create(bare.embeddings("tfidf"), kind="embeddings", config=config, parents={"dataset": dataset}) as writer:
        ItemEmbeddings.load(folder.embeddings("tfidf")).save(writer.path)
    tokenize(bare, SMALL, RUN)
    with pytest.raises(ArtifactError, match=r"did not keep(.|\n)*--force"):
        extend(bare, new, RUN)


def test_given_codes_want_an_index_of_the_new_items(tmp_path: Path, new: Path) -> None:
    given = np.stack([np.arange(24) // 4, np.arange(24) % 3], axis=1).astype(np.int32)
    folder = run_with(tmp_path / "given", replace(cycle_dataset(), given_codes=given))
    tokenize(folder, Given.Config(collisions="append_level"), RUN)
    index = tmp_path / "new.index.json"
    index.write_text('{"n1": ["<a_0>", "<b_0>"], "n2": ["<a_5>", "<b_2>"], "n3": ["<a_0>", "<b_0>"]}')
    with pytest.raises(ConfigError, match=r"codes were imported(.|\n)*path=FILE"):
        extend(folder, new, RUN)
    made = extend(folder, new, RUN, overrides=[f"path={index}"])
    ids = SemanticIds.load(made.artifact.path)
    assert np.array_equal(ids.codes[:24], codes(folder, "given"))
    assert ids.codes[24:, :2].tolist() == [[0, 0], [5, 2], [0, 0]]
    assert ids.num_collided == 0
    assert grown_vectors(made.artifact) is None
    index.write_text('{"n1": ["<a_6>", "<b_0>"], "n2": ["<a_5>", "<b_2>"], "n3": ["<a_0>", "<b_0>"]}')
    with pytest.raises(DataError, match=r"highest codes of the new items are \[6, 2\]"):
        extend(folder, new, RUN, tokenizer="given", overrides=[f"path={index}"])
    index.write_text('{"n1": ["<a_1>", "<b_0>"]}')
    with pytest.raises(DataError, match="2 items of the index are missing"):
        extend(folder, new, RUN, tokenizer="given", overrides=[f"path={index}"])


def test_drawn_codes_are_those_of_the_seed_that_drew_the_old_ones(folder: RunFolder, new: Path) -> None:
    config = RandomCodes.Config(levels=2, codebook_size=4)
    tokenize(folder, config, replace(RUN, seed=4))
    made = extend(folder, new, RUN)
    whole = replace(cycle_dataset(), catalog=Catalog.load(made.artifact.path))
    drawn, _ = RandomCodes(config).codes(whole, replace(RUN, seed=4))
    assert np.array_equal(codes(folder, "random-v2")[:, :2], drawn)


def test_cleaned_texts_are_cleaned_again(tmp_path: Path) -> None:
    from sidrec.artifact import create

    folder = RunFolder(tmp_path / "run")
    with create(folder.dataset, kind="dataset", config={"clean_text": True}) as writer:
        cycle_dataset().save(writer.path)
    embed(folder, VECTORS, RUN)
    tokenize(folder, SMALL, RUN)
    made = extend(folder, table(tmp_path / "new.csv", ["n1"], ["a <b>bold</b> title..."]), RUN)
    assert Catalog.load(made.artifact.path).items["title"][24] == "a bold title."


def test_without_text_nothing_can_be_made(tmp_path: Path) -> None:
    folder = run_with(tmp_path / "bare", textless(cycle_dataset()))
    with pytest.raises(ArtifactError, match="no semantic IDs"):
        extend(folder, table(tmp_path / "n.csv", ["n"], ["t"]), RUN)
