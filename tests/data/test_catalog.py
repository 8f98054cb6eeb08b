"""A catalogue that grows keeps its rows, its columns and their types."""

import polars as pl
import pytest

from sidrec.data.catalog import Catalog
from sidrec.errors import DataError

OLD = Catalog(
    pl.DataFrame({"item_id": ["a", "b"], "title": ["A", None], "year": [1994, None], "image": ["a.png", None]})
)


def test_new_items_stand_behind_the_old_ones_in_the_same_columns() -> None:
    new = pl.DataFrame({"year": ["1995", None], "price": [1.0, 2.0], "title": ["C", None], "item_id": ["c", "d"]})
    grown = OLD.extended(new)
    assert grown.begins_with(2, OLD.digest)
    assert grown.items[:2].equals(OLD.items)
    assert grown.items[2:].rows() == [("c", "C", 1995, None), ("d", "", None, None)]
    assert grown.items.schema == OLD.items.schema
    assert grown.tail(2).ids == ["c", "d"]
    assert OLD.ids == ["a", "b"]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"item_id": ["c"], "title": ["C"]}, r"no column 'year'(.|\n)*item_id, title, year"),
        ({"item_id": [], "title": [], "year": []}, "there are no new items"),
        ({"item_id": ["c", "b"], "title": "C", "year": 1}, "1 of the new items are in the catalogue already"),
        ({"item_id": ["c", "c"], "title": "C", "year": 1}, "occur more than once"),
        ({"item_id": ["c", ""], "title": "C", "year": 1}, "an item has no id"),
        ({"item_id": ["c"], "title": "C", "year": "new"}, r"the column 'year' holds String(.|\n)*Int64"),
    ],
)
def test_what_does_not_fit_is_named_with_its_source(columns: dict[str, object], message: str) -> None:
    with pytest.raises(DataError, match=message):
        OLD.extended(pl.DataFrame(columns), "new.csv")
