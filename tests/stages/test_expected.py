"""Bands are applied to the data and rules that they belong to, and to nothing else."""

import json
from pathlib import Path

import pytest

from sidrec.config import parse
from sidrec.errors import ConfigError
from sidrec.evaluation.protocol import Protocol
from sidrec.recipes import recipe_names
from sidrec.stages.expected import Band, verdicts
from sidrec.stages.recipe import load_recipe, show_recipe

FIELDS = {
    "dataset": "Beauty",
    "users": 10,
    "items": 20,
    "interactions": 100,
    "exclude_seen": False,
    "metrics": {"hit@10": [0.08, 0.09], "ndcg@10": [0.04, 0.05]},
    "source": "own runs, three seeds",
}
BAND = parse(Band, FIELDS)
DATASET = {"users": 10, "items": 20, "interactions": 100, "split": "leave-one-out"}
RULES = Protocol(exclude_seen=False)


@pytest.mark.parametrize(
    ("value", "place"),
    [(0.0799, "below"), (0.08, "inside"), (0.09, "inside"), (0.0901, "above"), (None, "not measured")],
)
def test_the_ends_of_a_band_belong_to_it(value: float | None, place: str) -> None:
    scores = {"ndcg@10": 0.045} | ({} if value is None else {"hit@10": value})
    first, second = verdicts([BAND], RULES, DATASET, scores)
    assert (first.metric, first.place, second.place) == ("hit@10", place, "inside")
    assert first.as_json()["place"] == place
    assert "Beauty" in str(first)
    assert "own runs" in str(first)


@pytest.mark.parametrize("key", ["users", "items", "interactions"])
def test_other_data_have_no_band(key: str) -> None:
    assert not verdicts([BAND], RULES, DATASET | {key: 11}, {"hit@10": 0.08})


def test_another_split_has_no_band_but_its_own() -> None:
    temporal = DATASET | {"split": "time-ratio (train 0.8, valid 0.1)"}
    assert not verdicts([BAND], RULES, temporal, {"hit@10": 0.08})
    own = parse(Band, FIELDS | {"split": temporal["split"]})
    assert len(verdicts([BAND, own], RULES, temporal, {"hit@10": 0.08})) == 2


def test_other_rules_have_no_band() -> None:
    assert not verdicts([BAND], Protocol(), DATASET, {"hit@10": 0.08})
    assert not verdicts([BAND], Protocol(exclude_seen=False, ties="listed"), DATASET, {"hit@10": 0.08})
    assert not verdicts([BAND], Protocol(exclude_seen=False, max_users=5), DATASET, {"hit@10": 0.08})


def test_a_band_upside_down_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"hit@10 runs from 0.09 down to 0.08"):
        parse(Band, FIELDS | {"metrics": {"hit@10": [0.09, 0.08]}})


def test_a_recipe_does_not_take_over_the_bands_of_the_one_it_starts_from(tmp_path: Path) -> None:
    base, mine = tmp_path / "base.yaml", tmp_path / "mine.yaml"
    base.write_text(f"recommender: sasrec\nexpected: [{FIELDS}]\n")
    mine.write_text("extends: base.yaml\n")
    recipe = load_recipe(str(base))
    assert recipe.expected == (BAND,)
    assert not load_recipe(str(mine)).expected
    shown = tmp_path / "shown.yaml"
    shown.write_text(show_recipe(recipe))
    assert load_recipe(str(shown)) == recipe


@pytest.mark.parametrize(
    ("settings", "is_kept"),
    [
        ([], True),
        (["data.reader.kind=letter", "data.min_length=3"], True),
        (["training.max_epochs=1"], False),
        (["recommender.dropout=0.1", "data.reader.kind=letter"], False),
        (["evaluation.primary=hit@10"], False),
    ],
)
def test_bands_do_not_outlast_other_settings(settings: list[str], is_kept: bool) -> None:
    assert bool(load_recipe("sasrec-amazon", settings).expected) is is_kept


def test_bands_of_the_command_line_count() -> None:
    settings = ["training.max_epochs=1", f"expected=[{json.dumps(FIELDS)}]"]
    assert load_recipe("sasrec-amazon", settings).expected == (BAND,)


@pytest.mark.parametrize("name", [name for name in recipe_names() if load_recipe(name).expected])
def test_bands_of_recipes_can_apply(name: str) -> None:
    recipe = load_recipe(name)
    for band in recipe.expected:
        data = band.model_dump(include={"users", "items", "interactions", "split"})
        assert {verdict.dataset for verdict in verdicts(recipe.expected, recipe.evaluation, data, {})} == {band.dataset}
        assert set(band.metrics) <= set(recipe.evaluation.names)


@pytest.mark.parametrize(
    ("data", "scores", "places"),
    [
        ((22363, 12101, 198502), {"hit@10": 0.0645, "ndcg@10": 0.0364}, ["inside", "inside"]),
        ((22363, 12101, 198502), {"hit@10": 0.0610, "ndcg@10": 0.0405}, ["below", "above"]),
        ((24772, 9922, 206153), {"hit@10": 0.1122, "ndcg@10": 0.0831}, ["inside", "inside"]),
        ((24772, 9922, 206153), {"hit@10": 0.1058, "ndcg@10": 0.0797}, ["below", "below"]),
    ],
)
def test_published_figures_lie_in_the_bands_of_letter_tiger_and_those_of_tiger_do_not(
    data: tuple[int, int, int], scores: dict[str, float], places: list[str]
) -> None:
    recipe = load_recipe("letter-tiger-published")
    counts = DATASET | dict(zip(("users", "items", "interactions"), data, strict=True))
    found = verdicts(recipe.expected, recipe.evaluation, counts, scores)
    assert [verdict.place for verdict in found] == places
    assert all("table of LETTER" in str(verdict) for verdict in found)


def test_the_published_letter_tiger_has_the_settings_of_the_released_scripts() -> None:
    recipe = load_recipe("letter-tiger-published")
    training, optimizer = recipe.training, recipe.training.optimizer
    assert (optimizer.lr, optimizer.weight_decay, optimizer.warmup_ratio, optimizer.schedule) == (
        5e-4, 0.01, 0.01, "cosine",
    )  # fmt: skip
    assert (training.batch_size, training.max_epochs, training.patience, training.precision) == (1024, 200, 20, "fp32")
    assert (training.select, training.validate_users) == ("loss", 0)
    search = recipe.recommender.search
    assert (search.beams, search.normalize, recipe.recommender.max_history) == (20, "vocabulary", 20)
    assert max(recipe.evaluation.k) <= search.beams, "a longer list would widen the beams"
    assert recipe.collaborative is None
    assert recipe.tokenizer.kind == "given"
