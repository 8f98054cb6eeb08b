import numpy as np
import pytest
import torch

from sidrec.config import RunSettings
from sidrec.embeddings.base import ItemEmbeddings
from sidrec.errors import ConfigError, DataError, TrainingError
from sidrec.testing.tokenizer_contract import blobs
from sidrec.tokenizers.fsq import FSQ, grids
from sidrec.tokenizers.quality import level_usage, relative_error

SMALL = {"levels": 2, "axes": (4, 3), "layers": (32,), "epochs": 60, "batch_size": 32}


def embeddings_of(vectors: np.ndarray) -> ItemEmbeddings:
    return ItemEmbeddings(vectors, "test", "digest")


def test_codes_are_rounded_numbers() -> None:
    vectors = blobs(300, 8)
    tokenizer = FSQ(**SMALL).fit(embeddings_of(vectors))
    numbers = tokenizer.latents(vectors)
    assert (np.abs(numbers) <= np.array([4, 3, 4, 3]) / 2).all()
    rows = np.clip(np.round(numbers + np.array([1.5, 1, 1.5, 1])), 0, [3, 2, 3, 2]).astype(int)
    expected = np.stack([rows[:, 0] * 3 + rows[:, 1], rows[:, 2] * 3 + rows[:, 3]], axis=1)
    assert np.array_equal(tokenizer.quantize(vectors), expected)
    rounded = tokenizer.network.round(torch.from_numpy(numbers)).numpy()
    taken = sum(book[expected[:, level]] for level, book in enumerate(tokenizer.codebooks))
    np.testing.assert_allclose(rounded, taken, atol=1e-6)


def test_grids_hold_every_combination_once() -> None:
    first, second = grids((4, 3), 2)
    assert first.shape == second.shape == (12, 4)
    assert len(np.unique(first, axis=0)) == 12
    assert np.array_equal(first[:, :2], second[:, 2:])
    assert not first[:, 2:].any()
    assert not second[:, :2].any()


def test_gradients_pass_the_rounding() -> None:
    network = FSQ(**SMALL)._new_network(8)
    numbers = torch.tensor([[0.2, -0.9, 1.2, 0.4]], requires_grad=True)
    network.round(numbers).sum().backward()
    assert numbers.grad is not None
    assert numbers.grad.tolist() == [[1.0] * 4]


def test_training_lowers_the_error_and_uses_the_codes() -> None:
    vectors = blobs(400, 8, clusters=40)
    errors = []
    for epochs in (1, 60):
        tokenizer = FSQ(**{**SMALL, "epochs": epochs}).fit(embeddings_of(vectors))
        codes = tokenizer.quantize(vectors)
        errors.append(relative_error(vectors, tokenizer.reconstruct(codes)))
    assert errors[1] < 0.6 * errors[0]
    assert all(level_usage(codes[:, level], 12)["perplexity"] > 8 for level in range(2))


def test_seed_decides_and_the_callers_stream_is_left_alone() -> None:
    embeddings = embeddings_of(blobs(100, 8))
    small = FSQ(**{**SMALL, "epochs": 2})
    before = torch.random.get_rng_state()
    codes = [small.fit(embeddings, RunSettings(seed=seed)).quantize(embeddings.vectors) for seed in (0, 0, 1)]
    assert torch.equal(before, torch.random.get_rng_state())
    assert np.array_equal(codes[0], codes[1])
    assert not np.array_equal(codes[0], codes[2])


@pytest.mark.parametrize("num_items", [1, 7])
def test_few_items(num_items: int) -> None:
    few = embeddings_of(blobs(num_items, 3))
    ids = FSQ(**{**SMALL, "batch_size": 2, "epochs": 2}).fit(few).encode(few)
    assert ids.num_collided == 0


def test_wrong_settings_and_unfitted_say_so() -> None:
    with pytest.raises(ConfigError, match="at least two values"):
        FSQ(axes=(8, 1))
    with pytest.raises(DataError, match="no network yet"):
        FSQ().latents(blobs(4))


def test_a_loss_that_is_no_number_ends_training() -> None:
    with pytest.raises(TrainingError, match="no longer a number in epoch"):
        FSQ(levels=2, axes=(4, 4), layers=(8,), epochs=20, lr=1e30).fit(ItemEmbeddings(blobs(60), "blobs", "digest"))


def test_vectors_of_a_huge_scale_are_standardised() -> None:
    vectors = blobs(120) * np.float32(1e17)
    tokenizer = FSQ(levels=2, axes=(4, 4), layers=(8,), epochs=5).fit(ItemEmbeddings(vectors, "blobs", "digest"))
    assert len(np.unique(tokenizer.quantize(vectors), axis=0)) > 10
