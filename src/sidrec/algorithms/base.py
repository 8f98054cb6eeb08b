"""The interface of every post-training algorithm: a fitted recommender in, the same one or a better one out."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal

from pydantic import Field

from sidrec.config import Config, Part, RunSettings
from sidrec.data.dataset import Dataset
from sidrec.embeddings.base import ItemEmbeddings
from sidrec.recommenders.base import Recommender, Validate
from sidrec.training.config import OptimizerConfig, TrainingConfig, TrainReport
from sidrec.types import Json

__all__ = ["Algorithm", "AlgorithmConfig", "TuneReport", "TuningConfig", "TuningOptimizer"]


class TuningOptimizer(OptimizerConfig):
    """AdamW in small steps."""

    lr: float = Field(default=2e-6, gt=0)
    """Peak learning rate."""
    weight_decay: float = Field(default=1e-4, ge=0)
    """Decoupled weight decay; norms and biases are spared."""
    warmup_ratio: float = Field(default=0.1, ge=0, lt=1)
    """Share of the steps in which the learning rate rises from 0."""


class TuningConfig(TrainingConfig):
    """Short training that is chosen by all validation users."""

    max_epochs: float = Field(default=2, gt=0)
    """Passes over the training examples."""
    batch_size: int = Field(default=1024, ge=1)
    """Examples in one optimizer step."""
    optimizer: TuningOptimizer = TuningOptimizer()  # type: ignore[assignment]  # narrows the base's field
    """Optimizer and schedule."""
    validate_users: int = Field(default=0, ge=0)
    """Validation users scored before the first step and at each validation, drawn once; 0 means all."""
    select: Literal["metric"] = "metric"  # type: ignore[assignment]  # narrows the base's field
    """Tuning is kept for what it does to the primary metric."""


class AlgorithmConfig(Config):
    """Fields that every algorithm has."""

    kind: str
    training: TuningConfig = TuningConfig()
    """How long it learns, and how."""


@dataclass(frozen=True)
class TuneReport:
    """What tuning cost and reached.

    Attributes:
        training: the report of the training loop; `start_metric` and `trained_metric` decided what was kept.
        kept_start: whether no tuned state was better on validation, so that the recommender is what it was.
        figures: about the data that it learnt from.
    """

    training: TrainReport
    kept_start: bool
    figures: Json


class Algorithm(Part, ABC):
    """Goes on training a fitted recommender with another objective than next-item prediction."""

    @property
    def needs_embeddings(self) -> bool:
        """Whether `tune` needs item vectors from outside the recommender."""
        return False

    def sources(self) -> dict[str, str]:
        """Role → digest of files outside the run that decide the result."""
        return {}

    @abstractmethod
    def tune(
        self,
        recommender: Recommender,
        dataset: Dataset,
        run: RunSettings,
        *,
        validate: Validate | None = None,
        embeddings: ItemEmbeddings | None = None,
    ) -> TuneReport:
        """Train the recommender's model in place and leave it in the best state, which may be its first one.

        Only `dataset.training_events()` may be learnt from. With `run.scratch` a killed run goes on where it
        was, with the same result.

        Args:
            recommender: fitted on the dataset's catalogue.
            dataset: what it was fitted on.
            run: seed, device, progress, scratch.
            validate: scores it, the primary metric first; the start is kept unless a tuned state is better. None
                keeps the last state unseen.
            embeddings: item vectors, where `needs_embeddings`.
        """
