import json
import os
import random
from dataclasses import dataclass, replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from sidrec.config import RunSettings
from sidrec.errors import ConfigError, TrainingError
from sidrec.training import watch
from sidrec.training.config import OptimizerConfig, TrainingConfig
from sidrec.training.isolation import isolated_rng
from sidrec.training.objectives import IGNORE, next_token_cross_entropy
from sidrec.training.trainer import train_model


@dataclass
class Ragged:
    """Number sequences of different lengths; the label of a number is the number after it, modulo 7."""

    starts: np.ndarray
    lengths: np.ndarray

    @classmethod
    def draw(cls, num=70, seed=0):
        draw = np.random.default_rng(seed)
        return cls(draw.integers(7, size=num), draw.integers(1, 9, size=num))

    def __len__(self):
        return len(self.starts)

    def collate(self, positions):
        lengths = self.lengths[positions]
        place = np.arange(lengths.max())
        present = place < lengths[:, None]
        ids = np.where(present, (self.starts[positions][:, None] + place) % 7, 0)
        labels = np.where(present, (ids + 1) % 7, IGNORE)
        return {
            "input_ids": torch.from_numpy(ids),
            "attention_mask": torch.from_numpy(present),
            "labels": torch.from_numpy(labels),
        }


class Toy(nn.Module):
    def __init__(self, dropout=0.2):
        super().__init__()
        self.table = nn.Embedding(7, 8)
        self.norm = nn.LayerNorm(8)
        self.out = nn.Linear(8, 7)
        self.dropout = nn.Dropout(dropout)

    def forward(self, input_ids, attention_mask, labels):
        logits = self.out(self.dropout(self.norm(self.table(input_ids))))
        return SimpleNamespace(loss=next_token_cross_entropy(logits, labels))


def toy(**fields):
    with isolated_rng(3):
        return Toy(**fields)


def weights(model):
    return torch.cat([value.flatten() for value in model.state_dict().values()])


CONFIG = TrainingConfig(max_epochs=3, batch_size=16, optimizer=OptimizerConfig(lr=1e-2))


def test_learns_and_reports():
    model, examples = toy(), Ragged.draw()
    report = train_model(model, examples, TrainingConfig(max_epochs=30, batch_size=16), RunSettings(device="cpu"))
    assert report.steps == 30 * 5
    assert report.best_step == 150
    assert report.best_metric is None
    assert report.losses[-1][1] < report.losses[0][1]
    assert [step for step, _ in report.losses] == sorted(step for step, _ in report.losses)
    assert report.examples_per_second > 0
    assert not model.training


def test_same_seed_same_weights_whatever_ran_before():
    found = []
    for spoil in (1, 2):
        torch.manual_seed(spoil)
        random.seed(spoil)
        model = toy()
        train_model(model, Ragged.draw(), CONFIG, RunSettings(seed=5, device="cpu"))
        found.append(weights(model))
    other = toy()
    train_model(other, Ragged.draw(), CONFIG, RunSettings(seed=6, device="cpu"))
    assert torch.equal(*found)
    assert not torch.equal(found[0], weights(other))


def test_leaves_the_process_as_it_was(capfd):
    torch.manual_seed(1)
    np.random.seed(1)
    random.seed(1)
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate(), dict(os.environ)
    precise = CONFIG.model_copy(update={"precision": "bf16"})
    train_model(toy(), Ragged.draw(), precise, RunSettings(device="cpu"))
    assert torch.equal(before[0], torch.get_rng_state())
    assert (before[1] == np.random.get_state()[1]).all()
    assert before[2] == random.getstate()
    assert before[3] == dict(os.environ)
    assert capfd.readouterr() == ("", "")


def test_accumulation_gives_the_step_of_the_whole_batch():
    found = []
    for accumulation in (1, 2):
        model = toy(dropout=0.0)
        config = TrainingConfig(max_epochs=2, batch_size=32, accumulation=accumulation)
        found.append((train_model(model, Ragged.draw(), config, RunSettings(device="cpu")), weights(model)))
    (whole, one), (parts, two) = found
    assert whole.steps == parts.steps == 6
    assert torch.allclose(one, two, atol=2e-6)
    assert np.allclose([loss for _, loss in whole.losses], [loss for _, loss in parts.losses], atol=1e-6)


