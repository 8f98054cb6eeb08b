"""Small datasets whose right answer is known by construction."""

import numpy as np
import polars as pl

from sidrec.data.catalog import Catalog
from sidrec.data.columns import Columns
from sidrec.data.dataset import Dataset, Examples, Split
from sidrec.data.sequences import Sequences
from sidrec.random import generator
from sidrec.tokenizers.semantic_ids import SemanticIds

__all__ = ["cycle_dataset", "grid_semantic_ids", "random_semantic_ids"]


def cycle_dataset(num_items: int = 24, num_users: int = 96, length: int = 9, seed: int = 0) -> Dataset:
    """Item k is always followed by item k+1 mod n: a sequential model must reach hit@1 = 1.

    Users start at evenly spread items, so that every transition is seen in training.
    """
    starts = generator(seed, "cycle").permutation(np.arange(num_users) % num_items)
    rows = ((starts[:, None] + np.arange(length)) % num_items).astype(np.int32)
    items = pl.DataFrame(
        {
            Columns.ITEM: [f"item-{row}" for row in range(num_items)],
            Columns.TITLE: [
                f"Part {row} of the cycle, colour {('red', 'green', 'blue')[row % 3]}" for row in range(num_items)
            ],
        }
    )
    offsets = np.arange(num_users + 1, dtype=np.int64) * length
    sequences = Sequences(rows.reshape(-1), offsets, [f"user-{user}" for user in range(num_users)])
    users = np.arange(num_users, dtype=np.int32)
    cuts = np.arange(1, length - 2, dtype=np.int32)
    split = Split(
        "leave-one-out",
        train=Examples(np.repeat(users, len(cuts)), np.tile(cuts, num_users)),
        valid=Examples(users, np.full(num_users, length - 2, np.int32)),
        test=Examples(users, np.full(num_users, length - 1, np.int32)),
    )
    return Dataset(Catalog(items), sequences, split)


def grid_semantic_ids(catalog: Catalog, size: int = 4, levels: int = 3) -> SemanticIds:
    """Unique codes by counting in base `size`: item 0 is (0, 0, 0), item 1 is (0, 0, 1), …."""
    rows = np.arange(len(catalog))[:, None]
    codes = (rows // size ** np.arange(levels - 1, -1, -1)) % size
    return SemanticIds(codes.astype(np.int32), (size,) * levels, catalog.digest)


def random_semantic_ids(catalog: Catalog, sizes: tuple[int, ...], seed: int = 0) -> SemanticIds:
    """Codes drawn at random, collisions included."""
    draw = generator(seed, "random semantic ids")
    codes = np.stack([draw.integers(size, size=len(catalog)) for size in sizes], axis=1)
    return SemanticIds(codes.astype(np.int32), sizes, catalog.digest)
