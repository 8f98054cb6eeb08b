"""Preference pairs: a history, the item that followed it, and items that it is preferred to.

Also what all ways of finding them share: which training targets are chosen, and which items a user must
not get as a worse one.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal

import numpy as np
from pydantic import Field

from sidrec.config import Config, Part, RunSettings
from sidrec.data.dataset import Dataset, Examples
from sidrec.data.sequences import Histories, positions_within
from sidrec.embeddings.base import ItemEmbeddings
from sidrec.errors import DataError
from sidrec.recommenders.base import Recommender
from sidrec.types import IntArray

__all__ = ["Chosen", "MiningConfig", "PairSource", "Pairs"]


@dataclass(frozen=True)
class Pairs:
    """Histories, each with one chosen item and M rejected ones.

    Attributes:
        rows: int32[T], item rows of all sequences one after the other.
        starts: int64[P], place in `rows` where each pair's history begins.
        lengths: int64[P], items of the history, at least 1; the chosen item stands behind it.
        rejected_PM: int32[P, M], item rows, the present ones first; -1 where there are fewer. At least one a pair.
        num_dropped: examples for which no rejected item was found, and which are no pairs.
        num_same_codes: items that could not be rejected, because they have the chosen item's codes; over all examples.
    """

    rows: IntArray
    starts: IntArray
    lengths: IntArray
    rejected_PM: IntArray
    num_dropped: int = 0
    num_same_codes: int = 0

    @classmethod
    def of(cls, dataset: Dataset, chosen: "Chosen", rejected_PM: IntArray) -> "Pairs":
        """Pairs of a dataset's chosen items; those without any rejected item are dropped.

        Raises:
            DataError: no pair is left.
        """
        kept = np.any(rejected_PM >= 0, axis=1)
        if not kept.any():
            raise DataError(
                f"none of {len(kept)} training targets has an item that it could be preferred to",
                next="take more neighbours, or a larger catalogue",
            )
        users, cuts = chosen.examples.users[kept], chosen.examples.cuts[kept]
        starts = dataset.sequences.offsets[users].astype(np.int64)
        counts = int((~kept).sum()), chosen.num_same_codes
        return cls(dataset.sequences.rows, starts, cuts.astype(np.int64), rejected_PM[kept].astype(np.int32), *counts)

    def __len__(self) -> int:
        return len(self.starts)

    @property
    def chosen_P(self) -> IntArray:
        """int32[P], rows of the chosen items."""
        return self.rows[self.starts + self.lengths]

    def histories(self, positions: IntArray) -> Histories:
        """Whole histories of some pairs."""
        starts, lengths = self.starts[positions], self.lengths[positions]
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        return Histories(self.rows[np.repeat(starts, lengths) + positions_within(lengths)], offsets)

    def items(self, positions: IntArray) -> IntArray:
        """int32[B, 1 + M], the chosen item of some pairs and the rejected ones behind it."""
        return np.column_stack([self.chosen_P[positions], self.rejected_PM[positions]])


class MiningConfig(Config):
    """Fields of all ways to find rejected items for a dataset's training targets."""

    targets: Literal["last", "all"] = "last"
    """Which training targets are chosen items: each user's last one, or all of them."""
    negatives: int = Field(default=1, ge=1)
    """Rejected items of each chosen one; fewer where there are not so many."""
    spare_held_out: bool = False
    """Never reject a user's own validation and test targets. This is a leak: what is pushed down depends on them, and
    validation, which decides what is kept, flatters. For comparison with scripts that filter by whole histories."""


