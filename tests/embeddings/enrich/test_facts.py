"""Facts on disk and in vectors: by id, never by position."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from tests.embeddings.test_text import Counting

from sidrec.artifact import create
from sidrec.config import RunSettings
from sidrec.data.catalog import Catalog
from sidrec.embeddings.enrich.answers import Answer
from sidrec.embeddings.enrich.facts import ItemFacts, described, facts_digest
from sidrec.embeddings.tfidf import TfidfEmbedder
from sidrec.errors import ArtifactError, DataError

FACTS = ItemFacts(
    {"b": "genres: Racing, Rally", "a": "", "c": "year: 2011"},  # type: ignore[dict-item]
    {"b": {"genres": ["Racing", "Rally"]}, "a": {}, "c": {"year": "2011"}},  # type: ignore[dict-item]
    {
        "b": {"steam": Answer("b", "found", {"genres": ["Racing"]}, match="B", score=0.5)},  # type: ignore[dict-item]
        "a": {"steam": Answer("a", "failed", reason="status 500")},
        "c": {},
    },
)


def saved(path: Path, facts: ItemFacts = FACTS) -> str:
    with create(path, kind="facts", config={}) as writer:
        facts.save(writer.path)
    return str(path)


def catalog(*ids: str, **columns: list[str]) -> Catalog:
    return Catalog(pl.DataFrame({"item_id": ids, "title": [f"title {item}" for item in ids], **columns}))


def test_what_is_written_is_read(tmp_path: Path) -> None:
    assert ItemFacts.load(saved(tmp_path / "facts")) == FACTS


def test_a_catalogue_gets_its_own_facts_whatever_their_order(tmp_path: Path) -> None:
    path = saved(tmp_path / "facts")
    mine = catalog("a", "b", "c")
    told = described(mine, path)
    assert told.items["facts"].to_list() == ["", "genres: Racing, Rally", "year: 2011"]
    assert told.digest == mine.digest
    assert described(catalog("c", "b"), path).items["facts"].to_list() == ["year: 2011", "genres: Racing, Rally"]
    assert described(mine, "") is mine


def test_facts_of_other_items_are_refused(tmp_path: Path) -> None:
    path = saved(tmp_path / "facts")
    with pytest.raises(DataError, match="1 items were never asked about, the first is 'd'"):
        described(catalog("a", "d"), path)
    with pytest.raises(DataError, match="a field 'facts' of its own"):
        described(catalog("a", facts=["mine"]), path)
    with pytest.raises(ArtifactError, match="sidrec enrich"):
        facts_digest(str(tmp_path / "nothing"))


def test_vectors_are_made_of_titles_and_facts(tmp_path: Path) -> None:
    path, mine = saved(tmp_path / "facts"), catalog("a", "b", "c")
    written = catalog("a", "b", "c", facts=["", "genres: Racing, Rally", "year: 2011"])
    told, plain = TfidfEmbedder(dims=3, facts=path), TfidfEmbedder(dims=3)
    assert np.array_equal(told.embed(mine, RunSettings()).vectors, plain.embed(written, RunSettings()).vectors)
    assert told.facts(mine) == {"fields": ["title", "facts"], "items_without_text": 0}
    assert told.sources() == facts_digest(path) != {}
    assert plain.sources() == {}
    encoder = Counting(facts=path, fields=("facts",))
    # A text becomes (length, vowels, 1).
    assert encoder.embed(mine, RunSettings()).vectors[:, 0].tolist() == [0, 21, 10]
    assert encoder.facts(mine) == {"fields": ["facts"], "items_without_text": 1}
    assert encoder.sources() == facts_digest(path)


def test_new_items_without_facts_cannot_get_such_vectors(tmp_path: Path) -> None:
    embedder = TfidfEmbedder(dims=2, facts=saved(tmp_path / "facts"))
    old = catalog("a", "b")
    with create(tmp_path / "vectors", kind="embeddings", config={}) as writer:
        embedder.embed(old, RunSettings()).save(writer.path)
        embedder.save(writer.path)
    from sidrec.artifact import open_artifact

    earlier = open_artifact(tmp_path / "vectors")
    assert embedder.extend(catalog("c"), old, earlier, RunSettings()).shape == (1, 2)
    with pytest.raises(DataError, match="never asked about"):
        embedder.extend(catalog("new"), old, earlier, RunSettings())
