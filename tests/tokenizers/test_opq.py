import numpy as np
import pytest
import torch

from sidrec.embeddings.base import ItemEmbeddings
from sidrec.errors import DataError
from sidrec.testing.tokenizer_contract import blobs
from sidrec.tokenizers.opq import OPQ
from sidrec.tokenizers.quality import relative_error
from sidrec.tokenizers.residual import residual_codes


def embeddings_of(vectors: np.ndarray) -> ItemEmbeddings:
    return ItemEmbeddings(vectors, "test", "digest")


def stretched(num_items: int = 600) -> np.ndarray:
    """Vectors whose variance lies in the first dimensions, which plain blocks get wrong."""
    draw = np.random.default_rng(0)
    return (draw.normal(size=(num_items, 8)) * [9, 9, 1, 1, 0.1, 0.1, 0.1, 0.1]).astype(np.float32)


@pytest.mark.parametrize("dims", [12, 11])
def test_blocks_give_the_codes_of_the_residuals(dims: int) -> None:
    vectors = blobs(300, dims)
    tokenizer = OPQ(levels=4, codebook_size=8).fit(embeddings_of(vectors))
    latents = torch.from_numpy(tokenizer.latents(vectors))
    expected, _ = residual_codes(latents, [torch.from_numpy(book) for book in tokenizer.codebooks])
    assert np.array_equal(tokenizer.quantize(vectors), expected.numpy())


def test_a_level_sees_its_block_only() -> None:
    tokenizer = OPQ(levels=3, codebook_size=8).fit(embeddings_of(blobs(200, 9)))
    for level, book in enumerate(tokenizer.codebooks):
        outside = np.delete(book, np.s_[3 * level : 3 * level + 3], axis=1)
        assert not outside.any()


def test_the_rotation_is_orthogonal_and_lowers_the_error() -> None:
    vectors = stretched()
    errors = {}
    for rotate in (True, False):
        tokenizer = OPQ(levels=4, codebook_size=16, rotate=rotate).fit(embeddings_of(vectors))
        np.testing.assert_allclose(tokenizer.rotation @ tokenizer.rotation.T, np.eye(8), atol=1e-4)
        errors[rotate] = relative_error(vectors, tokenizer.reconstruct(tokenizer.quantize(vectors)))
    assert errors[True] < 0.7 * errors[False]


def test_padding_is_rebuilt_too() -> None:
    vectors = blobs(100, 7)
    tokenizer = OPQ(levels=2, codebook_size=100).fit(embeddings_of(vectors))
    rebuilt = tokenizer.reconstruct(tokenizer.quantize(vectors))
    assert rebuilt.shape == (100, 8)
    np.testing.assert_allclose(rebuilt, np.pad(vectors, ((0, 0), (0, 1))), atol=1e-3)


def test_one_item() -> None:
    one = embeddings_of(np.ones((1, 3), np.float32))
    assert OPQ().fit(one).encode(one).codes.tolist() == [[0, 0, 0, 0]]


def test_unfitted_says_so() -> None:
    with pytest.raises(DataError, match="no codebooks yet"):
        OPQ().quantize(blobs(4))
