"""`sidrec evaluate`: recommender → metrics on one part of its run's dataset."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from sidrec.cli.options import Device, Force, Json, Seed, Settings, Threads
from sidrec.cli.output import print_evaluation, print_json, print_stage, stage_json
from sidrec.cli.session import run_settings

__all__ = ["Part", "add_to", "evaluate"]


class Part(StrEnum):
    """Which targets are scored."""

    VALID = "valid"
    TEST = "test"


def evaluate(
    path: Annotated[Path, typer.Argument(help="A trained recommender: RUN/recommenders/NAME.")],
    settings: Settings = None,
    split: Annotated[Part, typer.Option("--split", help="Which targets are scored.")] = Part.TEST,
    seed: Seed = 0,
    device: Device = "auto",
    threads: Threads = 0,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Score a recommender. Settings are fields of the protocol: k=[5,10], exclude_seen=false, ….

    Without settings, the rules of its last evaluation hold, or the defaults where there is none.
    'torchrun … -m -- sidrec evaluate …' shares the users among processes.
    """
    with run_settings(seed, device, threads, together=True) as run:
        from sidrec.stages.evaluate import evaluate as stage
        from sidrec.stages.recipe import protocol_for

        result = stage(path, split.value, protocol_for(path, split.value, settings or []), run, force=force)
    if not run.team.leads:
        return
    if as_json:
        print_json(stage_json("evaluate", result))
        return
    print_evaluation(result.artifact.summary)
    print_stage("evaluate", result)


def add_to(app: typer.Typer) -> None:
    """Register the verb."""
    app.command()(evaluate)
