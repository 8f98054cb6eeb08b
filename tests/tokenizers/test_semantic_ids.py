"""The table: its index against numpy, its digest, its files."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidrec.data.catalog import Catalog
from sidrec.errors import DataError
from sidrec.tokenizers.semantic_ids import SemanticIds


def drawn(seed: int, num_items: int) -> SemanticIds:
    return SemanticIds(np.random.default_rng(seed).integers(3, size=(num_items, 2)).astype(np.int32), (3, 3), "digest")


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10**6), num_items=st.integers(1, 30))
def test_groups(seed: int, num_items: int) -> None:
    ids = drawn(seed, num_items)
    group, counts = np.unique(ids.codes, axis=0, return_inverse=True, return_counts=True)[1:]
    assert ids.group_of.tolist() == group.reshape(-1).tolist()
    assert ids.num_collided == counts[counts > 1].sum()
    assert ids.largest_group == counts.max()


def test_digest_depends_on_everything_and_nothing_else() -> None:
    codes = np.array([[0, 1], [1, 0], [1, 2]], np.int32)
    one = SemanticIds(codes, (2, 3), "digest")
    assert SemanticIds(np.asfortranarray(codes), (2, 3), "digest").digest == one.digest
    assert SemanticIds(codes.astype(np.int64), (2, 3), "digest").digest == one.digest
    others = [
        SemanticIds(codes[::-1], (2, 3), "digest"),
        SemanticIds(codes, (2, 4), "digest"),
        SemanticIds(codes, (2, 3), "other"),
        SemanticIds(codes, (2, 3), "digest", 2),
        SemanticIds(codes.reshape(2, 3), (2, 3, 3), "digest"),
    ]
    assert len({each.digest for each in [one, *others]}) == 6


def test_files(tmp_path: Path) -> None:
    catalog = Catalog(pl.DataFrame({"item_id": [f"item {row}" for row in range(9)]}))
    ids = SemanticIds(drawn(0, 9).codes, (3, 3), catalog.digest, 4)
    ids.save(tmp_path, catalog)
    loaded = SemanticIds.load(tmp_path)
    assert loaded.digest == ids.digest
    assert loaded.version == 4


@pytest.mark.parametrize(("code", "where"), [(3, "row 1, level 2"), (-1, "row 1, level 2")])
def test_codes_outside_their_level(code: int, where: str) -> None:
    with pytest.raises(DataError, match=f"code {code} is outside its level(.|\n)*{where}(.|\n)*0 to 2"):
        SemanticIds(np.array([[0, 0], [0, code]], np.int32), (3, 3), "digest")
