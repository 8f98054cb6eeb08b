"""Recipes: everything a method decides, in one checked object; and its text with every field explained.

A recipe file holds differences from the defaults. It may start from another one (`extends`, one
level; a file is sought beside the recipe). Seeds, devices and paths are no part of it.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, SerializeAsAny

from sidrec.algorithms.base import AlgorithmConfig
from sidrec.artifact import open_artifact
from sidrec.config import Config, build, load_yaml, merge, parse, part_class, slot, with_overrides
from sidrec.data.dataset import PartName
from sidrec.data.preparation import PrepareConfig
from sidrec.errors import ArtifactError, ConfigError
from sidrec.evaluation.protocol import Protocol
from sidrec.recipes import SUFFIXES, read
from sidrec.recommenders.base import RecommenderConfig
from sidrec.registry import kinds_text
from sidrec.stages.expected import Band
from sidrec.stages.layout import RunFolder
from sidrec.training.config import TrainingConfig
from sidrec.types import Json

__all__ = [
    "Recipe",
    "load_recipe",
    "needs_item_embeddings",
    "needs_semantic_ids",
    "part_config",
    "protocol_for",
    "show_recipe",
]


class Recipe(Config):
    """One method, from item content to evaluation."""

    description: str = ""
    """What this recipe is, one sentence."""
    extends: str = ""
    """Recipe that this one starts from: a name or a file; resolved when the recipe is read."""
    data: PrepareConfig | None = None
    """How raw data become a dataset; without it the run's dataset must stand already."""
    embeddings: Annotated[
        SerializeAsAny[Config],
        slot("embedder"),
        Field(description=f"How items become vectors: {kinds_text('embedder')}."),
    ] = "tfidf"  # type: ignore[assignment]  # The slot makes a Config of the name.
    collaborative: Annotated[
        SerializeAsAny[Config] | None,
        slot("embedder"),
        Field(description="Second vectors of the items, learnt from what users did, for tokenizers that want them."),
    ] = None
    tokenizer: Annotated[
        SerializeAsAny[Config],
        slot("tokenizer"),
        Field(description=f"How items become semantic IDs: {kinds_text('tokenizer')}."),
    ] = "auto"  # type: ignore[assignment]  # As above.
    recommender: Annotated[
        SerializeAsAny[RecommenderConfig],
        slot("recommender"),
        Field(description=f"What learns to recommend: {kinds_text('recommender')}."),
    ]
    training: TrainingConfig = TrainingConfig()
    """How long it learns and which checkpoint is kept."""
    algorithm: Annotated[
        SerializeAsAny[AlgorithmConfig] | None,
        slot("algorithm"),
        Field(
            description=f"How the trained recommender is tuned afterwards: {kinds_text('algorithm')}, or not at all."
        ),
    ] = None
    evaluation: Protocol = Protocol()
    """How it is scored, when checkpoints are chosen and at the end."""
    expected: tuple[Band, ...] = ()
    """What the test part is expected to give on known data; `sidrec run` says whether it does. Left out of a recipe
    that starts from this one, and where settings other than those of `data` are laid over this one."""


def needs_semantic_ids(recipe: Recipe) -> bool:
    """Whether the recipe's recommender reads semantic IDs."""
    return build("recommender", recipe.recommender).needs_semantic_ids


def needs_item_embeddings(recipe: Recipe) -> bool:
    """Whether the recipe's recommender itself starts from vectors of the items."""
    return build("recommender", recipe.recommender).needs_item_embeddings


