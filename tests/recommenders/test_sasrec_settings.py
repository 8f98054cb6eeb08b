"""Settings of SASRec and of its network: what fits together, what is refused, and that both know the same."""

from pathlib import Path

import pytest

from sidrec.config import parse
from sidrec.errors import ConfigError
from sidrec.recommenders.sasrec import SASRec
from sidrec.recommenders.sasrec_layers import SASRecModelConfig
from sidrec.recommenders.sasrec_model import SASRecModel
from sidrec.stages.recipe import load_recipe
from sidrec.training.item_loss import ObjectiveConfig


def test_the_network_has_the_fields_and_defaults_of_the_recommender():
    """Both are written down: one explains them, the other stands in the directory of the weights."""
    ours = {name: field.default for name, field in SASRec.Config.model_fields.items()}
    del ours["kind"], ours["table"]
    objective = ours.pop("objective")
    network = SASRecModelConfig()
    assert network.objective is None
    assert SASRecModel(SASRecModelConfig(hidden_size=2)).objective == objective == ObjectiveConfig()
    own = {"num_items", "objective", "model_type", "bos_token_id", "eos_token_id", "pad_token_id"}
    assert {name for name in vars(SASRecModelConfig) if name in SASRecModelConfig.__annotations__} - own == set(ours)
    assert {name: getattr(network, name) for name in ours} == ours


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"positions": "rope", "hidden_size": 6, "num_heads": 2}, "a head has 3"),
        ({"feed_forward": "moe", "experts_per_item": 5}, "experts_per_item 5 of num_experts 4"),
        ({"feed_forward": "moe", "num_experts": 1}, "experts_per_item 2 of num_experts 1"),
        ({"begin": True}, "set special_rows to 1 or more"),
        ({"objective": {"kind": "gbce", "negatives": "in_batch"}}, "uniform negatives"),
    ],
)
def test_settings_that_do_not_fit_together_are_refused(fields, message):
    with pytest.raises(ConfigError, match=message):
        SASRec(**fields)


IGNORED = [
    ("feed_forward", "dense", {"num_experts": 1}, "moe"),
    ("feed_forward", "gated", {"expert": "gated"}, "moe"),
    ("feed_forward", "dense", {"experts_per_item": 1}, "moe"),
    ("feed_forward", "dense", {"shared_expert": True}, "moe"),
    ("feed_forward", "gated", {"balance_weight": 0.1}, "moe"),
    ("positions", "learned", {"rope_theta": 100.0}, "rope"),
]


@pytest.mark.parametrize(("slot", "value", "fields", "reader"), IGNORED)
def test_settings_that_a_slot_does_not_read_are_refused(slot, value, fields, reader):
    (name,) = fields
    with pytest.raises(ConfigError, match=f"{name} is for {slot} {reader}, not for {value}"):
        SASRec(**{slot: value}, **fields)


def test_what_reads_a_setting_takes_it():
    experts = SASRec(feed_forward="moe", expert="gated", num_experts=1, experts_per_item=1, shared_expert=True)
    assert experts.config.num_experts == 1
    assert SASRec(positions="rope", rope_theta=100.0).config.rope_theta == 100


@pytest.mark.parametrize("feed_forward", ["dense", "gated", "moe"])
def test_saved_settings_hold_all_fields_and_are_read(feed_forward):
    config = SASRec.Config(feed_forward=feed_forward)
    assert parse(SASRec.Config, config.model_dump(mode="json")) == config


RECIPES = sorted(path.stem for path in Path(load_recipe.__code__.co_filename).parents[1].glob("recipes/sasrec*.yaml"))


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_slot_of_a_recipe_can_be_changed_on_the_command_line(recipe):
    sweeps = {
        "positions": ("learned", "rope"),
        "feed_forward": ("dense", "gated", "moe"),
        "objective.kind": ("full_softmax", "sampled_softmax", "bce", "gbce"),
    }
    for slot, values in sweeps.items():
        for value in values:
            load_recipe(recipe, [f"recommender.{slot}={value}"])


@pytest.mark.parametrize(
    ("slot", "choices"),
    [
        ("positions", "learned or rope"),
        ("feed_forward", "dense or gated or moe"),
        ("activation", "gelu or relu or silu"),
        ("norm_place", "pre or post"),
        ("attention_norm", "layer or rms"),
        ("feed_norm", "layer or rms"),
        ("final_norm", "layer or rms"),
    ],
)
def test_a_network_of_something_that_there_is_not_is_refused(slot, choices):
    with pytest.raises(ConfigError, match=rf"{slot}: there is no 'absolute'[\s\S]*choose {choices}"):
        SASRecModel(SASRecModelConfig(hidden_size=8, **{slot: "absolute"}))


def test_experts_of_something_that_there_is_not_are_refused():
    with pytest.raises(ConfigError, match=r"expert: there is no 'moe'[\s\S]*dense or gated"):
        SASRecModel(SASRecModelConfig(hidden_size=8, feed_forward="moe", expert="moe"))