def test_first_step_equals_a_hand_written_adamw_step():
    examples, model, mine = Ragged.draw(num=16), toy(dropout=0.0), toy(dropout=0.0)
    optimizer = OptimizerConfig(lr=0.05, weight_decay=0.3, warmup_ratio=0, schedule="constant", max_grad_norm=0.1)
    config = TrainingConfig(max_steps=1, batch_size=16, optimizer=optimizer)
    train_model(model, examples, config, RunSettings(device="cpu"))
    mine(**examples.collate(np.arange(16))).loss.backward()
    norm = torch.sqrt(sum((weight.grad**2).sum() for weight in mine.parameters()))
    with torch.no_grad():
        for weight in mine.parameters():
            gradient = weight.grad * min(1.0, 0.1 / (norm.item() + 1e-6))
            decay = 1 - 0.05 * 0.3 * (weight.ndim >= 2)
            weight.mul_(decay).sub_(0.05 * gradient / (gradient.abs() + 1e-8))
    assert norm > 0.1
    assert torch.allclose(weights(model), weights(mine), atol=1e-5)


class InterruptError(Exception):
    pass


@pytest.mark.parametrize("steps", [3, 5, 8])
@pytest.mark.parametrize("accumulation", [1, 2])
def test_killed_and_resumed_equals_uninterrupted(tmp_path, monkeypatch, steps, accumulation):
    monkeypatch.setattr(watch, "CHECKPOINT_SECONDS", 0.0)
    config = CONFIG.model_copy(update={"validate_every": 2, "accumulation": accumulation})
    examples = Ragged.draw()

    def run(scratch, kill_at=None):
        model, calls = toy(), []

        def validate():
            calls.append(1)
            return {"metric": float(weights(model).sum().sin())}

        real = model.forward
        count = [0]

        def forward(**batch):
            count[0] += 1
            if kill_at is not None and count[0] > kill_at * accumulation:
                raise InterruptError
            return real(**batch)

        if kill_at is not None:
            model.forward = forward
        report = train_model(model, examples, config, RunSettings(device="cpu", scratch=scratch), validate=validate)
        return model, report

    whole, expected = run(tmp_path / "one")
    with pytest.raises(InterruptError):
        run(tmp_path / "two", kill_at=steps)
    assert (tmp_path / "two" / "checkpoints" / f"checkpoint-{steps}").is_dir()
    resumed, report = run(tmp_path / "two")
    assert torch.equal(weights(whole), weights(resumed))
    assert report.losses == expected.losses
    assert (report.best_metric, report.best_step) == (expected.best_metric, expected.best_step)
    assert report.examples_per_second > 0


def test_a_checkpoint_of_another_run_is_not_used(tmp_path, monkeypatch):
    monkeypatch.setattr(watch, "CHECKPOINT_SECONDS", 0.0)
    train_model(toy(), Ragged.draw(), CONFIG, RunSettings(seed=1, device="cpu", scratch=tmp_path))
    mixed, fresh = toy(), toy()
    train_model(mixed, Ragged.draw(), CONFIG, RunSettings(seed=2, device="cpu", scratch=tmp_path))
    train_model(fresh, Ragged.draw(), CONFIG, RunSettings(seed=2, device="cpu"))
    assert torch.equal(weights(mixed), weights(fresh))


def test_a_checkpoint_of_other_data_is_not_used(tmp_path, monkeypatch):
    """Also where the first examples and all lengths are the same."""
    monkeypatch.setattr(watch, "CHECKPOINT_SECONDS", 0.0)
    run = RunSettings(device="cpu", scratch=tmp_path)
    examples, other = Ragged.draw(), Ragged.draw()
    other.starts[-1] = (other.starts[-1] + 1) % 7
    train_model(toy(), examples, CONFIG, run)
    mixed, fresh = toy(), toy()
    train_model(mixed, other, CONFIG, run)
    train_model(fresh, other, CONFIG, RunSettings(device="cpu"))
    assert torch.equal(weights(mixed), weights(fresh))


