"""`sidrec inspect`: lineage and figures of an artefact, or of all artefacts of a run."""

from pathlib import Path
from typing import Annotated

import typer

from sidrec.cli.options import Json
from sidrec.cli.output import print_inspection, print_json

__all__ = ["add_to", "inspect"]


def inspect(
    path: Annotated[Path, typer.Argument(help="An artefact, or the folder of a run.")],
    as_json: Json = False,
) -> None:
    """Print what an artefact is, what it was made from, and its figures."""
    from sidrec.stages.inspect import inspect as stage

    found = stage(path)
    if as_json:
        print_json([inspection.as_json() for inspection in found])
        return
    for inspection in found:
        print_inspection(inspection)


def add_to(app: typer.Typer) -> None:
    """Register the verb."""
    app.command()(inspect)
