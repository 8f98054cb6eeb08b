"""Interactions as integer codes: user and item numbers in flat arrays, sorted by (user, time, input order).

Text ids are turned into numbers once, on the way in, so that filters and splits of 10⁷ events work on plain arrays
and no Python object exists per event. Ids are numbered by first appearance in the input.
"""

from dataclasses import dataclass, replace

import numpy as np
import polars as pl

from sidrec.data.columns import Columns
from sidrec.data.files import reading, require
from sidrec.data.raw import RawData
from sidrec.errors import DataError
from sidrec.types import BoolArray, FloatArray, IntArray

__all__ = ["Interactions", "Ties", "collect", "count_ties", "renumber"]


@dataclass(frozen=True)
class Interactions:
    """T events. Codes index `user_ids` and `item_ids`; after filtering some ids may have no event.

    Attributes:
        users: int32[T].
        items: int32[T].
        user_ids: the caller's ids, by first appearance in the input.
        item_ids: the same for items.
        times: int64[T] or float64[T], or None where the source has only an order.
        ratings: float64[T], NaN where there is none, or None.
    """

    users: IntArray
    items: IntArray
    user_ids: pl.Series
    item_ids: pl.Series
    times: IntArray | None = None
    ratings: FloatArray | None = None

    def __len__(self) -> int:
        return len(self.users)

    def take(self, index: BoolArray | IntArray) -> "Interactions":
        """The events at the given positions or where a mask is true."""
        return replace(
            self,
            users=self.users[index],
            items=self.items[index],
            times=None if self.times is None else self.times[index],
            ratings=None if self.ratings is None else self.ratings[index],
        )

    def sorted(self) -> "Interactions":
        """Events by (user, time, input order): a stable sort, so ties in time keep the order of the input."""
        users, times = self.users, self.times
        step = np.diff(users)
        in_order = (step > 0) | (step == 0) if times is None else (step > 0) | ((step == 0) & (np.diff(times) >= 0))
        if in_order.all():
            return self
        order = np.argsort(users, kind="stable") if times is None else np.lexsort((times, users))
        return self.take(order)

    def num_users(self) -> int:
        """Users with at least one event."""
        return int(np.count_nonzero(np.bincount(self.users, minlength=1)))

    def num_items(self) -> int:
        """Items with at least one event."""
        return int(np.count_nonzero(np.bincount(self.items, minlength=1)))


@dataclass(frozen=True)
class Ties:
    """How far the clock leaves the order of events open.

    Attributes:
        events: events that share user and time with another.
        last_items: users whose last event shares its time with the one before.
    """

    events: int
    last_items: int


def count_ties(users: IntArray, times: IntArray | None) -> Ties:
    """Ties among events sorted by (user, time).

    >>> count_ties(np.array([0, 0, 0, 1]), np.array([5, 7, 7, 7]))
    Ties(events=2, last_items=1)
    """
    if times is None or not len(users):
        return Ties(0, 0)
    same = (users[1:] == users[:-1]) & (times[1:] == times[:-1])
    with_previous = np.concatenate([[False], same])
    tied = with_previous | np.concatenate([same, [False]])
    last = np.concatenate([users[1:] != users[:-1], [True]])
    return Ties(int(tied.sum()), int((with_previous & last).sum()))


