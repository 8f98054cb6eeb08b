"""LETTER's two losses against loops written from the paper, and what collaborative vectors change."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sidrec.config import RunSettings
from sidrec.embeddings.base import ItemEmbeddings
from sidrec.errors import ConfigError, DataError
from sidrec.testing.tokenizer_contract import blobs
from sidrec.tokenizers.letter import Letter, cluster_codes, collaborative_loss, diversity_loss, positive_codes
from sidrec.tokenizers.rqvae import RQVAE

SMALL = {"layers": (32,), "latent_dim": 8, "levels": 2, "codebook_size": 16, "batch_size": 64, "epochs": 5}


def items(vectors: np.ndarray) -> ItemEmbeddings:
    return ItemEmbeddings(vectors, "by hand", "digest")


def test_collaborative_loss_equals_a_loop() -> None:
    draw = torch.Generator().manual_seed(0)
    quantized, behaviour = torch.randn(2, 6, 4, generator=draw)
    forth = back = 0.0
    for row in range(6):
        forth -= torch.stack([quantized[row] @ other for other in behaviour]).log_softmax(0)[row] / 6
        back -= torch.stack([other @ behaviour[row] for other in quantized]).log_softmax(0)[row] / 6
    torch.testing.assert_close(collaborative_loss(quantized, behaviour), forth)
    torch.testing.assert_close(collaborative_loss(quantized, behaviour, symmetric=True), (forth + back) / 2)
    one, other = quantized / quantized.norm(dim=1, keepdim=True), behaviour / behaviour.norm(dim=1, keepdim=True)
    expected = collaborative_loss(one / 0.5, other)
    torch.testing.assert_close(collaborative_loss(quantized, behaviour, normalize=True, temperature=0.5), expected)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 40), st.integers(1, 60))
def test_diversity_loss_equals_a_loop(seed: int, num_codes: int, batch: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    book = torch.randn(num_codes, 4, generator=draw, dtype=torch.float64)
    cluster = torch.randint(0, 4, (num_codes,), generator=draw)
    codes = torch.randint(0, num_codes, (batch,), generator=draw)
    positives = positive_codes(codes, cluster, torch.rand(batch, generator=draw, dtype=torch.float64))
    expected = torch.zeros((), dtype=torch.float64)
    for code, positive in zip(codes.tolist(), positives.tolist(), strict=True):
        same = [other for other in range(num_codes) if cluster[other] == cluster[code] and other != code]
        assert positive in same or (positive == -1 and not same)
        if same:
            others = torch.stack([book[code] @ book[other] for other in range(num_codes) if other != code])
            expected += others.logsumexp(0) - book[code] @ book[positive]
    torch.testing.assert_close(diversity_loss(book, codes, positives), expected / batch)


def test_every_other_code_of_a_cluster_is_drawn_equally_often() -> None:
    cluster = torch.tensor([0, 1, 0, 0, 1, 0])
    draws = (torch.arange(3000, dtype=torch.float64) + 0.5) / 3000
    found = positive_codes(torch.full((3000,), 3), cluster, draws)
    assert torch.bincount(found, minlength=6).tolist() == [1000, 0, 1000, 0, 0, 1000]


def test_diversity_reaches_codebooks_only_and_collaboration_the_encoder_only() -> None:
    embeddings, behaviour = items(blobs(64)), items(blobs(64, 8))
    tokenizer = Letter(**SMALL, commit="first", alpha=1.0, beta=1.0, clusters=3)
    training = tokenizer.training(embeddings, RunSettings(), behaviour)
    network = training.network.train()
    output = network.losses(training.vectors_ND).quantized
    collaborative, diversity = training.terms
    for term in training.terms:
        term.begin_epoch(network, 0)
    encoder, books = network.encoder[1].weight, list(network.quantizer.codebooks)
    rows = torch.arange(64)

    def reaches(term: object, target: torch.Tensor) -> bool:
        loss = term.loss(network, output, rows, 0)
        found = torch.autograd.grad(loss, target, retain_graph=True, allow_unused=True)[0]
        return found is not None and bool(found.abs().sum() > 0)

    assert reaches(collaborative, encoder)
    assert not any(reaches(collaborative, book) for book in books)
    assert not reaches(diversity, encoder)
    assert all(reaches(diversity, book) for book in books)


def test_without_its_two_losses_letter_is_rqvae() -> None:
    embeddings = items(blobs(200))
    plain = RQVAE(**SMALL).fit(embeddings)
    letter = Letter(**SMALL, alpha=0, beta=0).fit(embeddings)
    for ours, theirs in zip(letter.codebooks, plain.codebooks, strict=True):
        assert np.array_equal(ours, theirs)


def test_collaborative_vectors_pull_items_that_are_liked_together_to_common_codes() -> None:
    draw = np.random.default_rng(0)
    group = np.arange(240) % 4
    # Texts hardly tell the groups apart, behaviour does.
    texts = (draw.normal(size=(240, 16)) + np.eye(16)[group]).astype(np.float32)
    behaviour = (3 * np.eye(8)[group] + 0.1 * draw.normal(size=(240, 8))).astype(np.float32)
    shared = {}
    for alpha in (0.0, 1.0):
        settings_ = {**SMALL, "epochs": 150, "alpha": alpha, "clusters": 4}
        tokenizer = Letter(**settings_).fit(items(texts), collaborative=items(behaviour))
        first = tokenizer.quantize(texts)[:, 0]
        same_code = first[:, None] == first
        same_group = group[:, None] == group
        shared[alpha] = same_code[same_group].mean() / same_code[~same_group].mean()
    assert shared[1.0] > 1.5 * shared[0.0]


def test_clusters_are_balanced_for_any_number_of_codes_and_clusters() -> None:
    for num_codes, clusters in ((256, 10), (7, 10), (1, 1), (1000, 3)):
        book = torch.from_numpy(blobs(num_codes, 8))
        sizes = torch.bincount(cluster_codes(book, clusters, 0), minlength=min(clusters, num_codes))
        assert len(sizes) == min(clusters, num_codes)
        assert sizes.min() >= min(num_codes // (2 * len(sizes)), 10)
        assert sizes.max() <= max(60, -(-2 * num_codes // len(sizes)))


def test_wrong_collaborative_vectors_are_refused() -> None:
    embeddings = items(blobs(64))
    with pytest.raises(DataError, match="needs vectors learnt from what users did"):
        Letter(**SMALL).fit(embeddings)
    with pytest.raises(DataError, match="have 5 dimensions, the quantized latent has 8"):
        Letter(**SMALL).fit(embeddings, collaborative=items(blobs(64, 5)))
    with pytest.raises(DataError, match="64 vectors of catalogue digest, 65 collaborative"):
        Letter(**SMALL).fit(embeddings, collaborative=items(blobs(65, 8)))
    with pytest.raises(DataError, match="collaborative vectors of catalogue other"):
        Letter(**SMALL).fit(embeddings, collaborative=ItemEmbeddings(blobs(64, 8), "by hand", "other"))
    with pytest.raises(ConfigError, match="moving averages"):
        Letter(**SMALL, alpha=0, ema_decay=0.9)
