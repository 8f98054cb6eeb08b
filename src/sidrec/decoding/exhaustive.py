"""Exact ranking by scoring every item: the reference of the beam search, and its last resort.

The leaves that anyone may get are walked in chunks of neighbours, and all nodes above a chunk are
scored level by level without choosing anything. A prefix is scored again only where a chunk ends
inside it.
"""

from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from sidrec.config import RunSettings
from sidrec.data.sequences import Histories, positions_within
from sidrec.decoding.batching import in_batches
from sidrec.decoding.constraints import Exclusions
from sidrec.decoding.recommendations import BeamConfig, Recommendations, Request
from sidrec.decoding.scorer import PromptState, SidScorer, check_fits
from sidrec.decoding.selection import list_items, refuse_nan, top_candidates
from sidrec.decoding.trie import ItemTrie
from sidrec.types import BoolArray, IntArray

__all__ = ["exhaustive_ranking", "rank_all"]

CHUNK_LEAVES = 1024
"""Leaves scored at once for a user: few enough for a model that attends from each to each."""


@torch.no_grad()
def exhaustive_ranking(
    scorer: SidScorer,
    trie: ItemTrie,
    histories: Histories,
    request: Request,
    config: BeamConfig,
    run: RunSettings,
) -> Recommendations:
    """The k best items of every history, found by scoring all items; every list is exact.

    Arguments, errors and ties are those of `beam_search`; `config.beams` is not used.
    """
    check_fits(scorer, trie, histories)
    listed = Exclusions.of_lists(trie, request, len(histories))

    def search(part: slice) -> Recommendations:
        users = np.arange(len(histories))[part]
        batch = histories.take(users)
        exclusions = listed.of_batch(users, batch, exclude_seen=request.exclude_seen)
        return rank_all(scorer, scorer.start(batch), exclusions, request.k, config.normalize)

    parts = [Recommendations.empty(request.k)]
    with run.progress("score all items", len(histories)) as advance:
        for part in in_batches(len(histories), config.users_per_batch, search):
            parts.append(part)
            advance(len(part))
    return Recommendations.concatenate(parts)


def rank_all(scorer: SidScorer, state: PromptState, exclusions: Exclusions, k: int, normalize: str) -> Recommendations:
    """The k best items of the users of a state, all leaves scored.

    Args:
        scorer: the model's side.
        state: of `start` or `select`, at level 0; not changed.
        exclusions: what each user must not get, and the trie.
        k: items a user.
        normalize: as in `BeamConfig`.
    """
    users, leaves = torch.arange(exclusions.num_users), _held_by_any(exclusions, exclusions.trie.num_levels)
    leaves_UW = torch.zeros(exclusions.num_users, 0, dtype=torch.long)
    scores_UW = torch.zeros(exclusions.num_users, 0)
    for first in range(0, len(leaves), CHUNK_LEAVES):
        chunk = leaves[first : first + CHUNK_LEAVES]
        chunk_UW = _score_chunk(scorer, state.select(users), exclusions, chunk, normalize)
        refuse_nan(chunk_UW.isnan().any())
        # Leaves that stand already are lower than those of the chunk, so order of place is order of nodes.
        leaves_UW = torch.cat([leaves_UW, torch.from_numpy(chunk).expand(len(users), -1)], dim=1)
        best, scores_UW = top_candidates(torch.cat([scores_UW, chunk_UW.cpu()], dim=1), k)
        leaves_UW = leaves_UW.gather(1, best)
        by_node = leaves_UW.argsort(dim=1)
        leaves_UW, scores_UW = leaves_UW.gather(1, by_node), scores_UW.gather(1, by_node)
    best, scores_UW = top_candidates(scores_UW, k)
    rows, scores = list_items(leaves_UW.gather(1, best).numpy(), scores_UW.numpy(), k, exclusions)
    return Recommendations(rows, scores, np.ones(exclusions.num_users, dtype=np.bool_))


