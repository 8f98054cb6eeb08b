"""Splits: which events are targets of training, validation and test.

A split is arrays of (line, cut); prefixes are never copied. Every split here puts a user's training targets before
the validation targets and those before the test targets. Splits by user (some users held out whole) are left out.
"""

from abc import ABC, abstractmethod
from typing import Literal

import numpy as np
from pydantic import Field, model_validator

from sidrec.config import Config, Part
from sidrec.data.dataset import Examples, Split
from sidrec.data.sequences import Sequences, positions_within
from sidrec.errors import DataError
from sidrec.types import FloatArray, IntArray

__all__ = ["Auto", "Given", "LeaveOneOut", "Splitter", "TemporalCut", "TimeRatio"]


class Splitter(Part, ABC):
    """Decides which positions of the sequences are targets of which part."""

    @abstractmethod
    def split(self, sequences: Sequences, given: Split | None = None) -> Split:
        """The split of these sequences.

        Args:
            sequences: all users' events in order.
            given: the split that came with the data, if any.

        Raises:
            DataError: the data do not have what the split needs.
        """


class LeaveOneOut(Splitter):
    """Last event of each user for test, the one before for validation, the others for training.

    A sequence s[0..n-1] gives training targets s[1..n-3], the validation target s[n-2] and the test target s[n-1].
    The first event is never a target. A user with fewer than three events is used for training only.
    """

    class Config(Config):
        """Settings."""

        kind: Literal["leave-one-out"] = "leave-one-out"

    def split(self, sequences: Sequences, given: Split | None = None) -> Split:
        """Training, validation and test targets by position from the end."""
        lengths = sequences.lengths
        whole = lengths >= 3
        users = np.flatnonzero(whole).astype(np.int32)
        last = (lengths[whole] - 1).astype(np.int32)
        train = _ranges(np.where(whole, lengths - 3, lengths - 1))
        return Split("leave-one-out", train, Examples(users, last - 1), Examples(users, last))


class TemporalCut(Splitter):
    """Events by their time: before `valid_from` for training, from `test_from` on for test.

    The cuts are global, so no part knows the future of another, not even of other users. A user's first event is
    no target. An event exactly at a cut belongs to the later part.
    """

    class Config(Config):
        """Settings, in the unit of the data's timestamps."""

        kind: Literal["temporal"] = "temporal"
        valid_from: float
        """Time of the first validation target."""
        test_from: float
        """Time of the first test target."""

        @model_validator(mode="after")
        def _ordered(self) -> "TemporalCut.Config":
            if self.valid_from >= self.test_from:
                raise ValueError(f"valid_from {self.valid_from:g} is not before test_from {self.test_from:g}")
            return self

    def split(self, sequences: Sequences, given: Split | None = None) -> Split:
        """Targets of each part by the two cuts."""
        name = f"temporal (valid from {self.config.valid_from:.15g}, test from {self.config.test_from:.15g})"
        return _by_time(name, sequences, self.config)


class TimeRatio(Splitter):
    """Events by their time, with cuts that put given shares of all events into each part.

    Events that tie with the first one of a part belong to it, so with many ties the shares are not exact.
    """

    class Config(Config):
        """Settings; what `train` and `valid` leave is for test."""

        kind: Literal["time-ratio"] = "time-ratio"
        train: float = Field(0.8, gt=0, lt=1)
        """Share of all events that lie before the first cut."""
        valid: float = Field(0.1, gt=0, lt=1)
        """Share of all events between the cuts."""

        @model_validator(mode="after")
        def _something_left(self) -> "TimeRatio.Config":
            if self.train + self.valid >= 1:
                raise ValueError(f"train {self.train:g} + valid {self.valid:g} leave nothing for test")
            return self

    def split(self, sequences: Sequences, given: Split | None = None) -> Split:
        """Targets of each part by the two quantiles of time."""
        times = _times(sequences)
        ranks = [int(len(times) * share) for share in (self.config.train, self.config.train + self.config.valid)]
        ordered = np.partition(times, ranks)
        name = f"time-ratio (train {self.config.train:g}, valid {self.config.valid:g})"
        if ordered[ranks[0]] == ordered[ranks[1]]:
            raise DataError(
                f"both cuts fall on the time {ordered[ranks[0]]}",
                where=f"split '{name}'",
                expected="times that tell events apart",
                next="choose other shares, or split 'leave-one-out'",
            )
        cuts = TemporalCut.Config(valid_from=float(ordered[ranks[0]]), test_from=float(ordered[ranks[1]]))
        return _by_time(name, sequences, cuts)


class Given(Splitter):
    """The split that came with the data, as the reader found it."""

    class Config(Config):
        """Settings."""

        kind: Literal["given"] = "given"

    def split(self, sequences: Sequences, given: Split | None = None) -> Split:
        """The given split."""
        if given is None:
            raise DataError(
                "the data bring no split of their own",
                expected="files for train, valid and test",
                next="choose split 'leave-one-out'",
            )
        return given


class Auto(Splitter):
    """The given split where the data bring one, else leave-one-out."""

    class Config(Config):
        """Settings."""

        kind: Literal["auto"] = "auto"

    def split(self, sequences: Sequences, given: Split | None = None) -> Split:
        """The given split, or leave-one-out."""
        return given if given is not None else LeaveOneOut().split(sequences)


def _ranges(stops: IntArray) -> Examples:
    """Cuts 1 … stop of every line; none where stop < 1."""
    counts = np.maximum(stops, 0)
    users = np.repeat(np.arange(len(stops), dtype=np.int32), counts)
    return Examples(users, (positions_within(counts) + 1).astype(np.int32))


def _times(sequences: Sequences) -> IntArray | FloatArray:
    if sequences.times is None:
        raise DataError(
            "a split by time needs timestamps, and the source has none",
            expected="a timestamp for every interaction",
            next="choose split 'leave-one-out', or name the time column in the reader's settings",
        )
    return sequences.times


def _by_time(name: str, sequences: Sequences, config: TemporalCut.Config) -> Split:
    times = _times(sequences)
    everything = _ranges(sequences.lengths - 1)
    at = times[sequences.offsets[everything.users] + everything.cuts]
    late = at >= config.test_from
    masks = {"train": at < config.valid_from, "valid": (at >= config.valid_from) & ~late, "test": late}
    for part, mask in masks.items():
        if not mask.any():
            raise DataError(
                f"the {part} part is empty",
                where=f"split '{name}'",
                expected=f"cuts inside the data's times, {times.min()} to {times.max()}",
                next="move the cuts",
            )
    parts = {part: Examples(everything.users[mask], everything.cuts[mask]) for part, mask in masks.items()}
    return Split(name, **parts)
