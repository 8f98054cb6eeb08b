"""The walls of the house: registry, recipes, file sizes, documentation. What imports do is in `test_imports`."""

import ast
import re
from pathlib import Path

import pytest

from sidrec.config import Config
from sidrec.registry import REGISTRY, load_class

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "sidrec"
MODULES = sorted(SOURCE.rglob("*.py"))
KINDS = [(family, kind) for family, kinds in REGISTRY.items() for kind in kinds]
RECIPES = sorted((SOURCE / "recipes").rglob("*.yaml"))

MAX_LINES = 400


@pytest.mark.parametrize(("family", "kind"), KINDS)
def test_every_kind_resolves_and_names_itself(family: str, kind: str) -> None:
    part = load_class(family, kind)
    assert issubclass(part.Config, Config)
    assert part.Config.model_fields["kind"].default == kind
    assert part.__doc__, f"{part} has no docstring"
    undocumented = [
        name for name, field in part.Config.model_fields.items() if name != "kind" and not field.description
    ]
    assert not undocumented, f"{part.__name__}.Config: fields without a docstring"


def test_there_is_a_recipe_for_every_recommender() -> None:
    assert {path.stem for path in RECIPES} >= set(REGISTRY["recommender"])


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_checks_and_is_documented(path: Path) -> None:
    from sidrec.stages.recipe import load_recipe

    assert load_recipe(path.stem, []) is not None
    pages = "".join(page.read_text(encoding="utf-8") for page in (ROOT / "docs" / "methods").glob("*.md"))
    assert f'--8<-- "{path.name}"' in pages, f"no page under docs/methods shows {path.name}"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_modules_are_rooms_not_halls(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= MAX_LINES
    assert ast.get_docstring(ast.parse(text)), "a module says what it is"


def test_column_names_are_written_once() -> None:
    strings = re.compile(r"""["'](user_id|item_id|timestamp)["']""")
    readers = SOURCE / "data" / "readers"
    offenders = [
        f"{path.relative_to(SOURCE)}:{number}"
        for path in MODULES
        if path.name != "columns.py" and readers not in path.parents
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        if strings.search(line) and ">>>" not in line
    ]
    assert not offenders, "use sidrec.data.columns.Columns"
