"""Filters: counts by hand, and the core against a slow loop."""

from collections import Counter

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidrec.data import filters
from sidrec.data.columns import Columns
from sidrec.data.interactions import Interactions, collect, count_ties, renumber
from sidrec.data.raw import RawData
from sidrec.errors import DataError


def interactions(pairs, times=None, ratings=None):
    users = np.array([u for u, _ in pairs], dtype=np.int32)
    items = np.array([i for _, i in pairs], dtype=np.int32)
    return Interactions(
        users,
        items,
        pl.Series([f"u{n}" for n in range(users.max() + 1)]),
        pl.Series([f"i{n}" for n in range(items.max() + 1)]),
        None if times is None else np.asarray(times),
        None if ratings is None else np.asarray(ratings, dtype=float),
    )


def slow_core(pairs, user_core, item_core):
    """Remove one offending event at a time until none offends."""
    left = list(pairs)
    while True:
        users, items = Counter(u for u, _ in left), Counter(i for _, i in left)
        bad = next((e for e in left if users[e[0]] < user_core or items[e[1]] < item_core), None)
        if bad is None:
            return left
        left.remove(bad)


PAIRS = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=60)


@given(PAIRS, st.integers(1, 4), st.integers(1, 4))
@settings(max_examples=150, deadline=None)
def test_core_equals_a_slow_loop(pairs, user_core, item_core):
    expected = slow_core(pairs, user_core, item_core)
    data = interactions(pairs)
    keep = filters.k_core(user_core, item_core)(data)
    found = [pair for pair, stays in zip(pairs, keep, strict=True) if stays]
    assert sorted(found) == sorted(expected)


@given(PAIRS)
@settings(max_examples=100, deadline=None)
def test_duplicates_keep_the_first_in_order(pairs):
    keep = filters.duplicates(interactions(pairs))
    seen: set[tuple[int, int]] = set()
    expected = [not (pair in seen or seen.add(pair)) for pair in pairs]
    assert keep.tolist() == expected


def test_drop_counts_rows_users_and_items():
    data = interactions([(0, 0), (0, 1), (1, 1), (2, 2)])
    left, drop = filters.apply(data, "short", filters.min_length(2))
    assert left.users.tolist() == [0, 0]
    # Users 1 and 2 go with their two events; item 2 is gone with them, item 1 still has user 0.
    assert (drop.rows, drop.users, drop.items) == (2, 2, 1)


def test_rating_threshold_drops_lower_and_missing_ratings():
    data = interactions([(0, 0), (0, 1), (0, 2)], ratings=[4.0, 3.5, np.nan])
    assert filters.min_rating(4)(data).tolist() == [True, False, False]


def test_rating_threshold_without_ratings_is_an_error():
    with pytest.raises(DataError, match="no ratings"):
        filters.min_rating(4)(interactions([(0, 0)]))


def test_known_items():
    data = interactions([(0, 0), (0, 1), (1, 1)])
    assert filters.known_items(pl.Series(["i1", "other"]))(data).tolist() == [False, True, True]


def test_filter_that_leaves_nothing_says_which():
    with pytest.raises(DataError, match=r"core of 9.*leaves nothing of 1 interactions"):
        filters.apply(interactions([(0, 0)]), "core of 9", filters.k_core(9, 9))


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 3)), min_size=1, max_size=40))
@settings(max_examples=100, deadline=None)
def test_sorting_is_stable_in_input_order(events):
    data = interactions([(user, number) for number, (user, _) in enumerate(events)], times=[t for _, t in events])
    ordered = data.sorted()
    expected = sorted(range(len(events)), key=lambda n: (events[n][0], events[n][1], n))
    assert ordered.items.tolist() == expected


def test_ties_counted_by_hand():
    # User 0: 5, 7, 7 (last tied); user 1: 7 (alone, though user 0 has a 7); user 2: 1, 1, 2 (last free).
    ties = count_ties(np.array([0, 0, 0, 1, 2, 2, 2]), np.array([5, 7, 7, 7, 1, 1, 2]))
    assert (ties.events, ties.last_items) == (4, 1)
    assert count_ties(np.array([0]), None).events == 0


@given(st.lists(st.integers(0, 9), min_size=1))
@settings(max_examples=100, deadline=None)
def test_renumber_is_by_first_appearance(values):
    order = list(dict.fromkeys(values))
    codes, first = renumber(np.array(values))
    assert codes.tolist() == [order.index(value) for value in values]
    assert first.tolist() == [values.index(value) for value in order]


def raw(**columns):
    return RawData("log.csv", pl.LazyFrame(columns), first_line=2)


def test_collect_counts_missing_values():
    data, missing = collect(
        raw(user_id=["a", None, "b", ""], item_id=["x", "x", "", "y"], timestamp=["3", "1", "2", "1"])
    )
    assert missing == 3
    assert data.user_ids.to_list() == ["a"]
    assert data.times is not None
    assert data.times.tolist() == [3]


def test_collect_takes_numbers_as_ids_and_whole_floats_as_whole():
    data, _ = collect(raw(user_id=[7, 3], item_id=[1, 1], timestamp=["2.0", "1.0"], rating=["4.5", ""]))
    assert data.user_ids.to_list() == ["7", "3"]
    assert data.times is not None
    assert data.times.dtype == np.int64
    assert data.ratings is not None
    assert np.isnan(data.ratings[1])


@pytest.mark.parametrize("value", ["soon", "nan", "inf"])
def test_wrong_time_names_line_column_and_value(value):
    with pytest.raises(DataError) as error:
        collect(raw(user_id=["a", "b"], item_id=["x", "y"], timestamp=["1", value]))
    assert f"'{value}' is not a number" in str(error.value)
    assert "log.csv, line 3, column 'timestamp'" in str(error.value)
    assert error.value.next


def test_a_time_too_large_for_an_integer_is_kept():
    data, missing = collect(raw(user_id=["a", "b"], item_id=["x", "y"], timestamp=["99999999999999999999", "2"]))
    assert missing == 0
    assert data.times is not None
    assert data.times.tolist() == [1e20, 2.0]


def test_dates_become_milliseconds():
    from datetime import date

    data, _ = collect(raw(user_id=["a"], item_id=["x"], timestamp=[date(1970, 1, 2)]))
    assert data.times is not None
    assert data.times.tolist() == [86_400_000]


def test_no_rows_is_an_error():
    empty = pl.LazyFrame(schema={Columns.USER: pl.String, Columns.ITEM: pl.String})
    with pytest.raises(DataError, match="no interactions"):
        collect(RawData("log.csv", empty))
