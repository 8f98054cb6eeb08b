"""The recipes that come with the package, found by name. Reading only; checking is `stages.recipe`."""

import re
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from sidrec.config import load_yaml
from sidrec.errors import ConfigError, nearest

__all__ = ["SUFFIXES", "descriptions", "label", "read", "recipe_names", "recipe_text"]

SUFFIXES = (".yaml", ".yml")


def recipe_names() -> list[str]:
    """Names of the recipes in the package, sorted."""
    return sorted(file.name.removesuffix(".yaml") for file in files(__name__).iterdir() if file.name.endswith(".yaml"))


def recipe_text(name: str) -> str:
    """The YAML text of a recipe in the package, as it was written.

    Raises:
        ConfigError: there is none of that name.
    """
    if name not in recipe_names():
        raise ConfigError(
            f"there is no recipe '{name}'; {nearest(name, recipe_names())}",
            next="list them with 'sidrec recipes ls', or give the path of a YAML file",
        )
    return (files(__name__) / f"{name}.yaml").read_text(encoding="utf-8")


def descriptions() -> dict[str, str]:
    """Recipe name → what its author says about it."""
    return {name: str(read(name)[0].get("description", "")) for name in recipe_names()}


def label(name_or_path: str) -> str:
    """What the recommender of a recipe is called unless another name is given: the recipe's name, or its file's.

    >>> label("rqvae-warm"), label("runs/my recipe.yaml")
    ('rqvae-warm', 'my-recipe')
    """
    stem = Path(name_or_path).stem if name_or_path.endswith(SUFFIXES) else name_or_path
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", stem).lstrip("-._") or "recipe"


def read(name_or_path: str) -> tuple[dict[str, Any], str]:
    """The raw settings of a recipe and where they stand; nothing is checked but that it is a mapping.

    Args:
        name_or_path: a name of `recipe_names`, or the path of a YAML file (it ends in .yaml or .yml).

    Raises:
        ConfigError: there is no such recipe, or it is not a YAML mapping.
    """
    if name_or_path.endswith(SUFFIXES):
        where = name_or_path
        text = _file_text(Path(name_or_path))
    else:
        where = f"recipe '{name_or_path}'"
        text = recipe_text(name_or_path)
    data = load_yaml(text, where=where)
    if not isinstance(data, Mapping):
        raise ConfigError("a recipe is a mapping of settings", where=where, next="see 'sidrec recipes show tiger'")
    return {str(key): value for key, value in data.items()}, where


def _file_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"the recipe file cannot be read: {error}",
            where=str(path),
            next="give a name of 'sidrec recipes ls' or the path of a YAML file",
        ) from error
