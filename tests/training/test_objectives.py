import math

import pytest
import torch

from sidrec.training.objectives import (
    IGNORE,
    balance_loss,
    binary_cross_entropy,
    full_softmax,
    gbce_beta,
    next_token_cross_entropy,
    sampled_softmax,
)


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


def test_label_smoothing_by_hand():
    """A tenth of the target is spread over both classes: 0.95 · ln 4/3 + 0.05 · ln 4."""
    logits, labels = torch.tensor([[[0.0, math.log(3.0)]]]), torch.tensor([[1]])
    expected = 0.95 * math.log(4 / 3) + 0.05 * math.log(4)
    assert next_token_cross_entropy(logits, labels, 0.1).item() == pytest.approx(expected, rel=1e-6)


def problem(num_items=9, positions=5):
    torch.manual_seed(2)
    hidden = torch.randn(positions, 3, requires_grad=True)
    items = torch.randn(num_items, 3, requires_grad=True)
    return hidden, items, torch.randint(num_items, (positions,))


def same_with_gradients(one, two, parameters):
    torch.testing.assert_close(one, two)
    for found, expected in zip(*(torch.autograd.grad(loss, parameters) for loss in (one, two)), strict=True):
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("each", [False, True])
def test_sampled_softmax_with_all_items_is_the_full_one(each):
    """Every item drawn once: the counts are 1, the target among them is not counted again."""
    hidden, items, targets = problem()
    rows = torch.arange(9).expand(5, 9) if each else torch.arange(9)
    sampled = sampled_softmax(hidden, items, targets, rows, torch.zeros(rows.shape))
    same_with_gradients(sampled, full_softmax(hidden, items, targets), (hidden, items))


def test_sampled_softmax_by_hand():
    """Logits 0 (target), ln 2 and ln 3; the negatives are drawn 4 and 0.5 times on average: sum 1 + 2/4 + 3/0.5."""
    items = torch.tensor([[0.0], [math.log(2)], [math.log(3)]])
    hidden, targets, rows = torch.ones(1, 1), torch.tensor([0]), torch.tensor([1, 2, 0])
    log_counts = torch.tensor([4.0, 0.5, 7.0]).log()
    found = sampled_softmax(hidden, items, targets, rows, log_counts)
    assert found.item() == pytest.approx(math.log(1 + 0.5 + 6))
    plain = sampled_softmax(hidden, items, targets, rows)
    assert plain.item() == pytest.approx(math.log(1 + 2 + 3))
    own = sampled_softmax(hidden, items, targets, rows, log_counts, torch.tensor([2.0]).log())
    assert own.item() == pytest.approx(math.log(0.5 + 0.5 + 6) - math.log(0.5))


@pytest.mark.parametrize("shares", [[0.2] * 5, [0.5, 0.2, 0.1, 0.1, 0.1]])
def test_the_corrected_sum_is_unbiased(shares):
    """The mean of exp(loss) over all pairs of draws, by their probability, is the full softmax's."""
    torch.manual_seed(0)
    hidden, items, targets = torch.randn(1, 3), torch.randn(5, 3), torch.tensor([1])
    log_counts = (2 * torch.tensor(shares)).log()
    mean = 0.0
    for one in range(5):
        for two in range(5):
            rows = torch.tensor([one, two])
            loss = sampled_softmax(hidden, items, targets, rows, log_counts[rows])
            mean += shares[one] * shares[two] * loss.exp().item()
    assert mean == pytest.approx(full_softmax(hidden, items, targets).exp().item(), rel=1e-5)


def test_binary_cross_entropy_equals_a_loop():
    hidden, items, targets = problem()
    rows = (targets[:, None] + torch.tensor([[1, 2], [3, 1], [4, 4], [8, 5], [2, 7]])) % 9
    losses = []
    for place in range(5):
        target = torch.sigmoid(hidden[place] @ items[targets[place]]).log()
        others = sum((1 - torch.sigmoid(hidden[place] @ items[row])).log() for row in rows[place])
        losses.append(-(0.3 * target + others) / 3)
    expected = torch.stack(losses).mean()
    same_with_gradients(binary_cross_entropy(hidden, items, targets, rows, 0.3), expected, (hidden, items))


def test_a_negative_that_is_the_target_is_not_counted():
    hidden, items, targets = problem(positions=1)
    other = (targets + 1) % 9
    both = torch.cat([targets, other])
    assert torch.equal(
        binary_cross_entropy(hidden, items, targets, both), binary_cross_entropy(hidden, items, targets, other)
    )


def test_gbce_without_calibration_is_plain_and_fully_calibrated_has_the_share():
    assert gbce_beta(3, 101, 0.0) == 1.0
    assert gbce_beta(3, 101, 1.0) == pytest.approx(0.03)
    share, t = 0.03, 0.75
    assert gbce_beta(3, 101, t) == pytest.approx(share * (t * (1 - 1 / share) + 1 / share))
    assert gbce_beta(300, 101, 0.9) == 1.0


def test_gbce_gives_true_probabilities():
    """One item of 4 is bought 3 times in 4, the others alike; t = 1: σ(logit) is how often, at the optimum."""
    bought = torch.tensor([0.75, 0.25 / 3, 0.25 / 3, 0.25 / 3])
    logits = (bought / (1 - bought)).log()[:, None].requires_grad_()
    total = torch.zeros(())
    for target in range(4):
        for row in set(range(4)) - {target}:
            rows, targets = torch.tensor([row]), torch.tensor([target])
            loss = binary_cross_entropy(torch.ones(1, 1), logits, targets, rows, gbce_beta(1, 4, 1.0))
            total = total + bought[target] * loss / 3
    total.backward()
    assert logits.grad.abs().max() < 1e-7


@pytest.mark.parametrize("objective", [sampled_softmax, binary_cross_entropy])
def test_no_target_is_zero_for_sampled_objectives(objective):
    hidden, items = torch.randn(0, 3, requires_grad=True), torch.randn(4, 3)
    loss = objective(hidden, items, torch.zeros(0, dtype=torch.long), torch.tensor([1, 2]))
    loss.backward()
    assert loss.item() == 0


def test_balance_loss_by_hand():
    """Shares of choices 3/4 and 1/4, mean probabilities 0.7 and 0.3: 2 · (0.525 + 0.075)."""
    probabilities = torch.tensor([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3], [0.4, 0.6]], requires_grad=True)
    loss = balance_loss(probabilities, torch.tensor([[0], [0], [0], [1]]))
    loss.backward()
    assert loss.item() == pytest.approx(1.2)
    torch.testing.assert_close(probabilities.grad, torch.tensor([[2 * 0.75 / 4, 2 * 0.25 / 4]]).expand(4, 2))


def test_balance_loss_is_one_when_even_and_the_number_of_experts_when_one_does_all():
    assert balance_loss(torch.full((6, 3), 1 / 3), torch.arange(12).view(6, 2) % 3).item() == pytest.approx(1)
    alone = torch.tensor([[1.0, 0.0, 0.0]] * 5)
    assert balance_loss(alone, torch.zeros(5, 1, dtype=torch.long)).item() == pytest.approx(3)
    assert balance_loss(torch.zeros(0, 3), torch.zeros(0, 1, dtype=torch.long)).item() == 0
