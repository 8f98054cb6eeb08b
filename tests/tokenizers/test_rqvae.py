"""Where gradients go, and that training trains."""

import numpy as np
import pytest
import torch

from sidrec.config import RunSettings
from sidrec.embeddings.base import ItemEmbeddings
from sidrec.testing.tokenizer_contract import blobs
from sidrec.tokenizers.quality import code_quality, relative_error
from sidrec.tokenizers.rqvae import RQVAE
from sidrec.tokenizers.rqvae_network import ResidualAutoencoder

SMALL = {"layers": (32,), "latent_dim": 8, "levels": 2, "codebook_size": 16, "batch_size": 32}


def network_of(passes: bool = False, **options: object) -> tuple[ResidualAutoencoder, torch.Tensor]:
    network = ResidualAutoencoder([16, 12, 4], [8, 8, 8], passes_residual_gradient=passes, **options)
    network.initialize_weights(1)
    vectors = torch.from_numpy(blobs(64))
    network.initialize_codebooks(vectors, 2)
    return network.train(), vectors


def gradient(of: torch.Tensor, to: torch.Tensor) -> torch.Tensor:
    found = torch.autograd.grad(of, to, retain_graph=True, allow_unused=True)[0]
    return torch.zeros_like(to) if found is None else found


@pytest.mark.parametrize("passes", [False, True])
def test_reconstruction_reaches_the_encoder_only(passes: bool) -> None:
    network, vectors = network_of(passes)
    losses, _ = network.losses(vectors)
    encoder = network.encoder[1].weight
    assert gradient(losses.reconstruction, encoder).abs().sum() > 0
    assert all(gradient(losses.reconstruction, book).abs().sum() == 0 for book in network.codebooks)


def test_codebook_loss_reaches_the_codebooks_only() -> None:
    network, vectors = network_of()
    losses, _ = network.losses(vectors)
    assert gradient(losses.codebook, network.encoder[1].weight).abs().sum() == 0
    assert all(gradient(losses.codebook, book).abs().sum() > 0 for book in network.codebooks)
    assert all(gradient(losses.commitment, book).abs().sum() == 0 for book in network.codebooks)


@pytest.mark.parametrize(("passes", "levels_that_commit"), [(False, 1), (True, 3)])
def test_which_levels_commit(passes: bool, levels_that_commit: int) -> None:
    network, vectors = network_of(passes)
    latents = network.encode(vectors).detach().requires_grad_()
    quantized = network.quantize(latents)
    rest, expected = latents.detach(), torch.zeros_like(latents)
    for level, book in enumerate(network.codebooks):
        chosen = book.detach()[quantized.codes_BL[:, level]]
        if level < levels_that_commit:
            expected += 2 * (rest - chosen) / rest.numel() / 3
        rest = rest - chosen
    torch.testing.assert_close(gradient(quantized.commitment, latents), expected)


def test_losses_equal_the_definition() -> None:
    network, vectors = network_of()
    network.fit_scaler(vectors)
    losses, codes = network.losses(vectors)
    with torch.no_grad():
        rest, total, expected = network.encode(vectors), torch.zeros(64, 4), 0.0
        for level, book in enumerate(network.codebooks):
            nearest = torch.stack([((row - book) ** 2).sum(1).argmin() for row in rest])
            assert torch.equal(codes[:, level], nearest)
            expected += float(((rest - book[nearest]) ** 2).mean()) / 3
            total, rest = total + book[nearest], rest - book[nearest]
        rebuilt = float(((network.decode(total) - vectors) ** 2).mean() / network.scale**2)
    assert float(losses.codebook.detach()) == pytest.approx(expected, rel=1e-4)
    assert float(losses.commitment.detach()) == pytest.approx(expected, rel=1e-4)
    assert float(losses.reconstruction.detach()) == pytest.approx(rebuilt, rel=1e-4)


def test_straight_through_sum_has_the_value_of_the_codes_and_the_gradient_of_the_latent() -> None:
    for passes in (False, True):
        network, vectors = network_of(passes)
        latents = network.encode(vectors).detach().requires_grad_()
        quantized = network.quantize(latents)
        value = sum(book[quantized.codes_BL[:, level]] for level, book in enumerate(network.codebooks))
        torch.testing.assert_close(quantized.sum_BD, value)
        torch.testing.assert_close(gradient(quantized.sum_BD.sum(), latents), torch.ones_like(latents))


def test_balancing_is_for_training_only() -> None:
    network, vectors = network_of(num_balanced=1)
    usage = torch.bincount(network.quantize(network.encode(vectors)).codes_BL[:, 2], minlength=8)
    assert int(usage.max()) <= 10
    network.eval()
    plain = network.quantize(network.encode(vectors)).codes_BL
    assert torch.equal(plain, network_of()[0].eval().quantize(network.encode(vectors)).codes_BL)


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
