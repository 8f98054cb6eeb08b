"""`sidrec recommend`: histories → next items, for users on the command line or in a file."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from sidrec.cli.options import Device, Json, Threads
from sidrec.cli.output import note, print_answers, print_json
from sidrec.cli.session import run_settings

__all__ = ["add_to", "recommend"]


def recommend(
    path: Annotated[Path, typer.Argument(help="A trained recommender.")],
    history: Annotated[list[str] | None, typer.Option("--history", help="Item ids, oldest first: ID,ID,…")] = None,
    histories: Annotated[Path | None, typer.Option("--histories", help='JSON lines {"history": [ID, …]}.')] = None,
    k: Annotated[int, typer.Option("-k", "--top", min=1, help="Items a user.")] = 10,
    items: Annotated[
        Path | None, typer.Option("--items", help="Extended semantic IDs: RUN/tokenizers/NAME; new items come too.")
    ] = None,
    exact: Annotated[bool, typer.Option("--exact", help="Search until the list is certified.")] = False,
    allow_seen: Annotated[bool, typer.Option("--allow-seen", help="Items of the history may come again.")] = False,
    allow: Annotated[Path | None, typer.Option("--allow", help="Only these items: one id a line.")] = None,
    deny: Annotated[Path | None, typer.Option("--deny", help="None of these items: one id a line.")] = None,
    device: Device = "auto",
    threads: Threads = 0,
    as_json: Json = False,
) -> None:
    """Recommend the next items. Repeat --history for several users; answers to --histories are JSON lines."""
    if (history is None) == (histories is None):
        raise typer.BadParameter("give --history ID,ID,… or --histories FILE")
    with run_settings(device=device, threads=threads) as run:
        from sidrec.stages.recommend import load_recommender, read_item_ids, recommend_file
        from sidrec.stages.recommend import recommend as stage

        recommender = load_recommender(path, items)
        only, never = (None if file is None else read_item_ids(file, recommender.catalog) for file in (allow, deny))
        unseen = not allow_seen
        if histories is not None:
            num = recommend_file(
                recommender,
                histories,
                sys.stdout,
                run,
                k=k,
                exact=exact,
                exclude_seen=unseen,
                allowed=only,
                denied=never,
            )
            note(f"{num} users")
            return
        lists = [[item.strip() for item in text.split(",") if item.strip()] for text in history or []]
        answers = stage(recommender, lists, run, k=k, exact=exact, exclude_seen=unseen, allowed=only, denied=never)
    if as_json:
        print_json([{"history": items} | answer.as_json() for items, answer in zip(lists, answers, strict=True)])
    else:
        print_answers(answers)


def add_to(app: typer.Typer) -> None:
    """Register the verb."""
    app.command()(recommend)
