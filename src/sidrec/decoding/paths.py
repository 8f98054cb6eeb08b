"""Scores of given code paths, without gradients: prompts are read once a user, paths are branches of the scorer's tree.

What a search would say about items that somebody else has found, ensembles for one. Each path of a user is scored
once, so that items with equal codes tie to the last bit; prefixes that paths share are scored once a path, which costs
little beside the prompt.

Legend: U users · M paths a user · L levels · K codes of a level.
"""

import numpy as np
import torch
from torch import Tensor

from sidrec.data.sequences import positions_within
from sidrec.decoding.recommendations import Normalize
from sidrec.decoding.scorer import PromptState, SidScorer
from sidrec.decoding.selection import refuse_nan
from sidrec.decoding.trie import ItemTrie
from sidrec.types import BoolArray, IntArray

__all__ = ["child_mask", "path_scores"]

PATHS_AT_ONCE = 1024
"""Paths of a user scored together: few enough for a model that attends from each to each."""


@torch.no_grad()
def path_scores(
    scorer: SidScorer, state: PromptState, trie: ItemTrie, codes_UML: IntArray, normalize: Normalize
) -> Tensor:
    """Sums float32[U, M] of the log-probabilities of paths of codes; those of a beam search without exclusions.

    Args:
        scorer: the model's side.
        state: of `start` or `select`, at level 0; not changed.
        trie: the paths of all items, whose children "children" is about.
        codes_UML: int[U, M, L], the paths; each is one of an item.
        normalize: as in `BeamConfig`.

    Raises:
        DataError: the scorer gives NaN.
    """
    num_users, num_paths, num_levels = codes_UML.shape
    if not codes_UML.size:
        return torch.zeros(num_users, num_paths)
    leaves_UM = trie.nodes_of(codes_UML.reshape(-1, num_levels)).reshape(num_users, num_paths)
    first_UW, place_UM = _different(leaves_UM)
    users = torch.arange(num_users)
    parts: list[Tensor] = []
    for start in range(0, first_UW.shape[1], PATHS_AT_ONCE):
        block_UWL = np.take_along_axis(codes_UML, first_UW[:, start : start + PATHS_AT_ONCE, None], axis=1)
        parts.append(_block_scores(scorer, state.select(users), trie, block_UWL, normalize))
    scores_UW = torch.cat(parts, dim=1)
    refuse_nan(scores_UW.isnan().any())
    return scores_UW.gather(1, torch.from_numpy(place_UM).to(scores_UW.device))


def _different(leaves_UM: IntArray) -> tuple[IntArray, IntArray]:
    """Each user's different leaves: int64[U, W], where one stands of each, and int64[U, M], which of them each is.

    Users with fewer repeat their first.

    >>> first, place = _different(np.array([[5, 3, 5], [7, 7, 7]]))
    >>> first.tolist(), place.tolist()
    ([[1, 0], [0, 0]], [[1, 0, 1], [0, 0, 0]])
    """
    order_UM = leaves_UM.argsort(axis=1, kind="stable")
    sorted_UM = np.take_along_axis(leaves_UM, order_UM, axis=1)
    is_new_UM = np.ones(leaves_UM.shape, np.bool_)
    is_new_UM[:, 1:] = sorted_UM[:, 1:] != sorted_UM[:, :-1]
    number_UM = is_new_UM.cumsum(axis=1) - 1
    place_UM = np.empty_like(number_UM)
    np.put_along_axis(place_UM, order_UM, number_UM, axis=1)
    first_UW = np.repeat(order_UM[:, :1], number_UM.max(initial=-1) + 1, axis=1)
    users, columns = np.nonzero(is_new_UM)
    first_UW[users, number_UM[users, columns]] = order_UM[users, columns]
    return first_UW, place_UM


def _block_scores(
    scorer: SidScorer, state: PromptState, trie: ItemTrie, codes_UML: IntArray, normalize: Normalize
) -> Tensor:
    num_users, num_paths, num_levels = codes_UML.shape
    logp_UWK = scorer.step(state, 0, None, None).float()
    device = logp_UWK.device
    paths_UML = torch.from_numpy(codes_UML.astype(np.int64)).to(device)
    logp_UWK = logp_UWK.expand(-1, num_paths, -1)
    scores_UM = torch.zeros(num_users, num_paths, device=device)
    parents_UM = torch.zeros(num_users, num_paths, dtype=torch.long, device=device)
    for level in range(num_levels):
        if level:
            logp_UWK = scorer.step(state, level, parents_UM, paths_UML[..., level - 1]).float()
            parents_UM = _nodes(level, paths_UML)
        taken_UM = logp_UWK.gather(-1, paths_UML[..., level : level + 1])[..., 0]
        if normalize == "children":
            is_child = torch.from_numpy(child_mask(trie, codes_UML, level)).to(device)
            total_UM = logp_UWK.masked_fill(~is_child, -torch.inf).logsumexp(-1)
            taken_UM = taken_UM - total_UM.masked_fill(total_UM == -torch.inf, 0)
        scores_UM = scores_UM + taken_UM.clamp(max=0)
    if scorer.has_end:
        end_UM = scorer.step(state, num_levels, parents_UM, paths_UML[..., -1]).float()[..., 0]
        scores_UM = scores_UM + end_UM.clamp(max=0)
    return scores_UM


def _nodes(level: int, paths_UML: Tensor) -> Tensor:
    """int64[U, M], the scorer's nodes of the paths' prefixes of length `level`: the empty prefix has number 0."""
    num_users, num_paths, _ = paths_UML.shape
    first = 1 + (level - 1) * num_paths
    return torch.arange(first, first + num_paths, device=paths_UML.device).expand(num_users, -1)


def child_mask(trie: ItemTrie, codes_UML: IntArray, level: int) -> BoolArray:
    """bool[U, M, K], the codes that follow the first `level` codes of each path in the catalogue.

    >>> trie = ItemTrie.build(np.array([[0, 1], [0, 2], [1, 0]], np.int32), (2, 3))
    >>> child_mask(trie, np.array([[[0, 2], [1, 0]]]), level=1).astype(int).tolist()
    [[[0, 1, 1], [1, 0, 0]]]
    """
    num_paths = codes_UML.shape[0] * codes_UML.shape[1]
    nodes = trie.nodes_of(codes_UML[..., :level].reshape(num_paths, level))
    first, last = trie.child_ptr[level][nodes].astype(np.int64), trie.child_ptr[level][nodes + 1]
    counts = last - first
    is_child = np.zeros((len(nodes), trie.sizes[level]), np.bool_)
    codes = trie.codes[level][np.repeat(first, counts) + positions_within(counts)]
    is_child[np.repeat(np.arange(len(nodes)), counts), codes] = True
    return is_child.reshape(*codes_UML.shape[:2], -1)
