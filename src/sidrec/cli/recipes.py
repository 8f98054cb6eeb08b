"""`sidrec recipes`: list, show, check and copy recipes."""

from pathlib import Path
from typing import Annotated

import typer

from sidrec.cli.options import Json, Settings
from sidrec.cli.output import note, print_json, print_table

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True, help="List, show, check and copy recipes.")
RecipeName = Annotated[str, typer.Argument(help="Name of a recipe, or a YAML file.")]


@app.command()
def ls(as_json: Json = False) -> None:
    """List the recipes that come with the package."""
    from sidrec.recipes import descriptions

    if as_json:
        print_json(descriptions())
    else:
        print_table(("recipe", "what it is"), descriptions().items())


@app.command()
def show(name: RecipeName, settings: Settings = None) -> None:
    """Print a recipe with every setting written out and explained."""
    from sidrec.stages.recipe import load_recipe, show_recipe

    typer.echo(show_recipe(load_recipe(name, settings or [])), nl=False)


@app.command()
def check(name: RecipeName, settings: Settings = None) -> None:
    """Check a recipe; all mistakes are reported at once."""
    from sidrec.stages.recipe import load_recipe

    load_recipe(name, settings or [])
    note(f"{name}: no mistakes")


@app.command()
def copy(
    name: RecipeName,
    target: Annotated[Path, typer.Argument(help="File to write.", dir_okay=False)],
    force: Annotated[bool, typer.Option("--force", help="Replace the file if it exists.")] = False,
) -> None:
    """Copy a recipe into a file of your own to change it."""
    from sidrec.recipes import recipe_text

    if target.exists() and not force:
        raise typer.BadParameter(f"{target} exists; add --force to replace it")
    target.write_text(recipe_text(name), encoding="utf-8")
    note(f"wrote {target}; run it with 'sidrec run {target} --run RUN'")
