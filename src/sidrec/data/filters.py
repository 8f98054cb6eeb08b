"""Named filters of interactions, each of which counts what it drops.

A filter takes sorted interactions and returns fewer of them; `apply` keeps the record that the report prints.
What to drop is decided by settings of the prepare stage; nothing is dropped anywhere else.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass

import numpy as np
import polars as pl

from sidrec.data.interactions import Interactions
from sidrec.errors import DataError
from sidrec.types import BoolArray, Json

__all__ = ["Drop", "Filter", "apply", "duplicates", "k_core", "known_items", "min_length", "min_rating"]

Filter = Callable[[Interactions], BoolArray]
"""Says for each event whether it stays."""


@dataclass(frozen=True)
class Drop:
    """What one filter took away.

    Attributes:
        name: the filter with its setting, for people.
        rows: events dropped.
        users: users that lost their last event.
        items: items that lost their last event.
    """

    name: str
    rows: int
    users: int = 0
    items: int = 0

    def as_json(self) -> Json:
        """For the artefact's summary."""
        return asdict(self)


def apply(interactions: Interactions, name: str, rule: Filter) -> tuple[Interactions, Drop]:
    """The events that a rule keeps, and the record of the others.

    Raises:
        DataError: nothing is left.
    """
    keep = rule(interactions)
    if keep.all():
        return interactions, Drop(name, 0)
    left = interactions.take(keep)
    if not len(left):
        raise DataError(
            f"the filter '{name}' leaves nothing of {len(interactions)} interactions",
            expected="at least one interaction",
            next="loosen the filter: see 'user_core', 'item_core', 'min_length' and 'min_rating' of prepare",
        )
    drop = Drop(
        name,
        rows=len(interactions) - len(left),
        users=interactions.num_users() - left.num_users(),
        items=interactions.num_items() - left.num_items(),
    )
    return left, drop


def min_rating(threshold: float) -> Filter:
    """Keeps ratings of at least `threshold`; an event without rating goes.

    Raises:
        DataError: the source has no ratings.
    """

    def rule(interactions: Interactions) -> BoolArray:
        if interactions.ratings is None:
            raise DataError(
                "a minimum rating is set, but the source has no ratings",
                expected="a rating column",
                next="remove 'min_rating', or name the column in the reader's settings",
            )
        return interactions.ratings >= threshold

    return rule


def duplicates(interactions: Interactions) -> BoolArray:
    """Keeps the first occurrence of each user–item pair by (time, input order)."""
    key = interactions.users.astype(np.int64) * (int(interactions.items.max(initial=0)) + 1) + interactions.items
    order = np.argsort(key, kind="stable")
    ordered = key[order]
    keep = np.ones(len(key), dtype=bool)
    keep[order[1:]] = ordered[1:] != ordered[:-1]
    return keep


def known_items(ids: pl.Series) -> Filter:
    """Keeps events of the items whose ids are given."""

    def rule(interactions: Interactions) -> BoolArray:
        known = interactions.item_ids.is_in(ids.implode()).to_numpy()
        return known[interactions.items]

    return rule


def min_length(length: int) -> Filter:
    """Keeps users with at least `length` events."""

    def rule(interactions: Interactions) -> BoolArray:
        return (np.bincount(interactions.users) >= length)[interactions.users]

    return rule


def k_core(user_core: int, item_core: int) -> Filter:
    """Keeps the largest part in which every user has `user_core` and every item `item_core` events.

    Each pass looks at users and items together, until nothing changes. The result does not depend on the order of
    passes: the core is unique.
    """

    def rule(interactions: Interactions) -> BoolArray:
        index = np.arange(len(interactions), dtype=np.int64)
        users, items = interactions.users, interactions.items
        while len(index):
            stays = np.bincount(users)[users] >= user_core
            stays &= np.bincount(items)[items] >= item_core
            if stays.all():
                break
            index, users, items = index[stays], users[stays], items[stays]
        keep = np.zeros(len(interactions), dtype=bool)
        keep[index] = True
        return keep

    return rule
