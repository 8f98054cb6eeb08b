"""A prepared dataset: the artefact that every later stage starts from."""

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import polars as pl

from sidrec.artifact import Artifact, open_artifact
from sidrec.data.catalog import Catalog
from sidrec.data.columns import Columns
from sidrec.data.sequences import Histories, Sequences, positions_within
from sidrec.errors import DataError
from sidrec.types import BoolArray, IntArray

__all__ = ["Dataset", "Examples", "PartName", "Split"]

PartName = Literal["train", "valid", "test"]
PARTS: tuple[PartName, ...] = ("train", "valid", "test")
REMAKE = "prepare the dataset again"


@dataclass(frozen=True)
class Examples:
    """Pairs (user, cut): the history is the first `cut` items, the target is the item at `cut`.

    Attributes:
        users: int32[P], positions in `Sequences`.
        cuts: int32[P], ≥ 1 (an empty history is no example).
    """

    users: IntArray
    cuts: IntArray

    def __len__(self) -> int:
        return len(self.users)


@dataclass(frozen=True)
class Split:
    """Which positions of the sequences are targets of which part; prefixes are never copied out.

    Attributes:
        name: how the split was made, in words for a report.
        train, valid, test: the examples of each part.
    """

    name: str
    train: Examples
    valid: Examples
    test: Examples

    def check(self, sequences: Sequences) -> None:
        """Raise `DataError` unless cuts lie inside their sequences and train < valid < test per user."""
        first_after = np.full(len(sequences), np.iinfo(np.int32).max, dtype=np.int64)
        for part in reversed(PARTS):
            examples: Examples = getattr(self, part)
            users, cuts = examples.users, examples.cuts
            if len(users) and (users.min() < 0 or users.max() >= len(sequences)):
                raise DataError(
                    f"a {part} example names sequence {users.min() if users.min() < 0 else users.max()}",
                    where=f"split '{self.name}'",
                    expected=f"0 to {len(sequences) - 1}",
                    next=REMAKE,
                )
            self._check_cuts(part, sequences, (cuts < 1) | (cuts >= sequences.lengths[users]), "outside its sequence")
            self._check_cuts(part, sequences, cuts >= first_after[users], "not before a later part's target")
            np.minimum.at(first_after, users, cuts)

    def _check_cuts(self, part: PartName, sequences: Sequences, is_wrong: BoolArray, problem: str) -> None:
        if not is_wrong.any():
            return
        examples: Examples = getattr(self, part)
        first = int(is_wrong.argmax())
        line, cut = int(examples.users[first]), int(examples.cuts[first])
        raise DataError(
            f"{int(is_wrong.sum())} {part} targets are {problem}; the first is at position {cut} of user "
            f"'{sequences.users[line]}', who has {sequences.lengths[line]} events",
            where=f"split '{self.name}'",
            expected="positions from 1 to the last, those of train before valid before test",
            next=REMAKE,
        )


