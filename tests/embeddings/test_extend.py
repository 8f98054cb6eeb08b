"""Vectors of new items: by the same words, the same model, or from a file; never by what nobody did yet."""

from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import polars as pl
import pytest
from tests.embeddings.test_text import Counting

from sidrec.artifact import Artifact, create, open_artifact
from sidrec.config import Config, RunSettings
from sidrec.data.catalog import Catalog
from sidrec.data.dataset import Dataset
from sidrec.embeddings.base import Embedder, ItemEmbeddings
from sidrec.embeddings.fields import joined_texts
from sidrec.embeddings.imported import ImportedVectors
from sidrec.embeddings.tfidf import TfidfEmbedder
from sidrec.errors import DataError
from sidrec.testing.toy import cycle_dataset

RUN = RunSettings()
WORDS = ["red drum", "red drum large", "green violin", "green violin bow", "blue piano", "old blue piano"]


def catalog(prefix: str, titles: list[str]) -> Catalog:
    return Catalog(pl.DataFrame({"item_id": [f"{prefix}{row}" for row in range(len(titles))], "title": titles}))


OLD = catalog("old", WORDS * 4)


def saved(path: Path, embedder: Embedder) -> Artifact:
    with create(path, kind="embeddings", config={}, parents=embedder.sources()) as writer:
        embedder.embed_items(replace(cycle_dataset(), catalog=OLD), RUN).save(writer.path)
        embedder.save(writer.path)
    return open_artifact(path)


@pytest.mark.parametrize("normalize", [True, False])
def test_words_mean_what_they_meant(tmp_path: Path, normalize: bool) -> None:
    from sklearn.feature_extraction.text import TfidfVectorizer

    embedder = TfidfEmbedder(dims=4, normalize=normalize)
    artifact = saved(tmp_path / "tfidf", embedder)
    new = catalog("new", ["large green drum", "green violin bow", "trombone", "", "violin TROMBONE"])
    made = TfidfEmbedder(embedder.config).extend(new, OLD, artifact, RUN)
    old = ItemEmbeddings.of_artifact(artifact).vectors
    assert np.array_equal(made[1], old[3]), "the same text has the same vector to the bit"
    assert not made[[2, 3]].any(), "unknown words say nothing"
    # By hand: weights by the old items' rarities, then the directions that solve old weights -> old vectors.
    vectorizer = TfidfVectorizer(sublinear_tf=True)
    weights = vectorizer.fit_transform(joined_texts(OLD)).toarray()
    raw = TfidfEmbedder(dims=4, normalize=False).embed(OLD, RUN).vectors
    directions = np.linalg.lstsq(weights, raw, rcond=None)[0]
    by_hand = vectorizer.transform(["large green drum"]).toarray() @ directions
    by_hand = by_hand / np.linalg.norm(by_hand) if normalize else by_hand
    np.testing.assert_allclose(made[:1], by_hand, atol=1e-4)
    again = TfidfEmbedder(embedder.config).extend(new, OLD, artifact, RUN)
    assert np.array_equal(again, made)
    assert np.array_equal(TfidfEmbedder(embedder.config).extend(new.tail(4), OLD, artifact, RUN), made[4:])


def test_a_model_is_stateless_and_must_be_the_same(tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    (model / "weights").write_text("one")
    embedder = Counting(model=str(model))
    artifact = saved(tmp_path / "text", embedder)
    made = embedder.extend(catalog("new", ["oboe"]), OLD, artifact, RUN)
    assert made.tolist() == [[4, 3, 1]]
    (model / "weights").write_text("two")
    with pytest.raises(DataError, match="not the one that made the old vectors"):
        embedder.extend(catalog("new", ["oboe"]), OLD, artifact, RUN)


def test_imported_rows_follow_the_new_items(tmp_path: Path) -> None:
    np.save(tmp_path / "old.npy", np.ones((24, 2), np.float32))
    np.save(tmp_path / "new.npy", np.array([[3, 4], [5, 6]], np.float64))
    embedder = ImportedVectors(path=str(tmp_path / "old.npy"), rows="catalogue order")
    artifact = saved(tmp_path / "import", embedder)
    made = embedder.extend(catalog("new", ["", ""]), OLD, artifact, RUN, tmp_path / "new.npy")
    assert (made.tolist(), made.dtype) == ([[3, 4], [5, 6]], np.float32)


class Behavioural(Embedder):
    """Vectors of what users did, which for new items is nothing."""

    class Config(Config):
        kind: Literal["behavioural"] = "behavioural"

    def embed_items(self, dataset: Dataset, run: RunSettings) -> ItemEmbeddings:
        return ItemEmbeddings(np.ones((len(dataset.catalog), 2), np.float32), "ones", dataset.catalog.digest)


def test_vectors_of_behaviour_cannot_be_made_for_new_items(tmp_path: Path) -> None:
    embedder = Behavioural()
    artifact = saved(tmp_path / "behavioural", embedder)
    with pytest.raises(DataError, match=r"vectors of kind 'behavioural' cannot be made for new items(.|\n)*content"):
        embedder.extend(catalog("new", ["oboe"]), OLD, artifact, RUN)
