"""What formats have in common about items: tables of item texts, and ids that are rows.

Which columns an item table ends up with is each reader's business.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl

from sidrec.data.columns import Columns
from sidrec.data.files import json_lines, parse_json_object, reading
from sidrec.errors import DataError

__all__ = ["as_text", "dense_order", "read_item_table", "read_items"]

SEPARATORS = {".csv": ",", ".tsv": "\t"}


def read_item_table(path: Path) -> pl.DataFrame:
    """An item table of any format, told by its ending; every column as text, lists joined by ", ".

    CSV and TSV with a header, Parquet, JSON Lines with one object an item, and the `{"item": {field: text}}` of
    `read_items` (.json); all but Parquet may be gzip'd.

    Raises:
        DataError: missing, damaged, or an ending that says nothing of the format.
    """
    ending = Path(path.name.removesuffix(".gz")).suffix.lower()
    with reading(path):
        if ending == ".json":
            return read_items(path)
        if ending in (".jsonl", ".ndjson"):
            lines = [entry for _, entry in json_lines(path)]
            names = dict.fromkeys(name for entry in lines for name in entry)
            return _as_texts({name: [entry.get(name) for entry in lines] for name in names})
        if ending == ".parquet":
            return _as_texts(pl.read_parquet(path).to_dict(as_series=False))
        if ending in SEPARATORS:
            return _as_texts(
                pl.read_csv(path, separator=SEPARATORS[ending], infer_schema=False).to_dict(as_series=False)
            )
    raise DataError(
        f"'{path.name}' has an ending that says nothing of its format",
        where=str(path),
        expected=".csv, .tsv, .parquet, .jsonl or .json",
        next="rename the file",
    )


def _as_texts(columns: dict[str, list[Any]]) -> pl.DataFrame:
    texts = {name: [as_text(value) for value in values] for name, values in columns.items()}
    return pl.DataFrame(texts, schema=dict.fromkeys(texts, pl.String))


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
