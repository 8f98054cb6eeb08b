"""From scored prefixes to their children in the catalogue: one level of any search.

Every search (beam, best-first, sampling) looks at the children of some prefixes and keeps some of
them. What the children are, what they score and which of them a user must not get is said here,
once. Left out: which of them are kept.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sidrec.decoding.constraints import Exclusions
from sidrec.decoding.filters import TrieMasks
from sidrec.decoding.recommendations import Normalize
from sidrec.decoding.scorer import PromptState, SidScorer
from sidrec.decoding.selection import refuse_nan
from sidrec.decoding.trie_tensors import TrieTensors, held_tensor
from sidrec.types import IntArray

__all__ = ["Children", "Prefixes", "Walk"]


@dataclass(frozen=True)
class Prefixes:
    """Prefixes of equal length of a batch of users, ready to be scored.

    Attributes:
        nodes_UW: int64[U, W], nodes of the trie; the number of nodes of the depth where there is no prefix.
        scores_UW: float32[U, W]; -inf where there is no prefix.
        parents_UW: int64[U, W], the scorer's nodes that they continue.
        codes_UW: int64[U, W], the last code, 0 where there is no prefix.
    """

    nodes_UW: Tensor
    scores_UW: Tensor
    parents_UW: Tensor
    codes_UW: Tensor

    def at(self, index_UW: Tensor) -> "Prefixes":
        """Those at some places, int64[U, W]."""
        return Prefixes(*(part.gather(1, index_UW) for part in self._parts))

    def in_order(self) -> "Prefixes":
        """The same in order of nodes, missing ones last."""
        return self.at(self.nodes_UW.argsort(dim=1))

    def take(self, users: Tensor) -> "Prefixes":
        """Those of some of the users."""
        return Prefixes(*(part[users] for part in self._parts))

    def joined(self, others: "Prefixes") -> "Prefixes":
        """These and others of the same users."""
        return Prefixes(*(torch.cat(pair, dim=1) for pair in zip(self._parts, others._parts, strict=True)))

    @property
    def _parts(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return self.nodes_UW, self.scores_UW, self.parents_UW, self.codes_UW


@dataclass(frozen=True)
class Children:
    """The children of W prefixes, C of each where C is the widest node's number of them.

    Attributes:
        depth: their length.
        nodes_UM: int32[U, W·C], nodes of the trie; children of one prefix stand side by side, in order.
        scores_UM: float32[U, W·C]; -inf where there is no child, or none that the user may get.
        prefixes_UW: int64[U, W], the scorer's nodes of the prefixes.
        most: nodes of this depth that one user's lists leave, at most.
        arrays: of the trie.
    """

    depth: int
    nodes_UM: Tensor
    scores_UM: Tensor
    prefixes_UW: Tensor
    most: int
    arrays: TrieTensors

    @property
    def num_nodes(self) -> int:
        """Nodes of the trie of this depth."""
        return len(self.arrays.codes[self.depth - 1])

    def take(self, index_UW: Tensor, scores_UW: Tensor) -> Prefixes:
        """Some of them as prefixes.

        Args:
            index_UW: int64[U, W], places among the children; anything where the score is -inf.
            scores_UW: float32[U, W], their scores.
        """
        missing_UW = scores_UW == -torch.inf
        index_UW = index_UW.masked_fill(missing_UW, 0)
        nodes_UW = self.nodes_UM.gather(1, index_UW).long()
        codes_UW = self.arrays.codes[self.depth - 1][nodes_UW].long()
        per_prefix = self.nodes_UM.shape[1] // self.prefixes_UW.shape[1]
        return Prefixes(
            nodes_UW.masked_fill(missing_UW, self.num_nodes),
            scores_UW,
            self.prefixes_UW.gather(1, index_UW // per_prefix),
            codes_UW.masked_fill(missing_UW, 0),
        )


class Walk:
    """The way of a batch of users through the trie: scores prefixes, longer ones after shorter ones.

    Args:
        scorer: the model's side.
        state: of `start` or `select`; changed.
        exclusions: what each user must not get, and the trie.
        normalize: as in `BeamConfig`.
    """

    def __init__(self, scorer: SidScorer, state: PromptState, exclusions: Exclusions, normalize: Normalize) -> None:
        self.scorer, self.state, self.exclusions = scorer, state, exclusions
        self.normalize: Normalize = normalize
        self.num_nodes = 0
        self._broken: Tensor | None = None

    def take(self, users: Tensor) -> "Walk":
        """The way of some of the users from here on; this one stays as it is."""
        chosen = users.cpu()
        taken = Walk(self.scorer, self.state.take(chosen), self.exclusions.take(chosen.numpy()), self.normalize)
        taken.num_nodes, taken._broken = self.num_nodes, self._broken
        return taken

    def start(self) -> Children:
        """The prefixes of length 1."""
        logp_U1K = self.scorer.step(self.state, 0, None, None).float()
        num_users, device = len(logp_U1K), logp_U1K.device
        nodes_U1 = torch.zeros(num_users, 1, dtype=torch.long, device=device)
        return self._expand(
            Prefixes(nodes_U1, torch.zeros(num_users, 1, device=device), nodes_U1, nodes_U1), 0, logp_U1K
        )

    def children(self, prefixes: Prefixes, level: int) -> Children:
        """Children of prefixes of length `level`; those of a user stand in order of nodes, missing ones last."""
        logp_UWK = self.scorer.step(self.state, level, prefixes.parents_UW, prefixes.codes_UW).float()
        return self._expand(prefixes, level, logp_UWK)

    def finish(self, leaves: Prefixes) -> Tensor:
        """Scores float32[U, W] of whole paths: with the end step, where the scorer has one.

        Raises:
            DataError: the scorer ever gave NaN.
        """
        scores_UW = leaves.scores_UW
        if self.scorer.has_end:
            level = self.exclusions.trie.num_levels
            end_UW = self.scorer.step(self.state, level, leaves.parents_UW, leaves.codes_UW).float()[..., 0]
            self._count(end_UW)
            scores_UW = scores_UW + end_UW.clamp(max=0).masked_fill(scores_UW == -torch.inf, 0)
            self._look(scores_UW)
        self.refuse_nan()
        return scores_UW

    def refuse_nan(self) -> None:
        """Raise `DataError` if the scorer ever gave NaN."""
        if self._broken is not None:
            refuse_nan(self._broken)

    def _expand(self, prefixes: Prefixes, level: int, logp_UWK: Tensor) -> Children:
        trie, device = self.exclusions.trie, logp_UWK.device
        arrays, num_children = TrieTensors.of(trie, device), trie.max_children[level]
        first_UW1 = arrays.child_ptr[level][prefixes.nodes_UW].unsqueeze(-1)
        last_UW1 = arrays.child_ptr[level][prefixes.nodes_UW + 1].unsqueeze(-1)
        # Padded to the widest node: a node's range runs on into its neighbours, which are masked.
        child_UWC = first_UW1 + torch.arange(num_children, dtype=torch.int32, device=device)
        is_child_UWC = child_UWC < last_UW1
        child_UWC.clamp_(max=trie.num_nodes[level + 1] - 1)
        if self.exclusions.masks is not None:
            is_child_UWC &= _held(child_UWC, level + 1, self.exclusions.masks, self.exclusions.mask_of)
        logp_UWC = logp_UWK.gather(2, arrays.codes[level][child_UWC].long()).clamp_(max=0)
        logp_UWC.masked_fill_(~is_child_UWC, -torch.inf)
        _mask_dead(logp_UWC, prefixes.nodes_UW, level, self.exclusions)
        if self.normalize == "children":
            total_UW1 = logp_UWC.logsumexp(-1, keepdim=True)
            logp_UWC = (logp_UWC - total_UW1.masked_fill(total_UW1 == -torch.inf, 0)).clamp_(max=0)
        scores_UM = (prefixes.scores_UW.unsqueeze(-1) + logp_UWC).flatten(1)
        self._look(scores_UM)
        counted_UW, most = self._count(prefixes.nodes_UW), self.exclusions.num_nodes(level + 1)
        return Children(level + 1, child_UWC.flatten(1), scores_UM, counted_UW, most, arrays)

    def _count(self, prefixes_UW: Tensor) -> Tensor:
        """int64[U, W], the scorer's nodes of the prefixes that were just scored."""
        first = self.num_nodes
        self.num_nodes += prefixes_UW.shape[1]
        return torch.arange(first, self.num_nodes, device=prefixes_UW.device).expand(len(prefixes_UW), -1)

    def _look(self, scores_UM: Tensor) -> None:
        """Remember NaN without waiting for the device."""
        found = scores_UM.isnan().any()
        self._broken = found if self._broken is None else self._broken | found


