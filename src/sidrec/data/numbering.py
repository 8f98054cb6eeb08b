"""From filtered events to catalogue, sequences and given codes: where ids become rows.

Users are numbered by first appearance in the input. Items take the order the format fixes, else the order of the
item table, else the order of first appearance when the users are read one after the other.
"""

from dataclasses import dataclass

import numpy as np
import polars as pl

from sidrec.data.catalog import Catalog
from sidrec.data.columns import Columns
from sidrec.data.interactions import Interactions, renumber
from sidrec.data.raw import CODES, RawData
from sidrec.data.sequences import Sequences
from sidrec.errors import DataError
from sidrec.types import IntArray

__all__ = ["Numbering", "given_codes", "number_items", "to_catalog", "to_sequences"]

_CODE = "code"


@dataclass(frozen=True)
class Numbering:
    """Which item has which row.

    Attributes:
        ids: item ids in row order.
        row_of: int32[...], row of each item code; -1 for codes without row.
    """

    ids: pl.Series
    row_of: IntArray


def number_items(items: IntArray, item_ids: pl.Series, raw: RawData, *, keep_unseen: bool) -> Numbering:
    """Rows for the items of ordered events, and for unseen ones of the item table if they are kept.

    Args:
        items: int32[T], item codes in the order in which users and their events are read.
        item_ids: the id of each code.
        raw: says which order the format or the item table gives.
        keep_unseen: whether items without any event stay in the catalogue.
    """
    codes = items[renumber(items)[1]]
    seen = pl.DataFrame({Columns.ITEM: item_ids.gather(codes), _CODE: codes.astype(np.int32)})
    order = _base_order(raw)
    if order is not None:
        known = order.join(seen, on=Columns.ITEM, how="left", maintain_order="left")
        if not keep_unseen:
            known = known.drop_nulls(_CODE)
        seen = pl.concat([known, seen.join(order, on=Columns.ITEM, how="anti", maintain_order="left")])
    row_of = np.full(len(item_ids), -1, dtype=np.int32)
    has_code = seen[_CODE].is_not_null().to_numpy()
    row_of[seen[_CODE].drop_nulls().to_numpy()] = np.flatnonzero(has_code)
    return Numbering(seen[Columns.ITEM], row_of)


def _base_order(raw: RawData) -> pl.DataFrame | None:
    if raw.item_order is not None:
        return pl.DataFrame({Columns.ITEM: pl.Series(raw.item_order, dtype=pl.String)})
    return None if raw.items is None else raw.items.select(Columns.ITEM)


def to_sequences(interactions: Interactions, row_of: IntArray) -> Sequences:
    """Sorted events as sequences of rows; users without events are gone."""
    counts = np.bincount(interactions.users)
    present = np.flatnonzero(counts)
    return Sequences(
        rows=row_of[interactions.items],
        offsets=np.concatenate([[0], np.cumsum(counts[present])]).astype(np.int64),
        users=interactions.user_ids.gather(present).to_list(),
        times=interactions.times,
    )


def to_catalog(ids: pl.Series, items: pl.DataFrame | None) -> Catalog:
    """The catalogue of the given ids with what the item table says about them; what it does not say is ""."""
    table = pl.DataFrame({Columns.ITEM: ids})
    if items is not None:
        table = table.join(items, on=Columns.ITEM, how="left", maintain_order="left")
        table = table.with_columns(pl.exclude(Columns.ITEM).cast(pl.String).fill_null(""))
    return Catalog(table)


def given_codes(ids: pl.Series, raw: RawData) -> IntArray | None:
    """Codes int32[N, L] that came with the data, in row order, or None.

    Raises:
        DataError: an item has no codes, or another number of levels.
    """
    if raw.codes is None:
        return None
    table = pl.DataFrame({Columns.ITEM: ids}).join(raw.codes, on=Columns.ITEM, how="left", maintain_order="left")
    lists = table[CODES].to_list()
    num_levels = next((len(codes) for codes in lists if codes), 0)
    out = np.empty((len(lists), num_levels), dtype=np.int32)
    for row, codes in enumerate(lists):
        if codes is None or len(codes) != num_levels:
            raise DataError(
                f"item '{ids[row]}' has {len(codes) if codes else 'no'} codes",
                where=f"index of {raw.source}",
                expected=f"{num_levels} codes for every item",
                next="choose another index file, or none",
            )
        out[row] = codes
    return out
