"""`sidrec compare`: all evaluated recommenders of a run side by side."""

from pathlib import Path
from typing import Annotated

import typer

from sidrec.cli.evaluate import Part
from sidrec.cli.options import Device, Force, Json, Seed, Settings, Threads
from sidrec.cli.output import note, print_json, print_lines, print_stage, print_table, stage_json
from sidrec.cli.session import run_settings

__all__ = ["add_to", "compare"]


def compare(
    run: Annotated[Path, typer.Argument(help="Folder of the run.")],
    settings: Settings = None,
    split: Annotated[Part, typer.Option("--split", help="Which targets are scored.")] = Part.TEST,
    examples: Annotated[int, typer.Option("--examples", min=0, help="Example users to print.")] = 5,
    seed: Seed = 0,
    device: Device = "auto",
    threads: Threads = 0,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Print the table of all recommenders and some users' lists; write both as Markdown and HTML with plots.

    The rules of the evaluations hold; settings are fields of the protocol, as in 'sidrec evaluate', laid over them.
    """
    with run_settings(seed, device, threads) as settings_of_run:
        from sidrec.stages import compare as home
        from sidrec.stages.layout import RunFolder

        folder, part = RunFolder(run), split.value
        protocol = home.common_protocol(folder, part, settings or [])
        result = home.compare(folder, settings_of_run, part=part, examples=examples, force=force, protocol=protocol)
        columns, *rows = home.comparison_rows(result.artifact)
    if as_json:
        print_json(stage_json("compare", result) | {"rows": [dict(zip(columns, row, strict=True)) for row in rows]})
        return
    rules, *remarks = home.comparison_remarks(result.artifact)
    note(rules)
    print_table(columns, rows, cut=True)
    for remark in remarks:
        note(remark)
    shown = home.shown_in_examples(result.artifact)
    print_lines([f"Lists of {shown} for users drawn at random:"] if shown else [])
    print_lines(home.examples_of(result.artifact))
    print_stage("compare", result)
    note(f"page: {result.artifact.path / 'comparison.html'}")


def add_to(app: typer.Typer) -> None:
    """Register the verb."""
    app.command()(compare)
