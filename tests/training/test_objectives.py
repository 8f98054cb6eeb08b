import math

import pytest
import torch

from sidrec.training.objectives import IGNORE, full_softmax, next_token_cross_entropy


def test_cross_entropy_by_hand():
    logits = torch.tensor([[[0.0, math.log(3.0)], [5.0, 1.0]], [[0.0, 0.0], [1.0, 1.0]]])
    labels = torch.tensor([[1, IGNORE], [0, IGNORE]])
    expected = (-math.log(0.75) - math.log(0.5)) / 2
    assert next_token_cross_entropy(logits, labels).item() == pytest.approx(expected, rel=1e-6)


def test_no_target_is_zero_with_a_gradient():
    logits = torch.randn(2, 3, 4, requires_grad=True)
    loss = next_token_cross_entropy(logits, torch.full((2, 3), IGNORE))
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(logits.grad, torch.zeros_like(logits))


def test_full_softmax_equals_a_loop():
    hidden, items = torch.randn(2, 3, 4), torch.randn(7, 4)
    labels = torch.tensor([[1, IGNORE, 6], [IGNORE, 0, IGNORE]])
    losses = []
    for batch in range(2):
        for place in range(3):
            if labels[batch, place] != IGNORE:
                scores = [float(hidden[batch, place] @ item) for item in items]
                losses.append(math.log(sum(map(math.exp, scores))) - scores[labels[batch, place]])
    assert full_softmax(hidden, items, labels).item() == pytest.approx(sum(losses) / 3, rel=1e-5)
