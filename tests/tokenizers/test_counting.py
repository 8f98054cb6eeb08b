"""Policies that look at codes alone, by hand."""

import numpy as np
import pytest

from sidrec.errors import DataError
from sidrec.tokenizers.collisions import settle_codes
from sidrec.tokenizers.counting import AppendLevel, HashedRoundRobin, Keep
from sidrec.tokenizers.placement import Quantized
from sidrec.tokenizers.semantic_ids import SemanticIds

from .problems import on_a_line, table

CODES = np.array([[12, 7, 3], [12, 7, 3], [5, 0, 1], [12, 7, 9], [5, 0, 2]], np.int32)


def test_keep_keeps() -> None:
    quantized = on_a_line([0.0, 0.1], [0.0, 5.0])
    assert table(settle_codes(Keep.Config(), quantized)).num_collided == 2


def test_append_level_counts_in_row_order() -> None:
    quantized = on_a_line([0.0, 5.0, 0.1, 0.2], [0.0, 5.0])
    settled = settle_codes(AppendLevel.Config(), quantized)
    assert settled.codes.tolist() == [[0, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 2]]
    assert settled.sizes == (1, 2, 3)


def test_append_level_is_there_without_collisions() -> None:
    settled = settle_codes(AppendLevel.Config(), on_a_line([0.0, 5.0], [0.0, 5.0]))
    assert settled.sizes == (1, 2, 1)


def test_append_level_goes_on_behind_the_highest_old_counter() -> None:
    quantized = on_a_line([0.0, 5.0, 0.1], [0.0, 5.0])
    earlier = SemanticIds(np.array([[0, 0, 6], [0, 1, 0]], np.int32), (1, 2, 9), "digest")
    settled = settle_codes(AppendLevel.Config(), quantized, earlier)
    assert settled.codes.tolist() == [[0, 0, 6], [0, 1, 0], [0, 0, 7]]
    assert settled.sizes == (1, 2, 9)


def test_append_level_with_room_for_items_to_come() -> None:
    quantized = on_a_line([0.0, 5.0, 0.1, 0.2], [0.0, 5.0])
    assert settle_codes(AppendLevel.Config(size=256), quantized).sizes == (1, 2, 256)
    with pytest.raises(DataError, match="3 items have the same codes; the level that counts them has 2"):
        settle_codes(AppendLevel.Config(size=2), quantized)


def test_last_codes_are_dealt_out_from_the_hash() -> None:
    # The low half of Adler-32 is 1 plus the sum of the bytes: 312 for "(12, 7)", 259 for "(5, 0)"; 256 goes into both.
    settled = settle_codes(HashedRoundRobin.Config(), Quantized(CODES, (256, 256, 256)))
    assert settled.codes[:, :2].tolist() == CODES[:, :2].tolist()
    assert settled.codes[:, 2].tolist() == [56, 57, 3, 58, 4]
    assert settled.sizes == (256, 256, 256)
    assert settled.num_moved == 5


def test_a_suffix_counts_the_rounds() -> None:
    settled = settle_codes(HashedRoundRobin.Config(suffix=True), Quantized(CODES, (256, 256, 10)))
    assert settled.sizes == (256, 256, 10, 1)
    crowd = Quantized(np.tile(np.array([[12, 7, 1]], np.int32), (5, 1)), (256, 256, 2))
    settled = settle_codes(HashedRoundRobin.Config(suffix=True), crowd)
    assert settled.codes[:, 2:].tolist() == [[0, 0], [1, 0], [0, 1], [1, 1], [0, 2]]
    assert settled.sizes == (256, 256, 2, 3)
    assert settled.num_crowded == 1


def test_a_group_larger_than_the_level_is_an_error() -> None:
    with pytest.raises(DataError, match=r"1 prefixes hold more items(.|\n)*codes \(12, 7\): 3 items(.|\n)*suffix=true"):
        settle_codes(HashedRoundRobin.Config(), Quantized(CODES, (256, 256, 2)))
