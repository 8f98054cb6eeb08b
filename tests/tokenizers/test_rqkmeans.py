from itertools import pairwise

import numpy as np
import torch

from sidrec.config import RunSettings
from sidrec.embeddings.base import ItemEmbeddings
from sidrec.testing.tokenizer_contract import blobs
from sidrec.tokenizers.quality import level_usage, relative_error
from sidrec.tokenizers.residual import PIECE, residual_codes
from sidrec.tokenizers.rqkmeans import RQKMeans


def embeddings_of(vectors: np.ndarray) -> ItemEmbeddings:
    return ItemEmbeddings(vectors, "test", "digest")


def test_error_falls_with_every_level() -> None:
    vectors = blobs(600, 16)
    errors = []
    for levels in (1, 2, 3, 4):
        tokenizer = RQKMeans(levels=levels, codebook_size=32).fit(embeddings_of(vectors))
        errors.append(relative_error(vectors, tokenizer.reconstruct(tokenizer.quantize(vectors))))
    assert errors[0] < 0.2
    assert all(after < 0.9 * before for before, after in pairwise(errors))


def test_small_catalogue_gets_small_codebooks_and_no_error() -> None:
    vectors = np.array([[1, 0], [0, 1], [1, 0], [2, 2]], np.float32)
    tokenizer = RQKMeans(levels=2, codebook_size=256).fit(embeddings_of(vectors))
    assert tokenizer.sizes == (3, 1)
    assert np.array_equal(tokenizer.reconstruct(tokenizer.quantize(vectors)), vectors)
    assert tokenizer.encode(embeddings_of(vectors)).num_collided == 0


def test_one_item() -> None:
    one = embeddings_of(np.ones((1, 3), np.float32))
    assert RQKMeans().fit(one).encode(one).codes.tolist() == [[0, 0, 0, 0]]


def test_normalize_ignores_length() -> None:
    vectors = blobs(100, 8)
    tokenizer = RQKMeans(levels=2, codebook_size=8, normalize=True).fit(embeddings_of(vectors))
    assert np.array_equal(tokenizer.quantize(vectors), tokenizer.quantize(vectors * 4))


def test_seed_decides() -> None:
    embeddings = embeddings_of(blobs(300, 8, clusters=60))
    seeds = (0, 0, 1)
    digests = {
        RQKMeans(codebook_size=16).fit(embeddings, RunSettings(seed=seed)).encode(embeddings).digest for seed in seeds
    }
    assert len(digests) == 2


def test_balanced_codebooks_are_used_more_evenly() -> None:
    draw = np.random.default_rng(0)
    # One dense heap that holds most items: plain k-means gives the few far items most codes.
    vectors = np.concatenate([draw.normal(size=(900, 8)) * 0.1, draw.normal(size=(100, 8)) * 8]).astype(np.float32)
    usage = {}
    for balanced in (False, True):
        tokenizer = RQKMeans(levels=2, codebook_size=16, balanced=balanced).fit(embeddings_of(vectors))
        usage[balanced] = level_usage(tokenizer.quantize(vectors)[:, 0], 16)["perplexity"]
    assert usage[False] < 6
    assert usage[True] > 11


def test_balanced_with_few_distinct_vectors() -> None:
    vectors = np.repeat(np.eye(3, dtype=np.float32), 5, axis=0)
    tokenizer = RQKMeans(levels=2, codebook_size=8, balanced=True).fit(embeddings_of(vectors))
    assert tokenizer.sizes == (3, 1)


def test_levels_of_unequal_size() -> None:
    vectors = blobs(300, 8, clusters=60)
    assert RQKMeans(codebook_sizes=(32, 8, 4, 2)).fit(embeddings_of(vectors)).sizes == (32, 8, 4, 2)


def test_every_level_draws_its_own_sample_and_vectors_stay_as_they_are() -> None:
    vectors = blobs(3000, 8, clusters=30)
    before = vectors.copy()
    sampled = RQKMeans(levels=2, codebook_size=16, sample=1000).fit(embeddings_of(vectors))
    whole = RQKMeans(levels=2, codebook_size=16).fit(embeddings_of(vectors))
    errors = [relative_error(vectors, each.reconstruct(each.quantize(vectors))) for each in (sampled, whole)]
    assert np.array_equal(vectors, before)
    assert errors[0] < 1.15 * errors[1]


def test_encoding_in_pieces_changes_no_code() -> None:
    vectors = blobs(2 * PIECE + 5, 8)
    tokenizer = RQKMeans(levels=2, codebook_size=16, normalize=True).fit(embeddings_of(vectors))
    codes = tokenizer.quantize(vectors)
    books = [torch.from_numpy(book) for book in tokenizer.codebooks]
    assert np.array_equal(codes, residual_codes(torch.from_numpy(tokenizer.latents(vectors)), books)[0].numpy())
