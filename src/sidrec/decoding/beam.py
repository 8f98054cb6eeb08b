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

import numpy as np
import torch
from torch import Tensor

from sidrec.config import RunSettings
from sidrec.data.sequences import Histories
from sidrec.decoding.batching import in_batches
from sidrec.decoding.constraints import Exclusions
from sidrec.decoding.exhaustive import rank_all
from sidrec.decoding.expansion import Children, Prefixes, Walk
from sidrec.decoding.recommendations import BeamConfig, Recommendations, Request
from sidrec.decoding.scorer import PromptState, SidScorer, check_fits
from sidrec.decoding.selection import list_items, top_candidates
from sidrec.decoding.trie import ItemTrie
from sidrec.types import FloatArray, IntArray

__all__ = ["beam_search"]

WIDENING = 4
"""Factor by which exact search widens the beams of users without a certificate."""
WIDEST = 4096
"""Beams beyond which scoring everything in chunks takes less memory than one more widening, because
a model attends from every beam to every beam's ancestors."""


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

    def search(users: slice) -> Recommendations:
        return _Search(scorer, allowed, histories.take(by_length[users]), request, config).recommend()

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
        budget = self.exclusions.num_users * max(self.config.beams, self.request.k)
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
        walk = Walk(self.scorer, state, exclusions, self.config.normalize)
        children = walk.start()
        dropped_U = torch.full_like(children.scores_UM[:, 0], -torch.inf)
        beams, dropped_U = _best(children, dropped_U, width)
        for level in range(1, self.trie.num_levels):
            beams, dropped_U = _best(walk.children(beams, level), dropped_U, width)
        best_UW, scores_UW = top_candidates(walk.finish(beams), self.request.k)
        leaves_UW = beams.nodes_UW.gather(1, best_UW)
        return _certified(leaves_UW, scores_UW, dropped_U, self.request.k, exclusions)


def _best(children: Children, dropped_U: Tensor, width: int) -> tuple[Prefixes, Tensor]:
    """The best `width` children, and the score of the best prefix dropped so far, float32[U]."""
    width = min(width, children.num_nodes)
    index_UW, score_UW = top_candidates(children.scores_UM, width + 1)
    if index_UW.shape[1] > width:
        dropped_U = torch.maximum(dropped_U, score_UW[:, width])
        index_UW, score_UW = index_UW[:, :width], score_UW[:, :width]
    # Back to the order of nodes, in which the lower index of equal scores is the lower node; missing ones last.
    missing_UW = score_UW == -torch.inf
    index_UW, order_UW = index_UW.masked_fill(missing_UW, children.scores_UM.shape[1]).sort(dim=1)
    return children.take(index_UW, score_UW.gather(1, order_UW)), dropped_U


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
