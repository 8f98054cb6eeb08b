"""The slots of the network together: learning, padding, positions, tables, files. Layers: `test_sasrec_layers`."""

import json
import math
from itertools import product

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from transformers import AutoConfig, AutoModel

from sidrec.config import RunSettings
from sidrec.decoding.recommendations import Request
from sidrec.errors import ConfigError, DataError
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


# --- positions and padding ---------------------------------------------------------------------------------


@pytest.mark.parametrize("fields", VARIANTS, ids=name)
def test_the_side_of_padding_does_not_matter(fields):
    """A history alone, filled up on the right, on the left, and with a gap in it."""
    model = small(**fields)
    items = torch.tensor([[3, 1, 4, 5]])
    right, left, gap = [3, 1, 4, 5, 9, 9, 9], [9, 9, 9, 3, 1, 4, 5], [9, 3, 1, 9, 4, 9, 5]
    mask = torch.tensor([[1, 1, 1, 1, 0, 0, 0], [0, 0, 0, 1, 1, 1, 1], [0, 1, 1, 0, 1, 0, 1]])
    with torch.no_grad():
        alone = model(items).hidden[0]
        together = model(torch.tensor([right, left, gap]), mask).hidden
        only_right = model(torch.tensor([right]), mask[:1]).hidden
    assert together.isfinite().all()
    for row in range(3):
        torch.testing.assert_close(together[row][mask[row].bool()], alone)
    torch.testing.assert_close(only_right[0, :4], alone)


@pytest.mark.parametrize("fields", VARIANTS, ids=name)
def test_the_loss_is_the_same_on_both_sides(fields):
    model = small(**fields)
    items, labels = torch.tensor([[3, 1, 4], [2, 7, 7]]), torch.tensor([[1, 4, 2], [7, IGNORE, 0]])
    pad, ignored = torch.full((2, 2), 9), torch.full((2, 2), IGNORE)
    mask = torch.tensor([[0, 0, 1, 1, 1]] * 2)
    left = model(torch.cat([pad, items], 1), mask, labels=torch.cat([ignored, labels], 1)).loss
    right = model(torch.cat([items, pad], 1), mask.flip(1), labels=torch.cat([labels, ignored], 1)).loss
    torch.testing.assert_close(left, model(items, labels=labels).loss)
    torch.testing.assert_close(right, left)


@pytest.mark.parametrize("fields", VARIANTS, ids=name)
def test_a_prefix_alone_has_the_state_that_it_has_inside(fields):
    """What a cache of keys and values would have to give: states do not depend on what comes later."""
    model = small(**fields)
    items = torch.tensor([[3, 1, 4, 5, 2]])
    with torch.no_grad():
        whole = model(items).hidden
        for length in range(1, 6):
            torch.testing.assert_close(model(items[:, :length]).hidden, whole[:, :length])


def test_there_is_no_cache_to_go_wrong():
    model = small()
    assert not model.can_generate()
    with pytest.raises(TypeError, match="past_key_values"):
        model(torch.tensor([[1]]), past_key_values=None)


def test_given_positions_are_used():
    model = small(max_history=9)
    items, places = torch.tensor([[3, 1]]), torch.tensor([[4, 6]])
    with torch.no_grad():
        found = model(items, position_ids=places).hidden
        table = model.positions.weight.clone()
        model.positions.weight[:2] = table[[4, 6]]
        expected = model(items).hidden
    torch.testing.assert_close(found, expected)


def test_rotary_attention_sees_distances_only():
    """States do not change when a whole history moves, and change when a distance does."""
    model = small(positions="rope")
    items = torch.tensor([[3, 1, 4]])
    with torch.no_grad():
        first, moved, apart = (
            model(items, position_ids=torch.tensor([places])).hidden for places in ([0, 1, 2], [40, 41, 42], [0, 1, 5])
        )
    torch.testing.assert_close(first, moved, rtol=1e-3, atol=1e-4)
    assert not torch.allclose(first, apart, atol=1e-2)


