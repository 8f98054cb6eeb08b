"""The slots of the network together: learning, padding, positions, tables, files. Layers: `test_sasrec_layers`."""

import json
from itertools import product

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModel

from sidrec.config import RunSettings
from sidrec.decoding.recommendations import Request
from sidrec.recommenders.base import Recommender
from sidrec.recommenders.sasrec import SASRec
from sidrec.recommenders.sasrec_model import SASRecExamples, SASRecModel, SASRecModelConfig
from sidrec.stages.recipe import load_recipe
from sidrec.tasks.windows import Windows
from sidrec.testing.toy import cycle_dataset
from sidrec.training import watch
from sidrec.training.config import TrainingConfig
from sidrec.training.isolation import isolated_rng
from sidrec.training.objectives import IGNORE

RUN = RunSettings(device="cpu")
DATASET = cycle_dataset(num_items=12, num_users=48)
SLOTS = {
    "positions": ("learned", "rope"),
    "feed_forward": ("dense", "gated", "moe"),
    "norm_place": ("pre", "post"),
    "attention_norm": ("layer", "rms"),
    "tied": (True, False),
}
COMBINATIONS = [dict(zip(SLOTS, values, strict=True)) for values in product(*SLOTS.values())]
VARIANTS = [{}, {"positions": "rope"}, {"positions": "rope", "feed_forward": "moe", "norm_place": "post"}]
VARIANTS += [{"feed_forward": "gated", "special_rows": 2, "begin": True}]


def name(fields):
    return ", ".join(f"{value}" for value in fields.values()) or "default"


def small(num_items=12, width=8, seed=0, **fields):
    fields = {"dropout": 0.0, "max_history": 7, **fields}
    with isolated_rng(seed):
        model = SASRecModel(SASRecModelConfig(num_items=num_items, hidden_size=width, **fields))
        for weight in model.parameters():
            # Away from 0 and 1, so that every part matters.
            weight.data.add_(torch.randn_like(weight) * 0.2)
    return model.eval()


def batch_of_all():
    windows = Windows.of(DATASET.sequences, DATASET.split.train, 7)
    examples = SASRecExamples(windows)
    return examples.collate(np.arange(len(examples)))


def trained(model, steps, lr=0.01):
    """The losses of some steps on everything."""
    batch, losses = batch_of_all(), []
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr)
    torch.manual_seed(0)
    for _ in range(steps):
        optimizer.zero_grad()
        loss = model.train()(**batch).loss
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def accuracy(model):
    batch = batch_of_all()
    with torch.no_grad():
        hidden = model.eval()(batch["input_ids"], batch["attention_mask"]).hidden
    learnt = batch["labels"] != IGNORE
    best = (hidden[learnt] @ model.output_table.T).argmax(dim=1)
    return (best == batch["labels"][learnt]).float().mean().item()


@pytest.mark.parametrize("fields", COMBINATIONS, ids=name)
def test_every_combination_takes_a_step_in_which_every_weight_learns(fields):
    model = small(**fields)
    first = model(**batch_of_all()).loss
    first.backward()
    silent = [name for name, weight in model.named_parameters() if weight.grad is None or not weight.grad.any()]
    # The input table of an untied model is among those that learn.
    assert not silent
    losses = trained(model, 2)
    assert losses[1] < losses[0]


@pytest.mark.parametrize("fields", [fields for fields in COMBINATIONS if fields["tied"]], ids=name)
def test_every_combination_learns_the_cycle(fields):
    model = small(width=16, num_layers=1, **fields)
    losses = trained(model, 60, lr=0.02)
    assert losses[-1] < losses[0] / 3
    assert accuracy(model) == 1


