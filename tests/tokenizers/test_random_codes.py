from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from sidrec.config import RunSettings
from sidrec.data.catalog import Catalog
from sidrec.data.columns import Columns
from sidrec.errors import ConfigError
from sidrec.testing.toy import cycle_dataset
from sidrec.tokenizers.quality import level_usage
from sidrec.tokenizers.random_codes import RandomCodes

DATASET = cycle_dataset(24)


def codes_of(ids: list[str], seed: int = 0) -> np.ndarray:
    catalog = Catalog(pl.DataFrame({Columns.ITEM: ids}))
    return RandomCodes(levels=4, codebook_size=50).codes(replace(DATASET, catalog=catalog), RunSettings(seed=seed))[0]


def test_an_item_keeps_its_codes_in_any_catalogue() -> None:
    ids = [f"item {row}" for row in range(24)]
    codes = codes_of(ids)
    assert np.array_equal(codes_of(ids[::-1])[::-1], codes)
    assert np.array_equal(codes_of([*ids[:20], "new 1", "new 2", "new 3", "new 4"])[:20], codes[:20])


def test_seed_decides() -> None:
    ids = [f"item {row}" for row in range(24)]
    assert (codes_of(ids, seed=1) == codes_of(ids)).mean() < 0.2


def test_codes_are_spread_evenly_over_every_level() -> None:
    dataset = cycle_dataset(5000, 5000, 5)
    codes, sizes = RandomCodes(levels=2, codebook_size=50).codes(dataset)
    assert sizes == (50, 50)
    assert all(level_usage(codes[:, level], 50)["perplexity"] > 49 for level in range(2))
    assert abs(np.corrcoef(codes.T)[0, 1]) < 0.05


def test_policies_that_need_vectors_are_refused() -> None:
    with pytest.raises(ConfigError, match="no vectors to compare"):
        RandomCodes(collisions="nearest_free")
