"""The table of per-user metric values."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from sidrec.types import BoolArray, FloatArray, IntArray

__all__ = ["MetricTable"]


@dataclass(frozen=True)
class MetricTable:
    """Per-user values by metric name, and which metric decides.

    Attributes:
        values: name (`metric@k`) → float[U].
        primary: the metric that decides.

    >>> table = MetricTable({"hit@1": np.array([1.0, 0.0]), "mrr@1": np.array([1.0, 0.0])}, "mrr@1")
    >>> table.means()
    {'mrr@1': 0.5, 'hit@1': 0.5}
    """

    values: Mapping[str, FloatArray]
    primary: str

    def __post_init__(self) -> None:
        assert self.primary in self.values, f"{self.primary} is not among {list(self.values)}"
        assert len({len(column) for column in self.values.values()}) == 1, "columns of different lengths"

    def __len__(self) -> int:
        return len(self.values[self.primary])

    def means(self) -> dict[str, float]:
        """Mean over users of every metric, the primary one first; nan without users."""
        names = [self.primary, *(name for name in self.values if name != self.primary)]
        return {name: float(np.mean(self.values[name])) if len(self) else float("nan") for name in names}

    def take(self, users: IntArray | BoolArray) -> "MetricTable":
        """The table of some users."""
        return MetricTable({name: column[users] for name, column in self.values.items()}, self.primary)