def _held(nodes_UWC: Tensor, depth: int, masks: TrieMasks, mask_of: IntArray) -> Tensor:
    """bool[U, W, C], whether each user's lists allow an item under nodes of a depth."""
    held_FN = held_tensor(masks, depth, nodes_UWC.device)
    if len(held_FN) == 1:
        return held_FN[0][nodes_UWC]
    first_U = torch.from_numpy(mask_of * held_FN.shape[1]).to(nodes_UWC.device)
    return held_FN.view(-1)[first_U[:, None, None] + nodes_UWC]


def _mask_dead(logp_UWC: Tensor, nodes_UW: Tensor, level: int, exclusions: Exclusions) -> None:
    """Set children under which a user has seen all that the lists allow to -inf, in place, before any is dropped."""
    users, nodes = exclusions.dead_nodes(level + 1)
    if not len(users):
        return
    trie, num_children = exclusions.trie, logp_UWC.shape[2]
    ptr = trie.child_ptr[level]
    parents = trie.parents_of(level + 1, nodes)
    stride = trie.num_nodes[level] + 1
    # Prefixes stand in order of nodes, missing ones last: one search finds each parent among them.
    beams = nodes_UW.cpu().numpy()
    keys = (np.arange(len(beams))[:, None] * stride + beams).reshape(-1)
    wanted = users * stride + parents
    beam = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    found = keys[beam] == wanted
    index = (beam * num_children + nodes - ptr[parents])[found]
    logp_UWC.view(-1)[torch.from_numpy(index).to(logp_UWC.device)] = -torch.inf
