"""Log-probabilities of a level's codes against those of all tokens."""

import pytest
import torch

from sidrec.recommenders.code_head import AT_ONCE, CodeHead

LEVELS = [torch.tensor([5, 2047, 2048, 0]), torch.tensor([4999, 7])]


def draw(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("size", [5000, 2 * AT_ONCE + 1000])
@pytest.mark.parametrize("has_bias", [False, True])
def test_over_a_vocabulary_of_several_parts(has_bias, size):
    weight, hidden = draw(size, 8, seed=0), draw(3, 6, 8, seed=1)
    bias = draw(size, seed=2) * 3 if has_bias else None
    head = CodeHead(weight, bias, LEVELS, over_vocabulary=True)
    expected = torch.nn.functional.linear(hidden, weight, bias).log_softmax(-1)
    for level, ids in enumerate(LEVELS):
        found = head(hidden, level)
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, expected[..., ids], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("has_bias", [False, True])
def test_over_the_codes_of_a_level(has_bias):
    weight, hidden = draw(5000, 8, seed=0), draw(3, 6, 8, seed=1)
    bias = draw(5000, seed=2) * 3 if has_bias else None
    head = CodeHead(weight, bias, LEVELS, over_vocabulary=False)
    logits = torch.nn.functional.linear(hidden, weight, bias)
    for level, ids in enumerate(LEVELS):
        torch.testing.assert_close(head(hidden, level), logits[..., ids].log_softmax(-1), atol=1e-5, rtol=1e-5)


def test_by_hand():
    """Logits 0, ln 2, ln 3 of three tokens: the first and the last are 1/6 and 3/6, or 1/4 and 3/4 of the level."""
    weight = torch.tensor([0.0, 2.0, 3.0]).log().clamp(min=0)[:, None]
    hidden = torch.ones(1, 1, 1)
    for over_vocabulary, total in ((True, 6), (False, 4)):
        head = CodeHead(weight, None, [torch.tensor([0, 2])], over_vocabulary=over_vocabulary)
        torch.testing.assert_close(head(hidden, 0).exp(), torch.tensor([[[1 / total, 3 / total]]]))


def test_half_precision_gives_single():
    head = CodeHead(draw(5000, 8, seed=0).bfloat16(), None, LEVELS, over_vocabulary=True)
    found = head(draw(1, 2, 8, seed=1).bfloat16(), 0)
    assert found.dtype == torch.float32
    assert (found <= 0).all()
