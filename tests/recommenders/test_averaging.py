"""Averaged weights in whole recommenders: what is kept is what was validated, and ties stay ties."""

import numpy as np
import pytest
import torch
from tests.cases import CASES

from sidrec.config import RunSettings
from sidrec.decoding.recommendations import Request
from sidrec.recommenders.base import Recommender
from sidrec.registry import load_class
from sidrec.testing.toy import cycle_dataset, grid_semantic_ids
from sidrec.training.config import TrainingConfig

RUN = RunSettings(device="cpu")
LEARNERS = [case for case in CASES if load_class("recommender", case.kind).learns_by_gradient and not case.members]


def state(recommender: Recommender) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in recommender.model.state_dict().items()}


@pytest.mark.parametrize("case", LEARNERS, ids=lambda case: f"{case.kind} {case.note}")
@pytest.mark.parametrize("last", [9.0, 0.0], ids=["mean is kept", "mean is worse"])
def test_averages_in_every_recommender(case, last, tmp_path):
    dataset = cycle_dataset(num_items=16, num_users=16)
    recommender: Recommender = load_class("recommender", case.kind)(**case.fields)
    seen, told = [], iter([1.0, 3.0, 2.0, last])

    def validate(now: Recommender) -> dict[str, float]:
        seen.append(state(now))
        return {"metric": next(told)}

    training = TrainingConfig(max_steps=3, batch_size=8, validate_every=1, ema_decay=0.5, average=2)
    ids = grid_semantic_ids(dataset.catalog, levels=2)
    report = recommender.fit(dataset, training, RUN, semantic_ids=ids, validate=validate)
    kept = seen[3] if last else seen[1]
    assert all(torch.equal(value, kept[name]) for name, value in state(recommender).items())
    for name, value in seen[3].items():
        assert torch.allclose(value, (seen[1][name] + seen[2][name]) / 2, atol=1e-6), name
    assert (report.best_metric, report.average_metric, report.averaged) == (3.0, last, 2 if last else 0)
    recommender.save(tmp_path)
    loaded = Recommender.from_directory(tmp_path)
    assert loaded.num_parameters == recommender.num_parameters
    found, again = (each.rank(dataset.histories("test"), Request(k=3), RUN) for each in (recommender, loaded))
    np.testing.assert_array_equal(found.scores, again.scores)