def load_recipe(name_or_path: str, overrides: Iterable[str] = (), extra: Mapping[str, Any] | None = None) -> Recipe:
    """Read, complete and check a recipe.

    Args:
        name_or_path: the name of a recipe of the package, or a YAML file.
        overrides: `key.path=value` settings laid over it. Its bands do not outlast others than those of `data`.
        extra: settings laid over it before the overrides.

    Raises:
        ConfigError: no such recipe, or mistakes in it: all of them, one line each, with key paths.
    """
    data, where = read(name_or_path)
    base = str(data.pop("extends", ""))
    if base:
        if base.endswith(SUFFIXES) and name_or_path.endswith(SUFFIXES):
            base = str(Path(name_or_path).parent / base)
        data = merge(_base_of(base, where), data)
    defaults = {name: Recipe.model_fields[name].default for name in ("embeddings", "tokenizer")}
    settings = list(overrides)
    if not _slots(settings) <= {"data"}:
        # What a recipe reaches says nothing of it under other settings; those of the data are told by the dataset.
        data.pop("expected", None)
    data = with_overrides(merge(merge(defaults, data), extra or {}), settings)
    return parse(Recipe, data, where=where + (" with settings of the command line" if settings else ""))


def _slots(settings: Iterable[str]) -> set[str]:
    """The fields of a recipe that settings change.

    >>> sorted(_slots(["training.optimizer.lr=1", "tokenizer=given", "training.seed=0"]))
    ['tokenizer', 'training']
    """
    return {text.partition("=")[0].partition(".")[0] for text in settings}


def _base_of(name: str, where: str) -> dict[str, Any]:
    data, base_where = read(name)
    if data.get("extends"):
        raise ConfigError(
            f"extends: {base_where} itself extends '{data['extends']}'; one level is allowed",
            where=where,
            next="name the first of them and repeat the differences here",
        )
    # What one recipe reaches says nothing of another one that starts from it.
    data.pop("expected", None)
    return data


def part_config(family: str, kind: str, overrides: Iterable[str]) -> Config:
    """The checked configuration of one part, for stages that are run alone.

    Settings may be written as in a recipe, where they stand under the part: `tokenizer.levels=4` or `levels=4`.

    Raises:
        ConfigError: no such kind, or wrong settings.
    """
    slot_name = {"embedder": "embeddings"}.get(family, family)
    fields = with_overrides({"kind": kind}, [text.removeprefix(f"{slot_name}.") for text in overrides])
    part = part_class(family, str(fields["kind"]))
    return parse(part.Config, fields, where="settings of the command line")


def protocol_for(recommender: Path, part: PartName, overrides: Iterable[str]) -> Protocol:
    """The rules for scoring a recommender: those of its last evaluation on the part, with settings laid over them.

    Where it has not been scored, the defaults are the ground; settings of the search are laid over its own.

    Raises:
        ConfigError: wrong settings.
    """
    home = recommender.absolute()
    known: Json = {}
    with suppress(ArtifactError):
        known = open_artifact(RunFolder(home.parent.parent).evaluation(home.name, part), "evaluation").config[
            "protocol"
        ]
    settings = list(overrides)
    if any(text.startswith("search.") for text in settings) and not known.get("search"):
        own = open_artifact(recommender, "recommender").config["recommender"].get("search")
        known = known | ({"search": own} if own else {})
    return parse(Protocol, with_overrides(known, settings), where="settings of the command line")


def show_recipe(recipe: Recipe) -> str:
    """The recipe as YAML with every field written out and explained; it reads back as the same recipe."""
    return "\n".join(_lines(recipe, 0, skip=("extends",))) + "\n"


def _lines(config: Config, depth: int, skip: tuple[str, ...] = ()) -> Iterator[str]:
    indent = "  " * depth
    for name, field in type(config).model_fields.items():
        if name in skip:
            continue
        if depth == 0:
            yield ""
        yield from (f"{indent}# {line.strip()}" for line in (field.description or "").splitlines())
        value = getattr(config, name)
        if isinstance(value, Config):
            yield f"{indent}{name}:"
            yield from _lines(value, depth + 1)
        else:
            yield f"{indent}{name}: {_scalar(config.model_dump(mode='json')[name])}"


def _scalar(value: Any) -> str:
    """A value on one line; text stays bare where YAML reads it back as the same text.

    >>> _scalar("tiger"), _scalar("true"), _scalar([5, 10])
    ('tiger', '"true"', '[5, 10]')
    """
    is_bare = isinstance(value, str) and re.fullmatch(r"[A-Za-z][\w./ -]*", value) and load_yaml(value) == value
    return value if is_bare else json.dumps(value, ensure_ascii=False)
