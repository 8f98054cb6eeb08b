import polars as pl
import pytest

from sidrec.data.catalog import Catalog
from sidrec.embeddings.fields import field_texts, joined_texts, text_facts
from sidrec.errors import DataError

CATALOG = Catalog(
    pl.DataFrame(
        {
            "item_id": ["a", "b", "c"],
            "title": ["Drum.", None, "  "],
            "tags": [["loud", "round"], ["soft"], []],
            "year": [1990, None, None],
            "image": ["a.jpg", "b.jpg", "c.jpg"],
        }
    )
)


def test_all_fields_become_text() -> None:
    assert field_texts(CATALOG) == {
        "title": ["Drum.", "", ""],
        "tags": ["loud, round", "soft", ""],
        "year": ["1990", "", ""],
    }


def test_joined_in_the_chosen_order_without_empty_ones() -> None:
    assert joined_texts(CATALOG, ["tags", "title"]) == ["loud, round. Drum.", "soft", ""]
    assert joined_texts(CATALOG) == ["Drum. loud, round. 1990", "soft", ""]


def test_items_without_text_are_counted() -> None:
    assert text_facts(CATALOG) == {"fields": ["title", "tags", "year"], "items_without_text": 1}
    assert text_facts(CATALOG, ["year"])["items_without_text"] == 2


def test_unknown_field_names_the_nearest() -> None:
    with pytest.raises(DataError, match="no text field 'titel'") as error:
        field_texts(CATALOG, ["titel"])
    assert "did you mean 'title'" in str(error.value)


@pytest.mark.parametrize("table", [{"item_id": ["a"]}, {"item_id": ["a", "b"], "title": ["", None]}])
def test_no_text_at_all_says_what_to_do(table: dict) -> None:
    with pytest.raises(DataError, match="no item of the catalogue has any text") as error:
        joined_texts(Catalog(pl.DataFrame(table)))
    assert "kind=given" in str(error.value)
    assert "kind 'import'" in str(error.value)
