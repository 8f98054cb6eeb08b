"""`sidrec tokenize`: vectors → semantic IDs."""

from typing import Annotated

import typer

from sidrec.cli.options import Device, Force, Json, Name, RunPath, Seed, Settings, Threads
from sidrec.cli.output import print_json, print_stage, stage_json
from sidrec.cli.session import run_settings
from sidrec.registry import kinds_text

__all__ = ["add_to", "tokenize"]


def tokenize(
    run: RunPath,
    kind: Annotated[str, typer.Option("--kind", help=f"{kinds_text('tokenizer')}.")] = "auto",
    settings: Settings = None,
    embeddings: Annotated[str | None, typer.Option("--embeddings", help="Which vectors of the run.")] = None,
    collaborative: Annotated[
        str | None, typer.Option("--collaborative", help="Which vectors learnt from what users did, for 'letter'.")
    ] = None,
    name: Name = None,
    seed: Seed = 0,
    device: Device = "auto",
    threads: Threads = 0,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Give every item of the run's dataset its semantic ID."""
    with run_settings(seed, device, threads) as settings_of_run:
        from sidrec.stages.layout import RunFolder
        from sidrec.stages.recipe import part_config
        from sidrec.stages.tokenize import tokenize as stage

        config = part_config("tokenizer", kind, settings or [])
        result = stage(
            RunFolder(run),
            config,
            settings_of_run,
            name=name,
            force=force,
            embeddings=embeddings,
            collaborative=collaborative,
        )
    if as_json:
        print_json(stage_json("tokenize", result))
    else:
        print_stage("tokenize", result)


def add_to(app: typer.Typer) -> None:
    """Register the verb."""
    app.command()(tokenize)
