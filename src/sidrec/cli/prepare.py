"""`sidrec prepare`: raw data → dataset."""

from pathlib import Path
from typing import Annotated

import typer

from sidrec.cli.options import Force, Json, RunPath, Seed, Settings, Threads
from sidrec.cli.output import note, print_json, print_stage, print_table, stage_json
from sidrec.cli.session import run_settings
from sidrec.registry import kinds_text

__all__ = ["add_to", "prepare"]


def prepare(
    run: RunPath,
    reader: Annotated[str, typer.Option("--reader", help=f"Format of the data: {kinds_text('reader')}.")],
    path: Annotated[Path, typer.Option("--path", help="File or folder of the data.")],
    settings: Settings = None,
    seed: Seed = 0,
    threads: Threads = 0,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Read, filter and split raw data; print what was kept and why the rest was dropped.

    Settings such as user_core=5 or split.kind=temporal; 'sidrec recipes show tiger data.reader=NAME' explains all.
    """
    with run_settings(seed, threads=threads) as settings_of_run:
        from sidrec.config import parse, with_overrides
        from sidrec.data.preparation import PrepareConfig
        from sidrec.data.statistics import statistics_table
        from sidrec.stages.layout import RunFolder
        from sidrec.stages.prepare import prepare as stage

        fields = with_overrides({"reader": {"kind": reader}}, settings or [])
        config = parse(PrepareConfig, fields, where="settings of the command line")
        result = stage(RunFolder(run), config, path, settings_of_run, force=force)
    if as_json:
        print_json(stage_json("prepare", result))
        return
    summary = result.artifact.summary
    empty = [part for part, num in summary["examples"].items() if not num]
    warnings = [("warning", f"no {part} example: nothing can be scored on {part}") for part in empty]
    print_table(("dataset", ""), [*statistics_table(summary), *warnings])
    print_stage("prepare", result)
    if stale := RunFolder(run).of_other_datasets():
        note(f"  made from the dataset that stood here before, and of no use with this one: {', '.join(stale)}")
        note("  next: make them again with 'sidrec run', or prepare the data into a run of their own")


def add_to(app: typer.Typer) -> None:
    """Register the verb."""
    app.command()(prepare)
