"""Recipes: differences, one level of extending, and text that reads back."""

from pathlib import Path

import pytest

from sidrec.config import load_yaml
from sidrec.errors import ConfigError
from sidrec.recipes import descriptions, recipe_names
from sidrec.registry import REGISTRY
from sidrec.stages.recipe import load_recipe, needs_semantic_ids, part_config, show_recipe


@pytest.mark.parametrize("name", recipe_names())
def test_shown_recipes_read_back_as_the_same_recipe(name: str, tmp_path: Path) -> None:
    recipe = load_recipe(name)
    file = tmp_path / "shown.yaml"
    file.write_text(show_recipe(recipe), encoding="utf-8")
    assert load_recipe(str(file)) == recipe
    assert recipe.description


def test_every_field_is_explained() -> None:
    lines = show_recipe(load_recipe("tiger")).splitlines()
    unexplained = [
        line
        for before, line in zip(["", *lines], lines, strict=False)
        if line and not line.lstrip().startswith("#") and not before.lstrip().startswith("#")
    ]
    assert {line.strip().partition(":")[0] for line in unexplained} <= {"kind"}


def test_every_recipe_has_a_description_of_one_line() -> None:
    assert set(descriptions()) == set(recipe_names())
    assert all(text and "\n" not in text and len(text) < 140 for text in descriptions().values())


def test_extending_keeps_what_is_not_named(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("extends: tiger\nrecommender: {d_model: 64}\ntraining: {optimizer: {lr: 0.01}}\n")
    mine, base = load_recipe(str(file)), load_recipe("tiger")
    expected = base.model_dump()
    expected["recommender"]["d_model"] = 64
    expected["training"]["optimizer"]["lr"] = 0.01
    assert mine.model_dump() == expected


def test_another_kind_replaces_the_part_whole(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("extends: tiger\nrecommender: popularity\ntokenizer: {kind: rqvae}\n")
    recipe = load_recipe(str(file))
    assert recipe.recommender.kind == "popularity"
    assert recipe.tokenizer.model_dump()["kind"] == "rqvae"
    assert not needs_semantic_ids(recipe)
    assert needs_semantic_ids(load_recipe("tiger"))


def test_settings_can_be_laid_over_parts_named_by_their_kind_alone(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("recommender: tiger\ntokenizer: rqkmeans\n")
    recipe = load_recipe(str(file), ["recommender.d_model=32", "tokenizer.levels=2", "embeddings.dims=8"])
    assert recipe.recommender.model_dump()["d_model"] == 32
    assert recipe.tokenizer.model_dump()["levels"] == 2
    assert recipe.embeddings.model_dump()["dims"] == 8


def test_values_are_read_by_the_rules_of_yaml_1_2() -> None:
    recipe = load_recipe("tiger", ["training.optimizer.lr=1e-4", "evaluation.k=[5,10]", "description=no"])
    assert recipe.training.optimizer.lr == 1e-4
    assert recipe.evaluation.k == (5, 10)
    assert recipe.description == "no"
    assert load_yaml(show_recipe(recipe))["description"] == "no"


def test_part_config_checks_kind_and_settings() -> None:
    assert part_config("tokenizer", "rqkmeans", ["levels=4"]).model_dump()["levels"] == 4
    with pytest.raises(ConfigError, match="did you mean 'rqkmeans'"):
        part_config("tokenizer", "rqkmean", [])
    with pytest.raises(ConfigError, match="2 problems"):
        part_config("tokenizer", "rqkmeans", ["levels=0", "levelz=3"])


def test_a_file_to_start_from_is_sought_beside_the_recipe(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "base.yaml").write_text("recommender: {kind: tiger, d_model: 48}\n")
    mine = tmp_path / "deep" / "mine.yaml"
    mine.write_text("extends: base.yaml\nrecommender: {num_layers: 1}\n")
    fields = load_recipe(str(mine)).recommender.model_dump()
    assert (fields["d_model"], fields["num_layers"]) == (48, 1)


def test_fields_name_every_kind_there_is() -> None:
    text = show_recipe(load_recipe("tiger"))
    assert all(kind in text for family in ("embedder", "tokenizer", "recommender") for kind in REGISTRY[family])
