"""Do first codes mean anything: items behind one prefix against categories, and against what users do.

Two questions, each with the answer that chance would give beside it:

- **Prefix purity.** Every item gets one label out of a text field of the catalogue. The purity of depth d is the
  share of items whose label is the most frequent one behind their first d codes. Purity rises with depth for any
  codes, since ever fewer items stand behind a prefix; so the purity after shuffling the labels stands beside it.
  NMI is the mutual information of prefix and label over the mean of their entropies.
- **Code similarity of neighbours**, after LETTER (2024, arXiv:2405.07314), which takes the neighbours from a trained
  collaborative filter. Here the neighbours of an item are the other items that stand directly before or after it in the
  training sequences, one for each time they do. The similarity of two items is the share of levels
  on which their codes agree; it is averaged over an item's neighbours, then over the items that have any.
  Beside it stands the same with neighbours dealt out again at random.

Validation and test events are never looked at.
"""

from dataclasses import dataclass

import numpy as np
import polars as pl

from sidrec.data.catalog import Catalog
from sidrec.data.columns import Columns
from sidrec.data.sequences import Histories
from sidrec.random import generator
from sidrec.tokenizers.prefixes import prefix_groups
from sidrec.types import IntArray, Json

__all__ = ["Labels", "category_labels", "neighbour_similarity", "prefix_purity"]

CATEGORY_FIELDS = ("categories", "category", "genres", "genre", "class", "brand")
"""Columns that hold categories whatever stands in them, best first."""
SEPARATORS = r"[,;|>]+"
"""What stands between the categories of one item."""
MIN_REPEATS = 5
"""Times that a category occurs on average, for another text field to count as categories."""
UBIQUITOUS = 0.5
"""A category of more than this share of the items says little, and is the label of an item without any other only."""


@dataclass(frozen=True)
class Labels:
    """One label an item.

    Attributes:
        field: column of the catalogue that it was taken from.
        names: what the labels mean.
        of_item: int64[N], label of each item; -1 where it has none.
    """

    field: str
    names: list[str]
    of_item: IntArray


def category_labels(catalog: Catalog) -> Labels | None:
    """A label for every item, from a text field that looks like categories; None if there is none.

    An item with several categories gets its most frequent one that at most half of the items have.

    >>> texts = ["Music, Drums", "Music, Drums", "Music, Guitars", "Music"]
    >>> labels = category_labels(Catalog(pl.DataFrame({"item_id": ["a", "b", "c", "d"], "categories": texts})))
    >>> labels.field, [labels.names[label] for label in labels.of_item]
    ('categories', ['Drums', 'Drums', 'Guitars', 'Music'])
    """
    fields = [name for name in catalog.text_fields if name not in (Columns.TITLE, *CATEGORY_FIELDS)]
    known = [name for name in CATEGORY_FIELDS if name in catalog.text_fields]
    for field in known + fields:
        entries = _entries(catalog.items[field])
        distinct = entries["entry"].n_unique()
        if distinct > 1 and (field in known or len(entries) >= MIN_REPEATS * distinct):
            return _labels(field, entries, len(catalog))
    return None


def _entries(texts: pl.Series) -> pl.DataFrame:
    """Columns `row` and `entry`: every category of every item once."""
    table = pl.DataFrame({"row": pl.int_range(len(texts), eager=True), "entry": texts.cast(pl.String)})
    split = pl.col("entry").str.replace_all(SEPARATORS, ",").str.split(",")
    table = table.with_columns(split).explode("entry").with_columns(pl.col("entry").str.strip_chars())
    return table.filter(pl.col("entry").is_not_null() & (pl.col("entry") != "")).unique(maintain_order=True)


def _labels(field: str, entries: pl.DataFrame, num_items: int) -> Labels:
    counted = entries.with_columns(pl.len().over("entry").alias("count"))
    # The best category comes first: not ubiquitous, frequent, and of equally frequent ones the first in the alphabet.
    ranked = counted.sort(pl.col("count") > UBIQUITOUS * num_items, -pl.col("count").cast(pl.Int64), "entry")
    best = ranked.unique("row", keep="first", maintain_order=True)
    names = best["entry"].unique().sort()
    of_item = np.full(num_items, -1, np.int64)
    of_item[best["row"].to_numpy()] = names.search_sorted(best["entry"]).to_numpy()
    return Labels(field, names.to_list(), of_item)


