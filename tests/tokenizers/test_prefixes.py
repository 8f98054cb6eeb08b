"""Groups of items behind first codes."""

import numpy as np
import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from sidrec.data.catalog import Catalog
from sidrec.tokenizers.prefixes import largest_groups, prefix_groups, shared_prefixes

CODES = np.array([[0, 0], [0, 0], [0, 1], [1, 0], [1, 0], [1, 0], [2, 2]], np.int32)
CATALOG = Catalog(pl.DataFrame({"item_id": list("abcdefg"), "title": [f"Title {name}" for name in "abcdefg"]}))


@given(st.lists(st.tuples(*[st.integers(0, 5)] * 3), min_size=1, max_size=30))
def test_groups_are_those_of_the_rows_of_codes(rows: list[tuple[int, int, int]]) -> None:
    codes = np.array(rows, np.int32)
    for depth, groups in enumerate(prefix_groups(codes), start=1):
        assert groups.tolist() == np.unique(codes[:, :depth], axis=0, return_inverse=True)[1].reshape(-1).tolist()


def test_the_largest_groups_come_first_and_single_items_are_none() -> None:
    assert largest_groups(CODES, CATALOG) == [
        {"codes": "<a_1><b_0>", "items": 3, "titles": ["Title d", "Title e", "Title f"]},
        {"codes": "<a_0><b_0>", "items": 2, "titles": ["Title a", "Title b"]},
    ]
    assert largest_groups(CODES[[0, 2, 3]], CATALOG) == []


def test_shared_prefixes_are_spread_over_the_codes() -> None:
    codes = np.repeat(np.arange(20), 2)[:, None].astype(np.int32)
    catalog = Catalog(pl.DataFrame({"item_id": [str(row) for row in range(40)]}))
    found = shared_prefixes(codes, catalog, 1, count=3)
    assert [group["codes"] for group in found] == ["<a_0>", "<a_9>", "<a_19>"]
    assert found[2]["titles"] == ["38", "39"]
    assert shared_prefixes(codes[::2], catalog, 1) == []


def test_of_many_items_some_titles_are_shown() -> None:
    catalog = Catalog(pl.DataFrame({"item_id": [str(row) for row in range(101)]}))
    (found,) = largest_groups(np.zeros((101, 1), np.int32), catalog)
    assert (found["items"], found["titles"]) == (101, ["0", "25", "50", "75", "100"])
