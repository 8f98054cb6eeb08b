"""The loss of tokens: equal to that of transformers, by hand, and averaged over a part of the data."""

from math import exp, log
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tests.recommenders.generative_cases import KINDS, make
from torch import nn

from sidrec.config import RunSettings
from sidrec.recommenders.sasrec import SASRec
from sidrec.testing.toy import cycle_dataset
from sidrec.training import batch_loss
from sidrec.training.batch_loss import OWN_LOSS, TokenLoss, mean_loss
from sidrec.training.config import TrainingConfig
from sidrec.training.objectives import IGNORE

RUN = RunSettings(device="cpu")


def batch_of(kind, positions=range(40)):
    """A recommender with random weights, and a batch of what it is trained on."""
    recommender, dataset = make(kind), cycle_dataset(num_items=60)
    return recommender, recommender.examples(dataset, dataset.split.train).collate(np.array(positions))


def gradients(model, loss):
    model.zero_grad()
    loss.backward()
    return [weight.grad.clone() for weight in model.parameters() if weight.grad is not None]


@pytest.mark.parametrize("kind", KINDS)
def test_equals_the_loss_of_transformers(kind):
    recommender, batch = batch_of(kind)
    if kind == "decoder":
        assert (batch["labels"] == IGNORE).any()
    ours, theirs = TokenLoss()(recommender.model, batch), recommender.model(**batch).loss
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-6)
    pairs = zip(gradients(recommender.model, ours), gradients(recommender.model, theirs), strict=True)
    assert all(torch.allclose(one, two, atol=1e-6) for one, two in pairs)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("temperature", "smoothing"), [(0.7, 0.0), (1.0, 0.1), (1.3, 0.2)])
def test_equals_a_slow_loop(kind, temperature, smoothing):
    recommender, batch = batch_of(kind, range(6))
    found = TokenLoss(temperature, smoothing)(recommender.model, batch).item()
    logits, labels = recommender.model(**batch).logits, batch["labels"]
    losses = []
    for row, targets in zip(logits.double(), labels.tolist(), strict=True):
        for place, target in enumerate(targets):
            before = place - (kind == "decoder")
            if target != IGNORE:
                log_probs = (row[before] / temperature).log_softmax(-1)
                losses.append(-(1 - smoothing) * log_probs[target] - smoothing * log_probs.mean())
    assert found == pytest.approx((sum(losses) / len(losses)).item(), rel=1e-5)


class Fixed(nn.Module):
    """Answers with the same logits whatever it is asked."""

    def __init__(self, *rows):
        super().__init__()
        self.logits = torch.tensor([rows])

    def forward(self, **batch):
        assert "labels" not in batch
        return SimpleNamespace(logits=self.logits)


def test_by_hand():
    """Logits 0 and log 3 of two tokens, label 1: probability 3/4; at τ = 1/2 it is 9/10."""
    model = Fixed([0.0, log(3)], [5.0, 5.0])
    batch = {"decoder_input_ids": torch.zeros(1, 2), "labels": torch.tensor([[1, IGNORE]])}
    assert TokenLoss()(model, batch).item() == pytest.approx(-log(3 / 4))
    assert TokenLoss(temperature=0.5)(model, batch).item() == pytest.approx(-log(9 / 10))
    assert TokenLoss(temperature=2.0)(model, batch).item() == pytest.approx(-log(3**0.5 / (1 + 3**0.5)))
    # A fifth of the target goes to both tokens evenly: 0.9 to label 1, 0.1 to label 0.
    smooth = -0.9 * log(3 / 4) - 0.1 * log(1 / 4)
    assert TokenLoss(label_smoothing=0.2)(model, batch).item() == pytest.approx(smooth)
    both = -0.9 * log(9 / 10) - 0.1 * log(1 / 10)
    assert TokenLoss(0.5, 0.2)(model, batch).item() == pytest.approx(both)
    batch["labels"][0, 1] = 0
    assert TokenLoss()(model, batch).item() == pytest.approx((log(4 / 3) + log(2)) / 2), "mean over two targets"


def test_without_decoder_inputs_labels_stand_one_place_later():
    model = Fixed([0.0, log(3)], [5.0, 5.0], [-9.0, 9.0])
    batch = {"labels": torch.tensor([[0, 1, IGNORE]])}
    assert TokenLoss()(model, batch).item() == pytest.approx(-log(3 / 4))
    batch["labels"][0, 1] = IGNORE
    assert TokenLoss()(model, batch).item() == 0, "no target, no loss"


def test_a_lower_temperature_punishes_what_comes_close():
    """The gradient's share on the closest wrong token grows as τ falls: it is e^(z/τ) over the wrong ones' sum."""
    logits = torch.tensor([0.0, 2.0, 1.0], requires_grad=True)
    shares = []
    for temperature in (2.0, 1.0, 0.5):
        model = nn.Module()
        model.forward = lambda **_: SimpleNamespace(logits=logits[None, None])
        loss = TokenLoss(temperature)(model, {"decoder_input_ids": None, "labels": torch.tensor([[0]])})
        (gradient,) = torch.autograd.grad(loss, logits)
        shares.append((gradient[1] / gradient[1:].sum()).item())
    assert shares == pytest.approx([exp(2 / t) / (exp(2 / t) + exp(1 / t)) for t in (2.0, 1.0, 0.5)], rel=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_mean_loss_is_over_targets_however_they_are_batched(kind, monkeypatch):
    recommender, dataset = make(kind), cycle_dataset(num_items=60, num_users=20)
    loss = TokenLoss(0.8)
    examples = recommender.examples(dataset, dataset.split.valid)
    assert len(examples) == 20
    whole = mean_loss(recommender.model, examples, RUN, loss)
    total = count = 0
    for position in range(20):
        batch = examples.collate(np.array([position]))
        targets = int((batch["labels"] != IGNORE).sum())
        assert targets == 3 + (kind == "tiger"), "one item a user, and the end token of an encoder-decoder"
        total, count = total + loss(recommender.model, batch).item() * targets, count + targets
    assert whole == pytest.approx(total / count, rel=1e-5)
    assert recommender.mean_loss(dataset, dataset.split.valid, RUN) != pytest.approx(whole), "its own τ is 1"
    monkeypatch.setattr(batch_loss, "EXAMPLES_AT_ONCE", 3)
    assert mean_loss(recommender.model, examples, RUN, loss) == pytest.approx(whole, rel=1e-5)


def test_mean_loss_draws_the_same_negatives_every_time():
    dataset = cycle_dataset()
    recommender = SASRec(hidden_size=16, objective={"kind": "sampled_softmax", "num_negatives": 4})
    recommender.fit(dataset, TrainingConfig(max_steps=2, batch_size=16), RUN)
    losses = []
    for spoil in (1, 2):
        torch.manual_seed(spoil)
        losses.append(recommender.mean_loss(dataset, dataset.split.valid, RUN))
    assert losses[0] == losses[1]
    other = recommender.mean_loss(dataset, dataset.split.valid, RunSettings(seed=1, device="cpu"))
    assert other != losses[0]
    assert not recommender.model.training


def test_own_loss_is_what_the_model_says():
    model = nn.Module()
    model.forward = lambda labels: SimpleNamespace(loss=labels.sum())
    assert OWN_LOSS(model, {"labels": torch.tensor([3.0, 4.0])}).item() == 7
