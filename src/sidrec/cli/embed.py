"""`sidrec embed`: items → vectors."""

from typing import Annotated

import typer

from sidrec.cli.options import Device, Force, Json, Name, RunPath, Seed, Settings, Threads
from sidrec.cli.output import print_outcome
from sidrec.cli.session import run_settings
from sidrec.registry import kinds_text

__all__ = ["add_to", "embed"]


def embed(
    run: RunPath,
    kind: Annotated[str, typer.Option("--kind", help=f"{kinds_text('embedder')}.")] = "tfidf",
    settings: Settings = None,
    name: Name = None,
    seed: Seed = 0,
    device: Device = "auto",
    threads: Threads = 0,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Make one vector an item of the run's dataset."""
    with run_settings(seed, device, threads) as settings_of_run:
        from sidrec.stages.embed import embed as stage
        from sidrec.stages.layout import RunFolder
        from sidrec.stages.recipe import part_config

        config = part_config("embedder", kind, settings or [])
        result = stage(RunFolder(run), config, settings_of_run, name=name, force=force)
    print_outcome("embed", result, as_json=as_json)


def add_to(app: typer.Typer) -> None:
    """Register the verb."""
    app.command()(embed)
