"""`sidrec tokenize`: vectors → semantic IDs, of a whole catalogue or of items that come to it."""

from pathlib import Path
from typing import Annotated

import typer

from sidrec.cli.options import Device, Force, Json, Name, RunPath, Seed, Settings, Threads
from sidrec.cli.output import note, print_json, print_stage, stage_json
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
    extend: Annotated[
        Path | None, typer.Option("--extend", help="Table of new items; they get codes, the old ones keep theirs.")
    ] = None,
    tokenizer: Annotated[str | None, typer.Option("--tokenizer", help="Which semantic IDs to extend.")] = None,
    vectors: Annotated[
        Path | None, typer.Option("--vectors", help="Vectors of the new items (.npy), where vectors were imported.")
    ] = None,
    name: Name = None,
    seed: Seed = 0,
    device: Device = "auto",
    threads: Threads = 0,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Give every item of the run's dataset its semantic ID, or with --extend new items theirs."""
    if extend is not None and (kind != "auto" or embeddings is not None or collaborative is not None):
        raise typer.BadParameter("--extend uses the tokenizer and the vectors that are there; leave the others out")
    if extend is None and (tokenizer is not None or vectors is not None):
        raise typer.BadParameter("--tokenizer and --vectors belong to --extend NEW")
    with run_settings(seed, device, threads) as settings_of_run:
        from sidrec.stages.extend import extend as extend_stage
        from sidrec.stages.layout import RunFolder
        from sidrec.stages.recipe import part_config
        from sidrec.stages.tokenize import tokenize as stage

        folder = RunFolder(run)
        if extend is not None:
            result = extend_stage(
                folder,
                extend,
                settings_of_run,
                tokenizer=tokenizer,
                vectors=vectors,
                overrides=settings or [],
                name=name,
                force=force,
            )
        else:
            config = part_config("tokenizer", kind, settings or [])
            result = stage(
                folder,
                config,
                settings_of_run,
                name=name,
                force=force,
                embeddings=embeddings,
                collaborative=collaborative,
            )
    if as_json:
        print_json(stage_json("tokenize", result))
        return
    print_stage("tokenize", result)
    if extend is not None:
        summary = result.artifact.summary
        note(f"  version {summary['version']}: {summary['new_items']} new items; the others keep their codes")


def add_to(app: typer.Typer) -> None:
    """Register the verb."""
    app.command()(tokenize)
