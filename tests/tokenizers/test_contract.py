"""Every tokenizer that learns keeps the same promises."""

from collections.abc import Callable

import numpy as np
import pytest

from sidrec.errors import DataError
from sidrec.testing.tokenizer_contract import blobs, check_tokenizer
from sidrec.tokenizers.base import VectorTokenizer
from sidrec.tokenizers.rqkmeans import RQKMeans
from sidrec.tokenizers.rqvae import RQVAE

SMALL_VAE = {"layers": (32,), "latent_dim": 8, "levels": 2, "codebook_size": 16, "epochs": 6, "batch_size": 64}

TOKENIZERS = {
    "rqkmeans": lambda: RQKMeans(levels=3, codebook_size=16),
    "rqkmeans, directions": lambda: RQKMeans(levels=2, codebook_size=16, normalize=True),
    "rqkmeans, nearest free": lambda: RQKMeans(levels=2, codebook_size=16, collisions="nearest_free"),
    "rqvae": lambda: RQVAE(**SMALL_VAE),
    "rqvae, all options": lambda: RQVAE(
        **SMALL_VAE,
        dropout=0.1,
        commit="all",
        balanced_levels=1,
        revive_every=2,
        collisions={"kind": "sinkhorn_reassign", "rounds": 2},
    ),
}


@pytest.mark.parametrize("factory", TOKENIZERS.values(), ids=TOKENIZERS)
def test_contract(factory: Callable[[], VectorTokenizer]) -> None:
    check_tokenizer(factory)


class Restless(RQKMeans):
    """Breaks a promise: its codes depend on the batch."""

    def quantize(self, vectors: np.ndarray) -> np.ndarray:
        return np.roll(super().quantize(vectors), 1, axis=0)


def test_the_contract_notices_a_broken_promise() -> None:
    with pytest.raises(AssertionError, match="neighbours"):
        check_tokenizer(lambda: Restless(levels=2, codebook_size=8))


def test_unfitted_tokenizer_says_so() -> None:
    for tokenizer in (RQKMeans(), RQVAE()):
        with pytest.raises(DataError, match="no codebooks yet"):
            tokenizer.quantize(blobs(4))
