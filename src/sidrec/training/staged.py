"""A training that another one follows: its result is kept, so that a run killed later does not train it again.

Leaves out the training itself, and what becomes of the scratch folder after the last stage.
"""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from accelerate import PartialState
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from sidrec.atomic import commit
from sidrec.config import RunSettings
from sidrec.training.batches import TrainingExamples
from sidrec.training.checkpoints import start_digest
from sidrec.training.config import TrainingConfig, TrainReport
from sidrec.training.freezing import FrozenRows
from sidrec.training.trainer import train_model
from sidrec.training.watch import Validation

__all__ = ["train_stage"]

RESULT = "result.safetensors"


def train_stage(
    name: str,
    model: nn.Module,
    examples: TrainingExamples,
    training: TrainingConfig,
    run: RunSettings,
    *,
    validate: Validation | None = None,
    frozen: Sequence[FrozenRows] = (),
) -> TrainReport:
    """`train_model` in a scratch folder of its own; where the very same training has finished, its result is taken.

    Args:
        name: of the stage, its folder in `run.scratch`; the others are those of `train_model`.
        model: with its first weights.
        examples: what to train on.
        training: how long and how.
        run: seed, device, progress, scratch; without scratch nothing is kept.
        validate: scores the model as it is now.
        frozen: rows of tables that stay as they are.

    Raises:
        TrainingError, ConfigError, ArtifactError: as `train_model`.
    """
    if run.scratch is None:
        return train_model(model, examples, training, run, validate=validate, frozen=frozen)
    folder = run.scratch / name
    digest, result = start_digest(model, examples, training, run, frozen), folder / RESULT
    report = _taken(model, result, digest)
    if report is None:
        own = replace(run, scratch=folder)
        report = train_model(model, examples, training, own, validate=validate, frozen=frozen)
        if PartialState().is_main_process:
            _keep(model, result, digest, report)
    return report


def _keep(model: nn.Module, result: Path, digest: str, report: TrainReport) -> None:
    """Write weights and report."""
    # Copies, because tied weights may not share memory in a file.
    weights = {name: value.detach().to("cpu", copy=True).contiguous() for name, value in model.state_dict().items()}
    about = json.dumps({"digest": digest, "report": report.as_json()})
    commit(result, lambda place: save_file(weights, place, {"about": about}))


def _taken(model: nn.Module, result: Path, digest: str) -> TrainReport | None:
    """Bring the model into the state that the same training has left; None where it has not finished."""
    if not result.is_file():
        return None
    with safe_open(result, framework="pt") as file:
        about = json.loads(file.metadata()["about"])
        if about["digest"] != digest:
            return None
        model.load_state_dict({name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118 - no mapping
    model.eval()
    report = TrainReport.of_json(about["report"])
    return replace(report, seconds_before=report.seconds)
