"""Constrained beam search that knows whether its lists are exact.

Every level scores only the children that exist in the catalogue and that the user may get, so all
beams are prefixes of wanted items: no invalid code, no duplicate, no beam lost to an excluded item.

**Certificate.** A log-probability is at most 0, so an item never scores higher than any prefix of
its codes. A search that remembers the best prefix it ever dropped therefore knows that its list is
the true top k of the whole catalogue if the k-th item scores at least as high as that prefix.
`Request.exact` goes on with what was dropped, for the users that lack the certificate, until all have it.

Left out: sampling (another room), and any knowledge of models: a `SidScorer` gives the scores.
"""

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from sidrec.config import RunSettings
from sidrec.data.sequences import Histories
from sidrec.decoding.batching import in_batches
from sidrec.decoding.best_first import BestFirst, Leaves
from sidrec.decoding.constraints import Exclusions
from sidrec.decoding.exhaustive import rank_all
from sidrec.decoding.expansion import Children, Prefixes, Walk
from sidrec.decoding.recommendations import BeamConfig, Recommendations, Request
from sidrec.decoding.scorer import SidScorer, check_fits
from sidrec.decoding.selection import list_items, top_candidates
from sidrec.decoding.trie import ItemTrie
from sidrec.types import IntArray

__all__ = ["beam_search"]

LIMIT = 4096
"""Prefixes of a user beyond which scoring everything in chunks takes less memory than going on best first."""


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

    Deterministic: of equal scores that it compares the lower node of the trie wins, and neither the
    order of the users nor the batch size matters beyond the scorer's own rounding.

    Args:
        scorer: the model's side; its codes are those of `trie`.
        trie: the items that can be recommended.
        histories: whole histories (the scorer cuts its own prompt); they also say what was seen.
        request: what is asked. A user who has seen every item gets an empty list.
        config: beams, normalisation and batch size.
        run: for progress.

    Raises:
        DataError: scorer and trie have different levels, a history names a row outside the
            catalogue, a list is not for these users and items, or the scorer gives NaN.
        ConstraintError: a user's allow- and deny-lists leave no item of the trie.
    """
    check_fits(scorer, trie, histories)
    listed = Exclusions.of_lists(trie, request, len(histories))
    by_length = np.argsort(histories.lengths, kind="stable")

    def search(part: slice) -> Recommendations:
        users = by_length[part]
        batch = histories.take(users)
        exclusions = listed.of_batch(users, batch, exclude_seen=request.exclude_seen)
        return _Search(scorer, exclusions, batch, request, config).recommend()

    parts = [Recommendations.empty(request.k)]
    with run.progress("recommend", len(histories)) as advance:
        for part in in_batches(len(histories), config.users_per_batch, search):
            parts.append(part)
            advance(len(part))
    found = Recommendations.concatenate(parts)
    restore = np.argsort(by_length)
    return Recommendations(found.rows[restore], found.scores[restore], found.exact[restore])


class _Search:
    """The search for one batch of users."""

    def __init__(
        self, scorer: SidScorer, exclusions: Exclusions, histories: Histories, request: Request, config: BeamConfig
    ) -> None:
        self.scorer, self.trie, self.request, self.config = scorer, exclusions.trie, request, config
        self.state, self.exclusions = scorer.start(histories), exclusions

    def recommend(self) -> Recommendations:
        """The lists; where exactness is asked, with what the beams had dropped searched too."""
        asked, normalize = self.request, self.config.normalize
        walk = Walk(self.scorer, self.state, self.exclusions, normalize)
        rest = BestFirst(walk, asked.k, LIMIT) if asked.exact else None
        leaves, dropped_U = self._descend(walk, rest)
        found = self._listed(leaves)
        # A dropped prefix of the k-th item's own score is no threat: its items score at most as high. Where fewer
        # than k items are listed the k-th scores -inf, so dropping anything costs the certificate.
        found = replace(found, exact=found.scores[:, -1] >= dropped_U.cpu().numpy())
        if rest is None or found.exact.all():
            return found
        worst_U = torch.from_numpy(found.scores[:, -1]).to(dropped_U.device)
        leaves, exact_U = rest.complete(leaves, worst_U)
        found = replace(self._listed(leaves), exact=exact_U.cpu().numpy())
        if not found.exact.all():
            users = np.flatnonzero(~found.exact)
            state, exclusions = self.state.select(torch.from_numpy(users)), self.exclusions.take(users)
            _overwrite(found, users, rank_all(self.scorer, state, exclusions, asked.k, normalize))
        return found

    def _descend(self, walk: Walk, rest: BestFirst | None) -> tuple[Leaves, Tensor]:
        """One beam search over all levels: the best leaves, and the score of the best prefix dropped, float32[U]."""
        width = max(self.config.beams, self.request.k)
        children = walk.start()
        dropped_U = torch.full_like(children.scores_UM[:, 0], -torch.inf)
        beams, dropped_U = _best(children, dropped_U, width, rest)
        for level in range(1, self.trie.num_levels):
            beams, dropped_U = _best(walk.children(beams, level), dropped_U, width, rest)
        return Leaves.best(beams, walk.finish(beams), self.request.k), dropped_U

    def _listed(self, leaves: Leaves) -> Recommendations:
        """The items behind leaves, all said to be exact."""
        nodes, scores = leaves.nodes_UK.cpu().numpy(), leaves.scores_UK.cpu().numpy()
        rows, item_scores = list_items(nodes, scores, self.request.k, self.exclusions)
        return Recommendations(rows, item_scores, np.ones(len(rows), dtype=np.bool_))


def _best(children: Children, dropped_U: Tensor, width: int, rest: BestFirst | None) -> tuple[Prefixes, Tensor]:
    """The best `width` children, and the score of the best prefix dropped so far, float32[U]."""
    width = min(width, children.most)
    index_UW, score_UW = top_candidates(children.scores_UM, width + 1)
    if index_UW.shape[1] > width:
        dropped_U = torch.maximum(dropped_U, score_UW[:, width])
        index_UW, score_UW = index_UW[:, :width], score_UW[:, :width]
    if rest is not None:
        rest.leave(children, index_UW)
    # Back to the order of nodes, in which the lower index of equal scores is the lower node; missing ones last.
    missing_UW = score_UW == -torch.inf
    index_UW, order_UW = index_UW.masked_fill(missing_UW, children.scores_UM.shape[1]).sort(dim=1)
    return children.take(index_UW, score_UW.gather(1, order_UW)), dropped_U


def _overwrite(found: Recommendations, users: IntArray, better: Recommendations) -> None:
    """Write the lists of some users over their earlier ones."""
    found.rows[users], found.scores[users], found.exact[users] = better.rows, better.scores, better.exact
