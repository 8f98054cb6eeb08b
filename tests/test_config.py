"""Configuration: every mistake at once, with its key path and the nearest known name."""

from typing import Annotated, Literal

import pytest
from pydantic import Field, SerializeAsAny

from sidrec.config import Config, build, kind_of, load_yaml, merge, parse, slot, with_overrides
from sidrec.data.split import LeaveOneOut, TimeRatio
from sidrec.errors import ConfigError


class Inner(Config):
    rate: float = Field(default=0.1, gt=0)
    """How fast."""


class Outer(Config):
    kind: Literal["outer"] = "outer"
    inner: Inner = Inner()
    split: Annotated[SerializeAsAny[Config], slot("split")] = "leave-one-out"  # type: ignore[assignment]


def test_three_mistakes_are_reported_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        parse(Outer, {"inner": {"rate": -1, "rat": 2}, "sed": 3}, where="recipe.yaml")
    text = "\n".join(caught.value.problems)
    assert len(caught.value.problems) == 3
    assert "inner.rate: input should be greater than 0, got -1" in text
    assert "inner.rat: unknown key; did you mean 'rate'? available: rate" in text
    assert "sed: unknown key" in text
    assert "recipe.yaml" in str(caught.value)
    assert caught.value.exit_code == 2


def test_mistakes_inside_a_slot_carry_the_slots_path() -> None:
    with pytest.raises(ConfigError) as caught:
        parse(Outer, {"split": {"kind": "leave-one-out", "nonsense": 1}, "inner": 3})
    assert any(line.startswith("split.nonsense: unknown key") for line in caught.value.problems)
    assert any(line.startswith("inner: ") for line in caught.value.problems)


def test_unknown_kind_lists_what_exists() -> None:
    with pytest.raises(ConfigError, match=r"split: no split of kind 'leave-one'.*did you mean 'leave-one-out'"):
        parse(Outer, {"split": "leave-one"})


def test_slot_without_kind_is_refused() -> None:
    with pytest.raises(ConfigError, match="split: 'kind' is missing"):
        parse(Outer, {"split": {"ratio": 1}})


def test_yaml_reads_like_version_1_2() -> None:
    assert load_yaml("{a: 1e-4, b: no, c: on, d: .5, e: 2024-01-01, f: true, g: 12, h: 1.5e+3}") == {
        "a": 1e-4,
        "b": "no",
        "c": "on",
        "d": 0.5,
        "e": "2024-01-01",
        "f": True,
        "g": 12,
        "h": 1500.0,
    }
    with pytest.raises(ConfigError, match="not valid YAML"):
        load_yaml("{a: ", where="x.yaml")


def test_yaml_does_not_build_objects() -> None:
    with pytest.raises(ConfigError, match="could not determine a constructor"):
        load_yaml("!!python/object/apply:os.system ['true']")


def test_overrides_reach_any_depth_and_replace_a_slot_whose_kind_changes() -> None:
    data = {"recommender": {"kind": "tiger", "d_model": 64}, "training": {"max_steps": 1}}
    changed = with_overrides(data, ["training.max_steps=20", "recommender.kind=sasrec", "new.key.path=[1, 2]"])
    assert changed == {
        "recommender": {"kind": "sasrec"},
        "training": {"max_steps": 20},
        "new": {"key": {"path": [1, 2]}},
    }
    assert data["training"] == {"max_steps": 1}, "the input must not change"


@pytest.mark.parametrize("order", [1, -1])
def test_what_names_a_part_comes_first_whatever_the_order(order: int) -> None:
    overrides = ["embeddings.kind=text", "embeddings.model=/m", "tokenizer=rqvae", "tokenizer.epochs=5"]
    changed = with_overrides({"embeddings": "tfidf", "tokenizer": {"kind": "auto", "levels": 2}}, overrides[::order])
    assert changed == {"embeddings": {"kind": "text", "model": "/m"}, "tokenizer": {"kind": "rqvae", "epochs": 5}}


def test_a_part_named_by_its_kind_alone_takes_settings_at_any_depth() -> None:
    data = {"data": {"reader": "letter"}, "tokenizer": {"kind": "rqvae", "collisions": "sinkhorn_reassign"}}
    changed = with_overrides(data, ["data.reader.index_file=none", "tokenizer.collisions.rounds=3"])
    assert changed["data"] == {"reader": {"kind": "letter", "index_file": "none"}}
    assert changed["tokenizer"]["collisions"] == {"kind": "sinkhorn_reassign", "rounds": 3}


@pytest.mark.parametrize("kind", ["os.path:join", "sidrec.config:Config", "sidrec.config:Part", ":X", "..a:B", "os:"])
def test_what_is_no_part_is_refused(kind: str) -> None:
    with pytest.raises(ConfigError, match=r"split: (split '.*' is no class derived|cannot import split)"):
        parse(Outer, {"split": kind})


def test_a_key_that_stands_twice_is_reported() -> None:
    with pytest.raises(ConfigError, match=r"the key 'b' stands twice[\s\S]*line 3"):
        load_yaml("a:\n  b: 1\n  b: 2\n")


def test_build_makes_the_part_and_a_part_takes_no_other_config() -> None:
    part = build("split", LeaveOneOut.Config())
    assert isinstance(part, LeaveOneOut)
    assert kind_of(part.config) == "leave-one-out"
    with pytest.raises(TypeError, match=r"LeaveOneOut takes its own Config, not TimeRatio\.Config"):
        LeaveOneOut(TimeRatio.Config())


@pytest.mark.parametrize("text", ["training.max_steps", "=3"])
def test_malformed_overrides_are_named(text: str) -> None:
    with pytest.raises(ConfigError, match=r"is not of the form key.path=value"):
        with_overrides({}, [text])


def test_merge_keeps_what_is_not_named() -> None:
    assert merge({"a": {"x": 1, "y": 2}}, {"a": {"y": 3}}) == {"a": {"x": 1, "y": 3}}


def test_configs_are_frozen() -> None:
    config = Inner()
    with pytest.raises(ValueError, match="frozen"):
        config.rate = 2.0  # type: ignore[misc]
