import math
from collections import defaultdict
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.autograd import gradcheck

from sidrec.training.preference_objectives import PREFERENCE_LOSSES, ipo, sigmoid_dpo, softmax_dpo


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def test_sigmoid_by_hand():
    chosen, rejected = torch.tensor([0.5, -1.0]), torch.tensor([[0.1], [2.0]])
    loss = sigmoid_dpo(chosen, rejected, beta=0.3)
    expected = [-math.log(sigmoid(0.3 * 0.4)), -math.log(sigmoid(0.3 * -3.0))]
    assert loss.tolist() == pytest.approx(expected, rel=1e-6)


def test_label_smoothing_by_hand():
    loss = sigmoid_dpo(torch.tensor([1.0]), torch.tensor([[0.0]]), beta=2.0, label_smoothing=0.2)
    assert loss.item() == pytest.approx(-0.8 * math.log(sigmoid(2.0)) - 0.2 * math.log(sigmoid(-2.0)), rel=1e-6)


def test_ipo_by_hand():
    """1 / 2β is 5; margins are 0.4 and -3."""
    loss = ipo(torch.tensor([0.5, -1.0]), torch.tensor([[0.1], [2.0]]), beta=0.1)
    assert loss.tolist() == pytest.approx([(0.4 - 5) ** 2, (-3.0 - 5) ** 2], rel=1e-6)


def test_ipo_gradient_is_zero_at_its_margin():
    chosen = torch.tensor([1.25], requires_grad=True)
    ipo(chosen, torch.tensor([[-1.25]]), beta=0.2).sum().backward()
    assert chosen.grad.item() == 0


def test_softmax_by_hand():
    """Rewards of the rejected items less that of the chosen one: β (0.1 - 0.5), β (1.5 - 0.5)."""
    loss = softmax_dpo(torch.tensor([0.5]), torch.tensor([[0.1, 1.5]]), beta=0.3)
    inner = math.exp(0.3 * -0.4) + math.exp(0.3 * 1.0)
    assert loss.item() == pytest.approx(-math.log(sigmoid(-math.log(inner))), rel=1e-6)


@pytest.mark.parametrize("name", PREFERENCE_LOSSES)
def test_absent_items_change_nothing(name):
    loss = PREFERENCE_LOSSES[name]
    chosen, rejected = torch.tensor([0.3, -0.2]), torch.tensor([[0.1, 99.0, -0.4], [0.5, 0.2, 1.0]], requires_grad=True)
    present = torch.tensor([[True, False, True], [True, True, True]])
    values = loss(chosen, rejected, 0.4, present)
    alone = loss(chosen[:1], rejected[:1, [0, 2]], 0.4)
    whole = loss(chosen[1:], rejected[1:], 0.4)
    assert torch.allclose(values, torch.cat([alone, whole]))
    values.sum().backward()
    assert rejected.grad[0, 1] == 0
    assert (rejected.grad != 0).sum() == 5


@given(st.lists(st.floats(-20, 20), min_size=2, max_size=2), st.floats(0.01, 3))
def test_softmax_of_one_rejected_item_is_sigmoid(ratios, beta):
    chosen, rejected = torch.tensor(ratios[:1]).double(), torch.tensor([ratios[1:]]).double()
    assert torch.allclose(softmax_dpo(chosen, rejected, beta), sigmoid_dpo(chosen, rejected, beta))


@pytest.mark.parametrize("name", PREFERENCE_LOSSES)
def test_gradients_raise_the_chosen_item_and_lower_the_rejected_ones(name):
    draw = torch.Generator().manual_seed(0)
    chosen = torch.randn(4, generator=draw, dtype=torch.double, requires_grad=True)
    rejected = torch.randn(4, 3, generator=draw, dtype=torch.double, requires_grad=True)
    assert gradcheck(lambda one, others: PREFERENCE_LOSSES[name](one, others, 0.2), (chosen, rejected))
    PREFERENCE_LOSSES[name](chosen, rejected, 0.05).sum().backward()
    assert (chosen.grad < 0).all()
    assert (rejected.grad > 0).all()


@pytest.mark.parametrize("name", ["sigmoid", "ipo"])
@pytest.mark.parametrize("beta", [0.1, 0.7])
def test_values_and_gradients_are_those_of_trl(name, beta):
    trl, accelerate = pytest.importorskip("trl"), pytest.importorskip("accelerate")
    draw = torch.Generator().manual_seed(1)
    policy = (-3 * torch.rand(2, 6, generator=draw)).double().requires_grad_()
    reference = (-3 * torch.rand(2, 6, generator=draw)).double()
    ours = PREFERENCE_LOSSES[name](policy[0] - reference[0], (policy[1] - reference[1])[:, None], beta).mean()
    (our_gradient,) = torch.autograd.grad(ours, policy)

    def model(input_ids, **others):
        """Stands for a language model that gives a completion of one token these log-probabilities."""
        figures = {name: torch.zeros(12, 1) for name in ("entropy", "mean_logits")}
        return SimpleNamespace(log_probs=policy.reshape(12, 1), is_top1=torch.zeros(12, 1) > 0, **figures)

    # The loss is no function of its own there; this is the trainer with all that its loss reads.
    trainer = trl.DPOTrainer.__new__(trl.DPOTrainer)
    vars(trainer).update(
        model=SimpleNamespace(training=False),
        accelerator=accelerate.Accelerator(cpu=True),
        beta=beta,
        loss_types=[name],
        loss_weights=[1.0],
        f_divergence_type="reverse_kl",
        precompute_ref_logps=True,
        ld_alpha=None,
        aux_loss_enabled=False,
        use_weighting=False,
        _metrics=defaultdict(lambda: defaultdict(list)),
        _total_train_tokens=0,
    )
    inputs = {
        "input_ids": torch.ones(12, 2, dtype=torch.long),
        "attention_mask": torch.ones(12, 2, dtype=torch.long),
        "completion_mask": torch.tensor([[0, 1]] * 12),
        "ref_chosen_logps": reference[0],
        "ref_rejected_logps": reference[1],
    }
    theirs = trainer.compute_loss(model, inputs)
    (their_gradient,) = torch.autograd.grad(theirs, policy)
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-12)
    assert torch.allclose(our_gradient, their_gradient, rtol=1e-12, atol=0)
    assert (our_gradient != 0).all()