OBJECTIVES = [
    {"kind": "full_softmax", "label_smoothing": 0.1},
    {"kind": "full_softmax", "max_logits": 100},
    *({"kind": "sampled_softmax", "negatives": way} for way in ("uniform", "popularity", "in_batch")),
    {"kind": "sampled_softmax", "negatives": "in_batch", "correction": "all"},
    {"kind": "sampled_softmax", "correction": "none"},
    *({"kind": "bce", "negatives": way, "num_negatives": 4} for way in ("uniform", "popularity")),
    {"kind": "gbce", "num_negatives": 4},
]


@pytest.mark.parametrize("objective", OBJECTIVES, ids=name)
def test_every_objective_learns_the_cycle(objective):
    model = small(width=16, num_layers=1, objective=objective)
    trained(model, 60, lr=0.02)
    assert accuracy(model) == 1


# --- tables and files --------------------------------------------------------------------------------------


def test_an_untied_model_scores_by_its_own_table():
    model = small(tied=False, special_rows=2)
    assert model.items.weight.shape == (14, 8)
    with torch.no_grad():
        scores = model.scores(torch.tensor([[3, 1]]), torch.tensor([2]))
        expected = model(torch.tensor([[3, 1]])).hidden[0, 1] @ model.outputs.weight.T
    torch.testing.assert_close(scores[0], expected)


def test_special_rows_are_neither_recommended_nor_given_away():
    sasrec = SASRec(hidden_size=8, special_rows=4, begin=True)
    sasrec.fit(DATASET, TrainingConfig(max_steps=2), RUN)
    found = sasrec.rank(DATASET.histories("test"), Request(k=12, exclude_seen=False), RUN)
    assert sorted(set(found.rows.flatten().tolist())) == list(range(12))
    assert sasrec.item_vectors().shape == (12, 8)


@pytest.mark.parametrize("fields", VARIANTS, ids=name)
def test_transformers_loads_the_directory_by_itself(tmp_path, fields):
    model = small(objective={"kind": "bce", "num_negatives": 3}, **fields)
    model.save_pretrained(tmp_path)
    loaded = AutoModel.from_pretrained(tmp_path)
    assert type(loaded) is SASRecModel
    assert AutoConfig.from_pretrained(tmp_path).objective == {"kind": "bce", "num_negatives": 3}
    assert loaded.objective.num_negatives == 3
    items = torch.tensor([[3, 1, 4]])
    with torch.no_grad():
        # Where weights lie in memory may round the last bit another way.
        torch.testing.assert_close(loaded(items).hidden, model(items).hidden)
    for name, value in model.state_dict().items():
        assert torch.equal(value, loaded.state_dict()[name])


def test_weights_of_the_default_keep_their_names(tmp_path):
    """A directory of before the slots, which has none of their settings, loads as it was."""
    sasrec = SASRec(hidden_size=8)
    sasrec.fit(DATASET, TrainingConfig(max_steps=2), RUN)
    names = {name.removeprefix("blocks.0.") for name in sasrec.model.state_dict() if "blocks.1" not in name}
    layers = ("attention_norm", "feed_norm", "query_key_value", "output", "up", "down", "norm")
    parts = [f"{layer}.{kind}" for layer in layers for kind in ("weight", "bias")]
    assert names == {"items.weight", "positions.weight", "popularity", *parts}
    sasrec.save(tmp_path)
    for file, kept in (
        ("config.json", {"num_items", "max_history", "model_type", "architectures"}),
        ("recommender.json", {"kind", "max_history"}),
    ):
        fields = json.loads((tmp_path / file).read_text(encoding="utf-8"))
        kept = kept | {"hidden_size", "num_layers", "num_heads", "dropout"}
        old = {key: value for key, value in fields.items() if key in kept}
        (tmp_path / file).write_text(json.dumps(old), encoding="utf-8")
    loaded = Recommender.from_directory(tmp_path)
    one, two = (part.rank(DATASET.histories("test"), Request(k=5), RUN) for part in (sasrec, loaded))
    assert np.array_equal(one.scores, two.scores)


