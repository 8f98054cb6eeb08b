"""States chosen by the loss on validation targets; the objective's temperature in training, files and lists."""

import json

import numpy as np
import pytest
import torch
from tests.cases import CASES
from tests.recommenders.generative_cases import KINDS, RAGGED, RUN, make

from sidrec.config import RunSettings
from sidrec.data.dataset import Examples
from sidrec.decoding.recommendations import Request
from sidrec.errors import ConfigError, DataError
from sidrec.evaluation.protocol import Protocol
from sidrec.evaluation.validation import validation
from sidrec.recommenders.base import Recommender
from sidrec.registry import load_class
from sidrec.testing.toy import cycle_dataset, grid_semantic_ids
from sidrec.training.config import OptimizerConfig, TrainingConfig

DATASET = cycle_dataset(num_items=16, num_users=24)
IDS = grid_semantic_ids(DATASET.catalog, levels=2)
LEARNERS = [case for case in CASES if load_class("recommender", case.kind).learns_by_gradient and not case.members]
BY_LOSS = TrainingConfig(
    max_steps=4, batch_size=32, validate_every=1, validate_users=10, select="loss", optimizer=OptimizerConfig(lr=0.01)
)


def fitted(case, training, **fields) -> tuple[Recommender, object]:
    recommender = load_class("recommender", case.kind)(**(case.fields | fields))
    check = validation(DATASET, Protocol(), training, RUN)
    return recommender, recommender.fit(DATASET, training, RUN, semantic_ids=IDS, validate=check)


@pytest.mark.parametrize("case", LEARNERS, ids=lambda case: f"{case.kind} {case.note}")
def test_the_report_tells_the_loss_of_the_state_that_was_kept(case):
    recommender, report = fitted(case, BY_LOSS)
    check = validation(DATASET, Protocol(), BY_LOSS, RUN)
    assert check is not None
    assert check(recommender) == {"loss": report.best_metric}
    everyone = recommender.mean_loss(DATASET, DATASET.split.valid, RUN)
    assert everyone != report.best_metric, "ten users are not all"
    assert everyone == pytest.approx(report.best_metric, rel=0.5)
    assert not recommender.model.training


@pytest.mark.parametrize("case", [case for case in LEARNERS if not case.note], ids=lambda case: case.kind)
def test_the_loss_looks_at_the_target_of_each_user_and_at_nothing_later(case):
    recommender, _ = fitted(case, BY_LOSS)
    valid = DATASET.split.valid
    losses = [
        recommender.mean_loss(DATASET, Examples(valid.users[[user]], valid.cuts[[user]]), RUN)
        for user in range(len(valid))
    ]
    assert np.mean(losses) == pytest.approx(recommender.mean_loss(DATASET, valid, RUN), rel=1e-5)
    sequences = DATASET.sequences
    rows = sequences.rows.copy()
    last = sequences.offsets[1:] - 1
    rows[last] = (rows[last] + 5) % 16
    other = cycle_dataset(num_items=16, num_users=24)
    object.__setattr__(other.sequences, "rows", rows)
    assert recommender.mean_loss(other, valid, RUN) == recommender.mean_loss(DATASET, valid, RUN)


def test_what_is_chosen_by():
    metric = validation(DATASET, Protocol(), BY_LOSS.model_copy(update={"select": "metric"}), RUN)
    recommender, _ = fitted(LEARNERS[0], BY_LOSS)
    assert metric is not None
    assert next(iter(metric(recommender))) == "ndcg@10"
    with pytest.raises(DataError, match="has no loss"):
        load_class("recommender", "popularity")().mean_loss(DATASET, DATASET.split.valid, RUN)


def test_tuning_is_decided_by_the_metric():
    with pytest.raises(ConfigError, match=r"training\.select"):
        load_class("algorithm", "dpo")(training={"select": "loss"})


@pytest.mark.parametrize("kind", [*KINDS, "item-decoder"])
def test_temperature_and_smoothing_change_training_and_are_saved(kind, tmp_path):
    case = next(case for case in LEARNERS if case.kind == kind)
    plain, _ = fitted(case, BY_LOSS)
    sharp, report = fitted(case, BY_LOSS, temperature=0.7, label_smoothing=0.1)
    assert report.best_metric is not None
    ours, theirs = (next(each.model.parameters()) for each in (sharp, plain))
    assert not torch.equal(ours, theirs)
    sharp.save(tmp_path)
    saved = json.loads((tmp_path / "recommender.json").read_text())
    assert (saved["temperature"], saved["label_smoothing"]) == (0.7, 0.1)
    assert Recommender.from_directory(tmp_path).loss == sharp.loss
    for wrong in ({"temperature": 0.0}, {"label_smoothing": 1.0}):
        with pytest.raises(ConfigError):
            load_class("recommender", kind)(**wrong)


@pytest.mark.parametrize("kind", [*KINDS, "item-decoder"])
def test_lists_do_not_depend_on_the_temperature(kind):
    plain, sharp = make(kind), make(kind, temperature=0.5)
    one, two = (each.rank(RAGGED, Request(k=5), RUN) for each in (plain, sharp))
    assert np.array_equal(one.scores, two.scores)


def test_a_killed_training_is_not_gone_on_with_at_another_temperature(tmp_path, monkeypatch):
    monkeypatch.setattr("sidrec.training.watch.CHECKPOINT_SECONDS", 0.0)
    case = next(case for case in LEARNERS if case.kind == "tiger")
    training, run = BY_LOSS.model_copy(update={"select": "metric"}), RunSettings(device="cpu", scratch=tmp_path)
    for temperature in (1.0, 0.5):
        recommender = load_class("recommender", "tiger")(**case.fields, temperature=temperature)
        report = recommender.fit(DATASET, training, run, semantic_ids=IDS)
        assert report.losses[0][0] == 1, "it began at the first step"
        assert report.examples_per_second > 0
    alone = load_class("recommender", "tiger")(**case.fields, temperature=0.5)
    alone.fit(DATASET, training, RUN, semantic_ids=IDS)
    assert torch.equal(next(alone.model.parameters()), next(recommender.model.parameters()))
