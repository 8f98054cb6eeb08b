"""What happens between the steps of a training run: progress, losses, averages, validation, when to stop and to save.

Leaves out the steps themselves, which are the borrowed trainer's.
"""

import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from math import ceil, isnan
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import broadcast_object_list, reduce
from torch import Tensor, nn
from transformers import TrainerCallback

from sidrec.errors import TrainingError
from sidrec.progress import Advance
from sidrec.training.averaging import WeightAverage
from sidrec.training.batches import LengthBuckets
from sidrec.training.config import TrainingConfig
from sidrec.training.isolation import isolated_rng
from sidrec.training.record import KeptState, TrainRecord

__all__ = ["StepWatch", "Validation"]

Validation = Callable[[], dict[str, float]]
"""Scores a model as it is now; the figure by which states are chosen comes first: the primary metric, of which more is
better, or with `training.select` "loss" the validation loss, of which less is."""

CHECKPOINT_SECONDS = 30.0
"""At most so much work is lost when a run is killed."""
LOSS_ENTRIES = 200
"""Entries of the loss curve in a report."""
READ_EVERY = 20
"""Steps whose losses are fetched together from an accelerator, because fetching waits for it."""


class StepWatch(TrainerCallback):
    """Follows the steps of one run.

    Args:
        model: as the caller gave it, before it is wrapped.
        batches: whose order is set at the start of each epoch.
        training: how long, how often to validate, when to stop.
        validate: None where nothing is validated.
        keeps_checkpoints: whether checkpoints are wanted.
    """

    def __init__(
        self,
        model: nn.Module,
        batches: LengthBuckets,
        training: TrainingConfig,
        validate: Validation | None,
        keeps_checkpoints: bool,
    ) -> None:
        self.model, self.batches, self.training = model, batches, training
        self.validate, self.keeps_checkpoints = validate, keeps_checkpoints
        self.keeps_start = False
        """Whether the state before the first step is validated and kept like those after it."""
        self.num_processes = batches.processes
        self.steps_per_epoch = ceil(len(batches.lengths) / batches.step_size)
        self.total = training.max_steps or ceil(training.max_epochs * self.steps_per_epoch)
        """Steps of the whole run, unless it stops early."""
        self.validate_every = training.validate_every or self.steps_per_epoch
        self.loss_every = max(1, self.total // LOSS_ENTRIES)
        self.record = TrainRecord()
        self.moving: WeightAverage | None = None
        """The moving average of the weights, which is validated and kept in their place; None without one."""
        self.advance: Advance | None = None
        self.waiting: list[Tensor] = []
        self.part: Tensor | float = 0.0
        self.step = 0
        self.train_seconds = self.saved_at = self.resumed_at = 0.0
        self.began = time.perf_counter()

    def add_loss(self, loss: Tensor) -> None:
        """Note a part of the loss of the step in progress."""
        self.part = self.part + loss

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Start the clocks; after a checkpoint was loaded, go on with its record and average."""
        if self.training.ema_decay:
            self.moving = WeightAverage(self.model, self.training.ema_decay)
        if state.global_step:
            self.record = TrainRecord.load(Path(args.output_dir) / f"checkpoint-{state.global_step}")
            self._tell(state.global_step)
        if self.moving is not None and self.record.moving:
            self.moving.restore(self.record.moving)
            self.record.moving = {}
        self.step = state.global_step
        self.saved_at = self.resumed_at = time.perf_counter()
        if self.keeps_start and self.validate is not None and not self.step:
            self._validate(self.validate)

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Set the order of the epoch, also of one that a resumed run enters in the middle."""
        self.batches.epoch = state.global_step // self.steps_per_epoch

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """After an optimizer step: report, validate, stop or ask for a checkpoint, whatever is due."""
        self.step = state.global_step
        if self.moving is not None:
            self.moving.add()
        self.waiting.append(torch.as_tensor(self.part))
        self.part = 0.0
        last = self.step >= self.total
        due = self.step % self.validate_every == 0 or last
        if due or args.device.type == "cpu" or len(self.waiting) >= READ_EVERY:
            self._read_losses()
        if self.validate is not None and due:
            self._validate(self.validate)
        if self.training.patience and self.record.misses >= self.training.patience:
            control.should_training_stop = True
        if last or control.should_training_stop:
            self.train_seconds += time.perf_counter() - self.resumed_at
        elif self._is_save_due(due):
            self._read_losses()
            control.should_save = True
            self.saved_at = time.perf_counter()

    def _is_save_due(self, validated: bool) -> bool:
        if not self.keeps_checkpoints:
            return False
        # Clocks of several processes differ, steps do not.
        if self.num_processes > 1:
            return validated
        return time.perf_counter() - self.saved_at >= CHECKPOINT_SECONDS

    def _read_losses(self) -> None:
        """Fetch the losses of the last steps; stop at the first that is not finite."""
        values: list[float] = []
        if self.waiting:
            losses: Any = torch.stack(self.waiting)
            if self.num_processes > 1:
                # A process has the loss of its share, scaled up; their mean is the loss of the step.
                losses = reduce(losses, "mean")
            values = losses.tolist()
        first = self.step - len(values) + 1
        self.waiting = []
        for step, loss in enumerate(values, start=first):
            if not -float("inf") < loss < float("inf"):
                raise _not_finite(f"the loss became {loss} at step {step}", self.training)
            self.record.add_loss(step, loss, self.loss_every)
        if values:
            self._tell(len(values), f"loss {values[-1]:.4f}")

    def _validate(self, validate: Validation) -> None:
        before = time.perf_counter()
        self.train_seconds += before - self.resumed_at
        with nullcontext() if self.moving is None else self.moving.in_place():
            value = self._score(validate)
            self.record.add_validation(self.step, value, self.model, keep=max(self.training.average, 1))
        self.model.train()
        self.resumed_at = time.perf_counter()

    def _score(self, validate: Validation) -> float:
        """The value by which states are chosen, of the state that the model has; higher is better."""
        self.model.eval()
        with isolated_rng(), torch.no_grad():
            metrics = validate()
        figures = [float(next(iter(metrics.values())))]
        if self.num_processes > 1:
            # Others may differ in the last bits, and all must take the same decisions.
            broadcast_object_list(figures)
        if isnan(figures[0]):
            # No later figure is greater than it, so that the first state would be kept for good.
            raise _not_finite(f"validation after step {self.step} gave nan", self.training)
        return self._sign * figures[0]

    def figure(self, value: float | None) -> float | None:
        """What validation said, for a value of the record; None stays None."""
        return None if value is None else self._sign * value

    @property
    def curve(self) -> tuple[tuple[int, float], ...]:
        """(step, what validation said) of every validation."""
        return tuple((step, self._sign * value) for step, value in self.record.validations)

    @property
    def _sign(self) -> int:
        return -1 if self.training.select == "loss" else 1

    def save_record(self, directory: Path) -> None:
        """Write all that a resumed run needs to know of this one into a checkpoint."""
        moving = {} if self.moving is None else self.moving.state()
        seconds = self.record.seconds + time.perf_counter() - self.began
        replace(self.record, moving=moving, seconds=seconds).save(directory)

    def finish(self) -> None:
        """Give the model its final state: the best validated one or the mean of several; else the last one.

        Raises:
            TrainingError: its weights are not finite.
        """
        self.record.close_losses(self.step)
        best = self.record.best
        if best is not None and not self._keeps_mean(best):
            self.model.load_state_dict(best.weights)
        elif best is None and self.moving is not None:
            self.moving.swap()
        # The last step comes after the last loss that was looked at.
        if not all(bool(weight.isfinite().all()) for weight in self.model.parameters()):
            raise _not_finite(f"after {self.step} steps there are weights that are no finite numbers", self.training)

    def _keeps_mean(self, best: KeptState) -> bool:
        """Try the mean of the best states, which the model has afterwards; whether it is to be kept."""
        states = [state for state in self.record.kept if state.step]
        if self.validate is None or len(states) < 2:
            return False
        mean = WeightAverage(self.model)
        # The best one comes last, because the buffers that it brings stay.
        for state in reversed(states):
            self.model.load_state_dict(state.weights)
            mean.add()
        mean.swap()
        value = self._score(self.validate)
        # The start of a tuning gives way only to what is better.
        is_kept = value > best.value if best.step == 0 else value >= best.value
        self.record.add_mean(value, len(states) if is_kept else 0)
        return is_kept

    def _tell(self, steps: int, note: str = "") -> None:
        if self.advance is not None:
            self.advance(steps, note)


def _not_finite(what: str, training: TrainingConfig) -> TrainingError:
    lr, norm = training.optimizer.lr, training.optimizer.max_grad_norm
    hint = " or set training.precision=fp32" if training.precision != "fp32" else ""
    return TrainingError(
        what,
        where=f"training with optimizer.lr={lr:g}, max_grad_norm={norm:g}, precision={training.precision}",
        expected="finite numbers",
        next=f"lower training.optimizer.lr (say to {lr / 3:.1g}) or training.optimizer.max_grad_norm{hint}",
    )
