"""What a training run remembers between steps: losses, the best states, how long it has not improved.

Leaves out the loop itself. A record is part of every checkpoint, so that a resumed run goes on with it.
"""

import json
from dataclasses import dataclass, field, fields
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

__all__ = ["KeptState", "TrainRecord"]

FILE, MOVING = "record.json", "moving_average.safetensors"
TIED = "tied"
"""Entry of a file of weights that says which names stand for the weight of another name."""

Place = tuple[torch.device, torch.dtype, int, torch.Size, tuple[int, ...]]
"""Where a weight lies in memory, and how; the same for tied weights."""


@dataclass(frozen=True)
class KeptState:
    """A state of the model that validated well.

    Attributes:
        step: after which it was.
        value: of the figure by which states are chosen; higher is better.
        weights: its state dict, on the CPU; tied weights share memory.
    """

    step: int
    value: float
    weights: dict[str, Tensor]

    @classmethod
    def of(cls, step: int, value: float, model: nn.Module) -> "KeptState":
        """The state that a model has now."""
        copies: dict[Place, Tensor] = {}
        weights: dict[str, Tensor] = {}
        for name, weight in model.state_dict().items():
            place = _place(weight)
            if place not in copies:
                copies[place] = weight.detach().to("cpu", copy=True)
            weights[name] = copies[place]
        return cls(step, value, weights)


@dataclass
class TrainRecord:
    """Losses and validation results so far.

    Attributes:
        losses: (step, mean loss since the last entry).
        validations: (step, figure by which states are chosen) of every validation.
        open_losses: losses of the steps since the last entry.
        validated_step: step of the last validation.
        misses: validations since the best one.
        start_value: figure of the state before the first step, where that was validated too.
        trained_value: best figure of a state after a step.
        kept: the best states, the best one first, the earlier of equals first.
        mean_value: figure of the mean of the best states, where that was tried.
        averaged: number of states whose mean was kept; 0 where a single state was.
        moving: state of the moving average of the weights; empty where there is none.
        seconds: wall-clock seconds that processes before this one spent, each up to its last checkpoint.
    """

    losses: list[tuple[int, float]] = field(default_factory=list[tuple[int, float]])
    validations: list[tuple[int, float]] = field(default_factory=list[tuple[int, float]])
    open_losses: list[float] = field(default_factory=list[float])
    validated_step: int = 0
    misses: int = 0
    start_value: float | None = None
    trained_value: float | None = None
    mean_value: float | None = None
    averaged: int = 0
    kept: list[KeptState] = field(default_factory=list[KeptState])
    moving: dict[str, Tensor] = field(default_factory=dict[str, Tensor])
    seconds: float = 0.0

    @property
    def best(self) -> KeptState | None:
        """The best state so far; None before the first validation."""
        return self.kept[0] if self.kept else None

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

    def add_validation(self, step: int, value: float, model: nn.Module, keep: int = 1) -> None:
        """Note a validation; keep the model's state if it is among the `keep` best so far."""
        self.validated_step = step
        self.validations.append((step, value))
        if step == 0:
            self.start_value = value
        elif self.trained_value is None or value > self.trained_value:
            self.trained_value = value
        self.misses = 0 if self.best is None or value > self.best.value else self.misses + 1
        if len(self.kept) < keep or value > self.kept[-1].value:
            kept = [*self.kept, KeptState.of(step, value, model)]
            self.kept = sorted(kept, key=lambda state: -state.value)[:keep]

    def add_mean(self, value: float, averaged: int) -> None:
        """Note the figure of the mean of states, and of how many if it was kept."""
        self.mean_value, self.averaged = value, averaged
        self.trained_value = value if self.trained_value is None else max(self.trained_value, value)

    def save(self, directory: Path) -> None:
        """Write the record into a checkpoint."""
        plain = {
            entry.name: getattr(self, entry.name) for entry in fields(self) if entry.name not in ("kept", "moving")
        }
        plain["kept"] = [(state.step, state.value) for state in self.kept]
        (directory / FILE).write_text(json.dumps(plain), encoding="utf-8")
        for state in self.kept:
            _write(state.weights, directory / _file_of(state.step))
        if self.moving:
            _write(self.moving, directory / MOVING)

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
        for name in ("losses", "validations"):
            plain[name] = [(int(step), float(value)) for step, value in plain[name]]
        plain["kept"] = [KeptState(step, value, _read(directory / _file_of(step))) for step, value in plain["kept"]]
        moving = _read(directory / MOVING) if (directory / MOVING).is_file() else {}
        return cls(**plain, moving=moving)


def _file_of(step: int) -> str:
    return f"kept-{step}.safetensors"


def _place(weight: Tensor) -> Place:
    return weight.device, weight.dtype, weight.data_ptr(), weight.shape, weight.stride()


def _write(weights: dict[str, Tensor], path: Path) -> None:
    """Write weights, tied ones once."""
    firsts: dict[Place, str] = {}
    names = {name: firsts.setdefault(_place(weight), name) for name, weight in weights.items()}
    tied = {name: first for name, first in names.items() if name != first}
    save_file({name: weights[name].contiguous() for name in firsts.values()}, path, {TIED: json.dumps(tied)})


def _read(path: Path) -> dict[str, Tensor]:
    """What `_write` wrote, tied weights in the same memory."""
    with safe_open(path, "pt") as file:
        weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
        tied: dict[str, str] = json.loads((file.metadata() or {}).get(TIED, "{}"))
    return weights | {name: weights[first] for name, first in tied.items()}
