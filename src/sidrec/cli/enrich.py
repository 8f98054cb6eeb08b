"""`sidrec enrich`: facts about items from outside."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sidrec.cli.options import Device, Force, Json, Name, RunPath, Settings, Threads
from sidrec.cli.output import note, print_json, print_stage, print_table, stage_json
from sidrec.cli.session import run_settings
from sidrec.registry import kinds_text

if TYPE_CHECKING:
    from sidrec.embeddings.enrich.client import Plan

__all__ = ["add_to", "enrich"]


def enrich(
    run: RunPath,
    settings: Settings = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be sent, and send nothing.")] = False,
    cache: Annotated[Path | None, typer.Option("--cache", help="Folder of answers that runs may share.")] = None,
    name: Name = None,
    device: Device = "auto",
    threads: Threads = 0,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Ask sources (sources.NAME.kind=…) for facts about the run's items."""
    with run_settings(0, device, threads) as settings_of_run:
        from sidrec.config import parse, with_overrides
        from sidrec.embeddings.enrich.config import EnrichConfig
        from sidrec.stages.enrich import enrich as stage
        from sidrec.stages.enrich import enrich_plan
        from sidrec.stages.layout import RunFolder

        config = parse(EnrichConfig, with_overrides({}, settings or []), "settings of the command line")
        if dry_run:
            _show_plans(enrich_plan(RunFolder(run), config, settings_of_run, cache=cache), as_json)
            return
        result = stage(RunFolder(run), config, settings_of_run, name=name, force=force, cache=cache)
    if as_json:
        print_json(stage_json("enrich", result))
    else:
        print_stage("enrich", result)
        _show_outcomes(result.artifact.summary)


def _show_plans(plans: "Mapping[str, Plan]", as_json: bool) -> None:
    """What would be sent, one line a source."""
    if as_json:
        print_json({source: asdict(plan) for source, plan in plans.items()})
        return
    rows = [(name, f"{of.requests:,}", f"{of.cached:,}", f"{of.characters:,}") for name, of in plans.items()]
    print_table(("source", "requests", "answered before", "characters to send"), rows)
    note("nothing was sent; texts that a source will find for a later one are not counted")


def _show_outcomes(summary: Mapping[str, Any]) -> None:
    """What each source found, and why items failed."""
    outcomes, sources = ("found", "none", "failed"), summary["sources"].items()
    print_table(("source", *outcomes), [(name, *(f"{of[each]:,}" for each in outcomes)) for name, of in sources])
    for name, of in sources:
        for reason in of["reasons"]:
            note(f"  {name}: {reason}")
    if summary["failed"]:
        note("run the same command again to ask for what failed")


def add_to(app: typer.Typer) -> None:
    """Register the verb."""
    app.command(help=f"Ask sources ({kinds_text('source')}) for facts about the run's items.")(enrich)
