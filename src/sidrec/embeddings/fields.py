"""Which texts describe an item: the choice of fields and their joining. Nothing is encoded here."""

from collections.abc import Sequence

import numpy as np
import polars as pl

from sidrec.data.catalog import Catalog
from sidrec.errors import DataError, nearest
from sidrec.types import IntArray, Json

__all__ = ["field_texts", "joined_texts", "rows_without_text", "text_facts"]

SEPARATOR = ". "


def field_texts(catalog: Catalog, fields: Sequence[str] = ()) -> dict[str, list[str]]:
    """For each field the N texts, stripped; `""` where an item has none.

    Args:
        catalog: the items.
        fields: names of columns; empty means all text fields, in the catalogue's order.

    >>> catalog = Catalog(pl.DataFrame({"item_id": ["a", "b"], "title": ["Alpha ", None], "year": [1994, 1995]}))
    >>> field_texts(catalog)
    {'title': ['Alpha', ''], 'year': ['1994', '1995']}

    Raises:
        DataError: a field is not there, or no item has any text.
    """
    unknown = [name for name in fields if name not in catalog.text_fields]
    if unknown:
        raise DataError(
            f"the catalogue has no text field '{unknown[0]}'", expected=nearest(unknown[0], catalog.text_fields)
        )
    names = list(fields) or catalog.text_fields
    texts = {name: _as_text(catalog.items[name]) for name in names}
    if not any(text for column in texts.values() for text in column):
        raise DataError(
            "no item of the catalogue has any text",
            where=f"fields: {', '.join(names) or 'none'}",
            expected="a title or a description of at least one item",
            next="import vectors with an embedder of kind 'import', or give semantic IDs with tokenizer.kind=given",
        )
    return texts


def joined_texts(catalog: Catalog, fields: Sequence[str] = ()) -> list[str]:
    """One text an item: its fields in order, empty ones left out.

    >>> joined_texts(Catalog(pl.DataFrame({"item_id": ["a"], "title": ["Drum."], "brand": ["Acme"]})))
    ['Drum. Acme']
    """
    columns = field_texts(catalog, fields).values()
    return [_join(texts) for texts in zip(*columns, strict=True)]


def rows_without_text(catalog: Catalog, fields: Sequence[str] = ()) -> IntArray:
    """int64[M], rows of the items that have no text in the chosen fields.

    >>> rows_without_text(Catalog(pl.DataFrame({"item_id": ["a", "b"], "title": ["Alpha", " "], "brand": ["", None]})))
    array([1])
    """
    has_text = [any(row) for row in zip(*field_texts(catalog, fields).values(), strict=True)]
    return np.flatnonzero(~np.asarray(has_text, np.bool_))


def text_facts(catalog: Catalog, fields: Sequence[str] = ()) -> Json:
    """How many items have no text in the chosen fields, for a report."""
    empty = rows_without_text(catalog, fields)
    return {"fields": list(fields) or catalog.text_fields, "items_without_text": len(empty)}


def _join(texts: Sequence[str]) -> str:
    """Texts as sentences: a full stop between two, never two stops."""
    *first, last = [text for text in texts if text] or [""]
    return SEPARATOR.join([*(text.rstrip(".") for text in first), last])


def _as_text(column: pl.Series) -> list[str]:
    if isinstance(column.dtype, pl.List | pl.Array):
        column = column.cast(pl.List(pl.String)).list.join(", ", ignore_nulls=True)
    return column.cast(pl.String).fill_null("").str.strip_chars().to_list()
