"""Constrained beam search that knows whether its lists are exact.

Every level scores only the children that exist in the catalogue and that the user may get, so all
beams are prefixes of wanted items: no invalid code, no duplicate, no beam lost to an excluded item.

**Certificate.** A log-probability is at most 0, so an item never scores higher than any prefix of
its codes. A search that remembers the best prefix it ever dropped therefore knows that its list is
the true top k of the whole catalogue if the k-th item scores at least as high as that prefix.
`Request.exact` widens the beams of the users that lack the certificate until all have it.

Left out: sampling (another room), and any knowledge of models: a `SidScorer` gives the scores.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sidrec.config import RunSettings
from sidrec.data.sequences import Histories
from sidrec.decoding.constraints import Exclusions
from sidrec.decoding.exhaustive import rank_all
from sidrec.decoding.recommendations import BeamConfig, Recommendations, Request
from sidrec.decoding.scorer import PromptState, SidScorer, check_fits
from sidrec.decoding.selection import list_items, refuse_nan, top_candidates
from sidrec.decoding.trie import ItemTrie
from sidrec.decoding.trie_tensors import TrieTensors
from sidrec.types import FloatArray, IntArray

__all__ = ["beam_search"]

WIDENING = 4
"""Factor by which exact search widens the beams of users without a certificate."""
WIDEST = 4096
"""Beams beyond which scoring everything in chunks takes less memory than one more widening, because
a model attends from every beam to every beam's ancestors."""


@dataclass(frozen=True)
class Prefixes:
    """The beams of a batch after some level, in order of node number; missing ones come last.

    Attributes:
        nodes_UW: int64[U, W]; the number of nodes of the depth where there is no beam.
        scores_UW: float32[U, W]; -inf where there is no beam.
        parents_UW: int64[U, W], positions among the beams before; None at the root.
        codes_UW: int64[U, W], the last code, 0 where there is no beam; None at the root.
        dropped_U: float32[U], score of the best prefix dropped so far, -inf if there was none.
        broken: bool[], whether the scorer ever gave NaN.
    """

    nodes_UW: Tensor
    scores_UW: Tensor
    parents_UW: Tensor | None
    codes_UW: Tensor | None
    dropped_U: Tensor
    broken: Tensor


@torch.no_grad()
def beam_search(
    scorer: SidScorer,
    trie: ItemTrie,
    histories: Histories,
    request: Request,
    config: BeamConfig,
    run: RunSettings,
) -> Recommendations:
    """The k best items of every history, with a certificate of exactness.

    Deterministic: of equal scores the lower node of the trie wins, and neither the order of the
    users nor the batch size matters beyond the scorer's own rounding.

    Args:
        scorer: the model's side; its codes are those of `trie`.
        trie: the items that can be recommended.
        histories: whole histories (the scorer cuts its own prompt); they also say what was seen.
        request: what is asked. A user who has seen every item gets an empty list.
        config: beams, normalisation and batch size.
        run: for progress.

    Raises:
        DataError: scorer and trie have different levels, a history names a row outside the
            catalogue, or the scorer gives NaN.
        ConstraintError: the allow-list holds no item of the trie.
    """
    check_fits(scorer, trie, histories)
    allowed = trie if request.allowed is None else trie.restrict(request.allowed)
    by_length = np.argsort(histories.lengths, kind="stable")
    parts = [Recommendations.empty(request.k)]
    with run.progress("recommend", len(histories)) as advance:
        for first in range(0, len(histories), config.users_per_batch):
            batch = histories.take(by_length[first : first + config.users_per_batch])
            parts.append(_Search(scorer, allowed, batch, request, config).recommend())
            advance(len(batch))
    found = Recommendations.concatenate(parts)
    restore = np.argsort(by_length)
    return Recommendations(found.rows[restore], found.scores[restore], found.exact[restore])


