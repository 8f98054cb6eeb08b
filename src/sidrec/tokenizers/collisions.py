"""What happens to items whose codes are equal: named policies, deterministic, kind to old items.

Every policy keeps the codes of items that had some before (`extends`), and all but `keep` leave no
two items with the same codes or say why they cannot. Published systems re-encode colliding groups
at random or give up after some rounds; left-over collisions then count as hits for every item
behind the code.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from sidrec.config import Config, Part, build
from sidrec.errors import DataError
from sidrec.tokenizers.placement import Quantized, first_of_each, place_nearest
from sidrec.tokenizers.semantic_ids import SemanticIds
from sidrec.types import IntArray

__all__ = [
    "AppendLevel",
    "CollisionPolicy",
    "Keep",
    "NearestFree",
    "Settled",
    "SinkhornReassign",
    "as_semantic_ids",
    "settle_codes",
]


@dataclass(frozen=True)
class Settled:
    """Codes after a policy, and what it had to do.

    Attributes:
        codes: int32[N, L'].
        sizes: codes in each of the L' levels.
        num_moved: items whose codes are not those of their vectors.
        num_far: those of them that had to change an earlier level than the last.
    """

    codes: IntArray
    sizes: tuple[int, ...]
    num_moved: int = 0
    num_far: int = 0


class CollisionPolicy(Part, ABC):
    """Settles items with equal codes."""

    needs_vectors: ClassVar[bool] = False
    """Whether it compares residuals with codebooks; imported codes have neither."""
    is_unique: ClassVar[bool] = True
    """Whether no two items have the same codes afterwards."""
    extra_levels: ClassVar[int] = 0
    """Levels it adds."""

    @abstractmethod
    def settle(self, quantized: Quantized) -> Settled:
        """Codes of all items, those of `quantized.fixed` unchanged."""


class Keep(CollisionPolicy):
    """Collisions stay; decoding and evaluation treat the items of a group as tied."""

    is_unique = False

    class Config(Config):
        """Collisions stay."""

        kind: Literal["keep"] = "keep"

    def settle(self, quantized: Quantized) -> Settled:
        """The codes as they are."""
        return Settled(quantized.joined(), quantized.sizes)


class AppendLevel(CollisionPolicy):
    """One more level counts the items behind the same codes, in row order (TIGER, 2023, arXiv:2305.05065).

    The level is always there, so that L does not depend on the data and does not change when items
    are added. Its size is the largest group: 1 if nothing collides.
    """

    extra_levels = 1

    class Config(Config):
        """One more level counts the items behind the same codes."""

        kind: Literal["append_level"] = "append_level"

    def settle(self, quantized: Quantized) -> Settled:
        """The codes with a counter appended; new items count on from the old ones of their group."""
        fixed = quantized.fixed
        old = 0 if fixed is None else len(fixed)
        base = quantized.codes.copy()
        counters = np.zeros(len(base), np.int64)
        if fixed is not None:
            base[:old], counters[:old] = fixed[:, :-1], fixed[:, -1]
        group = np.unique(base, axis=0, return_inverse=True)[1].reshape(-1)
        following = np.zeros(int(group.max()) + 1, np.int64)
        np.maximum.at(following, group[:old], counters[:old] + 1)
        counters[old:] = _count_within(group[old:]) + following[group[old:]]
        size = max(int(counters.max()) + 1, quantized.fixed_sizes[-1] if quantized.fixed_sizes else 1)
        return Settled(np.column_stack([base, counters]).astype(np.int32), (*quantized.sizes, size))


class NearestFree(CollisionPolicy):
    """The item nearest to its code keeps it, the others move to the nearest free code of the last level.

    Within a prefix of L-1 codes the sum of squared distances of the moved items is minimal (linear
    assignment). A prefix with more items than codes in the last level sends the rest to the nearest
    prefix with room, changing as few levels as possible; their number is reported.
    """

    needs_vectors = True

    class Config(Config):
        """The nearest item keeps its code, the others move to the nearest free one."""

        kind: Literal["nearest_free"] = "nearest_free"

    def settle(self, quantized: Quantized) -> Settled:
        """The codes with as few items moved as possible."""
        codes = quantized.joined()
        num_far = place_nearest(codes, quantized)
        return Settled(codes, quantized.sizes, _num_changed(codes, quantized), num_far)


class SinkhornReassign(CollisionPolicy):
    """Every colliding group is spread over the last level by Sinkhorn-Knopp, for some rounds.

    The repair of LC-Rec (2023, arXiv:2311.09049) and LETTER (2024, arXiv:2405.07314). It hardly looks
    at distances and ignores codes that others use; it is here for comparison. Two differences:
    identical items are spread too, and what still collides at the end is settled by `nearest_free`.
    """

    needs_vectors = True

    class Config(Config):
        """Colliding groups are spread over the last level by Sinkhorn-Knopp."""

        kind: Literal["sinkhorn_reassign"] = "sinkhorn_reassign"
        rounds: int = Field(default=20, ge=1)
        """Rounds over all groups that still collide."""
        epsilon: float = Field(default=0.003, gt=0)
        """Entropy weight; smaller stays closer to the nearest code."""
        iterations: int = Field(default=50, ge=1)
        """Sinkhorn steps."""

    def settle(self, quantized: Quantized) -> Settled:
        """The codes after the rounds and the final placement."""
        codes = quantized.joined()
        residuals = quantized.last_residuals()
        for _ in range(self.config.rounds):
            groups = _colliding_groups(codes, quantized.num_fixed)
            if not groups:
                break
            for rows in groups:
                codes[rows, -1] = self._spread(quantized, residuals, rows)
        num_far = place_nearest(codes, quantized)
        return Settled(codes, quantized.sizes, _num_changed(codes, quantized), num_far)

    def _spread(self, quantized: Quantized, residuals: Any, rows: IntArray) -> IntArray:
        import torch

        from sidrec.tokenizers.residual import squared_distances
        from sidrec.tokenizers.sinkhorn import sinkhorn_codes

        codebook_KD = torch.from_numpy(quantized.codebooks[-1])
        distances_BK = squared_distances(torch.from_numpy(residuals[rows]), codebook_KD)
        config: SinkhornReassign.Config = self.config
        return sinkhorn_codes(distances_BK, config.epsilon, config.iterations, spread_ties=True).numpy()


def settle_codes(config: Any, quantized: Quantized, extends: SemanticIds | None = None) -> Settled:
    """Settle collisions by the policy that `config` names.

    Raises:
        DataError: `extends` does not fit these codes, or its own codes collide under a unique policy.
    """
    policy: CollisionPolicy = build("collision", config)
    if extends is not None:
        quantized = _with_fixed(quantized, extends, policy)
    settled = policy.settle(quantized)
    if policy.is_unique and len(np.unique(settled.codes, axis=0)) < len(settled.codes):
        raise DataError(
            f"the earlier semantic IDs collide themselves: {extends.num_collided if extends else 0} items share codes",
            expected=f"unique codes, which '{config.kind}' promises",
            next="tokenize anew instead of extending, or use the policy 'keep'",
        )
    return settled


def as_semantic_ids(settled: Settled, catalog_digest: str, extends: SemanticIds | None = None) -> SemanticIds:
    """The table of settled codes; its version follows that of the table it extends."""
    version = 1 if extends is None else extends.version + 1
    return SemanticIds(settled.codes, settled.sizes, catalog_digest, version)


def _with_fixed(quantized: Quantized, extends: SemanticIds, policy: CollisionPolicy) -> Quantized:
    levels = len(quantized.sizes) + policy.extra_levels
    if extends.num_levels != levels or extends.sizes[: len(quantized.sizes)] != quantized.sizes:
        raise DataError(
            f"the earlier semantic IDs have code sizes {extends.sizes}, this tokenizer has {quantized.sizes}",
            expected=f"{levels} levels of the same tokenizer under the same collision policy",
            next="extend with the tokenizer that made the earlier ones",
        )
    if len(extends) > len(quantized.codes):
        raise DataError(
            f"the earlier semantic IDs cover {len(extends)} items, the catalogue has {len(quantized.codes)}",
            expected="a catalogue that begins with the same items and adds new ones behind them",
        )
    return replace(quantized, fixed=extends.codes, fixed_sizes=extends.sizes)


def _num_changed(codes: IntArray, quantized: Quantized) -> int:
    return int((codes != quantized.codes)[quantized.num_fixed :].any(axis=1).sum())


def _count_within(group: IntArray) -> IntArray:
    """For each element how many equal ones stand before it."""
    order = np.argsort(group, kind="stable")
    ordered = group[order]
    start = np.maximum.accumulate(np.where(first_of_each(ordered), np.arange(len(group)), 0))
    out = np.empty(len(group), np.int64)
    out[order] = np.arange(len(group)) - start
    return out


def _colliding_groups(codes: IntArray, num_fixed: int) -> list[IntArray]:
    """Rows of each group of equal codes, old items left out; a group of new items around an old one counts."""
    group, counts = np.unique(codes, axis=0, return_inverse=True, return_counts=True)[1:]
    group = group.reshape(-1)
    rows = np.flatnonzero(counts[group] > 1)
    rows = rows[rows >= num_fixed]
    order = rows[np.argsort(group[rows], kind="stable")]
    starts = np.flatnonzero(first_of_each(group[order]))
    return np.split(order, starts[1:]) if len(order) else []
