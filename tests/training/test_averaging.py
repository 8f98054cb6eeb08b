"""Averages of weights: by hand, against a slow loop, in the training loop, and resumed."""

import numpy as np
import pytest
import torch
from tests.training.test_freezing import SOME, tied
from tests.training.test_trainer import CONFIG, InterruptError, Ragged, toy, weights
from torch import nn

from sidrec.config import RunSettings
from sidrec.errors import ConfigError
from sidrec.training import watch
from sidrec.training.averaging import WeightAverage
from sidrec.training.config import TrainingConfig
from sidrec.training.freezing import FrozenRows
from sidrec.training.trainer import train_model

RUN = RunSettings(device="cpu")


class One(nn.Module):
    """A weight, tied to another name, and a buffer."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.first = nn.Parameter(torch.tensor([value]))
        self.second = self.first
        self.register_buffer("count", torch.tensor([7.0]))

    def set(self, value: float) -> None:
        with torch.no_grad():
            self.first.fill_(value)


def test_moving_average_by_hand():
    """n states before, decay min(0.4, (1 + n) / (10 + n)): 2/11 for the second, 3/12 for the third, 0.4 at last."""
    model = One(9.0)
    average = WeightAverage(model, decay=0.4)
    means = []
    for value in (1.0, 12.0, 2.0, 0.0, 5.0, 6.0):
        model.set(value)
        average.add()
        with average.in_place():
            means.append(model.second.item())
        assert model.first.item() == value
    # 1; (2 · 1 + 9 · 12) / 11 = 10; 10/4 + 2 · 3/4 = 4; 4 · 4/13; then 5/14 and 0.4 (of 6/15).
    fourth = 16 / 13
    fifth = fourth * 5 / 14 + 5 * 9 / 14
    assert means == pytest.approx([1.0, 10.0, 4.0, fourth, fifth, fifth * 0.4 + 6 * 0.6])


def test_plain_mean_before_the_first_state_and_after():
    model = One(9.0)
    average = WeightAverage(model)
    with average.in_place():
        assert model.first.item() == 9.0, "no state was taken in yet"
    for value in (1.0, 2.0, 6.0):
        model.set(value)
        average.add()
    model.count.fill_(8.0)
    average.swap()
    assert model.first.item() == pytest.approx(3.0)
    assert model.second is model.first
    assert model.count.item() == 8.0, "buffers are the model's own"
    assert list(model.state_dict()) == ["first", "second", "count"]


@pytest.mark.parametrize("decay", [None, 0.9])
def test_goes_on_from_its_state_to_the_bit(decay):
    draw = torch.Generator().manual_seed(0)
    values = torch.randn(6, generator=draw).tolist()
    means = []
    for stop in (6, 3):
        model = One(0.0)
        average = WeightAverage(model, decay)
        for place, value in enumerate(values):
            if place == stop:
                average, old = WeightAverage(model, decay), average.state()
                average.restore({name: tensor.clone() for name, tensor in old.items()})
            model.set(value)
            average.add()
        average.swap()
        means.append(model.first.item())
    assert means[0] == means[1]


def every_state(config, **fields):
    """Weights at each validation, and the model afterwards."""
    model, seen = toy(), []

    def validate():
        seen.append(weights(model).clone())
        return {"metric": float(weights(model).sum().sin())}

    report = train_model(model, Ragged.draw(), config, RUN, validate=validate, **fields)
    return model, seen, report


def test_averages_are_validated_and_kept_while_the_weights_go_on():
    config = CONFIG.model_copy(update={"validate_every": 1, "patience": 0})
    _, raw, _ = every_state(config)
    model, seen, report = every_state(config.model_copy(update={"ema_decay": 0.6}))
    mean = raw[0].double()
    for number, state in enumerate(raw):
        decay = 0.0 if number == 0 else min(0.6, (1 + number) / (10 + number))
        mean = decay * mean + (1 - decay) * state.double()
        assert torch.allclose(seen[number].double(), mean, atol=1e-6), number
    assert report.steps == len(raw) == len(seen) == 15
    assert torch.equal(weights(model), seen[report.best_step - 1])
    assert not torch.equal(raw[-1], seen[-1])


def test_without_validation_the_last_average_is_kept():
    config = CONFIG.model_copy(update={"ema_decay": 0.6})
    _, seen, _ = every_state(config.model_copy(update={"validate_every": 1, "patience": 0}))
    model = toy()
    train_model(model, Ragged.draw(), config, RUN)
    assert torch.equal(weights(model), seen[-1])


def test_decay_0_and_average_1_change_nothing():
    plain, off = toy(), toy()
    train_model(plain, Ragged.draw(), CONFIG, RUN)
    train_model(off, Ragged.draw(), CONFIG.model_copy(update={"ema_decay": 0.0, "average": 1}), RUN)
    assert torch.equal(weights(plain), weights(off))
    for field in ({"ema_decay": 1.0}, {"ema_decay": -0.1}, {"average": -1}):
        with pytest.raises((ConfigError, ValueError)):
            TrainingConfig(**field)


def run_with_values(values, **fields):
    model, seen, told = toy(), [], iter(values)

    def validate():
        seen.append(weights(model).clone())
        assert not model.training
        return {"ndcg@10": next(told)}

    config = TrainingConfig(max_steps=5, batch_size=16, validate_every=1, patience=0, **fields)
    report = train_model(model, Ragged.draw(), config, RUN, validate=validate)
    return weights(model), seen, report


@pytest.mark.parametrize(("value", "is_kept"), [(0.7, True), (0.5, True), (0.49, False)])
def test_the_mean_of_the_best_states_is_kept_unless_it_is_worse(value, is_kept):
    """States 2, 4 and 5 are the best three; the sixth figure is the mean's."""
    found, seen, report = run_with_values([0.1, 0.5, 0.2, 0.4, 0.3, value], average=3)
    mean = torch.stack([seen[1], seen[3], seen[4]]).double().mean(0)
    assert torch.allclose(seen[5].double(), mean, atol=1e-7), "the mean is what is validated"
    assert torch.equal(found, seen[5] if is_kept else seen[1])
    assert (report.best_metric, report.best_step) == (0.5, 2)
    assert (report.average_metric, report.averaged) == (value, 3 if is_kept else 0)
    assert report.trained_metric == max(0.5, value)
    assert report.validations == ((1, 0.1), (2, 0.5), (3, 0.2), (4, 0.4), (5, 0.3))