class _Search:
    """The search for one batch of users."""

    def __init__(
        self, scorer: SidScorer, trie: ItemTrie, histories: Histories, request: Request, config: BeamConfig
    ) -> None:
        self.scorer, self.trie, self.request, self.config = scorer, trie, request, config
        self.state = scorer.start(histories)
        self.exclusions = (
            Exclusions.of_seen(trie, histories) if request.exclude_seen else Exclusions.none(trie, len(histories))
        )

    def recommend(self) -> Recommendations:
        """Search once; where exactness is asked, again with more beams for the users that lack it."""
        width = max(self.config.beams, self.request.k)
        found = self._descend(self.state, self.exclusions, width)
        if not self.request.exact:
            return found
        pending = np.flatnonzero(~found.exact)
        while len(pending):
            width *= WIDENING
            for users in self._chunks(pending, width):
                _replace(found, users, self._search_wider(users, width))
            pending = np.flatnonzero(~found.exact)
        return found

    def _chunks(self, users: IntArray, width: int) -> Iterator[IntArray]:
        """Users in groups that hold about as many beams together as a batch of the first search."""
        budget = self.config.users_per_batch * max(self.config.beams, self.request.k)
        at_once = max(1, budget // min(width, max(self.trie.num_nodes)))
        for first in range(0, len(users), at_once):
            yield users[first : first + at_once]

    def _search_wider(self, users: IntArray, width: int) -> Recommendations:
        """A wider search of some users, from the prompts that were read already."""
        exclusions = self.exclusions.take(users)
        state = self.state.select(torch.from_numpy(users))
        if width > WIDEST and max(self.trie.num_nodes) > WIDEST:
            return rank_all(self.scorer, state, exclusions, self.request.k, self.config.normalize)
        return self._descend(state, exclusions, width)

    def _descend(self, state: PromptState, exclusions: Exclusions, width: int) -> Recommendations:
        """One beam search over all levels."""
        beams: Prefixes | None = None
        for level in range(self.trie.num_levels):
            parents, codes = (None, None) if beams is None else (beams.parents_UW, beams.codes_UW)
            logp_UWK = self.scorer.step(state, level, parents, codes).float()
            beams = self._extend(beams or _root(logp_UWK), logp_UWK, level, exclusions, width)
        assert beams is not None
        scores_UW, broken = beams.scores_UW, beams.broken
        if self.scorer.has_end:
            end_UW = self.scorer.step(state, self.trie.num_levels, beams.parents_UW, beams.codes_UW).float()[..., 0]
            end_UW = end_UW.clamp(max=0).masked_fill(scores_UW == -torch.inf, 0)
            broken = broken | end_UW.isnan().any()
            scores_UW = scores_UW + end_UW
        refuse_nan(broken)
        best_UW, scores_UW = top_candidates(scores_UW, self.request.k)
        leaves_UW = beams.nodes_UW.gather(1, best_UW)
        return _certified(leaves_UW, scores_UW, beams.dropped_U, self.request.k, exclusions)

    def _extend(self, beams: Prefixes, logp_UWK: Tensor, level: int, exclusions: Exclusions, width: int) -> Prefixes:
        """The best `width` children of all beams."""
        arrays, num_children = TrieTensors.of(self.trie, logp_UWK.device), self.trie.max_children[level]
        num_next = self.trie.num_nodes[level + 1]
        first_UW1 = arrays.child_ptr[level][beams.nodes_UW].unsqueeze(-1)
        last_UW1 = arrays.child_ptr[level][beams.nodes_UW + 1].unsqueeze(-1)
        # Padded to the widest node: a node's range runs on into its neighbours, which are masked.
        child_UWC = first_UW1 + torch.arange(num_children, dtype=torch.int32, device=logp_UWK.device)
        is_child_UWC = child_UWC < last_UW1
        child_UWC.clamp_(max=num_next - 1)
        logp_UWC = logp_UWK.gather(2, arrays.codes[level][child_UWC].long()).clamp_(max=0)
        logp_UWC.masked_fill_(~is_child_UWC, -torch.inf)
        _mask_dead(logp_UWC, beams.nodes_UW, level, exclusions)
        if self.config.normalize == "children":
            total_UW1 = logp_UWC.logsumexp(-1, keepdim=True)
            logp_UWC = (logp_UWC - total_UW1.masked_fill(total_UW1 == -torch.inf, 0)).clamp_(max=0)
        candidates_UM = (beams.scores_UW.unsqueeze(-1) + logp_UWC).flatten(1)

        width = min(width, num_next)
        index_UW, score_UW = top_candidates(candidates_UM, width + 1)
        dropped_U = beams.dropped_U
        if index_UW.shape[1] > width:
            dropped_U = torch.maximum(dropped_U, score_UW[:, width])
            index_UW, score_UW = index_UW[:, :width], score_UW[:, :width]
        # Back to the order of nodes, in which the lower index of equal scores is the lower node.
        missing_UW = score_UW == -torch.inf
        index_UW, order_UW = index_UW.masked_fill(missing_UW, candidates_UM.shape[1]).sort(dim=1)
        missing_UW = missing_UW.gather(1, order_UW)
        index_UW = index_UW.masked_fill(missing_UW, 0)
        nodes_UW = child_UWC.flatten(1).gather(1, index_UW).long()
        codes_UW = arrays.codes[level][nodes_UW].long()
        return Prefixes(
            nodes_UW.masked_fill(missing_UW, num_next),
            score_UW.gather(1, order_UW),
            index_UW // num_children,
            codes_UW.masked_fill(missing_UW, 0),
            dropped_U,
            beams.broken | candidates_UM.isnan().any(),
        )


def _root(logp_UWK: Tensor) -> Prefixes:
    """The empty prefix of every user."""
    num_users, device = logp_UWK.shape[0], logp_UWK.device
    return Prefixes(
        torch.zeros(num_users, 1, dtype=torch.long, device=device),
        torch.zeros(num_users, 1, device=device),
        None,
        None,
        torch.full((num_users,), -torch.inf, device=device),
        torch.zeros((), dtype=torch.bool, device=device),
    )


def _mask_dead(logp_UWC: Tensor, nodes_UW: Tensor, level: int, exclusions: Exclusions) -> None:
    """Set children under which a user is left no item to -inf, in place, before anything is dropped."""
    users, nodes = exclusions.dead_nodes(level + 1)
    if not len(users):
        return
    trie, num_children = exclusions.trie, logp_UWC.shape[2]
    ptr = trie.child_ptr[level]
    parents = np.searchsorted(ptr, nodes, side="right") - 1
    stride = trie.num_nodes[level] + 1
    # Beams stand in order of nodes, missing ones last: one search finds each parent among them.
    beams = nodes_UW.cpu().numpy()
    keys = (np.arange(len(beams))[:, None] * stride + beams).reshape(-1)
    wanted = users * stride + parents
    beam = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    found = keys[beam] == wanted
    index = (beam * num_children + nodes - ptr[parents])[found]
    logp_UWC.view(-1)[torch.from_numpy(index).to(logp_UWC.device)] = -torch.inf


def _certified(
    leaves_UW: Tensor, scores_UW: Tensor, dropped_U: Tensor, k: int, exclusions: Exclusions
) -> Recommendations:
    """The items behind the best leaves, and whether nothing that was dropped could beat them.

    A dropped prefix of the k-th item's own score is no threat: its items score at most as high.
    Where fewer than k items are listed the k-th scores -inf, so dropping anything costs the certificate.
    """
    leaves, scores = leaves_UW.cpu().numpy(), scores_UW.cpu().numpy()
    rows, item_scores = list_items(leaves, scores, k, exclusions)
    worst: FloatArray = item_scores[:, -1]
    return Recommendations(rows, item_scores, worst >= dropped_U.cpu().numpy())


def _replace(found: Recommendations, users: IntArray, better: Recommendations) -> None:
    """Write the lists of some users over their earlier ones."""
    found.rows[users], found.scores[users], found.exact[users] = better.rows, better.scores, better.exact
