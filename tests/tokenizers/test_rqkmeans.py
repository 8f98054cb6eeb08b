from itertools import pairwise

import numpy as np

from sidrec.config import RunSettings
from sidrec.embeddings.base import ItemEmbeddings
from sidrec.testing.tokenizer_contract import blobs
from sidrec.tokenizers.quality import relative_error
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
