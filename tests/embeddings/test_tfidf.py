import numpy as np
import polars as pl
import pytest

from sidrec.config import RunSettings
from sidrec.data.catalog import Catalog
from sidrec.embeddings.tfidf import TfidfEmbedder
from sidrec.errors import DataError

TITLES = ["red drum", "red drum large", "green violin", "green violin bow", "blue piano", ""]
CATALOG = Catalog(pl.DataFrame({"item_id": list("abcdef"), "title": TITLES}))


def test_shared_words_make_neighbours() -> None:
    embeddings = TfidfEmbedder(dims=4).embed(CATALOG, RunSettings())
    near = embeddings.vectors @ embeddings.vectors.T
    assert near[0, 1] > 0.6 > near[0, 2] + 0.3
    assert near[2, 3] > 0.6
    embeddings.check_fits(CATALOG)


def test_unit_length_unless_there_is_no_word() -> None:
    vectors = TfidfEmbedder(dims=6).embed(CATALOG, RunSettings()).vectors
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), [1, 1, 1, 1, 1, 0], atol=1e-5)
    raw = TfidfEmbedder(dims=6, normalize=False).embed(CATALOG, RunSettings()).vectors
    assert np.linalg.norm(raw[:5], axis=1).max() <= 1.0001


def test_items_without_text_are_missing_also_where_the_chosen_fields_have_none() -> None:
    assert TfidfEmbedder().embed(CATALOG, RunSettings()).missing.tolist() == [5]
    brands = CATALOG.items.with_columns(pl.Series("brand", ["", "Acme", None, "Acme", "Best", "Best"]))
    embedded = [TfidfEmbedder(fields=fields).embed(Catalog(brands), RunSettings()) for fields in (("brand",), ())]
    assert [each.missing.tolist() for each in embedded] == [[0, 2], []]


def test_dims_are_at_most_words_and_items() -> None:
    assert TfidfEmbedder(dims=500).embed(CATALOG, RunSettings()).vectors.shape == (6, 6)
    one = Catalog(pl.DataFrame({"item_id": ["a"], "title": ["two words"]}))
    assert TfidfEmbedder().embed(one, RunSettings()).vectors.shape == (1, 1)


def test_same_seed_same_bits() -> None:
    first, again = (TfidfEmbedder(dims=3).embed(CATALOG, RunSettings(seed=5)).vectors for _ in range(2))
    assert np.array_equal(first, again)


def test_texts_without_words() -> None:
    marks = Catalog(pl.DataFrame({"item_id": ["a", "b"], "title": ["!", "?"]}))
    with pytest.raises(DataError, match="no word of two or more letters"):
        TfidfEmbedder().embed(marks, RunSettings())


def test_equal_texts_have_equal_vectors() -> None:
    titles = ["the same title", "another one"] * 50
    catalog = Catalog(pl.DataFrame({"item_id": [str(row) for row in range(100)], "title": titles}))
    vectors = TfidfEmbedder().embed(catalog, RunSettings()).vectors
    assert len(np.unique(vectors, axis=0)) == 2
