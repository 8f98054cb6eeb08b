"""Frozen rows keep every bit under weight decay and clipping, in an input and an output table at once."""

from types import SimpleNamespace

import pytest
import torch
from tests.training.test_trainer import Ragged, weights
from torch import nn

from sidrec.config import RunSettings
from sidrec.training.config import OptimizerConfig, TrainingConfig
from sidrec.training.freezing import FrozenRows
from sidrec.training.isolation import isolated_rng
from sidrec.training.objectives import next_token_cross_entropy
from sidrec.training.trainer import train_model

RUN = RunSettings(device="cpu")
STRONG = OptimizerConfig(lr=0.1, weight_decay=0.5, warmup_ratio=0, schedule="constant", max_grad_norm=0.1)
CONFIG = TrainingConfig(max_epochs=3, batch_size=16, optimizer=STRONG)
SOME = torch.tensor([True, False, True, True, False, False, True])


class Tied(nn.Module):
    """A table that is read as input and as output."""

    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(7, 8)
        self.middle = nn.Linear(8, 8)

    def forward(self, input_ids, attention_mask, labels):
        return SimpleNamespace(
            loss=next_token_cross_entropy(self.middle(self.table(input_ids)) @ self.table.weight.T, labels)
        )


def tied():
    with isolated_rng(3):
        return Tied()


@pytest.mark.parametrize("accumulation", [1, 2])
@pytest.mark.parametrize("rows", [SOME, torch.ones(7, dtype=torch.bool)], ids=["some", "all"])
def test_frozen_rows_keep_every_bit_and_the_others_learn(rows, accumulation):
    model = tied()
    before, middle = model.table.weight.detach().clone(), model.middle.weight.detach().clone()
    config = CONFIG.model_copy(update={"accumulation": accumulation})
    report = train_model(model, Ragged.draw(), config, RUN, frozen=[FrozenRows(model.table.weight, rows)])
    after = model.table.weight.detach()
    assert report.losses[-1][1] < report.losses[0][1]
    assert torch.equal(after[rows], before[rows])
    assert (after[~rows] != before[~rows]).all()
    assert (model.middle.weight != middle).all()


def test_a_step_is_that_of_a_model_whose_frozen_rows_are_no_parameters():
    """Clipping and decay of everything else are as if the frozen rows were constants."""
    examples, model, mine = Ragged.draw(num=16), tied(), tied()
    config = TrainingConfig(max_steps=1, batch_size=16, optimizer=STRONG)
    train_model(model, examples, config, RUN, frozen=[FrozenRows(model.table.weight, SOME)])
    free = nn.Parameter(mine.table.weight.detach()[~SOME])
    batch = examples.collate(torch.arange(16).numpy())
    table = mine.table.weight.detach().clone().index_put((torch.nonzero(~SOME).flatten(),), free)
    logits = mine.middle(table[batch["input_ids"]]) @ table.T
    next_token_cross_entropy(logits, batch["labels"]).backward()
    learnt = [free, mine.middle.weight, mine.middle.bias]
    norm = torch.sqrt(sum((weight.grad**2).sum() for weight in learnt))
    assert norm > 0.1
    with torch.no_grad():
        for weight in learnt:
            gradient = weight.grad * 0.1 / (norm + 1e-6)
            weight.mul_(1 - 0.1 * 0.5 * (weight.ndim >= 2)).sub_(0.1 * gradient / (gradient.abs() + 1e-8))
    assert torch.allclose(model.table.weight[~SOME], free, atol=1e-5)
    assert torch.allclose(model.middle.weight, mine.middle.weight, atol=1e-5)
    assert torch.allclose(model.middle.bias, mine.middle.bias, atol=1e-5)


@pytest.mark.parametrize("rows", [SOME, torch.ones(7, dtype=torch.bool)], ids=["some", "all"])
def test_afterwards_nothing_is_frozen(rows):
    model = tied()
    train_model(model, Ragged.draw(), CONFIG, RUN, frozen=[FrozenRows(model.table.weight, rows)])
    first, fresh = model.table.weight.detach().clone(), tied()
    fresh.load_state_dict(model.state_dict())
    for each in (model, fresh):
        train_model(each, Ragged.draw(), CONFIG, RUN)
    assert (model.table.weight != first).all()
    assert torch.equal(weights(model), weights(fresh)), "no hook is left behind"
