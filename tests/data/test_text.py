"""The cleaner of LC-Rec, rule by rule."""

import polars as pl

from sidrec.data.text import clean_items, clean_text


def test_rules():
    assert clean_text("A &lt; B") == "A < B."
    assert clean_text("<p class='x'>Hello</p>") == "Hello."
    assert clean_text("ends...") == "ends."
    assert clean_text("  two\r\nlines  ") == "twolines."
    assert clean_text("x" * 1998) == "x" * 1998 + "."
    assert clean_text("x" * 1999) == ""


def test_ids_and_images_are_left_alone():
    items = pl.DataFrame({"item_id": ["a..."], "image": ["a...jpg"], "title": ['"T"']})
    assert clean_items(items).row(0) == ("a...", "a...jpg", "T.")