REPORT = {
    "positions=learned": 80_828_416,
    "positions=rope": 80_807_936,
    "positions=learned feed_forward=gated": 101_774_336,
    "positions=learned feed_forward=moe": 206_754_816,
}


@pytest.mark.parametrize(("changes", "expected"), REPORT.items())
def test_the_originals_layout_has_their_number_of_weights(changes, expected):
    """17,408 items and four special rows; nothing is allocated."""
    recipe = load_recipe("sasrec-report", [f"recommender.{change}" for change in changes.split()])
    fields = recipe.recommender.model_dump(exclude={"kind", "table"})
    with torch.device("meta"):
        model = SASRecModel(SASRecModelConfig(num_items=17_408, **fields))
    assert sum(weight.numel() for weight in model.parameters()) == expected
    block = model.blocks[0]
    assert isinstance(block.attention_norm, torch.nn.RMSNorm)
    assert isinstance(block.feed_norm, torch.nn.LayerNorm)


@pytest.mark.parametrize("variant", ["sasrec-gated", "sasrec-moe"])
def test_ablation_recipes_do_as_much_work_as_the_plain_one(variant):
    """Weights that one position meets in a feed-forward layer, up to biases, router and rounding of the width."""

    def met(recipe):
        fields = load_recipe(recipe).recommender.model_dump(exclude={"kind"})
        block = SASRecModel(SASRecModelConfig(num_items=1, **fields)).blocks[0]
        if block.experts is None:
            return sum(
                weight.numel() for part in (block.up, block.gate, block.down) if part for weight in part.parameters()
            )
        return 2 * sum(weight.numel() for weight in block.experts.experts[0].parameters())

    assert met(variant) == pytest.approx(met("sasrec"), rel=0.01)


# --- killed and resumed ------------------------------------------------------------------------------------


class KilledError(Exception):
    pass


@pytest.mark.parametrize("objective", [{"kind": "sampled_softmax"}, {"kind": "gbce", "num_negatives": 4}], ids=name)
def test_a_resumed_training_draws_the_same_negatives(tmp_path, monkeypatch, objective):
    monkeypatch.setattr(watch, "CHECKPOINT_SECONDS", 0.0)
    dataset = cycle_dataset(num_items=6, num_users=12, length=5)
    training = TrainingConfig(max_epochs=3, batch_size=4, validate_every=2)

    def fit(folder, kill_at=0):
        calls = []

        def validate(recommender):
            calls.append(1)
            if len(calls) == kill_at:
                raise KilledError
            return {"metric": float(len(calls))}

        sasrec = SASRec(hidden_size=8, num_layers=1, feed_forward="moe", objective=objective)
        sasrec.fit(dataset, training, RunSettings(device="cpu", scratch=folder), validate=validate)
        return torch.cat([weight.flatten() for weight in sasrec.model.state_dict().values()])

    whole = fit(tmp_path / "one")
    with pytest.raises(KilledError):
        fit(tmp_path / "two", kill_at=3)
    found = sorted((tmp_path / "two" / "checkpoints").glob("checkpoint-*"))
    assert [path.name for path in found] == ["checkpoint-5"]
    assert torch.equal(fit(tmp_path / "two"), whole)


def test_a_checkpoint_of_another_objective_is_not_used(tmp_path, monkeypatch):
    """Both start with the same weights."""
    monkeypatch.setattr(watch, "CHECKPOINT_SECONDS", 0.0)
    training, run = TrainingConfig(max_epochs=2, batch_size=16), RunSettings(device="cpu", scratch=tmp_path)
    SASRec(hidden_size=8, objective="bce").fit(DATASET, training, run)
    mixed, fresh = SASRec(hidden_size=8), SASRec(hidden_size=8)
    mixed.fit(DATASET, training, run)
    fresh.fit(DATASET, training, RUN)
    assert torch.equal(mixed.model.items.weight, fresh.model.items.weight)
