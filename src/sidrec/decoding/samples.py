"""How items are drawn rather than ranked, and what comes out."""

from dataclasses import dataclass, fields
from typing import Any, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from sidrec.config import Config
from sidrec.decoding.recommendations import Normalize, UsersPerBatch
from sidrec.errors import DataError
from sidrec.types import FloatArray, IntArray

__all__ = ["Samples", "SamplingConfig"]

OWN_FIELDS = {
    "temperature": ("sample", "gumbel"),
    "top_k": ("sample", "gumbel"),
    "top_p": ("sample", "gumbel"),
    "groups": ("diverse",),
    "diversity": ("diverse",),
}
"""Settings that not all kinds have, and the kinds that have them."""


class SamplingConfig(Config):
    """How items are drawn.

    At every prefix `sample` and `gumbel` choose among the children that hold an item the user may get, by the
    softmax of their log-probabilities / temperature, cut by `top_k`, then by `top_p`, and normalised again.
    """

    kind: Literal["sample", "gumbel", "diverse"] = "sample"
    """`sample`: independent draws, with repeats. `gumbel`: different leaves, drawn without replacement.
    `diverse`: nothing is drawn; beams in groups that avoid each other's codes."""
    temperature: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    """Below 1 likely codes become likelier, above 1 unlikely ones. Not for `diverse`."""
    top_k: int | None = Field(default=None, ge=1)
    """Only the best so many children of a prefix can be drawn. Not for `diverse`."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """Only the fewest best children whose probabilities reach this sum can be drawn. Not for `diverse`."""
    groups: int = Field(default=4, ge=1)
    """Groups of beams for `diverse`; 1 makes it the plain beam search, as many as beams the most diverse."""
    diversity: float = Field(default=0.5, ge=0, allow_inf_nan=False)
    """For `diverse`: what a code loses for each beam of an earlier group that took it at the same level."""
    normalize: Normalize = "level"
    """Over what the model's log-probabilities are normalised, as in a beam search."""
    users_per_batch: UsersPerBatch = 32
    """Users searched at once; `auto` finds the fastest number while it searches. Changes no result."""

    @model_validator(mode="after")
    def _settings_have_an_effect(self) -> Self:
        for name, kinds in OWN_FIELDS.items():
            if self.kind not in kinds and getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(f"'{name}' has no effect on '{self.kind}'; only on {' and '.join(kinds)}")
        return self


@dataclass(frozen=True)
class Samples:
    """Drawn items, n of each user.

    In the order of drawing where kind is `sample`, by falling `perturbed` where it is `gumbel`, by falling
    `log_probs` where it is `diverse`.

    Attributes:
        rows: int32[U, n], item rows; -1 where a user has fewer, and where a draw came to a prefix of whose
            wanted children the model holds none possible (log-probability -inf).
        codes: int32[U, n, L], their codes as the model writes them; -1 where there is no item.
        log_probs: float32[U, n], what the model gives the codes, normalised as `normalize` says, at
            temperature 1; with the end step, where the scorer has one. -inf where there is no item.
        draw_log_probs: float32[U, n], log-probability of the codes under the distribution that was
            drawn from, which sums to 1 over the leaves that the user can get; None for `diverse`.
        perturbed: float32[U, n], `draw_log_probs` plus Gumbel noise, falling; None but for `gumbel`.
        thresholds: float32[U], the next perturbed score, of the best leaf that was not drawn (κ of Kool
            et al.); -inf where none was left; None but for `gumbel`.

    Both log-probabilities are of the codes. Which item of a leaf of several is drawn is a matter of
    chance alone, the same for all of them that the user may get, and counts in neither: no gradient
    of the model comes from there.
    """

    rows: IntArray
    codes: IntArray
    log_probs: FloatArray
    draw_log_probs: FloatArray | None = None
    perturbed: FloatArray | None = None
    thresholds: FloatArray | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def weights(self) -> FloatArray:
        """Importance weights of draws without replacement, float64[U, n]; 0 where there is no item.

        For any function f of an item the sum of weight times f over the draws is an unbiased estimate
        of its mean under the distribution drawn from. The weight is p / q, p the leaf's probability
        and q = 1 - exp(-exp(log p - κ)) the probability that its noise lifts it above the threshold
        (Kool, van Hoof & Welling, 2019, section 4.2). Divided by their sum the weights vary less but are biased.

        >>> half = np.float32(np.log([[0.5, 0.5]]))
        >>> both = Samples(np.array([[4, 2]]), np.zeros((1, 2, 1)), half, half, half, np.array([-np.inf]))
        >>> both.weights().round(6).tolist()
        [[0.5, 0.5]]

        Raises:
            DataError: the items were not drawn without replacement.
        """
        if self.draw_log_probs is None or self.thresholds is None:
            raise DataError("these items were not drawn without replacement", expected="samples of kind 'gumbel'")
        exists = self.rows >= 0
        log_p = np.where(exists, self.draw_log_probs, 0).astype(np.float64)
        with np.errstate(over="ignore", divide="ignore"):
            inclusion = -np.expm1(-np.exp(log_p - self.thresholds[:, None].astype(np.float64)))
        return np.where(exists, np.exp(log_p) / np.where(exists, inclusion, 1), 0)

    def take(self, users: IntArray) -> "Samples":
        """The samples of some of the users, in the given order."""
        return self._of([None if array is None else array[users] for array in self._arrays()])

    @classmethod
    def empty(cls, kind: str, n: int, num_levels: int) -> "Samples":
        """Samples of a kind for no user at all."""
        scores = np.empty((0, n), np.float32)
        return cls(
            np.empty((0, n), np.int32),
            np.empty((0, n, num_levels), np.int32),
            scores,
            None if kind == "diverse" else scores,
            scores if kind == "gumbel" else None,
            np.empty(0, np.float32) if kind == "gumbel" else None,
        )

    @classmethod
    def concatenate(cls, parts: "list[Samples]") -> "Samples":
        """The samples of several batches of users of one kind, at least one, one after the other."""
        columns = zip(*(part._arrays() for part in parts), strict=True)
        return cls._of([None if column[0] is None else np.concatenate(column) for column in columns])

    @classmethod
    def _of(cls, arrays: list[Any]) -> "Samples":
        return cls(*arrays)

    def _arrays(self) -> list[Any]:
        return [getattr(self, field.name) for field in fields(self)]