@dataclass(frozen=True)
class Dataset:
    """Catalogue, sequences and split.

    Attributes:
        catalog: the items.
        sequences: the users' histories.
        split: the examples of train, valid and test.
        given_codes: int32[N, L] semantic IDs that came with the data, or None.
        artifact: where it was loaded from, or None for one made in memory.
    """

    catalog: Catalog
    sequences: Sequences
    split: Split
    given_codes: IntArray | None = None
    artifact: Artifact | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        rows = self.sequences.rows
        if len(rows) and (rows.min() < 0 or rows.max() >= len(self.catalog)):
            raise DataError(
                f"a sequence names item row {rows.min() if rows.min() < 0 else rows.max()}",
                where=f"catalogue of {len(self.catalog)} items",
                expected=f"0 to {len(self.catalog) - 1}",
                next=REMAKE,
            )
        self.split.check(self.sequences)

    def examples(self, part: PartName) -> Examples:
        """The (user, cut) pairs of a part."""
        return getattr(self.split, part)

    def histories(self, part: PartName, max_items: int = 0) -> Histories:
        """Histories of a part's examples, each cut to its newest `max_items` (0: no cut)."""
        examples = self.examples(part)
        return self.sequences.before(examples.users, examples.cuts, max_items)

    def targets(self, part: PartName) -> IntArray:
        """int32[P], target rows of a part's examples."""
        examples = self.examples(part)
        return self.sequences.targets(examples.users, examples.cuts)

    def training_events(self) -> Histories:
        """What training may see, each event once: one history for each user with a training example.

        These are a user's items up to and including the last training target. Where a "given" split has several
        lines of one user, whose histories overlap, later lines add their targets only.
        """
        return self._training_events

    def training_counts(self) -> IntArray:
        """int64[N], how often each item occurs in `training_events`."""
        return self._training_counts

    @cached_property
    def _training_events(self) -> Histories:
        sequences, examples = self.sequences, self.split.train
        num_seen = np.zeros(len(sequences), dtype=np.int64)
        np.maximum.at(num_seen, examples.users, examples.cuts + 1)
        lines = np.flatnonzero(num_seen)
        names, first, owner = np.unique(np.asarray(sequences.users)[lines], return_index=True, return_inverse=True)
        whole = lines[first]
        is_event = np.zeros(len(sequences.rows), dtype=np.bool_)
        is_event[sequences.offsets[examples.users] + examples.cuts] = True
        is_event[np.repeat(sequences.offsets[whole], num_seen[whole]) + positions_within(num_seen[whole])] = True
        user = np.full(len(sequences), -1, dtype=np.int64)
        user[lines] = owner
        users = user[sequences.owners][is_event]
        order = np.argsort(users, kind="stable")
        offsets = np.concatenate([[0], np.cumsum(np.bincount(users, minlength=len(names)))]).astype(np.int64)
        return Histories(sequences.rows[is_event][order].astype(np.int32), offsets)

    @cached_property
    def _training_counts(self) -> IntArray:
        counts = np.bincount(self._training_events.rows, minlength=len(self.catalog))
        # Shared by all who ask.
        counts.setflags(write=False)
        return counts

    def save(self, directory: Path) -> None:
        """Write the dataset's files into a directory (inside `artifact.create`)."""
        self.catalog.save(directory)
        pl.DataFrame({Columns.USER: self.sequences.users}).write_parquet(directory / "users.parquet")
        arrays = {"rows": self.sequences.rows, "offsets": self.sequences.offsets}
        if self.sequences.times is not None:
            arrays["times"] = self.sequences.times
        np.savez(directory / "sequences.npz", allow_pickle=False, **arrays)
        pairs = {f"{part}_{name}": getattr(self.examples(part), name) for part in PARTS for name in ("users", "cuts")}
        np.savez(directory / "split.npz", allow_pickle=False, name=np.asarray(self.split.name), **pairs)
        if self.given_codes is not None:
            np.savez(directory / "given_codes.npz", codes=self.given_codes)

    @classmethod
    def load(cls, path: Path | str) -> "Dataset":
        """Read and check a dataset artefact.

        Raises:
            ArtifactError: it is missing, damaged or something else.
        """
        artifact = open_artifact(path, "dataset")
        directory = artifact.path
        with np.load(directory / "sequences.npz", allow_pickle=False) as file:
            arrays = dict(file)
        users = pl.read_parquet(directory / "users.parquet")[Columns.USER].to_list()
        sequences = Sequences(arrays["rows"], arrays["offsets"], users, arrays.get("times"))
        with np.load(directory / "split.npz", allow_pickle=False) as file:
            parts = {part: Examples(file[f"{part}_users"], file[f"{part}_cuts"]) for part in PARTS}
            split = Split(str(file["name"]), **parts)
        given = directory / "given_codes.npz"
        codes = np.load(given, allow_pickle=False)["codes"] if given.is_file() else None
        return cls(Catalog.load(directory), sequences, split, codes, artifact)