def collect(raw: RawData) -> tuple[Interactions, int]:
    """Read the events of a source into codes, in file order.

    Returns:
        The events, and how many were left out because user, item or time is missing.

    Raises:
        DataError: no event, a missing column, a time or rating that is no number, a damaged file.
    """
    assert raw.interactions is not None
    with reading(raw.source):
        columns = raw.interactions.collect_schema().names()
    require((Columns.USER, Columns.ITEM), columns, raw.source)
    wanted = [name for name in (Columns.TIME, Columns.RATING) if name in columns]
    with reading(raw.source):
        table = raw.interactions.select(_category(Columns.USER), _category(Columns.ITEM), *wanted).collect(
            engine="streaming"
        )
    if not table.height:
        raise DataError("there are no interactions", where=raw.source, expected="at least one row")
    table = table.with_columns(_numbers(table[name], raw) for name in wanted)
    missing = pl.any_horizontal(pl.col(name).is_null() for name in columns if name in (*_IDS, Columns.TIME))
    kept = table.filter(~missing)
    if not kept.height:
        raise DataError(
            "every row lacks its user, item or time",
            where=raw.source,
            expected="at least one whole row",
            next="check the columns that the reader's settings name",
        )
    users, user_ids = _codes(kept[Columns.USER])
    items, item_ids = _codes(kept[Columns.ITEM])
    times = kept[Columns.TIME].to_numpy() if Columns.TIME in wanted else None
    ratings = kept[Columns.RATING].cast(pl.Float64).to_numpy() if Columns.RATING in wanted else None
    return Interactions(users, items, user_ids, item_ids, times, ratings), table.height - kept.height


_IDS = (Columns.USER, Columns.ITEM)


def _category(name: str) -> pl.Expr:
    """A column of ids as categories; empty text counts as missing."""
    text = pl.col(name).cast(pl.String)
    return pl.when(text != "").then(text).cast(pl.Categorical).alias(name)


def _codes(ids: pl.Series) -> tuple[IntArray, pl.Series]:
    # Categories are numbered in the order in which threads met them; the numbers are made
    # deterministic here.
    codes, first = renumber(ids.to_physical().to_numpy())
    return codes, ids.gather(first).cast(pl.String)


def renumber(values: IntArray) -> tuple[IntArray, IntArray]:
    """Numbers by first appearance: codes int32[T] and the position int64[K] where each code is met first.

    >>> [array.tolist() for array in renumber(np.array([7, 3, 7, 0]))]
    [[0, 1, 0, 2], [0, 1, 3]]
    """
    size = int(values.max()) + 1 if len(values) else 0
    first = np.full(size, -1, dtype=np.int64)
    # Assigned from the back, so that the earliest position is the one that stays.
    first[values[::-1]] = np.arange(len(values) - 1, -1, -1)
    present = np.flatnonzero(first >= 0)
    order = present[np.argsort(first[present])]
    code = np.empty(size, dtype=np.int32)
    code[order] = np.arange(len(order), dtype=np.int32)
    return code[values], first[order]


def _numbers(column: pl.Series, raw: RawData) -> pl.Series:
    """A column of times or ratings as int64 or float64.

    Raises:
        DataError: a value is no finite number; the row is named.
    """
    if column.dtype.is_temporal():
        return column.cast(pl.Datetime("ms")).to_physical().alias(column.name)
    if not (column.dtype.is_numeric() or column.dtype == pl.String or column.dtype == pl.Null):
        raise DataError(
            f"the column '{column.name}' holds {column.dtype}", where=raw.source, expected="numbers or dates"
        )
    if column.dtype.is_integer():
        return column.cast(pl.Int64)
    text = column
    if column.dtype == pl.String:
        stripped = column.str.strip_chars()
        text = stripped.set(stripped == "", None)
        whole = text.cast(pl.Int64, strict=False)
        if whole.null_count() == text.null_count():
            return whole
    numbers = text.cast(pl.Float64, strict=False)
    wrong = (numbers.is_null() & text.is_not_null()) | ~numbers.is_finite().fill_null(True)
    if wrong.any():
        row = int(wrong.arg_max() or 0)
        line = f", line {raw.first_line + row}" if raw.first_line else f", row {row + 1}"
        raise DataError(
            f"'{column[row]}' is not a number",
            where=f"{raw.source}{line}, column '{column.name}'",
            expected="a finite number such as 1398902400",
            next="correct the value, or name another column in the reader's settings",
        )
    # Whole seconds written as floats (RecBole) are whole numbers.
    whole = numbers.cast(pl.Int64, strict=False)
    same = column.name == Columns.TIME and bool(
        ((whole.cast(pl.Float64) == numbers).fill_null(False) | numbers.is_null()).all()
    )
    return whole if same else numbers
