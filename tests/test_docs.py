"""Every command that README and guides show is a command that exists, with settings that exist."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer

from sidrec.cli.main import app
from sidrec.config import parse, with_overrides
from sidrec.data.preparation import PrepareConfig
from sidrec.embeddings.enrich.config import EnrichConfig
from sidrec.evaluation.protocol import Protocol
from sidrec.recipes import recipe_names
from sidrec.stages.recipe import load_recipe, part_config

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def commands() -> list[tuple[str, str]]:
    """(page, command) of every `sidrec …` line in a bash block, also behind `torchrun`, continued lines joined."""
    found: list[tuple[str, str]] = []
    for page in PAGES:
        for block in re.findall(r"```bash\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL):
            joined = block.replace("\\\n", " ")
            lines = re.sub(r"^torchrun .* -m (?:-- )?(?=sidrec )", "", joined, flags=re.MULTILINE).splitlines()
            found += [(page.name, line) for line in lines if line.startswith("sidrec ")]
    return found


def parsed(command: str) -> tuple[str, dict[str, Any]]:
    """Verb and arguments of a command line; unknown verbs and options raise."""
    group: Any = typer.main.get_command(app)
    words = shlex.split(command, comments=True)[1:]
    verb = group.commands[words[0]]
    if hasattr(verb, "commands"):
        verb, words = verb.commands[words[1]], words[1:]
    return words[0], verb.make_context(words[0], words[1:]).params


@pytest.mark.parametrize(("page", "command"), commands(), ids=lambda text: text[:60])
def test_documented_commands_exist(page: str, command: str) -> None:
    verb, given = parsed(command)
    settings = given.get("settings") or []
    if verb in ("run", "train", "tune") and given["recipe"] in recipe_names():
        load_recipe(given["recipe"], settings)
    elif verb == "prepare":
        parse(PrepareConfig, with_overrides({"reader": {"kind": given["reader"]}}, settings))
    elif verb == "embed":
        part_config("embedder", given["kind"], settings)
    elif verb == "enrich":
        parse(EnrichConfig, with_overrides({}, settings))
    elif verb == "evaluate":
        parse(Protocol, with_overrides({}, settings))


def test_there_are_commands_to_check() -> None:
    assert len(commands()) > 12
    with pytest.raises(Exception, match="No such option"):
        parsed("sidrec compare runs/mine --nonsense 3")
