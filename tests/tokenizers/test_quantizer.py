"""Where gradients go, what losses are worth, and how codebooks move, each against a slow definition."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from sidrec.testing.tokenizer_contract import blobs
from sidrec.tokenizers.quantizer import ResidualQuantizer, rotated, straight_through
from sidrec.tokenizers.rqvae_network import ResidualAutoencoder, reconstruction_loss

SIZES = (8, 6, 8)


def network_of(**options: object) -> tuple[ResidualAutoencoder, torch.Tensor]:
    quantizer = ResidualQuantizer(SIZES, 4, **options)
    network = ResidualAutoencoder([16, 12, 4], quantizer)
    network.initialize_weights(1)
    vectors = torch.from_numpy(blobs(64))
    network.eval()
    quantizer.initialize(network.encode_all(vectors), seed=2)
    return network.train(), vectors


def gradient(of: torch.Tensor, to: torch.Tensor) -> torch.Tensor:
    found = torch.autograd.grad(of, to, retain_graph=True, allow_unused=True)[0]
    return torch.zeros_like(to) if found is None else found


@pytest.mark.parametrize("rule", ["first", "all"])
def test_reconstruction_reaches_the_encoder_only(rule: str) -> None:
    network, vectors = network_of(rule=rule)
    losses = network.losses(vectors)
    encoder = network.encoder[1].weight
    assert gradient(losses.reconstruction, encoder).abs().sum() > 0
    assert all(gradient(losses.reconstruction, book).abs().sum() == 0 for book in network.quantizer.codebooks)


def test_codebook_loss_reaches_the_codebooks_only() -> None:
    network, vectors = network_of()
    quantized = network.losses(vectors).quantized
    assert gradient(quantized.codebook, network.encoder[1].weight).abs().sum() == 0
    assert all(gradient(quantized.codebook, book).abs().sum() > 0 for book in network.quantizer.codebooks)
    assert all(gradient(quantized.commitment, book).abs().sum() == 0 for book in network.quantizer.codebooks)


@pytest.mark.parametrize("estimate", ["straight_through", "rotation"])
@pytest.mark.parametrize(("rule", "levels_that_commit"), [("first", 1), ("all", 3)])
def test_which_levels_commit(rule: str, levels_that_commit: int, estimate: str) -> None:
    network, vectors = network_of(rule=rule, gradient=estimate)
    latents = network.encode(vectors).detach().requires_grad_()
    quantized = network.quantizer(latents)
    rest, expected = latents.detach(), torch.zeros_like(latents)
    for level, book in enumerate(network.quantizer.codebooks):
        chosen = book.detach()[quantized.codes_BL[:, level]]
        if level < levels_that_commit:
            expected += 2 * (rest - chosen) / rest.numel() / 3
        rest = rest - chosen
    torch.testing.assert_close(gradient(quantized.commitment, latents), expected)


class ByHand(nn.Module):
    """RQ-VAE as the published systems write it: one module a level, straight-through values subtracted."""

    def __init__(self, network: ResidualAutoencoder) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(16, 12), nn.ReLU(), nn.Linear(12, 4))
        self.decoder = nn.Sequential(nn.Linear(4, 12), nn.ReLU(), nn.Linear(12, 16))
        self.books = nn.ModuleList(nn.Embedding(size, 4) for size in SIZES)
        with torch.no_grad():
            for mine, theirs in ((self.encoder, network.encoder), (self.decoder, network.decoder)):
                for one, other in ((0, 1), (2, 4)):
                    mine[one].load_state_dict(theirs[other].state_dict())
            for book, values in zip(self.books, network.quantizer.codebooks, strict=True):
                book.weight.copy_(values)

    def loss(self, vectors: torch.Tensor, beta: float) -> torch.Tensor:
        residual, total, losses = self.encoder(vectors), 0.0, []
        for book in self.books:
            distance = (residual[:, None].detach() - book.weight[None].detach()).square().sum(2)
            quantized = book(distance.argmin(1))
            losses.append(F.mse_loss(quantized, residual.detach()) + beta * F.mse_loss(quantized.detach(), residual))
            through = residual + (quantized - residual).detach()
            residual, total = residual - through, total + through
        return F.mse_loss(self.decoder(total), vectors) + torch.stack(losses).mean()


def test_losses_and_gradients_equal_a_hand_written_rqvae() -> None:
    network, vectors = network_of(rule="first")
    by_hand = ByHand(network)
    losses = network.losses(vectors)
    ours = losses.reconstruction + losses.quantized.codebook + 0.25 * losses.quantized.commitment
    theirs = by_hand.loss(vectors, 0.25)
    torch.testing.assert_close(ours, theirs)
    ours.backward()
    theirs.backward()
    pairs = [
        (network.encoder[1].weight, by_hand.encoder[0].weight),
        (network.encoder[4].bias, by_hand.encoder[2].bias),
        (network.decoder[1].weight, by_hand.decoder[0].weight),
        (network.decoder[4].weight, by_hand.decoder[2].weight),
        *zip(network.quantizer.codebooks, (book.weight for book in by_hand.books), strict=True),
    ]
    for mine, hand in pairs:
        torch.testing.assert_close(mine.grad, hand.grad)


@pytest.mark.parametrize("rule", ["first", "all"])
def test_straight_through_sum_has_the_value_of_the_codes_and_the_gradient_of_the_latent(rule: str) -> None:
    network, vectors = network_of(rule=rule)
    latents = network.encode(vectors).detach().requires_grad_()
    quantized = network.quantizer(latents)
    value = sum(book[quantized.codes_BL[:, level]] for level, book in enumerate(network.quantizer.codebooks))
    torch.testing.assert_close(quantized.sum_BD, value)
    torch.testing.assert_close(gradient(quantized.sum_BD.sum(), latents), torch.ones_like(latents))


def test_the_rotation_trick_is_a_rotation_and_a_scaling() -> None:
    draw = torch.Generator().manual_seed(0)
    source = torch.randn(5, 4, generator=draw, dtype=torch.float64).requires_grad_()
    target = torch.randn(5, 4, generator=draw, dtype=torch.float64)
    upstream = torch.randn(5, 4, generator=draw, dtype=torch.float64)
    value = rotated(source, target)
    torch.testing.assert_close(value, target)
    value.backward(upstream)
    for row in range(5):
        u, v = F.normalize(source[row].detach(), dim=0), F.normalize(target[row], dim=0)
        w = F.normalize(u + v, dim=0)
        matrix = torch.eye(4, dtype=torch.float64) - 2 * torch.outer(w, w) + 2 * torch.outer(v, u)
        torch.testing.assert_close(matrix @ matrix.T, torch.eye(4, dtype=torch.float64))
        scale = target[row].norm() / source[row].detach().norm()
        torch.testing.assert_close(source.grad[row], scale * matrix.T @ upstream[row])


def test_rotation_of_opposite_and_zero_vectors_keeps_the_value() -> None:
    source = torch.tensor([[1.0, 0.0], [0.0, 0.0], [1.0, 1.0]], requires_grad=True)
    target = torch.tensor([[-2.0, 0.0], [1.0, 1.0], [0.0, 0.0]])
    value = rotated(source, target)
    torch.testing.assert_close(value, target)
    value.sum().backward()
    assert torch.isfinite(source.grad).all()
    torch.testing.assert_close(straight_through(source, target), target)


def test_cosine_and_dot_choose_by_similarity_and_learn_by_cross_entropy() -> None:
    for metric in ("cosine", "dot"):
        network, vectors = network_of(metric=metric)
        quantizer = network.quantizer
        latents = network.encode(vectors).detach()
        output = quantizer(latents)
        rest, expected = latents, 0.0
        for level, book in enumerate(quantizer.codebooks):
            similar = torch.stack(
                [F.cosine_similarity(row[None], book) if metric == "cosine" else (book * row).sum(1) for row in rest]
            )
            assert torch.equal(output.codes_BL[:, level], similar.argmax(1))
            expected += -similar.log_softmax(1)[torch.arange(64), similar.argmax(1)].mean() / 3
            rest = rest - book[similar.argmax(1)]
        torch.testing.assert_close(output.commitment, expected)
        assert float(output.codebook) == 0
        assert all(gradient(output.commitment, book).abs().sum() > 0 for book in quantizer.codebooks)


def test_moving_averages_equal_a_loop() -> None:
    network, vectors = network_of(decay=0.9)
    quantizer = network.quantizer
    assert not any(book.requires_grad for book in quantizer.codebooks)
    before = [book.detach().clone() for book in quantizer.codebooks]
    mass = [torch.ones(len(book)) for book in before]
    for _ in range(2):
        output = quantizer(network.encode(vectors).detach())
        for level, book in enumerate(before):
            for code in range(len(book)):
                mine = output.residuals[level][output.codes_BL[:, level] == code]
                total = 0.9 * mass[level][code] * book[code] + 0.1 * mine.sum(0)
                mass[level][code] = 0.9 * mass[level][code] + 0.1 * len(mine)
                book[code] = total / mass[level][code]
        quantizer.follow(output)
        for book, expected in zip(quantizer.codebooks, before, strict=True):
            torch.testing.assert_close(book.data, expected)


def test_a_code_that_nothing_chooses_stays_under_moving_averages() -> None:
    quantizer = ResidualQuantizer((2,), 2, decay=0.5)
    quantizer.resize([torch.tensor([[0.0, 0.0], [9.0, 9.0]])])
    for _ in range(200):
        quantizer.follow(quantizer(torch.zeros(4, 2)))
    torch.testing.assert_close(quantizer.codebooks[0].data, torch.tensor([[0.0, 0.0], [9.0, 9.0]]))


def test_balancing_is_for_training_only() -> None:
    network, vectors = network_of(epsilons=(0, 0, 0.003))
    usage = torch.bincount(network.quantizer(network.encode(vectors)).codes_BL[:, 2], minlength=8)
    assert int(usage.max()) <= 10
    network.eval()
    plain = network.quantizer(network.encode(vectors)).codes_BL
    assert torch.equal(plain, network_of()[0].eval().quantizer(network.encode(vectors)).codes_BL)


def test_balanced_initialisation_bounds_the_use_of_codes() -> None:
    draw = torch.Generator().manual_seed(0)
    # Most points crowd together, a few lie far out: plain k-means gives codes to the few.
    latents = torch.randn(512, 4, generator=draw) * torch.rand(512, 1, generator=draw) ** 4 * 20
    used = {}
    for balanced in (False, True):
        quantizer = ResidualQuantizer((8,), 4)
        quantizer.initialize(latents, balanced=balanced)
        used[balanced] = torch.bincount(quantizer.eval()(latents).codes_BL[:, 0], minlength=8)
    assert used[True].min() > used[False].min()
    assert used[True].max() < used[False].max()


def test_uniform_initialisation_stays_in_its_bounds_and_depends_on_the_seed() -> None:
    quantizer = ResidualQuantizer((8, 50), 4)
    quantizer.initialize_uniform(3)
    first = quantizer.codebooks[1].detach().clone()
    assert 0 < first.abs().max() <= 1 / 50
    quantizer.initialize_uniform(4)
    assert not torch.equal(first, quantizer.codebooks[1])


def test_infonce_equals_a_loop() -> None:
    draw = torch.Generator().manual_seed(0)
    rebuilt, vectors = torch.randn(2, 5, 3, generator=draw)
    expected = 0.0
    for row in range(5):
        similar = torch.stack([F.cosine_similarity(rebuilt[row], other, dim=0) for other in vectors]) / 0.2
        expected -= similar.log_softmax(0)[row] / 5
    torch.testing.assert_close(reconstruction_loss(rebuilt, vectors, "infonce", 0.2), expected)
