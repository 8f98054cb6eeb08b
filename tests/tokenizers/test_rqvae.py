"""That training trains, resumes to the same bits, and does what its settings say."""

import numpy as np
import torch

from sidrec.config import RunSettings
from sidrec.embeddings.base import ItemEmbeddings
from sidrec.testing.tokenizer_contract import blobs
from sidrec.tokenizers.quality import code_quality, relative_error
from sidrec.tokenizers.rqvae import RQVAE

SMALL = {"layers": (32,), "latent_dim": 8, "levels": 2, "codebook_size": 16, "batch_size": 32}


def test_training_lowers_the_error_and_keeps_callers_random_state() -> None:
    embeddings = ItemEmbeddings(blobs(400, 16), "blobs", "digest")
    state = torch.random.get_rng_state()
    errors = []
    for epochs in (1, 40):
        tokenizer = RQVAE(**SMALL, epochs=epochs, dropout=0.01).fit(embeddings)
        codes = tokenizer.quantize(embeddings.vectors)
        errors.append(relative_error(embeddings.vectors, tokenizer.reconstruct(codes)))
    assert errors[1] < 0.6 * errors[0]
    assert errors[1] < 0.35
    assert torch.equal(torch.random.get_rng_state(), state)


def test_the_best_state_is_kept() -> None:
    embeddings = ItemEmbeddings(blobs(200, 16), "blobs", "digest")
    # A learning rate that destroys what it learned: the last state is not the best.
    settings = {**SMALL, "lr": 0.3, "schedule": "constant", "epochs": 12, "revive_every": 0}
    score = {}
    for every in (0, 1):
        tokenizer = RQVAE(**settings, validate_every=every).fit(embeddings)
        codes = tokenizer.quantize(embeddings.vectors)
        error = relative_error(embeddings.vectors, tokenizer.reconstruct(codes))
        score[every] = error + code_quality(codes, tokenizer.sizes)["collision_rate"]
    assert score[1] < score[0]


def test_bf16_trains() -> None:
    embeddings = ItemEmbeddings(blobs(200, 16), "blobs", "digest")
    tokenizer = RQVAE(**SMALL, epochs=30, precision="bf16").fit(embeddings, RunSettings(seed=3))
    codes = tokenizer.quantize(embeddings.vectors)
    assert relative_error(embeddings.vectors, tokenizer.reconstruct(codes)) < 0.6


def test_dead_codes_come_back() -> None:
    draw = np.random.default_rng(0)
    embeddings = ItemEmbeddings(draw.normal(size=(300, 16)).astype(np.float32), "noise", "digest")
    used = {}
    for every in (0, 2):
        tokenizer = RQVAE(**{**SMALL, "codebook_size": 64}, epochs=24, revive_every=every, validate_every=0)
        codes = tokenizer.fit(embeddings).quantize(embeddings.vectors)
        used[every] = len(np.unique(codes[:, 0])) + len(np.unique(codes[:, 1]))
    assert used[2] >= used[0]