def prefix_purity(codes_NL: IntArray, labels: Labels) -> Json:
    """Purity of the prefixes of every depth against labels; see the head of this module.

    Args:
        codes_NL: of all items, in catalogue order.
        labels: of the same items.

    Returns:
        `field`, number of `labels`, number of `labelled` items, and for each depth `prefixes`, `purity`, `random`
        and `nmi`.
    """
    has_label = labels.of_item >= 0
    label_M = labels.of_item[has_label]
    shuffled_M = generator(0, "prefix purity").permutation(label_M)
    depths: list[Json] = []
    for depth, group_M in enumerate(prefix_groups(codes_NL[has_label]), start=1):
        depths.append(
            {
                "depth": depth,
                "prefixes": int(group_M.max()) + 1,
                "purity": _purity(group_M, label_M),
                "random": _purity(group_M, shuffled_M),
                "nmi": _normalized_information(group_M, label_M),
            }
        )
    used = len(np.unique(label_M))
    return {"field": labels.field, "labels": used, "labelled": len(label_M), "depths": depths}


def _purity(group_M: IntArray, label_M: IntArray) -> float:
    """Share of the items that carry the most frequent label of their group."""
    pairs, counts = np.unique(group_M * (int(label_M.max()) + 1) + label_M, return_counts=True)
    most = np.zeros(int(group_M.max()) + 1, np.int64)
    np.maximum.at(most, pairs // (int(label_M.max()) + 1), counts)
    return float(most.sum() / len(label_M))


def _normalized_information(group_M: IntArray, label_M: IntArray) -> float:
    """Mutual information over the mean entropy; 0 where one of the two never varies."""
    of_group, of_label = _entropy(group_M), _entropy(label_M)
    both = _entropy(group_M * (int(label_M.max()) + 1) + label_M)
    shared = max(0.0, of_group + of_label - both)
    return 2 * shared / (of_group + of_label) if of_group + of_label > 0 else 0.0


def _entropy(values: IntArray) -> float:
    share = np.unique(values, return_counts=True)[1] / len(values)
    return float(-(share * np.log2(share)).sum())


def neighbour_similarity(codes_NL: IntArray, training: Histories) -> Json | None:
    """Code similarity of neighbours in the training sequences; None if no item has any. See the head of this module.

    Args:
        codes_NL: of all items, in catalogue order.
        training: `Dataset.training_events`.

    Returns:
        number of `pairs` of neighbours and of `items` that have any, their `code_similarity` and `same_prefix` (share
        of pairs with equal first codes, one a depth), and `random`, the same two figures of random pairs.
    """
    items, neighbours = _neighbours(training)
    if not len(items):
        return None
    dealt = generator(0, "neighbours").permutation(neighbours)
    is_other = dealt != items
    return {
        "pairs": len(items) // 2,
        "items": len(np.unique(items)),
        **_similarity(codes_NL, items, neighbours),
        "random": _similarity(codes_NL, items[is_other], dealt[is_other]) if is_other.any() else None,
    }


def _neighbours(training: Histories) -> tuple[IntArray, IntArray]:
    """Items and their neighbours, both ways round."""
    before, after = training.rows[:-1], training.rows[1:]
    owners = training.owners
    is_pair = (owners[:-1] == owners[1:]) & (before != after)
    before, after = before[is_pair], after[is_pair]
    return np.concatenate([before, after]), np.concatenate([after, before])


def _similarity(codes_NL: IntArray, items: IntArray, neighbours: IntArray) -> Json:
    agreeing = np.zeros(len(items), np.int16)
    is_same = np.ones(len(items), np.bool_)
    same_prefix: list[float] = []
    # Level by level, so that no pair's codes are all in memory.
    for codes_N in codes_NL.T:
        equal = codes_N[items] == codes_N[neighbours]
        agreeing += equal
        is_same &= equal
        same_prefix.append(float(is_same.mean()))
    counts = np.bincount(items)
    sums = np.bincount(items, weights=agreeing)
    by_item = sums[counts > 0] / (counts[counts > 0] * codes_NL.shape[1])
    return {"code_similarity": float(by_item.mean()), "same_prefix": same_prefix}
