"""All policies: unique codes, the same twice, old items keep theirs; what each promises is what it does."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidrec.errors import DataError
from sidrec.registry import REGISTRY, load_class
from sidrec.tokenizers.collisions import CollisionPolicy, Settled, settle_codes, settle_new
from sidrec.tokenizers.counting import AppendLevel, HashedRoundRobin, Keep
from sidrec.tokenizers.placement import Quantized
from sidrec.tokenizers.reassignment import NearestFree, SinkhornReassign
from sidrec.tokenizers.semantic_ids import SemanticIds

from .problems import first_rows, on_a_line, random_problem, settled_slowly, table

POLICIES = [AppendLevel(), HashedRoundRobin(suffix=True), NearestFree(), SinkhornReassign(rounds=2)]
ALL = [*POLICIES, Keep(), HashedRoundRobin(), SinkhornReassign(rounds=2, faithful=True)]


def name(policy: CollisionPolicy) -> str:
    return repr(policy.config)


def test_every_policy_is_tested() -> None:
    assert {policy.config.kind for policy in ALL} == set(REGISTRY["collision"])
    assert {type(policy) for policy in ALL} == {load_class("collision", kind) for kind in REGISTRY["collision"]}


@settings(max_examples=200, deadline=None)
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
    before = quantized.codes.copy()
    settled = settle_codes(policy.config, quantized)
    ids = table(settled)
    assert ids.num_collided == 0
    again = settle_codes(policy.config, quantized)
    assert np.array_equal(again.codes, settled.codes)
    assert np.array_equal(quantized.codes, before), "the question is not changed"
    assert len(settled.sizes) == len(sizes) + policy.extra_levels
    if isinstance(policy, AppendLevel):
        assert np.array_equal(settled.codes[:, :-1], quantized.codes)
    changed = (settled.codes[:, : len(sizes)] != quantized.codes).any(axis=1)
    assert settled.num_moved == changed.sum()
    assert settled.num_copies == num_items - len(np.unique(quantized.latents, axis=0))
    prefixes = np.unique(quantized.codes[:, :-1], axis=0, return_counts=True)[1]
    assert settled.num_crowded == (prefixes > sizes[-1]).sum()


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    old=st.integers(1, 24),
    policy=st.sampled_from(ALL),
    spread=st.sampled_from([0.1, 1.0]),
)
def test_every_policy_is_stable(seed: int, old: int, policy: CollisionPolicy, spread: float) -> None:
    sizes = (3, 2, 24) if policy.config.kind == "hashed_round_robin" else (3, 2, 4)
    quantized = random_problem(seed, 24, sizes, spread)
    before = table(settle_codes(policy.config, first_rows(quantized, old)))
    after = settle_codes(policy.config, quantized, before)
    assert np.array_equal(after.codes[:old], before.codes)
    assert all(new >= size for new, size in zip(after.sizes, before.sizes, strict=True))
    if policy.is_unique:
        assert table(after).num_collided == 0
    alone = settle_new(policy.config, quantized.behind(old), before)
    assert np.array_equal(alone.codes, after.codes), "new items are all that need be known"
    together = settle_codes(policy.config, quantized)
    if policy.is_consistent:
        assert np.array_equal(together.codes, after.codes)


@pytest.mark.parametrize("policy", ALL, ids=name)
def test_the_others_are_not_consistent(policy: CollisionPolicy) -> None:
    problems = [random_problem(seed, 12, (3, 2, 24), 1.0) for seed in range(40)]
    differs = False
    for quantized in problems:
        before = table(settle_codes(policy.config, first_rows(quantized, 6)))
        together = settle_codes(policy.config, quantized).codes[:6]
        differs |= not np.array_equal(together, before.codes)
    assert differs is not policy.is_consistent


@settings(max_examples=200, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    old=st.integers(0, 23),
    policy=st.sampled_from(ALL),
    spread=st.sampled_from([0.1, 1.0]),
    metric=st.sampled_from(["l2", "cosine", "dot"]),
)
def test_equal_to_the_slow_definition(seed: int, old: int, policy: CollisionPolicy, spread: float, metric: str) -> None:
    sizes = (3, 2, 24) if policy.config.kind == "hashed_round_robin" else (3, 2, 4)
    quantized = random_problem(seed, 24, sizes, spread, metric, round_to=5)
    before = table(settle_codes(policy.config, first_rows(quantized, old))) if old else None
    settled = settle_codes(policy.config, quantized, before)
    expected = settled_slowly(policy, quantized, None if before is None else before.codes)
    assert settled.codes.tolist() == expected.tolist()


def test_nothing_new_changes_nothing() -> None:
    quantized = random_problem(0, 12, (3, 2, 4), 1.0)
    for policy in POLICIES:
        before = table(settle_codes(policy.config, quantized))
        after = settle_codes(policy.config, quantized, before)
        assert np.array_equal(after.codes, before.codes)
        assert after.sizes == before.sizes


def test_copies_are_counted_as_such() -> None:
    quantized = on_a_line([0.1, 0.1, 0.1, 0.2, 9.0, 9.0], [0.0, 1.0, 2.0, 3.0, 8.0, 9.0])
    settled = settle_codes(NearestFree.Config(), quantized)
    assert (settled.num_moved, settled.num_copies) == (4, 3)
    unseen = replace(quantized, latents=None, codebooks=[])
    assert settle_codes(AppendLevel.Config(), unseen).num_copies is None


def test_minus_zero_is_a_copy_of_zero() -> None:
    quantized = on_a_line([0.0, 0.0], [0.0, 1.0])
    negative = replace(quantized, latents=np.array([[0.0], [-0.0]], np.float32))
    assert settle_codes(Keep.Config(), negative).num_copies == 1


def test_crowded_prefixes_are_reported() -> None:
    books = [np.array([[0.0], [10.0]], np.float32), np.array([[-1.0], [1.0]], np.float32)]
    codes = np.array([[0, 0], [0, 1], [0, 1], [1, 0]], np.int32)
    latents = np.array([[-1.0], [1.0], [1.2], [9.0]], np.float32)
    for policy in (NearestFree(), SinkhornReassign()):
        settled = settle_codes(policy.config, Quantized(codes, (2, 2), latents, books))
        assert (settled.num_crowded, settled.num_far) == (1, 1)
    first = SemanticIds(codes[:2], (2, 2), "digest")
    settled = settle_codes(NearestFree.Config(), Quantized(codes, (2, 2), latents, books), first)
    assert settled.num_crowded == 1, "taken codes count too"


def test_more_items_than_codes_is_an_error() -> None:
    for policy in (NearestFree(), SinkhornReassign()):
        with pytest.raises(DataError, match=r"5 items cannot have different codes: there are only 4.*\n(.|\n)*levels"):
            settle_codes(policy.config, random_problem(0, 5, (4,), 1.0))


def test_extending_colliding_codes_is_an_error() -> None:
    quantized = on_a_line([0.0, 0.1, 5.0], [0.0, 5.0, 6.0])
    colliding = table(settle_codes(Keep.Config(), quantized), rows=2)
    with pytest.raises(DataError, match="collide themselves: 2 items"):
        settle_codes(NearestFree.Config(), quantized, colliding)


def test_extending_by_another_tokenizer_is_an_error() -> None:
    quantized = on_a_line([0.0, 0.1, 5.0], [0.0, 5.0, 6.0])
    with pytest.raises(DataError, match=r"code sizes \(7, 7\)"):
        settle_codes(NearestFree.Config(), quantized, SemanticIds(np.zeros((1, 2), np.int32), (7, 7), "digest"))
    longer = SemanticIds(np.zeros((9, 2), np.int32), quantized.sizes, "digest")
    with pytest.raises(DataError, match="cover 9 items"):
        settle_codes(NearestFree.Config(), quantized, longer)


def test_extending_what_another_policy_settled_is_an_error_or_works() -> None:
    quantized = on_a_line([0.0] * 6, [0.0, 1.0, 2.0, 3.0, 4.0, 5.0])
    free = table(settle_codes(NearestFree.Config(), first_rows(quantized, 3)))
    dealt = table(settle_codes(HashedRoundRobin.Config(), first_rows(quantized, 3)))
    assert table(settle_codes(NearestFree.Config(), quantized, dealt)).num_collided == 0
    with pytest.raises(DataError, match=r"codes of others after 'hashed_round_robin'(.|\n)*the same policy"):
        settle_codes(HashedRoundRobin.Config(), quantized, free)


class Careless(CollisionPolicy):
    """Promises unique codes and gives all items one."""

    is_consistent = True
    Config = Keep.Config

    def settle(self, quantized: Quantized) -> Settled:
        return Settled(np.zeros_like(quantized.codes), quantized.sizes)


def test_a_broken_promise_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(REGISTRY["collision"], "keep", f"{__name__}:Careless")
    with pytest.raises(DataError, match="2 items have codes of others after 'keep', which promises unique codes"):
        settle_codes(Keep.Config(), on_a_line([0.0, 1.0, 2.0], [0.0, 1.0, 2.0]))


def test_versions_and_trees_grow_along() -> None:
    quantized = random_problem(1, 24, (3, 2, 4), 1.0)
    tables = [settle_codes(AppendLevel.Config(), first_rows(quantized, 8))]
    ids = [table(tables[0])]
    for count in (16, 24):
        settled = settle_codes(AppendLevel.Config(), first_rows(quantized, count), ids[-1])
        ids.append(SemanticIds(settled.codes, settled.sizes, "digest", ids[-1].version + 1, earlier=ids[-1].trie))
    assert [each.version for each in ids] == [1, 2, 3]
    for earlier, later in pairwise(ids):
        assert np.array_equal(later.codes[: len(earlier)], earlier.codes)
        assert later.trie.rows.tolist() == replace(later, earlier=None).trie.rows.tolist()
