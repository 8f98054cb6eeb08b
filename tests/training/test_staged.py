"""Two stages of training: killed in either, a resumed run ends in the same weights; a finished stage is not redone."""

from dataclasses import replace

import pytest
import torch
from tests.training.test_freezing import CONFIG, RUN, SOME, tied
from tests.training.test_trainer import InterruptError, Ragged, weights

from sidrec.training import watch
from sidrec.training.freezing import FrozenRows
from sidrec.training.staged import train_stage
from sidrec.training.trainer import train_model

STEPS = 15
"""Of each stage."""


def two_stages(scratch, kill_at=None, config=CONFIG):
    """The model, the reports of both stages, and how many forward passes were made."""
    model, count = tied(), [0]
    real = model.forward

    def forward(**batch):
        if count[0] == kill_at:
            raise InterruptError
        count[0] += 1
        return real(**batch)

    def validate():
        return {"metric": float(weights(model).sum().sin())}

    model.forward = forward
    run = replace(RUN, scratch=scratch)
    frozen = [FrozenRows(model.table.weight, SOME)]
    first = train_stage("frozen", model, Ragged.draw(), config, run, validate=validate, frozen=frozen)
    second = train_model(model, Ragged.draw(), CONFIG, run, validate=validate)
    return model, (first, second), count[0]


@pytest.mark.parametrize("kill_at", [4, STEPS, STEPS + 1, STEPS + 7])
def test_killed_in_either_stage_and_resumed_equals_uninterrupted(tmp_path, monkeypatch, kill_at):
    monkeypatch.setattr(watch, "CHECKPOINT_SECONDS", 0.0)
    whole, expected, passes = two_stages(None)
    assert passes == 2 * STEPS
    with pytest.raises(InterruptError):
        two_stages(tmp_path, kill_at)
    resumed, reports, passes = two_stages(tmp_path)
    assert torch.equal(weights(whole), weights(resumed))
    assert passes == 2 * STEPS - kill_at, "what was done is not done again"
    assert (reports[0].seconds_before > 0) is (kill_at == 4 or kill_at >= STEPS)
    assert (reports[0].seconds_before == reports[0].seconds) is (kill_at >= STEPS), "a finished stage is all before"
    for report, other in zip(reports, expected, strict=True):
        assert report.losses == other.losses
        assert (report.best_metric, report.best_step) == (other.best_metric, other.best_step)


def test_a_result_of_another_training_is_not_taken(tmp_path):
    two_stages(tmp_path)
    assert two_stages(tmp_path)[2] == STEPS, "only the second stage, which keeps no result"
    other = CONFIG.model_copy(update={"max_epochs": 2})
    changed, fresh = two_stages(tmp_path, config=other), two_stages(None, config=other)
    assert torch.equal(weights(changed[0]), weights(fresh[0]))
    assert changed[2] == fresh[2] == 10 + STEPS


def test_the_same_stage_with_other_frozen_rows_is_another_training(tmp_path):
    run = replace(RUN, scratch=tmp_path)
    found = []
    for rows in (SOME, ~SOME):
        model = tied()
        train_stage("frozen", model, Ragged.draw(), CONFIG, run, frozen=[FrozenRows(model.table.weight, rows)])
        found.append(model.table.weight.detach())
    start = tied().table.weight
    assert torch.equal(found[0][SOME], start[SOME])
    assert torch.equal(found[1][~SOME], start[~SOME])
