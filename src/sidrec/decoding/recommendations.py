"""What is asked of a search and what comes out."""

from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from sidrec.config import Config
from sidrec.decoding.filters import Filters, combined
from sidrec.errors import ConstraintError, DataError
from sidrec.types import BoolArray, FloatArray, IntArray

__all__ = ["BeamConfig", "Normalize", "Precision", "Recommendations", "Request", "UsersPerBatch"]

Precision = Literal["fp32", "bf16", "auto"]
"""Numbers that a model computes with while it is searched."""
Normalize = Literal["vocabulary", "level", "children"]
"""Over what log-probabilities are normalised."""
UsersPerBatch = Annotated[int, Field(ge=1)] | Literal["auto"]
"""How many users are searched at once."""


class BeamConfig(Config):
    """How a constrained beam search is run."""

    beams: int = Field(default=20, ge=1)
    """Prefixes kept after each level; raised to k where it is smaller."""
    normalize: Normalize = "level"
    """Over what log-probabilities are normalised: the whole vocabulary (equals Hugging Face's beam
    search), the codes of the level, or the children of the prefix in the catalogue."""
    users_per_batch: UsersPerBatch = 32
    """Users searched at once; `auto` finds the fastest number while it searches. No list depends on it."""
    precision: Precision = "fp32"
    """Numbers that the model computes with: `fp32` takes the weights as they are, `bf16` a rounded copy of them,
    `auto` that copy where the processor or GPU has bfloat16 arithmetic. Lists of bf16 differ in near-ties: report
    metrics in fp32."""

    def describe(self) -> str:
        """What decides the lists, in a few words for a report.

        >>> BeamConfig(beams=50).describe()
        '50 beams, normalize: level'
        >>> BeamConfig(precision="bf16").describe()
        '20 beams, normalize: level, precision: bf16'
        """
        precision = "" if self.precision == "fp32" else f", precision: {self.precision}"
        return f"{self.beams} beams, normalize: {self.normalize}{precision}"


@dataclass(frozen=True)
class Request:
    """What one call asks of a recommender.

    Attributes:
        k: items a user, at least 1.
        exclude_seen: never recommend an item of the user's own history.
        allowed: items that may be recommended, bool[N] for all users or `Filters` with a list for each;
            None means all.
        exact: search on for users whose list is not certified to be the true top k, until it is.
        search: how to search; None takes the recommender's own settings. Recommenders that score all
            items at once search nothing.
        denied: items that must not be recommended, like `allowed`; None means none.
    """

    k: int = 10
    exclude_seen: bool = True
    allowed: BoolArray | Filters | None = None
    exact: bool = False
    search: BeamConfig | None = None
    denied: BoolArray | Filters | None = None

    def __post_init__(self) -> None:
        if self.k < 1:
            raise DataError(f"k is {self.k}", expected="at least 1")
        if self.allowed is not None and not isinstance(self.allowed, Filters) and not np.any(self.allowed):
            raise ConstraintError("the allow-list holds no item of the catalogue", expected="at least one item")

    def filters(self, num_users: int, num_items: int) -> Filters | None:
        """What each user may get by the allow- and deny-lists; None for all items.

        Raises:
            DataError: a list is not for these users or items.
            ConstraintError: a user's lists leave no item at all.
        """
        return combined(self.allowed, self.denied, num_users, num_items)


@dataclass(frozen=True)
class Recommendations:
    """Lists of items, best first.

    Attributes:
        rows: int32[U, k] item rows; -1 where a user has fewer than k candidates.
        scores: float32[U, k], falling; -inf where the row is -1. Items that share their codes share
            their score and stand in row order.
        exact: bool[U], whether the list is known to be the true top k of the whole catalogue. Where items
            of equal score compete for its last places, any of them may stand there.
    """

    rows: IntArray
    scores: FloatArray
    exact: BoolArray

    def __post_init__(self) -> None:
        if self.rows.shape != self.scores.shape or len(self.exact) != len(self.rows):
            raise DataError(f"rows {self.rows.shape}, scores {self.scores.shape}, exact {self.exact.shape} differ")

    def __len__(self) -> int:
        return len(self.rows)

    @classmethod
    def empty(cls, k: int) -> "Recommendations":
        """Lists of k items for no user at all."""
        return cls(np.empty((0, k), np.int32), np.empty((0, k), np.float32), np.empty(0, np.bool_))

    @classmethod
    def concatenate(cls, parts: "list[Recommendations]") -> "Recommendations":
        """The lists of several batches of users, at least one, one after the other."""
        fields = ("rows", "scores", "exact")
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in fields))
