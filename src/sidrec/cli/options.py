"""Options that several verbs share, declared once."""

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["Device", "Force", "Json", "Name", "RunPath", "Seed", "Settings", "Threads"]

RunPath = Annotated[Path, typer.Option("--run", help="Folder of the run.", file_okay=False)]
Name = Annotated[str | None, typer.Option("--name", help="What the result is called; without it, its kind.")]
Settings = Annotated[
    list[str] | None,
    typer.Argument(metavar="KEY.PATH=VALUE", help="Settings laid over the defaults.", show_default=False),
]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Seed of everything that is drawn.")]
Device = Annotated[str, typer.Option("--device", help="cpu, cuda, …; auto takes CUDA if there is any.")]
Threads = Annotated[int, typer.Option("--threads", min=0, help="CPU threads; 0 leaves it to the libraries.")]
Force = Annotated[bool, typer.Option("--force", help="Do it even if the result is up to date.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
