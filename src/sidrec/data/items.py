"""What formats have in common about items: tables of item texts in JSON, and ids that are rows.

Which columns an item table ends up with is each reader's business.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl

from sidrec.data.columns import Columns
from sidrec.data.files import parse_json_object
from sidrec.errors import DataError

__all__ = ["as_text", "dense_order", "read_items"]


def read_items(path: Path) -> pl.DataFrame:
    """An item table from `{"item": {field: text}}`; lists are joined, missing fields are "".

    Raises:
        DataError: an entry is not an object.
    """
    entries = parse_json_object(path)
    fields: dict[str, None] = {}
    for item, entry in entries.items():
        if not isinstance(entry, dict):
            raise DataError(
                f"the entry of item '{item}' is not an object", where=str(path), expected='{"item id": {"title": …}, …}'
            )
        fields.update(dict.fromkeys(entry))
    columns = {field: [as_text(entry.get(field)) for entry in entries.values()] for field in fields}
    columns.pop(Columns.ITEM, None)
    return pl.DataFrame(
        {Columns.ITEM: list(entries), **columns}, schema_overrides=dict.fromkeys((Columns.ITEM, *columns), pl.String)
    )


def as_text(value: Any) -> str:
    """A field as text: lists joined by ", ", nothing as "".

    >>> as_text(["Drums", ["Snare", None], 2])
    'Drums, Snare, , 2'
    """
    if value is None:
        return ""
    return ", ".join(as_text(part) for part in value) if isinstance(value, list) else str(value)


def dense_order(ids: Sequence[str]) -> list[str] | None:
    """The ids 0 … N-1 in the order of their numbers, or None if they are something else.

    >>> dense_order(["2", "0", "1"]), dense_order(["a", "0"])
    (['0', '1', '2'], None)
    """
    numbers = {str(number) for number in range(len(ids))}
    return [str(number) for number in range(len(ids))] if numbers == set(ids) else None
