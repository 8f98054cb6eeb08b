"""What every tokenizer must do, whether it learns from vectors or imports codes; call it with yours."""

import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import torch

from sidrec.config import parse
from sidrec.data.catalog import Catalog
from sidrec.data.columns import Columns
from sidrec.data.dataset import Dataset
from sidrec.embeddings.base import ItemEmbeddings
from sidrec.errors import ArtifactError, DataError
from sidrec.random import generator
from sidrec.tokenizers.base import ImportingTokenizer, Tokenizer, VectorTokenizer, load_tokenizer
from sidrec.tokenizers.residual import distances
from sidrec.tokenizers.semantic_ids import SemanticIds
from sidrec.types import FloatArray

__all__ = ["blobs", "check_importing_tokenizer", "check_tokenizer"]


DIMS = 8
"""Size of the collaborative vectors that the contract hands out."""


def blobs(num_items: int = 200, dims: int = 16, clusters: int = 20, seed: int = 0) -> FloatArray:
    """float32[N, D], points around centres that lie far apart."""
    draw = generator(seed, "blobs")
    centres = draw.normal(size=(clusters, dims)) * 4
    labels = np.arange(num_items) % clusters
    return (centres[labels] + draw.normal(size=(num_items, dims))).astype(np.float32)


def check_tokenizer(factory: Callable[[], VectorTokenizer]) -> None:
    """Fit small tokenizers and check the promises of `VectorTokenizer`.

    Args:
        factory: makes an unfitted tokenizer that learns two hundred items in seconds.

    Raises:
        AssertionError: a promise is broken; the message says which.
    """
    vectors = blobs()
    embeddings = ItemEmbeddings(vectors, "blobs", "digest of the blobs")
    tokenizer = _fitted(factory(), embeddings)
    _check_codes(tokenizer, vectors)
    _check_residuals(tokenizer, vectors)
    ids = tokenizer.encode(embeddings)
    assert ids.catalog_digest == embeddings.catalog_digest, "the semantic IDs carry the catalogue's digest"
    again = _fitted(factory(), embeddings).encode(embeddings)
    assert again.digest == ids.digest, "the same seed gives the same semantic IDs"
    _check_saving(tokenizer, embeddings)
    _check_extension(tokenizer, embeddings)
    _check_wrong_catalogue(ids)


def _fitted(tokenizer: VectorTokenizer, embeddings: ItemEmbeddings) -> VectorTokenizer:
    """Fitted; with collaborative vectors of `DIMS` dimensions where it wants them, and not without."""
    if not tokenizer.needs_collaborative:
        return tokenizer.fit(embeddings)
    try:
        tokenizer.fit(embeddings)
    except DataError:
        behaviour = replace(embeddings, vectors=blobs(len(embeddings.vectors), DIMS, seed=1))
        return tokenizer.fit(embeddings, collaborative=behaviour)
    raise AssertionError("a tokenizer that wants collaborative vectors says so when there are none")


def check_importing_tokenizer(factory: Callable[[], ImportingTokenizer], dataset: Dataset) -> None:
    """Import codes and check the promises of `ImportingTokenizer`.

    Args:
        factory: makes a tokenizer.
        dataset: one whose items it has codes for.

    Raises:
        AssertionError: a promise is broken; the message says which.
    """
    tokenizer = factory()
    assert not tokenizer.needs_embeddings, "imported codes need no vectors"
    codes, sizes = tokenizer.codes(dataset)
    assert codes.dtype == np.int32
    assert codes.shape == (len(dataset.catalog), len(sizes)), "one code an item and level"
    SemanticIds(codes, sizes, dataset.catalog.digest).check_fits(dataset.catalog)
    again, sizes_again = factory().codes(dataset)
    assert np.array_equal(again, codes), "the same files give the same codes"
    assert sizes_again == sizes
    assert factory().sources() == tokenizer.sources(), "the same files have the same digests"
    _check_config(tokenizer)
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save(Path(folder))
        try:
            load_tokenizer(Path(folder))
        except ArtifactError:
            return
    raise AssertionError("what was imported cannot encode vectors, and says so")


