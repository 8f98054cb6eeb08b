"""`sidrec recommend`: histories → next items, for users on the command line or in a file."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from sidrec.cli.options import Device, Json, Threads
from sidrec.cli.output import note, print_answers, print_json
from sidrec.cli.session import run_settings

if TYPE_CHECKING:
    from sidrec.stages.recommend_users import BatchReport

__all__ = ["add_to", "recommend"]

BATCH = "Files of any size (--input)"


def recommend(
    path: Annotated[Path, typer.Argument(help="A trained recommender.")],
    history: Annotated[list[str] | None, typer.Option("--history", help="Item ids, oldest first: ID,ID,…")] = None,
    histories: Annotated[
        Path | None, typer.Option("--histories", help='JSON lines {"history": [ID, …]}; answers go to stdout.')
    ] = None,
    k: Annotated[int, typer.Option("-k", "--top", min=1, help="Items a user.")] = 10,
    items: Annotated[
        Path | None, typer.Option("--items", help="Extended semantic IDs: RUN/tokenizers/NAME; new items come too.")
    ] = None,
    exact: Annotated[bool, typer.Option("--exact", help="Search until the list is certified.")] = False,
    allow_seen: Annotated[bool, typer.Option("--allow-seen", help="Items of the history may come again.")] = False,
    allow: Annotated[Path | None, typer.Option("--allow", help="Only these items: one id a line.")] = None,
    deny: Annotated[Path | None, typer.Option("--deny", help="None of these items: one id a line.")] = None,
    source: Annotated[
        Path | None,
        typer.Option(
            "--input", help="Users, one a row: .parquet, .csv (lists as [A, B]) or .jsonl.", rich_help_panel=BATCH
        ),
    ] = None,
    target: Annotated[
        Path | None,
        typer.Option("--output", help="Lists, one a row: .parquet, .jsonl, or .csv (ids only).", rich_help_panel=BATCH),
    ] = None,
    user_column: Annotated[
        str | None, typer.Option("--user-column", help="Column of user ids, if not user_id.", rich_help_panel=BATCH)
    ] = None,
    items_column: Annotated[
        str | None, typer.Option("--items-column", help="Column of item lists, if not history.", rich_help_panel=BATCH)
    ] = None,
    on_unknown: Annotated[
        Literal["raise", "skip"],
        typer.Option("--on-unknown", help="What to do with items that are unknown.", rich_help_panel=BATCH),
    ] = "raise",
    part_size: Annotated[
        int,
        typer.Option("--part-size", min=1, help="Users that a killed run may lose.", rich_help_panel=BATCH),
    ] = 8192,
    force: Annotated[
        bool, typer.Option("--force", help="Overwrite the output if it is there.", rich_help_panel=BATCH)
    ] = False,
    device: Device = "auto",
    threads: Threads = 0,
    as_json: Json = False,
) -> None:
    """Recommend the next items.

    Repeat --history for several users. --input and --output take files of any size: an interrupted command goes on
    where it was, and 'torchrun … -m sidrec recommend …' shares the work among processes.
    """
    if (history is not None) + (histories is not None) + (source is not None) != 1:
        raise typer.BadParameter("give one of --history ID,ID,…, --histories FILE or --input FILE")
    if (source is None) != (target is None):
        raise typer.BadParameter("--input FILE and --output FILE belong together")
    asked: dict[str, Any] = {"k": k, "exact": exact, "exclude_seen": not allow_seen}
    with run_settings(device=device, threads=threads, together=source is not None) as run:
        if source is not None and target is not None:
            from sidrec.stages.recommend_users import BatchConfig, recommend_users

            columns = {"user_column": user_column, "items_column": items_column}
            settings = BatchConfig(
                allowed=allow, denied=deny, on_unknown=on_unknown, part_size=part_size, **columns, **asked
            )
            report = recommend_users(
                path, source, target, settings, run, items=items, force=force, tell=note, team=run.team
            )
            if report is not None:
                _tell(report, as_json=as_json)
            return
        from sidrec.stages.recommend import load_recommender, read_item_ids, recommend_file
        from sidrec.stages.recommend import recommend as stage

        recommender = load_recommender(path, items)
        only, never = (None if file is None else read_item_ids(file, recommender.catalog) for file in (allow, deny))
        asked |= {"allowed": only, "denied": never}
        if histories is not None:
            num = recommend_file(recommender, histories, sys.stdout, run, **asked)
            note(f"{num} users")
            return
        lists = [[item.strip() for item in text.split(",") if item.strip()] for text in history or []]
        answers = stage(recommender, lists, run, **asked)
    if as_json:
        print_json([{"history": items} | answer.as_json() for items, answer in zip(lists, answers, strict=True)])
    else:
        print_answers(answers, k)


def _tell(report: "BatchReport", *, as_json: bool) -> None:
    """What became of a file of users."""
    summary = report.summary
    if report.up_to_date:
        note(f"up to date ({report.path})")
    else:
        before = f"{report.resumed:,} of them finished before, " if report.resumed else ""
        note(f"{summary['users']:,} users, {before}{report.seconds:.1f} s ({report.path})")
    note(f"certified exact: {100 * summary['certified']:.1f} % of the lists")
    if summary["skipped_items"]:
        users = summary["users_with_skipped_items"]
        note(f"{summary['skipped_items']:,} unknown items in the histories of {users:,} users were left out")
    if as_json:
        print_json({"path": str(report.path), "up_to_date": report.up_to_date, "summary": summary})


def add_to(app: typer.Typer) -> None:
    """Register the verb."""
    app.command()(recommend)
