"""What a training run remembers between steps: losses, the best weights, how long it has not improved.

Leaves out the loop itself. A record is part of every checkpoint, so that a resumed run goes on with it.
"""

import json
from dataclasses import dataclass, field, fields
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor, nn

__all__ = ["TrainRecord"]

FILE, BEST = "record.json", "best.safetensors"


@dataclass
class TrainRecord:
    """Losses and validation results so far.

    Attributes:
        losses: (step, mean loss since the last entry).
        open_losses: losses of the steps since the last entry.
        best_metric: best value of the primary metric, None before the first validation.
        best_step: step of that value.
        validated_step: step of the last validation.
        misses: validations since the best one.
        start_metric: value before the first step, where that was validated too.
        trained_metric: best value after a step.
        best_weights: the state dict of that step, on the CPU.
    """

    losses: list[tuple[int, float]] = field(default_factory=list[tuple[int, float]])
    open_losses: list[float] = field(default_factory=list[float])
    best_metric: float | None = None
    best_step: int = 0
    validated_step: int = 0
    misses: int = 0
    start_metric: float | None = None
    trained_metric: float | None = None
    best_weights: dict[str, Tensor] = field(default_factory=dict[str, Tensor])

    def add_loss(self, step: int, loss: float, every: int) -> None:
        """Note the loss of a step; every few steps the mean becomes an entry."""
        self.open_losses.append(loss)
        if step % every == 0:
            self.close_losses(step)

    def close_losses(self, step: int) -> None:
        """Make an entry of the losses that have none yet."""
        if self.open_losses:
            self.losses.append((step, sum(self.open_losses) / len(self.open_losses)))
            self.open_losses = []

    def add_validation(self, step: int, value: float, model: nn.Module) -> None:
        """Note a validation; keep the weights if it is the best so far (the first of equals)."""
        self.validated_step = step
        if step == 0:
            self.start_metric = value
        elif self.trained_metric is None or value > self.trained_metric:
            self.trained_metric = value
        if self.best_metric is None or value > self.best_metric:
            self.best_metric, self.best_step, self.misses = value, step, 0
            self.best_weights = {
                name: value.detach().to("cpu", copy=True) for name, value in model.state_dict().items()
            }
        else:
            self.misses += 1

    def save(self, directory: Path) -> None:
        """Write the record into a checkpoint."""
        plain = {entry.name: getattr(self, entry.name) for entry in fields(self) if entry.name != "best_weights"}
        (directory / FILE).write_text(json.dumps(plain), encoding="utf-8")
        if self.best_weights:
            save_file({name: value.contiguous() for name, value in self.best_weights.items()}, directory / BEST)

    @classmethod
    def load(cls, directory: Path) -> "TrainRecord":
        """Read the record of a checkpoint.

        >>> import tempfile
        >>> record = TrainRecord(losses=[(1, 0.5)], misses=2)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     record.save(Path(folder))
        ...     TrainRecord.load(Path(folder)) == record
        True
        """
        plain = json.loads((directory / FILE).read_text(encoding="utf-8"))
        plain["losses"] = [(int(step), float(loss)) for step, loss in plain["losses"]]
        weights = load_file(directory / BEST) if (directory / BEST).is_file() else {}
        return cls(**plain, best_weights=weights)