def test_keeps_the_best_state_and_stops_early():
    model = toy()
    seen, values = [], iter([0.1, 0.3, 0.2, 0.3, 0.1, 0.9])

    def validate():
        seen.append(weights(model).clone())
        assert not model.training
        return {"ndcg@10": next(values), "other": 5.0}

    config = CONFIG.model_copy(update={"validate_every": 2, "patience": 3})
    report = train_model(model, Ragged.draw(), config, RunSettings(device="cpu"), validate=validate)
    assert len(seen) == 5
    assert report.steps == 10
    assert (report.best_metric, report.best_step) == (0.3, 4)
    assert torch.equal(weights(model), seen[1])


def test_by_loss_the_lowest_figure_is_the_best():
    model, seen, values = toy(), [], iter([0.9, 0.3, 0.5, 0.3, 0.4])

    def validate():
        seen.append(weights(model).clone())
        return {"loss": next(values)}

    config = CONFIG.model_copy(update={"validate_every": 2, "patience": 3, "select": "loss"})
    report = train_model(model, Ragged.draw(), config, RunSettings(device="cpu"), validate=validate)
    assert (report.steps, report.best_metric, report.best_step, report.trained_metric) == (10, 0.3, 4, 0.3)
    assert torch.equal(weights(model), seen[1])


@pytest.mark.parametrize(("value", "is_kept"), [(0.29, True), (0.31, False)])
def test_by_loss_a_mean_must_not_be_higher(value, is_kept):
    model, values = toy(), iter([0.3, 0.5, 0.4, value])
    config = TrainingConfig(max_steps=3, batch_size=16, validate_every=1, select="loss", average=2)
    report = train_model(
        model, Ragged.draw(), config, RunSettings(device="cpu"), validate=lambda: {"loss": next(values)}
    )
    assert (report.best_metric, report.average_metric, report.averaged) == (0.3, value, 2 * is_kept)
    assert report.trained_metric == min(0.3, value)


def test_a_checkpoint_of_another_objective_is_not_used(tmp_path, monkeypatch):
    """The loss decides the result, so the digest of the start knows it by its fields."""

    @dataclass(frozen=True)
    class Times:
        factor: float

        def __call__(self, model, batch):
            return model(**batch).loss ** self.factor

    monkeypatch.setattr(watch, "CHECKPOINT_SECONDS", 0.0)
    run = RunSettings(device="cpu", scratch=tmp_path)
    train_model(toy(), Ragged.draw(), CONFIG, run, loss=Times(1.0))
    mixed, fresh = toy(), toy()
    train_model(mixed, Ragged.draw(), CONFIG, run, loss=Times(2.0))
    train_model(fresh, Ragged.draw(), CONFIG, RunSettings(device="cpu"), loss=Times(2.0))
    assert torch.equal(weights(mixed), weights(fresh))


def test_validation_does_not_change_training():
    plain, watched = toy(), toy()
    train_model(plain, Ragged.draw(), CONFIG, RunSettings(device="cpu"))
    steps = iter(range(100))

    def validate():
        torch.rand(3)
        return {"metric": float(next(steps))}

    report = train_model(watched, Ragged.draw(), CONFIG, RunSettings(device="cpu"), validate=validate)
    assert report.best_step == report.steps
    assert torch.equal(weights(plain), weights(watched))


def test_loss_that_is_not_finite_is_an_error():
    model = toy()
    real, count = model.forward, [0]

    def forward(**batch):
        out = real(**batch)
        count[0] += 1
        return SimpleNamespace(loss=out.loss * float("nan")) if count[0] == 3 else out

    model.forward = forward
    with pytest.raises(TrainingError, match=r"became nan at step 3[\s\S]*lower training.optimizer.lr"):
        train_model(model, Ragged.draw(), CONFIG, RunSettings(device="cpu"))


@pytest.mark.parametrize("validated", [False, True])
def test_weights_that_are_not_finite_are_an_error_though_every_loss_was(validated):
    optimizer = OptimizerConfig(lr=1e38, warmup_ratio=0, schedule="constant")
    config = TrainingConfig(max_steps=1, batch_size=16, optimizer=optimizer)
    validate = (lambda: {"metric": 0.5}) if validated else None
    with pytest.raises(TrainingError, match=r"after 1 steps there are weights that are no finite numbers[\s\S]*lower"):
        train_model(toy(), Ragged.draw(), config, RunSettings(device="cpu"), validate=validate)


