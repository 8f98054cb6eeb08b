"""`sidrec run`: a whole recipe, skipping what is up to date."""

from pathlib import Path
from typing import Annotated

import typer

from sidrec.cli.options import Device, Force, Json, Name, RunPath, Seed, Settings, Threads
from sidrec.cli.output import note, print_evaluation, print_json, print_stage, stage_json
from sidrec.cli.session import run_settings
from sidrec.recipes import label

__all__ = ["add_to", "run"]


def run(
    recipe: Annotated[str, typer.Argument(help="Name of a recipe, or a YAML file.")],
    run: RunPath,
    settings: Settings = None,
    reader: Annotated[str | None, typer.Option("--reader", help="Format of --path, if the data are raw.")] = None,
    path: Annotated[Path | None, typer.Option("--path", help="Raw data to prepare first.")] = None,
    name: Name = None,
    seed: Seed = 0,
    device: Device = "auto",
    threads: Threads = 0,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Prepare, embed, tokenize, train, tune and evaluate; stages that are up to date are skipped."""
    with run_settings(seed, device, threads) as settings_of_run:
        from sidrec.artifact import open_artifact
        from sidrec.stages.expected import verdicts
        from sidrec.stages.layout import RunFolder, StageResult
        from sidrec.stages.recipe import load_recipe
        from sidrec.stages.run import run_recipe

        def announce(stage: str, result: StageResult | None) -> None:
            note(f"{stage} …") if result is None else print_stage(stage, result)

        extra = {"data": {"reader": {"kind": reader}}} if reader else {}
        checked = load_recipe(recipe, settings or [], extra)
        steps = run_recipe(
            RunFolder(run),
            checked,
            settings_of_run,
            name=name or label(recipe),
            force=force,
            source=path,
            announce=announce,
        )
        scores = steps[-1].result.artifact.summary
        dataset = open_artifact(RunFolder(run).dataset, "dataset").summary
        found = verdicts(checked.expected, checked.evaluation, dataset, scores)
    if as_json:
        stages = [stage_json(step.stage, step.result) for step in steps]
        print_json({"stages": stages, "expected": [verdict.as_json() for verdict in found]})
        return
    print_evaluation(scores)
    for verdict in found:
        note(str(verdict))
    if not found and load_recipe(recipe).expected:
        withheld = "of this dataset and these rules" if checked.expected else "with settings laid over the recipe"
        note(f"bands: none {withheld}; those of the recipe as it stands are in 'sidrec recipes show {recipe}'")


def add_to(app: typer.Typer) -> None:
    """Register the verb."""
    app.command()(run)
