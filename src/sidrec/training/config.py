"""Settings of a training run that belong to the method, and what comes back from it."""

from dataclasses import asdict, dataclass
from typing import Literal, Self

from pydantic import Field, model_validator

from sidrec.config import Config
from sidrec.types import Json

__all__ = ["OptimizerConfig", "TrainReport", "TrainingConfig"]


class OptimizerConfig(Config):
    """AdamW."""

    lr: float = Field(default=1e-3, gt=0)
    """Peak learning rate."""
    weight_decay: float = Field(default=0.01, ge=0)
    """Decoupled weight decay; norms and biases are spared."""
    warmup_ratio: float = Field(default=0.02, ge=0, lt=1)
    """Share of the steps in which the learning rate rises from 0."""
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    """How the learning rate falls after the warm-up."""
    max_grad_norm: float = Field(default=1.0, gt=0)
    """Gradients are clipped to this norm."""


class TrainingConfig(Config):
    """How long and how a model is trained; which checkpoint is kept."""

    max_epochs: float = Field(default=20, gt=0)
    """Passes over the training examples."""
    max_steps: int = Field(default=0, ge=0)
    """Optimizer steps; 0 means that `max_epochs` decides."""
    batch_size: int = Field(default=256, ge=1)
    """Examples in one optimizer step."""
    accumulation: int = Field(default=1, ge=1)
    """Forward passes that share one step; each takes `batch_size / accumulation` examples."""
    optimizer: OptimizerConfig = OptimizerConfig()
    """Optimizer and schedule."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Arithmetic of forward and backward passes; weights stay fp32."""
    validate_every: int = Field(default=0, ge=0)
    """Steps between validations; 0 means once an epoch."""
    validate_users: int = Field(default=2000, ge=0)
    """Validation users scored at each validation, drawn once; 0 means all."""
    patience: int = Field(default=5, ge=0)
    """Validations without a better state before training stops; 0 never stops early. Where the dataset has no
    validation part, nothing is validated: training runs to its end, and the last state is kept."""
    select: Literal["metric", "loss"] = "metric"
    """How states are chosen on validation users: by the evaluation's primary metric, or by the loss of the training
    objective on their validation targets, without dropout (as LETTER does). The loss needs no search and is quicker."""
    ema_decay: float = Field(default=0.0, ge=0, lt=1)
    """Validate and keep an exponential moving average of the weights instead of the weights themselves; a step enters
    it with 1 − `ema_decay`, the first ones with more. 0 takes the weights as they are."""
    average: int = Field(default=0, ge=0)
    """Best validated states whose mean is tried at the end; it is kept if it validates at least as well as the best
    of them. Each is held in memory and in every checkpoint. 0 and 1 keep the best one; more need a validation part."""

    @model_validator(mode="after")
    def _steps_divide(self) -> Self:
        if self.batch_size % self.accumulation:
            raise ValueError(f"batch_size {self.batch_size} is not a multiple of accumulation {self.accumulation}")
        return self


@dataclass(frozen=True)
class TrainReport:
    """What a training run cost and reached.

    Attributes:
        steps: optimizer steps taken.
        seconds: wall-clock seconds, those of processes before this one included.
        examples_per_second: training examples a second, validation not counted.
        padding_share: share of the input positions that were padding, 0 to 1.
        best_metric: best value of the primary validation metric, or of the validation loss where states are chosen by
            that (so in the fields below); None without validation.
        best_step: step of that value.
        losses: (step, mean training loss since the last entry).
        validations: (step, metric or loss) of every validation, in their order: the curve.
        earlier: reports of the stages of training before this one, the first one first.
        start_metric: the primary metric before the first step; None unless the start was validated, which is then kept
            (as step 0) where no later state is better.
        trained_metric: its best value after a step, that of the mean of states included; None without validation.
        average_metric: the metric of the mean of the best states; None where none was tried.
        averaged: number of states whose mean was kept; 0 where a single state was.
        member_weights: shares of an ensemble's members, in their order; empty for all other recommenders.
        seconds_before: of `seconds`, those of processes before this one, each up to its last checkpoint.
    """

    steps: int
    seconds: float
    examples_per_second: float
    padding_share: float
    best_metric: float | None
    best_step: int
    losses: tuple[tuple[int, float], ...]
    validations: tuple[tuple[int, float], ...] = ()
    start_metric: float | None = None
    trained_metric: float | None = None
    average_metric: float | None = None
    averaged: int = 0
    member_weights: tuple[float, ...] = ()
    earlier: tuple["TrainReport", ...] = ()
    seconds_before: float = 0.0

    @property
    def all_seconds_before(self) -> float:
        """Seconds of processes before this one, in this stage of training and those before it."""
        return self.seconds_before + sum(report.all_seconds_before for report in self.earlier)

    @property
    def kept_start(self) -> bool:
        """Whether the state before the first step was validated, and kept because no later one was better."""
        return self.start_metric is not None and self.best_step == 0 and not self.averaged

    def as_json(self) -> Json:
        """The report as JSON."""
        return asdict(self)

    @classmethod
    def of_json(cls, fields: Json) -> Self:
        """The inverse of `as_json`.

        >>> from dataclasses import replace
        >>> report = TrainReport(3, 0.5, 9.0, 0.0, None, 3, ((1, 0.7), (3, 0.6)))
        >>> second = replace(report, earlier=(report,))
        >>> TrainReport.of_json(second.as_json()) == second
        True
        """
        plain: Json = dict(fields)
        for name in ("losses", "validations"):
            plain[name] = tuple((int(step), float(value)) for step, value in fields.get(name, ()))
        plain["member_weights"] = tuple(fields.get("member_weights", ()))
        plain["earlier"] = tuple(cls.of_json(report) for report in fields["earlier"])
        return cls(**plain)