@pytest.mark.parametrize("select", ["metric", "loss"])
def test_a_validation_figure_that_is_no_number_is_an_error(select):
    values = iter([float("nan"), 0.3, 0.4])
    config = CONFIG.model_copy(update={"select": select})
    with pytest.raises(TrainingError, match="validation after step 5 gave nan"):
        train_model(toy(), Ragged.draw(), config, RunSettings(device="cpu"), validate=lambda: {"m": next(values)})


def test_seconds_of_a_killed_process_count_up_to_its_checkpoint(tmp_path, monkeypatch):
    monkeypatch.setattr(watch, "CHECKPOINT_SECONDS", 0.0)
    run = RunSettings(device="cpu", scratch=tmp_path)
    model = toy()
    real, count = model.forward, [0]

    def forward(**batch):
        count[0] += 1
        if count[0] > 3:
            raise InterruptError
        return real(**batch)

    model.forward = forward
    with pytest.raises(InterruptError):
        train_model(model, Ragged.draw(), CONFIG, run)
    whole = train_model(toy(), Ragged.draw(), CONFIG, RunSettings(device="cpu"))
    (record,) = tmp_path.glob("checkpoints/checkpoint-*/record.json")
    spent = json.loads(record.read_text())["seconds"]
    assert spent > 0 == whole.seconds_before
    # As if it had taken an hour.
    record.write_text(record.read_text().replace(str(spent), "3600.0"))
    resumed = train_model(toy(), Ragged.draw(), CONFIG, run)
    assert resumed.seconds_before == 3600
    assert 3600 < resumed.seconds < 3600 + 300
    (again,) = tmp_path.glob("checkpoints/checkpoint-*/record.json")
    assert json.loads(again.read_text())["seconds"] >= 3600
    staged = replace(resumed, earlier=(replace(whole, seconds_before=2.5),))
    assert staged.all_seconds_before == 3602.5


def test_bad_requests():
    with pytest.raises(ConfigError, match=r"training.average: there is no validation to choose 2 states by"):
        train_model(toy(), Ragged.draw(), CONFIG.model_copy(update={"average": 2}), RunSettings(device="cpu"))
    with pytest.raises(ConfigError, match="16 is not a multiple of 3"):
        train_model(toy(), Ragged.draw(), CONFIG.model_copy(update={"accumulation": 3}), RunSettings(device="cpu"))
    with pytest.raises(ValueError, match="batch_size 16 is not a multiple of accumulation 3"):
        TrainingConfig(batch_size=16, accumulation=3)
    with pytest.raises(ConfigError, match="cannot train on device 'meta'"):
        train_model(toy(), Ragged.draw(), CONFIG, RunSettings(device="meta"))
    with pytest.raises(TrainingError, match="no training examples"):
        train_model(toy(), Ragged.draw(num=0), CONFIG, RunSettings(device="cpu"))


def test_max_steps_padding_and_nothing_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    examples = Ragged(np.zeros(8, int), np.array([1, 1, 1, 1, 3, 3, 3, 3]))
    config = TrainingConfig(max_steps=7, batch_size=8)
    report = train_model(toy(), examples, config, RunSettings(device="cpu"))
    assert report.steps == 7
    assert report.padding_share == pytest.approx(8 / 24)
    assert list(tmp_path.iterdir()) == []


def test_progress_is_reported():
    calls = []

    class Progress:
        def __call__(self, task, total):
            calls.append((task, total))
            return self

        def __enter__(self):
            return lambda steps=1, note="": calls.append((steps, note))

        def __exit__(self, *exc):
            return None

    train_model(toy(), Ragged.draw(), CONFIG, RunSettings(device="cpu", progress=Progress()))
    assert calls[0] == ("train", 15)
    assert sum(steps for steps, _ in calls[1:]) == 15
    assert calls[-1][1].startswith("loss ")