def test_the_mean_has_the_buffers_of_the_best_state():
    """Steps 2 and 4 are averaged and 2 is the best: what it counted stays."""
    model, told = toy(), iter([0.1, 0.5, 0.2, 0.4, 0.3, 0.6])
    model.register_buffer("steps", torch.zeros(()))
    real = model.forward

    def forward(**batch):
        model.steps += 1
        return real(**batch)

    model.forward = forward
    config = TrainingConfig(max_steps=5, batch_size=16, validate_every=1, patience=0, average=2)
    report = train_model(model, Ragged.draw(), config, RUN, validate=lambda: {"metric": next(told)})
    assert (report.best_step, report.averaged) == (2, 2)
    assert model.steps.item() == 2


def test_of_equal_states_the_earlier_are_averaged_and_fewer_than_asked_for_are_enough():
    found, seen, report = run_with_values([0.3, 0.5, 0.3, 0.3, 0.2, 0.5], average=2)
    assert torch.allclose(found, (seen[0] + seen[1]) / 2, atol=1e-7)
    found, seen, report = run_with_values([0.3, 0.5, 0.3, 0.3, 0.2, 0.5], average=50)
    assert report.averaged == 5
    assert torch.allclose(found, torch.stack(seen[:5]).mean(0), atol=1e-7)


def test_one_state_has_no_mean():
    model, told = toy(), iter([0.4])
    config = TrainingConfig(max_steps=5, batch_size=16, average=3)
    report = train_model(model, Ragged.draw(), config, RUN, validate=lambda: {"metric": next(told)})
    assert (report.average_metric, report.averaged, report.best_metric) == (None, 0, 0.4)


@pytest.mark.parametrize(("value", "is_kept"), [(0.61, True), (0.6, False)])
def test_the_start_of_a_tuning_gives_way_only_to_what_is_better(value, is_kept):
    model, told = toy(), iter([0.6, 0.2, 0.5, 0.3, value])
    first = weights(model).clone()
    config = TrainingConfig(max_steps=3, batch_size=16, validate_every=1, average=3)
    report = train_model(model, Ragged.draw(), config, RUN, validate=lambda: {"metric": next(told)}, keep_start=True)
    assert report.kept_start is not is_kept
    assert torch.equal(first, weights(model)) is not is_kept
    assert (report.start_metric, report.trained_metric) == (0.6, max(0.5, value))
    assert report.averaged == (2 if is_kept else 0), "the start is no part of the mean"


@pytest.mark.parametrize("fields", [{"ema_decay": 0.9}, {"average": 3}, {"ema_decay": 0.9, "average": 3}])
@pytest.mark.parametrize("rows", [SOME, torch.ones(7, dtype=torch.bool)], ids=["some", "all"])
def test_frozen_rows_keep_every_bit(fields, rows):
    model, values = tied(), iter(np.linspace(0, 1, 50))
    before = model.table.weight.detach().clone()
    config = CONFIG.model_copy(update={"validate_every": 2, **fields})
    report = train_model(
        model,
        Ragged.draw(),
        config,
        RUN,
        validate=lambda: {"metric": float(next(values))},
        frozen=[FrozenRows(model.table.weight, rows)],
    )
    assert report.averaged == fields.get("average", 0)
    assert torch.equal(model.table.weight[rows], before[rows])
    assert not torch.equal(model.middle.weight, tied().middle.weight)


@pytest.mark.parametrize("steps", [2, 7])
@pytest.mark.parametrize("accumulation", [1, 2])
def test_killed_and_resumed_equals_uninterrupted(tmp_path, monkeypatch, steps, accumulation):
    monkeypatch.setattr(watch, "CHECKPOINT_SECONDS", 0.0)
    fields = {"ema_decay": 0.8, "average": 3, "validate_every": 2, "patience": 0, "accumulation": accumulation}
    config = CONFIG.model_copy(update=fields)

    def run(scratch, kill_at=None):
        model, count = toy(), [0]
        real = model.forward

        def forward(**batch):
            count[0] += 1
            if kill_at is not None and count[0] > kill_at * accumulation:
                raise InterruptError
            return real(**batch)

        model.forward = forward
        settings = RunSettings(device="cpu", scratch=scratch)
        report = train_model(
            model, Ragged.draw(), config, settings, validate=lambda: {"m": float(weights(model).sum().sin())}
        )
        return weights(model), report

    whole, expected = run(tmp_path / "one")
    with pytest.raises(InterruptError):
        run(tmp_path / "two", kill_at=steps)
    resumed, report = run(tmp_path / "two")
    assert torch.equal(whole, resumed)
    assert (report.average_metric, report.averaged) == (expected.average_metric, expected.averaged)
    assert expected.average_metric is not None
    assert (report.best_metric, report.best_step) == (expected.best_metric, expected.best_step)
    assert report.validations == expected.validations
    assert len(report.validations) >= 2
