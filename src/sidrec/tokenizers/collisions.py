"""What happens to items whose codes are equal: named policies, deterministic, kind to old items.

Every policy is **stable**: items that had codes before (`extends`) keep them, whatever is added. Some are also
**consistent**: an old item would get the same codes if the grown catalogue were settled anew. All but those
that say so leave no two items with the same codes, or say at once why they cannot. Published systems re-encode
colliding groups at random or give up after some rounds; left-over collisions then count as hits for every item
behind the code.

Policies that look at codes alone are in `counting`, those that compare vectors in `reassignment`.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from sidrec.config import Part, build
from sidrec.decoding.trie import ItemTrie
from sidrec.errors import DataError
from sidrec.tokenizers.placement import Quantized
from sidrec.tokenizers.semantic_ids import SemanticIds
from sidrec.types import IntArray

__all__ = ["CollisionPolicy", "Settled", "as_semantic_ids", "settle_codes", "settle_new"]


@dataclass(frozen=True)
class Settled:
    """Codes after a policy, what it had to do, and what it met. Numbers are of the items that it settled.

    Attributes:
        codes: int32[N, L'].
        sizes: codes in each of the L' levels.
        num_moved: items whose codes are not those of their vectors.
        num_far: those of them that had to change an earlier level than the last.
        num_copies: items with the very latents of an earlier one, which no code of a vector tells apart: so many
            must be moved, counted or left; None where there are no vectors.
        num_crowded: prefixes of all codes but the last with more items than the last level has codes.
    """

    codes: IntArray
    sizes: tuple[int, ...]
    num_moved: int = 0
    num_far: int = 0
    num_copies: int | None = None
    num_crowded: int = 0


class CollisionPolicy(Part, ABC):
    """Settles items with equal codes.

    It settles the items of `quantized` beside those that are `quantized.taken` and cannot touch these: so every
    policy is stable.
    """

    needs_vectors: ClassVar[bool] = False
    """Whether it compares residuals with codebooks; imported codes have neither."""
    is_consistent: ClassVar[bool]
    """Whether old items have the codes that they would get if old and new items were settled together."""

    @property
    def is_unique(self) -> bool:
        """Whether no two items have the same codes afterwards."""
        return True

    @property
    def extra_levels(self) -> int:
        """Levels it adds."""
        return 0

    @abstractmethod
    def settle(self, quantized: Quantized) -> Settled:
        """Codes of the items, none of them taken; fixed by the items and their order alone."""


def settle_codes(config: Any, quantized: Quantized, extends: SemanticIds | None = None) -> Settled:
    """Settle the collisions of a whole catalogue by the policy that `config` names.

    Args:
        config: of a collision policy.
        quantized: all items of the catalogue.
        extends: earlier semantic IDs of its first items, which keep their codes.

    Raises:
        DataError: `extends` does not fit these codes, or its own codes collide under a unique policy.
    """
    if extends is None:
        return settle_new(config, quantized)
    if len(extends) > len(quantized.codes):
        raise DataError(
            f"the earlier semantic IDs cover {len(extends)} items, the catalogue has {len(quantized.codes)}",
            expected="a catalogue that begins with the same items and adds new ones behind them",
        )
    return settle_new(config, quantized.behind(len(extends)), extends)


def settle_new(config: Any, quantized: Quantized, extends: SemanticIds | None = None) -> Settled:
    """Settle new items beside earlier ones; costs as much as there are new items, and one copy of the table.

    Args:
        config: of a collision policy.
        quantized: the new items alone.
        extends: semantic IDs of the earlier items; None where there are none.

    Returns:
        The codes of the earlier items with those of the new ones behind them; its numbers are of the new ones.

    Raises:
        DataError: `extends` does not fit these codes, or its own codes collide under a unique policy.
    """
    policy: CollisionPolicy = build("collision", config)
    if extends is not None:
        _check_earlier(extends, quantized, policy)
        if not len(quantized.codes):
            return Settled(extends.codes, extends.sizes)
        quantized = replace(quantized, taken=extends.trie)
    settled = policy.settle(quantized)
    if policy.is_unique:
        _check_unique(settled, quantized.taken, policy)
    settled = replace(settled, num_copies=quantized.num_copies, num_crowded=int(quantized.is_crowded.sum()))
    if extends is None:
        return settled
    return replace(settled, codes=np.concatenate([extends.codes, settled.codes]))


def as_semantic_ids(settled: Settled, catalog_digest: str, extends: SemanticIds | None = None) -> SemanticIds:
    """The table of settled codes; its version follows that of the table it extends."""
    if extends is None:
        return SemanticIds(settled.codes, settled.sizes, catalog_digest)
    return SemanticIds(settled.codes, settled.sizes, catalog_digest, extends.version + 1, earlier=extends.trie)


def _check_earlier(extends: SemanticIds, quantized: Quantized, policy: CollisionPolicy) -> None:
    levels = len(quantized.sizes) + policy.extra_levels
    if extends.num_levels != levels or extends.sizes[: len(quantized.sizes)] != quantized.sizes:
        raise DataError(
            f"the earlier semantic IDs have code sizes {extends.sizes}, this tokenizer has {quantized.sizes}",
            expected=f"{levels} levels of the same tokenizer under the same collision policy",
            next="extend with the tokenizer that made the earlier ones",
        )
    if policy.is_unique and extends.num_collided:
        raise DataError(
            f"the earlier semantic IDs collide themselves: {extends.num_collided} items share codes",
            expected=f"unique codes, which '{policy.config.kind}' promises",
            next="tokenize anew instead of extending, or use the policy 'keep'",
        )


def _check_unique(settled: Settled, taken: ItemTrie | None, policy: CollisionPolicy) -> None:
    """A policy of somebody else may break its promise, and one that deals out codes must meet its own earlier ones."""
    shared = len(settled.codes) - ItemTrie.build(settled.codes, settled.sizes).num_nodes[-1]
    if taken is not None:
        shared += int((taken.nodes_of(settled.codes) >= 0).sum())
    if shared:
        raise DataError(
            f"{shared} items have codes of others after '{policy.config.kind}', which promises unique codes",
            expected="earlier semantic IDs that the same policy has settled" if taken is not None else "",
            next="tokenize anew instead of extending, or use the policy 'nearest_free'",
        )
