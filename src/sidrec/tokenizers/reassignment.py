"""Collision policies that move items by their vectors: the nearest free code, and the published repair by Sinkhorn."""

from typing import Literal

import numpy as np
from pydantic import Field

from sidrec.config import Config
from sidrec.decoding.trie import ItemTrie
from sidrec.tokenizers.collisions import CollisionPolicy, Settled
from sidrec.tokenizers.placement import Quantized, place_nearest
from sidrec.types import BoolArray, IntArray

__all__ = ["NearestFree", "SinkhornReassign"]


class NearestFree(CollisionPolicy):
    """The item nearest to its code keeps it, the others move to the nearest free code of the last level.

    No more items move than must: for every code with several items, all but one. Inside a prefix of L-1 codes the
    sum of the distances of those that move is minimal (linear assignment). A prefix with more items than codes in
    the last level sends the rest to the nearest prefix with room, changing as few levels as possible; their number
    is reported. Not consistent: an old item keeps its code from a new one that is nearer.
    """

    needs_vectors = True
    is_consistent = False

    class Config(Config):
        """The nearest item keeps its code, the others move to the nearest free one."""

        kind: Literal["nearest_free"] = "nearest_free"

    def settle(self, quantized: Quantized) -> Settled:
        """The codes with as few items moved as possible.

        Raises:
            DataError: there are more items than codes.
        """
        codes = quantized.codes.copy()
        num_far = place_nearest(codes, quantized)
        return Settled(codes, quantized.sizes, _num_changed(codes, quantized), num_far)


class SinkhornReassign(CollisionPolicy):
    """Every colliding group is spread over the last level by Sinkhorn-Knopp, for some rounds.

    The repair of LC-Rec (2023, arXiv:2311.09049) and LETTER (2024, arXiv:2405.07314). It hardly looks at distances,
    moves whole groups and ignores codes that others use; it is here for comparison. Ours differs in three points
    from the originals, whose form is `faithful`: identical items are spread too, prefixes that hold more items than
    codes are not tried, and what still collides at the end is settled by `nearest_free`. Not consistent.
    """

    needs_vectors = True
    is_consistent = False

    class Config(Config):
        """Colliding groups are spread over the last level by Sinkhorn-Knopp."""

        kind: Literal["sinkhorn_reassign"] = "sinkhorn_reassign"
        rounds: int = Field(default=20, ge=1)
        """Rounds over all groups that still collide."""
        epsilon: float = Field(default=0.003, gt=0)
        """Entropy weight; smaller stays closer to the nearest code."""
        iterations: int = Field(default=50, ge=1)
        """Sinkhorn steps."""
        faithful: bool = False
        """As in the originals: identical items get one code together, and what collides after the last round stays."""

    @property
    def is_unique(self) -> bool:
        """Not in the originals' form."""
        return not self.config.faithful

    def settle(self, quantized: Quantized) -> Settled:
        """The codes after the rounds and the final placement.

        Raises:
            DataError: there are more items than codes.
        """
        config: SinkhornReassign.Config = self.config
        codes = quantized.codes.copy()
        may_move = np.ones(len(codes), np.bool_)
        if not config.faithful:
            index = quantized.index
            may_move[index.rows] = np.repeat(~quantized.is_crowded, np.diff(index.node_items[-2]))
        for _ in range(config.rounds):
            groups = _colliding_groups(codes, quantized, may_move)
            if not groups:
                break
            for rows in groups:
                codes[rows, -1] = self._spread(quantized, rows)
        num_far = 0 if config.faithful else place_nearest(codes, quantized)
        return Settled(codes, quantized.sizes, _num_changed(codes, quantized), num_far)

    def _spread(self, quantized: Quantized, rows: IntArray) -> IntArray:
        import torch

        from sidrec.tokenizers.residual import distances
        from sidrec.tokenizers.sinkhorn import sinkhorn_codes

        config: SinkhornReassign.Config = self.config
        points_BD = torch.from_numpy(quantized.residuals(rows).astype(np.float32))
        distances_BK = distances(points_BD, torch.from_numpy(quantized.codebooks[-1]), quantized.metric)
        spread_ties = not config.faithful
        return sinkhorn_codes(distances_BK, config.epsilon, config.iterations, spread_ties=spread_ties).numpy()


def _num_changed(codes: IntArray, quantized: Quantized) -> int:
    return int((codes != quantized.codes).any(axis=1).sum())


def _colliding_groups(codes: IntArray, quantized: Quantized, may_move: BoolArray) -> list[IntArray]:
    """Rows of each group of equal codes; one item on a code that is taken is a group too."""
    index = ItemTrie.build(codes, quantized.sizes)
    starts, counts = index.item_ptr[:-1], np.diff(index.item_ptr)
    first = index.rows[starts]
    collides = may_move[first] & (counts + quantized.num_taken(codes[first]) > 1)
    return [index.rows[starts[leaf] : starts[leaf] + counts[leaf]] for leaf in np.flatnonzero(collides)]
