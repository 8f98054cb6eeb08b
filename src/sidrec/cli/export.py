"""`sidrec export`: semantic IDs and item vectors as files of the published systems."""

from pathlib import Path
from typing import Annotated

import typer

from sidrec.cli.output import print_lines

__all__ = ["add_to", "export"]


def export(
    path: Annotated[Path, typer.Argument(help="A tokenizer or embeddings of a run.")],
    target: Annotated[
        Path, typer.Argument(metavar="FILE", help=".json: index; .txt: MiniOneRec's info file; .npy: vectors.")
    ],
    upper: Annotated[bool, typer.Option("--upper", help="Write <A_17> instead of <a_17>.")] = False,
    numbers: Annotated[
        bool, typer.Option("--numbers", help="Name items by row numbers and write a map (.item2id) beside the file.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace files that are there.")] = False,
) -> None:
    """Write semantic IDs as LETTER, LC-Rec, GRec and MiniOneRec read them, or item vectors as a .npy file."""
    from sidrec.stages.export import export as stage

    print_lines(str(file) for file in stage(path, target, upper=upper, numbers=numbers, force=force))


def add_to(app: typer.Typer) -> None:
    """Register the verb."""
    app.command()(export)
