"""What a recipe is expected to reach on known data, and whether a result does.

A band belongs to a dataset, which is known again by its counts and its split, and to the rules on seen items and ties.
Leaves out where bands come from: whoever writes a recipe names the source.
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from pydantic import model_validator

from sidrec.config import Config
from sidrec.evaluation.protocol import Protocol
from sidrec.types import Json

__all__ = ["Band", "Verdict", "verdicts"]


class Band(Config):
    """Values that metrics of the test part are expected to have on one dataset."""

    dataset: str
    """The data in words: name, edition, whose files."""
    users: int
    """Users of the prepared dataset; with the next two, what it is known by."""
    items: int
    """Items of the catalogue."""
    interactions: int
    """Events of all users."""
    split: str = "leave-one-out"
    """Name of the split, as the prepared dataset states it."""
    exclude_seen: bool = True
    """Under which rule on items of the user's own history."""
    ties: Literal["expected", "listed"] = "expected"
    """Under which rule on items of equal score."""
    metrics: dict[str, tuple[float, float]]
    """Metric → lowest and highest value expected."""
    source: str
    """Where the band comes from."""

    @model_validator(mode="after")
    def _ends_in_order(self) -> "Band":
        for metric, (low, high) in self.metrics.items():
            if low > high:
                raise ValueError(f"the band of {metric} runs from {low:g} down to {high:g}")
        return self


@dataclass(frozen=True)
class Verdict:
    """One metric beside its band.

    Attributes:
        metric: such as `ndcg@10`.
        value: what was measured; None where the evaluation has no such cut-off.
        low: lowest value expected.
        high: highest value expected.
        dataset: the data in words.
        source: where the band comes from.
    """

    metric: str
    value: float | None
    low: float
    high: float
    dataset: str
    source: str

    @property
    def place(self) -> str:
        """`inside`, `below`, `above` or `not measured`.

        >>> Verdict("ndcg@10", 0.04, 0.039, 0.042, "Beauty", "own runs").place
        'inside'
        """
        if self.value is None:
            return "not measured"
        if self.value < self.low:
            return "below"
        return "above" if self.value > self.high else "inside"

    def as_json(self) -> Json:
        """The fields and the place as JSON."""
        return asdict(self) | {"place": self.place}

    def __str__(self) -> str:
        band = f"{self.low:.4f} to {self.high:.4f} expected on {self.dataset} ({self.source})"
        if self.value is None:
            return f"{self.metric}: not measured; {band}"
        words = {"inside": "inside", "below": "BELOW", "above": "above"}
        return f"{self.metric} {self.value:.4f}: {words[self.place]} the band, {band}"


def verdicts(
    bands: Iterable[Band], protocol: Protocol, dataset: Mapping[str, Any], scores: Mapping[str, Any]
) -> list[Verdict]:
    """A verdict for every metric of the bands that belong to this dataset and these rules.

    Args:
        bands: those of a recipe.
        protocol: the rules of the evaluation; with `max_users` only some users were scored, and no band applies.
        dataset: the summary of the prepared dataset.
        scores: the summary of the evaluation of the test part.
    """
    known = tuple(dataset.get(name) for name in ("users", "items", "interactions", "split"))
    rules = (protocol.exclude_seen, protocol.ties)
    fitting = [
        band
        for band in bands
        if (band.users, band.items, band.interactions, band.split) == known
        and (band.exclude_seen, band.ties) == rules
        and not protocol.max_users
    ]
    return [
        Verdict(metric, scores.get(metric), low, high, band.dataset, band.source)
        for band in fitting
        for metric, (low, high) in band.metrics.items()
    ]