def _check_config(tokenizer: Tokenizer) -> None:
    assert parse(type(tokenizer).Config, tokenizer.describe()) == tokenizer.config, "the configuration survives JSON"


def _check_codes(tokenizer: VectorTokenizer, vectors: FloatArray) -> None:
    codes = tokenizer.quantize(vectors)
    assert codes.dtype == np.int32
    assert codes.shape == (len(vectors), len(tokenizer.sizes)), "one code an item and level"
    assert (codes >= 0).all(), "codes count from 0"
    assert (codes < np.asarray(tokenizer.sizes)).all(), "codes are smaller than their level"
    batches = [tokenizer.quantize(batch) for batch in np.array_split(vectors, 7)]
    assert np.array_equal(np.concatenate(batches), codes), "a vector's codes do not depend on its neighbours"
    assert np.array_equal(tokenizer.quantize(vectors[::-1].copy())[::-1], codes), "nor on the order"
    assert tokenizer.dims == vectors.shape[1]
    for wrong in (vectors[:, :-1], np.concatenate([vectors, vectors], axis=1)):
        try:
            tokenizer.quantize(wrong)
        except DataError:
            continue
        raise AssertionError("vectors of another size are refused")


def _check_residuals(tokenizer: VectorTokenizer, vectors: FloatArray) -> None:
    quantized = tokenizer.quantized(vectors)
    codes, rest = quantized.codes, tokenizer.latents(vectors)
    assert np.array_equal(codes, tokenizer.quantize(vectors)), "both ways to the codes give the same"
    assert quantized.sizes == tokenizer.sizes
    for level, codebook in enumerate(tokenizer.codebooks):
        cost = distances(torch.from_numpy(rest), torch.from_numpy(codebook), tokenizer.metric).numpy()
        chosen = cost[np.arange(len(codes)), codes[:, level]]
        assert np.allclose(chosen, cost.min(axis=1), rtol=1e-3, atol=1e-4), "the nearest code is chosen"
        rest = rest - codebook[codes[:, level]]
    assert tokenizer.reconstruct(codes).shape == tokenizer.compared(vectors).shape, "codes stand for vectors"


def _check_saving(tokenizer: VectorTokenizer, embeddings: ItemEmbeddings) -> None:
    _check_config(tokenizer)
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save(Path(folder))
        loaded = load_tokenizer(Path(folder))
        assert type(loaded) is type(tokenizer)
        assert loaded.encode(embeddings).digest == tokenizer.encode(embeddings).digest, "loading changes no code"
        codes = tokenizer.quantize(embeddings.vectors)
        assert np.array_equal(loaded.reconstruct(codes), tokenizer.reconstruct(codes)), "nor a reconstruction"


def _check_extension(tokenizer: VectorTokenizer, embeddings: ItemEmbeddings) -> None:
    ids = [f"item {row}" for row in range(len(embeddings.vectors))]
    whole, part = (Catalog(pl.DataFrame({Columns.ITEM: ids[:count]})) for count in (len(ids), 150))
    old = tokenizer.encode(replace(embeddings, vectors=embeddings.vectors[:150], catalog_digest=part.digest))
    every = replace(embeddings, catalog_digest=whole.digest)
    new = tokenizer.encode(every, extends=old, catalog=whole)
    assert np.array_equal(new.codes[:150], old.codes), "old items keep their codes"
    assert new.version == old.version + 1, "an extension is a new version"
    moved = Catalog(pl.DataFrame({Columns.ITEM: ids[::-1]}))
    try:
        tokenizer.encode(replace(embeddings, catalog_digest=moved.digest), extends=old, catalog=moved)
    except DataError:
        return
    raise AssertionError("a catalogue in another order is refused: its first items are not the old ones")


def _check_wrong_catalogue(ids: SemanticIds) -> None:
    other = Catalog(pl.DataFrame({Columns.ITEM: [f"item {row}" for row in range(len(ids))]}))
    try:
        ids.check_fits(other)
    except DataError:
        return
    raise AssertionError("another catalogue of the same size is refused")
