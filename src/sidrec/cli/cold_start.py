"""`sidrec cold-start`: how well a recipe recommends items that it was not trained on."""

from typing import Annotated

import typer

from sidrec.cli.options import Device, Force, Json, Name, RunPath, Seed, Settings, Threads
from sidrec.cli.output import note, print_json, print_stage, print_table, stage_json
from sidrec.cli.session import run_settings
from sidrec.recipes import label

__all__ = ["add_to", "cold_start"]


def cold_start(
    recipe: Annotated[str, typer.Argument(help="Name of a recipe with semantic IDs, or a YAML file.")],
    run: RunPath,
    settings: Settings = None,
    share: Annotated[float, typer.Option("--share", help="Share of the items that is held out.")] = 0.05,
    name: Name = None,
    seed: Seed = 0,
    device: Device = "auto",
    threads: Threads = 0,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Hold whole items out of training, append them by content, and score who is recommended them."""
    with run_settings(seed, device, threads) as settings_of_run:
        from sidrec.config import parse
        from sidrec.evaluation.cold_start import ColdStartConfig
        from sidrec.evaluation.cold_start_report import cells, remarks
        from sidrec.stages.cold_start import cold_start as stage
        from sidrec.stages.cold_start import cold_start_report
        from sidrec.stages.layout import RunFolder, StageResult
        from sidrec.stages.recipe import load_recipe

        def announce(step: str, result: StageResult | None) -> None:
            note(f"{step} …") if result is None else print_stage(step, result)

        config = parse(ColdStartConfig, {"share": share}, where="--share")
        result = stage(
            RunFolder(run),
            load_recipe(recipe, settings or []),
            settings_of_run,
            config=config,
            name=name or label(recipe),
            force=force,
            announce=announce,
        )
        report = cold_start_report(result.artifact)
    if as_json:
        print_json(stage_json("cold-start", result) | {"report": report})
        return
    note(report["protocol"])
    columns, *rows = cells(report)
    print_table(columns, rows, cut=True)
    for remark in remarks(report):
        note(remark)


def add_to(app: typer.Typer) -> None:
    """Register the verb."""
    app.command("cold-start")(cold_start)
