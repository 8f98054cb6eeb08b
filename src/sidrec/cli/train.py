"""`sidrec train`: dataset and semantic IDs → recommender."""

from typing import Annotated

import typer

from sidrec.cli.options import Device, Force, Json, Name, RunPath, Seed, Settings, Threads
from sidrec.cli.output import print_outcome
from sidrec.cli.session import run_settings
from sidrec.recipes import label

__all__ = ["add_to", "train"]


def train(
    recipe: Annotated[str, typer.Argument(help="Name of a recipe, or a YAML file.")],
    run: RunPath,
    settings: Settings = None,
    name: Name = None,
    tokenizer: Annotated[str | None, typer.Option("--tokenizer", help="Which semantic IDs of the run.")] = None,
    embeddings: Annotated[
        str | None,
        typer.Option("--embeddings", help="Which vectors of the run, where the recommender starts from them."),
    ] = None,
    seed: Seed = 0,
    device: Device = "auto",
    threads: Threads = 0,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Train a recipe's recommender on what stands in the run.

    'torchrun … -m -- sidrec train …' shares every batch among processes.
    """
    with run_settings(seed, device, threads, together=True) as settings_of_run:
        from sidrec.stages.layout import RunFolder
        from sidrec.stages.recipe import load_recipe
        from sidrec.stages.train import train as stage

        checked = load_recipe(recipe, settings or [])
        result = stage(
            RunFolder(run),
            checked,
            settings_of_run,
            name=name or label(recipe),
            force=force,
            tokenizer=tokenizer,
            embeddings=embeddings,
        )
    if settings_of_run.team.leads:
        print_outcome("train", result, as_json=as_json)


def add_to(app: typer.Typer) -> None:
    """Register the verb."""
    app.command()(train)
