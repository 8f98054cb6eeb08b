"""Policies: uniqueness as a property, optimal moves by brute force, old items keep their codes."""

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidrec.errors import DataError
from sidrec.tokenizers.collisions import CollisionPolicy, Settled, settle_codes
from sidrec.tokenizers.counting import AppendLevel, Keep
)
from sidrec.tokenizers.placement import Quantized
from sidrec.tokenizers.reassignment import NearestFree, SinkhornReassign
from sidrec.tokenizers.semantic_ids import SemanticIds

POLICIES = [AppendLevel(), NearestFree(), SinkhornReassign(rounds=2)]


def quantized_of(latents: np.ndarray, codebooks: list[np.ndarray]) -> Quantized:
    """Residual codes by a plain loop."""
    rest, codes = latents.copy(), []
    for book in codebooks:
        codes.append(np.square(rest[:, None] - book).sum(2).argmin(1))
        rest = rest - book[codes[-1]]
    return Quantized(np.stack(codes, 1).astype(np.int32), tuple(map(len, codebooks)), latents, codebooks)


def random_problem(seed: int, num_items: int, sizes: tuple[int, ...], spread: float) -> Quantized:
    draw = np.random.default_rng(seed)
    books = [draw.normal(size=(size, 2)).astype(np.float32) / (level + 1) for level, size in enumerate(sizes)]
    # Rounding makes identical items common.
    latents = (draw.normal(size=(num_items, 2)) * spread).round(1).astype(np.float32)
    return quantized_of(latents, books)


def on_a_line(points: list[float], codebook: list[float]) -> Quantized:
    """One level in one dimension behind a first level with a single code."""
    books = [np.zeros((1, 1), np.float32), np.array(codebook, np.float32)[:, None]]
    return quantized_of(np.array(points, np.float32)[:, None], books)


def table(settled: Settled, rows: int | None = None) -> SemanticIds:
    return SemanticIds(settled.codes[:rows], settled.sizes, "digest")


def first_rows(quantized: Quantized, count: int) -> Quantized:
    return Quantized(quantized.codes[:count], quantized.sizes, quantized.latents[:count], quantized.codebooks)


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    share=st.floats(0.02, 1),
    sizes=st.sampled_from([(4,), (2, 3), (3, 2, 4)]),
    spread=st.sampled_from([0.0, 0.1, 1.0]),
    policy=st.sampled_from(POLICIES),
)
def test_codes_are_unique_whatever_collides(
    seed: int, share: float, sizes: tuple[int, ...], spread: float, policy: CollisionPolicy
) -> None:
    num_items = max(1, int(share * np.prod(sizes)))
    quantized = random_problem(seed, num_items, sizes, spread)
    settled = settle_codes(policy.config, quantized)
    ids = table(settled)
    assert ids.num_collided == 0
    again = settle_codes(policy.config, quantized)
    assert np.array_equal(again.codes, settled.codes)
    if policy.extra_levels:
        assert np.array_equal(settled.codes[:, :-1], quantized.codes)
    changed = (settled.codes[:, : len(sizes)] != quantized.codes).any(axis=1)
    assert settled.num_moved == changed.sum()


@settings(max_examples=100, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    old=st.integers(1, 20),
    policy=st.sampled_from([*POLICIES, Keep()]),
    spread=st.sampled_from([0.1, 1.0]),
)
def test_old_items_keep_their_codes(seed: int, old: int, policy: CollisionPolicy, spread: float) -> None:
    quantized = random_problem(seed, 24, (3, 2, 4), spread)
    before = table(settle_codes(policy.config, first_rows(quantized, old)))
    after = settle_codes(policy.config, quantized, before)
    assert np.array_equal(after.codes[:old], before.codes)
    assert all(new >= size for new, size in zip(after.sizes, before.sizes, strict=True))
    if policy.is_unique:
        assert table(after).num_collided == 0


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


def test_the_nearest_item_keeps_its_code() -> None:
    settled = settle_codes(NearestFree.Config(), on_a_line([0.4, 0.1, 0.2], [0.0, 1.0, 2.0, 9.0]))
    assert settled.codes[1].tolist() == [0, 0]
    assert sorted(settled.codes[:, 1].tolist()) == [0, 1, 2]
    assert (settled.num_moved, settled.num_far) == (2, 0)


@pytest.mark.parametrize("seed", range(20))
def test_moves_are_the_cheapest(seed: int) -> None:
    draw = np.random.default_rng(seed)
    book = np.sort(draw.normal(size=6)).tolist()
    quantized = on_a_line((book[2] + draw.normal(size=4) * 1e-3).tolist(), book)
    settled = settle_codes(NearestFree.Config(), quantized)
    points = quantized.latents[:, 0]
    keeper = int(np.argmin(np.abs(points - book[2])))
    movers = [row for row in range(4) if row != keeper]
    free = [code for code in range(6) if code != 2]
    best = min(
        sum((points[row] - book[code]) ** 2 for row, code in zip(movers, chosen, strict=True))
        for chosen in permutations(free, 3)
    )
    cost = sum((points[row] - book[settled.codes[row, 1]]) ** 2 for row in movers)
    assert settled.codes[keeper, 1] == 2
    assert cost == pytest.approx(best, rel=1e-4)


def test_a_full_prefix_sends_the_rest_to_the_nearest_prefix() -> None:
    books = [np.array([[0.0], [10.0], [100.0]], np.float32), np.array([[-1.0], [1.0]], np.float32)]
    latents = np.array([[-1.0], [1.0], [1.2], [100.0]], np.float32)
    settled = settle_codes(NearestFree.Config(), quantized_of(latents, books))
    assert settled.codes.tolist() == [[0, 0], [0, 1], [1, 0], [2, 0]]
    assert (settled.num_moved, settled.num_far) == (1, 1)


def test_more_items_than_codes_is_an_error() -> None:
    for policy in (NearestFree(), SinkhornReassign()):
        with pytest.raises(DataError, match=r"5 items cannot have different codes: there are only 4.*\n(.|\n)*levels"):
            settle_codes(policy.config, random_problem(0, 5, (4,), 1.0))


def test_extending_colliding_codes_is_an_error() -> None:
    quantized = on_a_line([0.0, 0.1, 5.0], [0.0, 5.0, 6.0])
    colliding = table(settle_codes(Keep.Config(), quantized), rows=2)
    with pytest.raises(DataError, match="collide themselves"):
        settle_codes(NearestFree.Config(), quantized, colliding)


def test_extending_by_another_tokenizer_is_an_error() -> None:
    quantized = on_a_line([0.0, 0.1, 5.0], [0.0, 5.0, 6.0])
    with pytest.raises(DataError, match=r"code sizes \(7, 7\)"):
        settle_codes(NearestFree.Config(), quantized, SemanticIds(np.zeros((1, 2), np.int32), (7, 7), "digest"))
    longer = SemanticIds(np.zeros((9, 2), np.int32), quantized.sizes, "digest")
    with pytest.raises(DataError, match="cover 9 items"):
        settle_codes(NearestFree.Config(), quantized, longer)


def test_sinkhorn_spreads_identical_items() -> None:
    settled = settle_codes(SinkhornReassign.Config(rounds=1), on_a_line([0.1] * 3, [0.0, 1.0, 5.0, 9.0]))
    assert sorted(settled.codes[:, 1].tolist()) == [0, 1, 2]