def test_rotary_angles_by_hand():
    """Width 4, base 100: dimensions (0, 2) turn by the place, (1, 3) by a tenth of it; float32 whatever the weights."""
    model = small(positions="rope", rope_theta=100.0, num_heads=2).to(torch.bfloat16)
    cosines, sines = model._turn(torch.tensor([[0, 3]]))
    assert cosines.dtype == torch.float32
    torch.testing.assert_close(cosines[0, 0], torch.tensor([[1.0, 1.0], [math.cos(3), math.cos(0.3)]]))
    torch.testing.assert_close(sines[0, 0], torch.tensor([[0.0, 0.0], [math.sin(3), math.sin(0.3)]]))


@pytest.mark.parametrize("positions", ["learned", "rope"])
def test_histories_beyond_the_table_of_positions(positions):
    """A table has an end, which padding does not reach; rotary positions have none."""
    model = small(positions=positions, max_history=3)
    items = torch.tensor([[1, 2, 3, 4]])
    with torch.no_grad():
        padded = model(items, torch.tensor([[1, 1, 1, 0]])).hidden[:, :3]
        torch.testing.assert_close(padded, model(items[:, :3]).hidden)
        if positions == "rope":
            assert model(items).hidden.isfinite().all()
            return
        with pytest.raises(DataError, match="a history has 4 items and there are 3 learned positions"):
            model(items)


# --- tables and files --------------------------------------------------------------------------------------


def test_an_untied_model_scores_by_its_own_table():
    model = small(tied=False, special_rows=2)
    assert model.items.weight.shape == (14, 8)
    with torch.no_grad():
        scores = model.scores(torch.tensor([[3, 1]]), torch.tensor([2]))
        expected = model(torch.tensor([[3, 1]])).hidden[0, 1] @ model.outputs.weight.T
    torch.testing.assert_close(scores[0], expected)


def test_begin_is_an_item_before_the_history():
    """The same as a model without it whose histories start with the special row."""
    model, plain = small(special_rows=3, begin=True, max_history=4), small(num_items=15, max_history=5)
    state = model.state_dict()
    plain.load_state_dict(state | {"popularity": torch.zeros(15)})
    items = torch.tensor([[3, 1, 4]])
    with torch.no_grad():
        expected = plain(F.pad(items, (1, 0), value=12)).hidden[:, 1:]
        torch.testing.assert_close(model(items).hidden, expected)


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
    fields = recipe.recommender.model_dump(exclude={"kind"})
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


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"positions": "rope", "hidden_size": 6, "num_heads": 2}, "a head has 3"),
        ({"experts_per_item": 5}, "experts_per_item 5 of num_experts 4"),
        ({"begin": True}, "set special_rows to 1 or more"),
        ({"objective": {"kind": "gbce", "negatives": "in_batch"}}, "uniform negatives"),
    ],
)
def test_settings_that_do_not_fit_are_refused(fields, message):
    with pytest.raises(ConfigError, match=message):
        SASRec(**fields)


# --- killed and resumed ------------------------------------------------------------------------------------


class KilledError(Exception):
    pass


@pytest.mark.parametrize("objective", [{"kind": "sampled_softmax"}, {"kind": "gbce", "num_negatives": 4}], ids=name)
def test_a_resumed_training_draws_the_same_negatives(tmp_path, monkeypatch, objective):
    monkeypatch.setattr(watch, "CHECKPOINT_SECONDS", 0.0)
    training = TrainingConfig(max_epochs=3, batch_size=16, validate_every=2)

    def fit(folder, kill_at=0, **other):
        calls = []

        def validate(recommender):
            calls.append(1)
            if len(calls) == kill_at:
                raise KilledError
            return {"metric": float(len(calls))}

        sasrec = SASRec(hidden_size=8, feed_forward="moe", objective=objective, **other)
        sasrec.fit(DATASET, training, RunSettings(device="cpu", scratch=folder), validate=validate)
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
