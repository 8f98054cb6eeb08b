"""From what a reader found to a `Dataset`: filtered, ordered, numbered, split. Nothing is read from a run or written.

The order of work is fixed: read, drop rows with missing values, minimum rating, sort by (user, time, input order),
duplicates, items without metadata or semantic ID, minimum length, k-core, number, split. A source that brings its own
split is not filtered: removing events would change the published examples.
"""

from collections.abc import Iterator
from typing import Annotated, Literal

import polars as pl
from pydantic import Field, SerializeAsAny

from sidrec.config import Config, RunSettings, build, kind_of, slot
from sidrec.data import filters
from sidrec.data.columns import Columns
from sidrec.data.dataset import Dataset, Split
from sidrec.data.given import join_examples
from sidrec.data.interactions import Interactions, collect
from sidrec.data.numbering import given_codes, number_items, to_catalog, to_sequences
from sidrec.data.raw import RawData, Reader
from sidrec.data.sequences import Sequences
from sidrec.data.split import Auto, Splitter
from sidrec.data.text import clean_items
from sidrec.errors import ConfigError

__all__ = ["PrepareConfig", "build_dataset", "reader_of"]

Core = Literal["auto"] | Annotated[int, Field(ge=0)]


class PrepareConfig(Config):
    """Everything that decides what the dataset is, apart from the files."""

    reader: Annotated[SerializeAsAny[Config], slot("reader")]
    """The file format."""
    duplicates: Literal["keep_first", "keep_all"] = "keep_first"
    """What happens when a user meets an item again."""
    min_rating: float | None = None
    """Events with a lower rating are dropped."""
    user_core: Core = "auto"
    """Fewest events of a user, with `item_core` to the core; `auto`: 5 for raw logs, 0 for prepared formats."""
    item_core: Core = "auto"
    """Fewest events of an item; `auto` as for users."""
    min_length: int = Field(1, ge=1)
    """Users with fewer events are dropped, whatever the core says."""
    require_metadata: bool = False
    """Whether items that the item table does not know are dropped."""
    keep_unseen_items: bool | Literal["auto"] = "auto"
    """Whether items without events stay in the catalogue; `auto`: for prepared formats, whose rows must not move."""
    split: Annotated[SerializeAsAny[Config], slot("split")] = Auto.Config()
    """How targets are shared out; `auto`: as given by the source, else leave-one-out."""
    clean_text: bool = False
    """Whether item texts go through LC-Rec's cleaner."""


def build_dataset(raw: RawData, config: PrepareConfig, run: RunSettings) -> tuple[Dataset, list[filters.Drop]]:
    """A dataset in memory, and what each filter dropped.

    Raises:
        DataError: nothing is left, or the data lack what a filter or the split needs.
    """
    if raw.examples is not None and kind_of(config.split) in ("auto", "given"):
        _refuse_filters(config)
        return _from_examples(raw, config)
    if raw.interactions is None:
        raise ConfigError("split: this source holds ready-made examples only; available: auto, given", where=raw.source)
    return _from_interactions(raw, config, run)


def reader_of(config: PrepareConfig) -> Reader:
    """The reader that the settings name."""
    return build("reader", config.reader)


def _splitter(config: PrepareConfig) -> Splitter:
    return build("split", config.split)


def _from_interactions(raw: RawData, config: PrepareConfig, run: RunSettings) -> tuple[Dataset, list[filters.Drop]]:
    steps = list(_filters(raw, config))
    with run.progress("prepare", total=len(steps) + 3) as advance:
        interactions, missing = collect(raw)
        drops = [filters.Drop("missing user, item or time", missing)]
        advance(note="read")
        interactions = interactions.sorted()
        advance(note="sorted")
        for name, rule in steps:
            interactions, drop = filters.apply(interactions, name, rule)
            drops.append(drop)
            advance(note=name)
        dataset = _number_and_split(interactions, raw, config)
        advance(note="split")
    return dataset, drops


def _filters(raw: RawData, config: PrepareConfig) -> Iterator[tuple[str, filters.Filter]]:
    """The filters that the settings name, in order."""
    if config.min_rating is not None:
        yield f"rating below {config.min_rating:g}", filters.min_rating(config.min_rating)
    if config.duplicates == "keep_first":
        yield "repeated user-item pairs (the first stays)", filters.duplicates
    if raw.codes is not None:
        yield "items without semantic ID", filters.known_items(raw.codes[Columns.ITEM])
    if config.require_metadata:
        known = raw.items[Columns.ITEM] if raw.items is not None else pl.Series([], dtype=pl.String)
        yield "items without metadata", filters.known_items(known)
    if config.min_length > 1:
        yield f"users with fewer than {config.min_length} events", filters.min_length(config.min_length)
    user_core, item_core = (_core(value, config) for value in (config.user_core, config.item_core))
    if user_core > 1 or item_core > 1:
        user_core = max(user_core, config.min_length)
        yield f"core of {user_core} events a user, {item_core} an item", filters.k_core(user_core, item_core)


def _core(value: int | str, config: PrepareConfig) -> int:
    if value == "auto":
        return 0 if reader_of(config).prepared else 5
    return int(value)


def _keep_unseen(config: PrepareConfig) -> bool:
    return reader_of(config).prepared if config.keep_unseen_items == "auto" else bool(config.keep_unseen_items)


def _number_and_split(interactions: Interactions, raw: RawData, config: PrepareConfig) -> Dataset:
    numbering = number_items(interactions.items, interactions.item_ids, raw, keep_unseen=_keep_unseen(config))
    sequences = to_sequences(interactions, numbering.row_of)
    return _dataset(sequences, numbering.ids, raw, config)


def _dataset(
    sequences: Sequences, ids: pl.Series, raw: RawData, config: PrepareConfig, given: Split | None = None
) -> Dataset:
    items = clean_items(raw.items) if config.clean_text and raw.items is not None else raw.items
    split = _splitter(config).split(sequences, given)
    return Dataset(to_catalog(ids, items), sequences, split, given_codes(ids, raw))


def _refuse_filters(config: PrepareConfig) -> None:
    """A given split and filters contradict each other; say so instead of ignoring one."""
    changed = [
        name
        for name, on in (
            ("min_rating", config.min_rating is not None),
            ("user_core", config.user_core not in ("auto", 0, 1)),
            ("item_core", config.item_core not in ("auto", 0, 1)),
            ("min_length", config.min_length > 1),
            ("require_metadata", config.require_metadata),
        )
        if on
    ]
    if changed:
        raise ConfigError(
            [f"{name}: a split that came with the data cannot be filtered" for name in changed],
            next="remove these settings, or use a source without a split of its own",
        )


def _from_examples(raw: RawData, config: PrepareConfig) -> tuple[Dataset, list[filters.Drop]]:
    assert raw.examples is not None
    joined = join_examples(raw.examples, raw.source)
    ids = pl.Series(joined.item_ids, dtype=pl.String)
    numbering = number_items(joined.items, ids, raw, keep_unseen=_keep_unseen(config))
    sequences = Sequences(numbering.row_of[joined.items], joined.offsets, joined.users)
    dataset = _dataset(sequences, numbering.ids, raw, config, joined.split)
    return dataset, [filters.Drop("examples with empty history", joined.empty_histories)]