@dataclass(frozen=True)
class Chosen:
    """The chosen items of a dataset, and what their users must not get as worse items.

    Attributes:
        examples: training targets.
        own: items of each user, in any order.
        owners: int64[P], the user in `own` of each example.
        alike: lists of items that the recommender cannot tell apart.
        groups: int64[P], the list in `alike` of each example's item.
    """

    examples: Examples
    own: Histories
    owners: IntArray
    alike: Histories
    groups: IntArray

    @classmethod
    def of(cls, dataset: Dataset, config: MiningConfig, recommender: Recommender) -> "Chosen":
        """The training targets that a configuration chooses.

        Own items are those of a user up to the last training target of each line of a "given" split, or with
        `spare_held_out` all of them. Items are alike if they have the same codes: a pair of them has no margin,
        whatever is learnt.

        Raises:
            DataError: there are no training targets.
        """
        sequences, train = dataset.sequences, dataset.split.train
        if not len(train):
            raise DataError("the dataset has no training targets", next="prepare it with a split that has some")
        names, user_of_line = np.unique(np.asarray(sequences.users), return_inverse=True)
        lengths = sequences.lengths
        if not config.spare_held_out:
            lengths = np.zeros_like(lengths)
            np.maximum.at(lengths, train.users, train.cuts.astype(np.int64) + 1)
        events = np.repeat(sequences.offsets[:-1], lengths) + positions_within(lengths)
        users = np.repeat(user_of_line, lengths)
        order = np.argsort(users, kind="stable")
        offsets = np.concatenate([[0], np.cumsum(np.bincount(users, minlength=len(names)))]).astype(np.int64)
        own = Histories(sequences.rows[events[order]].astype(np.int32), offsets)
        examples = train
        if config.targets == "last":
            by_user = np.lexsort((train.cuts, train.users, user_of_line[train.users]))
            sorted_users = user_of_line[train.users][by_user]
            is_last = np.append(sorted_users[1:] != sorted_users[:-1], True)
            last = np.sort(by_user[is_last])
            examples = Examples(train.users[last], train.cuts[last])
        ids = recommender.semantic_ids
        group_of = np.arange(len(dataset.catalog)) if ids is None else ids.group_of
        alike = _members(group_of)
        groups = group_of[sequences.targets(examples.users, examples.cuts)]
        return cls(examples, own, user_of_line[examples.users], alike, groups)

    def __len__(self) -> int:
        return len(self.examples)

    @property
    def num_same_codes(self) -> int:
        """Items that have the codes of an example's item without being it, over all examples."""
        return int((self.alike.lengths[self.groups] - 1).sum())

    def barred(self, block: IntArray | slice) -> Histories:
        """What must not be rejected: B lists of the user's own items and those like the chosen one, in any order."""
        own, alike = self.own.take(self.owners[block]), self.alike.take(self.groups[block])
        order = np.argsort(np.concatenate([own.owners, alike.owners]), kind="stable")
        return Histories(np.concatenate([own.rows, alike.rows])[order], own.offsets + alike.offsets)


def _members(group_of: IntArray) -> Histories:
    """The items of each group, from the group of each item.

    >>> _members(np.array([1, 0, 1]))[1].tolist()
    [0, 2]
    """
    ends = np.cumsum(np.bincount(group_of))
    return Histories(np.argsort(group_of, kind="stable").astype(np.int32), np.concatenate([[0], ends]).astype(np.int64))


class PairSource(Part, ABC):
    """A way to find preference pairs."""

    @property
    def needs_embeddings(self) -> bool:
        """Whether item vectors from outside the recommender are needed."""
        return False

    @property
    def spares_held_out(self) -> bool:
        """Whether validation and test targets decide what is rejected, which is a leak."""
        return isinstance(self.config, MiningConfig) and self.config.spare_held_out

    def sources(self) -> dict[str, str]:
        """Role → digest of files outside the run."""
        return {}

    @abstractmethod
    def pairs(
        self, recommender: Recommender, dataset: Dataset, run: RunSettings, embeddings: ItemEmbeddings | None = None
    ) -> Pairs:
        """The pairs, the same for the same arguments and seed.

        Args:
            recommender: what is tuned, in its first state.
            dataset: whose training targets are chosen.
            run: seed, device, progress.
            embeddings: item vectors, where they are needed.
        """