def _held_by_any(exclusions: Exclusions, depth: int) -> IntArray:
    """int64[n], the nodes of a depth under which the lists of some user allow an item."""
    if exclusions.masks is None:
        return np.arange(exclusions.trie.num_nodes[depth])
    used = np.unique(exclusions.mask_of)
    return np.flatnonzero(exclusions.masks.held[depth][used].any(axis=0))


def _score_chunk(
    scorer: SidScorer, state: PromptState, exclusions: Exclusions, leaves: IntArray, normalize: str
) -> Tensor:
    """float32[U, leaves], scores of a chunk's leaves; -inf where the user must not get the leaf."""
    trie = exclusions.trie
    paths = [leaves]
    for depth in range(trie.num_levels, 0, -1):
        paths.append(np.unique(trie.parents_of(depth, paths[-1])))
    scores_UW, parents_UW, codes_UW = torch.zeros(exclusions.num_users, 1), None, None
    num_nodes = 0  # of the scorer, before the chunk's nodes of the level
    for level, (nodes, wanted) in enumerate(pairwise(paths[::-1])):
        logp_UWK = scorer.step(state, level, parents_UW, codes_UW).float()
        device = logp_UWK.device
        # All children of the chunk's nodes; those beyond the chunk count only in the normalisation.
        counts = np.diff(trie.child_ptr[level])[nodes]
        parents = np.repeat(np.arange(len(nodes)), counts)
        children = np.repeat(trie.child_ptr[level][nodes], counts) + positions_within(counts)
        codes = trie.codes[level][children].astype(np.int64)
        logp_UC = logp_UWK[:, torch.from_numpy(parents).to(device), torch.from_numpy(codes).to(device)].clamp(max=0)
        logp_UC.masked_fill_(torch.from_numpy(_is_dead(exclusions, level + 1, children)).to(device), -torch.inf)
        if normalize == "children":
            logp_UC = _over_children(logp_UC, torch.from_numpy(parents).to(device), len(nodes))
        keep = np.searchsorted(children, wanted)
        within_UW = torch.from_numpy(parents[keep]).to(device).expand(exclusions.num_users, -1)
        codes_UW = torch.from_numpy(codes[keep]).to(device).expand(exclusions.num_users, -1)
        scores_UW = scores_UW.to(device).gather(1, within_UW) + logp_UC[:, torch.from_numpy(keep).to(device)]
        parents_UW = num_nodes + within_UW
        num_nodes += len(nodes)
    if scorer.has_end:
        end_UW = scorer.step(state, trie.num_levels, parents_UW, codes_UW).float()[..., 0]
        scores_UW = scores_UW + end_UW.clamp(max=0)
    return scores_UW


def _is_dead(exclusions: Exclusions, depth: int, nodes: IntArray) -> BoolArray:
    """bool[U, C], whether a user is left no item under the nodes, which are ascending."""
    dead_UC = np.zeros((exclusions.num_users, len(nodes)), np.bool_)
    if exclusions.masks is not None:
        dead_UC |= ~exclusions.masks.held[depth][exclusions.mask_of[:, None], nodes]
    users, dead = exclusions.dead_nodes(depth)
    place = np.minimum(np.searchsorted(nodes, dead), len(nodes) - 1)
    found = nodes[place] == dead
    dead_UC[users[found], place[found]] = True
    return dead_UC


def _over_children(logp_UC: Tensor, parents: Tensor, num_parents: int) -> Tensor:
    """Log-probabilities normalised over the children of each parent; -inf stays -inf."""
    index_UC = parents.expand_as(logp_UC)
    top_UP = logp_UC.new_full((len(logp_UC), num_parents), -torch.inf).scatter_reduce(1, index_UC, logp_UC, "amax")
    top_UC = top_UP.masked_fill(top_UP == -torch.inf, 0).gather(1, index_UC)
    sums_UP = torch.zeros_like(top_UP).scatter_add(1, index_UC, (logp_UC - top_UC).exp())
    logs_UC = sums_UP.clamp(min=torch.finfo(torch.float32).tiny).log().gather(1, index_UC)
    return (logp_UC - top_UC - logs_UC).clamp(max=0)
