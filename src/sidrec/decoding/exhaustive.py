"""Exact ranking by scoring every item: the reference of the beam search, and its last resort.

The leaves are walked in chunks of neighbours; a chunk's nodes are a range at every depth, so all of
them are scored level by level without choosing anything. A prefix is scored again only where a chunk
ends inside it.
"""

from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from sidrec.config import RunSettings
from sidrec.data.sequences import Histories
from sidrec.decoding.batching import in_batches
from sidrec.decoding.constraints import Exclusions
from sidrec.decoding.recommendations import BeamConfig, Recommendations, Request
from sidrec.decoding.scorer import PromptState, SidScorer, check_fits
from sidrec.decoding.selection import list_items, refuse_nan, top_candidates
from sidrec.decoding.trie import ItemTrie
from sidrec.types import IntArray

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
    if request.allowed is not None:
        trie = trie.restrict(request.allowed)

    def search(users: slice) -> Recommendations:
        batch = histories.take(users)
        seen = Exclusions.of_seen(trie, batch) if request.exclude_seen else Exclusions.none(trie, len(batch))
        return rank_all(scorer, scorer.start(batch), seen, request.k, config.normalize)

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
        exclusions: what each user must not get.
        k: items a user.
        normalize: as in `BeamConfig`.
    """
    trie, users = exclusions.trie, torch.arange(exclusions.num_users)
    bounds = [*range(0, trie.num_nodes[-1], CHUNK_LEAVES), trie.num_nodes[-1]]
    leaves_UW = torch.zeros(exclusions.num_users, 0, dtype=torch.long)
    scores_UW = torch.zeros(exclusions.num_users, 0)
    for first, last in pairwise(bounds):
        chunk_UW = _score_chunk(scorer, state.select(users), exclusions, _node_ranges(trie, first, last), normalize)
        refuse_nan(chunk_UW.isnan().any())
        # Leaves that stand already are lower than those of the chunk, so order of place is order of nodes.
        leaves_UW = torch.cat([leaves_UW, torch.arange(first, last).expand(len(users), -1)], dim=1)
        best, scores_UW = top_candidates(torch.cat([scores_UW, chunk_UW.cpu()], dim=1), k)
        leaves_UW = leaves_UW.gather(1, best)
        by_node = leaves_UW.argsort(dim=1)
        leaves_UW, scores_UW = leaves_UW.gather(1, by_node), scores_UW.gather(1, by_node)
    best, scores_UW = top_candidates(scores_UW, k)
    rows, scores = list_items(leaves_UW.gather(1, best).numpy(), scores_UW.numpy(), k, exclusions)
    return Recommendations(rows, scores, np.ones(exclusions.num_users, dtype=np.bool_))


def _node_ranges(trie: ItemTrie, first: int, last: int) -> list[tuple[int, int]]:
    """For depth 0 … L the range of nodes above (and at last, of) the leaves `first` to `last`."""
    ranges = [(first, last)]
    for ptr in reversed(trie.child_ptr):
        first, last = (int(node) for node in np.searchsorted(ptr, [first, last - 1], side="right"))
        ranges.append((first - 1, last))
        first -= 1
    return ranges[::-1]


def _score_chunk(
    scorer: SidScorer, state: PromptState, exclusions: Exclusions, ranges: list[tuple[int, int]], normalize: str
) -> Tensor:
    """float32[U, leaves], scores of a chunk's leaves; -inf where the user must not get the leaf."""
    trie = exclusions.trie
    scores_UW, parents_UW, codes_UW = torch.zeros(exclusions.num_users, 1), None, None
    num_nodes = 0  # of the scorer, before the chunk's nodes of the level
    for level, ((first, last), (low, high)) in enumerate(pairwise(ranges)):
        logp_UWK = scorer.step(state, level, parents_UW, codes_UW).float()
        device = logp_UWK.device
        ptr = trie.child_ptr[level]
        # All children of the chunk's nodes; those beyond the chunk count only in the normalisation.
        from_, to = int(ptr[first]), int(ptr[last])
        parents = np.repeat(np.arange(last - first), np.diff(ptr[first : last + 1]))
        codes = trie.codes[level][from_:to].astype(np.int64)
        logp_UC = logp_UWK[:, torch.from_numpy(parents).to(device), torch.from_numpy(codes).to(device)].clamp(max=0)
        users, nodes = _between(*exclusions.dead_nodes(level + 1), from_, to)
        logp_UC[torch.from_numpy(users).to(device), torch.from_numpy(nodes - from_).to(device)] = -torch.inf
        if normalize == "children":
            logp_UC = _over_children(logp_UC, torch.from_numpy(parents).to(device), last - first)
        keep = slice(low - from_, high - from_)
        within_UW = torch.from_numpy(parents[keep]).to(device).expand(exclusions.num_users, -1)
        codes_UW = torch.from_numpy(codes[keep]).to(device).expand(exclusions.num_users, -1)
        scores_UW = scores_UW.to(device).gather(1, within_UW) + logp_UC[:, keep]
        parents_UW = num_nodes + within_UW
        num_nodes += last - first
    if scorer.has_end:
        end_UW = scorer.step(state, trie.num_levels, parents_UW, codes_UW).float()[..., 0]
        scores_UW = scores_UW + end_UW.clamp(max=0)
    return scores_UW


def _between(users: IntArray, nodes: IntArray, low: int, high: int) -> tuple[IntArray, IntArray]:
    """The pairs whose node lies in a range."""
    inside = (nodes >= low) & (nodes < high)
    return users[inside], nodes[inside]


def _over_children(logp_UC: Tensor, parents: Tensor, num_parents: int) -> Tensor:
    """Log-probabilities normalised over the children of each parent; -inf stays -inf."""
    index_UC = parents.expand_as(logp_UC)
    top_UP = logp_UC.new_full((len(logp_UC), num_parents), -torch.inf).scatter_reduce(1, index_UC, logp_UC, "amax")
    top_UC = top_UP.masked_fill(top_UP == -torch.inf, 0).gather(1, index_UC)
    sums_UP = torch.zeros_like(top_UP).scatter_add(1, index_UC, (logp_UC - top_UC).exp())
    logs_UC = sums_UP.clamp(min=torch.finfo(torch.float32).tiny).log().gather(1, index_UC)
    return (logp_UC - top_UC - logs_UC).clamp(max=0)
