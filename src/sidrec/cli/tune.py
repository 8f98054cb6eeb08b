"""`sidrec tune`: a trained recommender → one that was tuned further, or the same one."""

from typing import Annotated

import typer

from sidrec.cli.options import Device, Force, Json, Name, RunPath, Seed, Settings, Threads
from sidrec.cli.output import print_outcome
from sidrec.cli.session import run_settings

__all__ = ["add_to", "tune"]

READ = ("algorithm", "evaluation")
"""Sections of a recipe that tuning reads."""


def tune(
    recipe: Annotated[str, typer.Argument(help="Recipe with an algorithm, such as sasrec-dpo, or a YAML file.")],
    run: RunPath,
    start: Annotated[str, typer.Option("--from", help="Which recommender of the run to start from; it stays.")],
    settings: Settings = None,
    name: Name = None,
    embeddings: Annotated[str | None, typer.Option("--embeddings", help="Which vectors of the run.")] = None,
    seed: Seed = 0,
    device: Device = "auto",
    threads: Threads = 0,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Tune a recommender of the run by a recipe's algorithm; kept only if it is better on validation users."""
    with run_settings(seed, device, threads) as settings_of_run:
        from sidrec.errors import ConfigError
        from sidrec.stages.layout import RunFolder
        from sidrec.stages.recipe import load_recipe
        from sidrec.stages.tune import tune as stage

        unread = [text for text in settings or [] if text.split("=")[0].split(".")[0] not in READ]
        if unread:
            raise ConfigError(
                f"{unread[0]}: tuning reads {' and '.join(READ)} alone; the recommender is what --from names",
                next="set how it is tuned under algorithm, such as algorithm.training.max_epochs=1",
            )
        checked = load_recipe(recipe, settings or [])
        result = stage(
            RunFolder(run), checked, settings_of_run, start=start, name=name, force=force, embeddings=embeddings
        )
    print_outcome("tune", result, as_json=as_json)


def add_to(app: typer.Typer) -> None:
    """Register the verb."""
    app.command()(tune)
