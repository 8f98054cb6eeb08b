"""What a step of training does to the weights of every recommender that learns by gradients."""

import pytest
from tests.cases import CASES
from torch import nn
from transformers import Trainer

from sidrec.config import RunSettings
from sidrec.recommenders.base import Recommender
from sidrec.recommenders.tiger import Tiger
from sidrec.registry import load_class
from sidrec.testing.toy import cycle_dataset, grid_semantic_ids
from sidrec.training import trainer
from sidrec.training.config import TrainingConfig
from sidrec.training.watch import StepWatch

LEARNERS = [case for case in CASES if load_class("recommender", case.kind).learns_by_gradient and not case.members]


def fit(recommender: Recommender, batch_size: int = 4) -> None:
    dataset = cycle_dataset(num_items=16, num_users=16)
    ids = grid_semantic_ids(dataset.catalog, levels=2)
    recommender.fit(
        dataset, TrainingConfig(max_steps=2, batch_size=batch_size), RunSettings(device="cpu"), semantic_ids=ids
    )


@pytest.mark.parametrize("case", LEARNERS, ids=lambda case: f"{case.kind} {case.note}")
def test_every_weight_takes_part_in_every_step(case, monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes that share a step wait for the gradients of all of them, also where a batch is a single example."""
    seen: list[list[str]] = []

    def look(self: StepWatch, *_: object, **__: object) -> None:
        weights = self.model.named_parameters()
        seen.append([name for name, weight in weights if weight.requires_grad and weight.grad is None])

    monkeypatch.setattr(StepWatch, "on_pre_optimizer_step", look)
    fit(load_class("recommender", case.kind)(**case.fields), batch_size=1)
    assert seen == [[], []]


def test_weight_decay_reaches_relative_positions_as_the_page_of_letter_tiger_says(monkeypatch) -> None:
    """transformers spares them by their name, with norms and all other biases."""
    found: dict[str, set[str]] = {}
    real = trainer._Trainer.create_optimizer

    def look(self, model: nn.Module | None = None):
        optimizer = real(self, model)
        names = {id(weight): name for name, weight in self.watch.model.named_parameters()}
        found["ours"] = {
            names[id(weight)] for group in optimizer.param_groups if group["weight_decay"] for weight in group["params"]
        }
        # Tied weights have several names there, and the first one here.
        found["theirs"] = set(Trainer.get_decay_parameter_names(self, self.watch.model)) & set(names.values())
        return optimizer

    monkeypatch.setattr(trainer._Trainer, "create_optimizer", look)
    fit(Tiger(d_model=16, d_kv=8, num_heads=2, d_ff=16, num_layers=1))
    more = found["ours"] - found["theirs"]
    assert len(more) == 2
    assert all(name.endswith("relative_attention_bias.weight") for name in more)
    assert found["theirs"] < found["ours"]
