"""What stochastic and diverse searches share: the distribution at a node, and going on from chosen children."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from sidrec.decoding.constraints import Exclusions
from sidrec.decoding.expansion import Children, Prefixes, Walk
from sidrec.decoding.samples import Samples, SamplingConfig
from sidrec.decoding.selection import top_candidates
from sidrec.decoding.trie import ItemTrie
from sidrec.types import BoolArray, FloatArray, IntArray

__all__ = ["child_log_probs", "codes_of", "distinct_prefixes", "drawn_samples", "to_float32"]


def child_log_probs(children: Children, config: SamplingConfig) -> Tensor:
    """Log-probability of each child given its prefix, under the distribution that is drawn from.

    The softmax of log-probability / temperature over the children that hold an item the user may
    get; of these the `top_k` best (of equal ones the lower code); of these, by the probabilities that
    are theirs after that cut, the fewest best that reach `top_p`; normalised over what is left.

    Returns:
        float64[U, W, C]; all -inf where there is no prefix, or the model gives none of its children a chance.
    """
    scores_UWC = children.scores_UM.unflatten(1, (children.prefixes_UW.shape[1], -1))
    # Whole prefixes' scores: what the children of one prefix have in common cancels.
    logits_UWC = scores_UWC.double() / config.temperature
    if config.top_k is not None or config.top_p < 1:
        logits_UWC = _cut(scores_UWC, logits_UWC, config)
    return _normalized(logits_UWC)


def _cut(scores_UWC: Tensor, logits_UWC: Tensor, config: SamplingConfig) -> Tensor:
    """The logits with -inf where `top_k` or `top_p` leaves a child out."""
    num_kept = config.top_k or scores_UWC.shape[2]
    best_XC = top_candidates(scores_UWC.flatten(0, 1), num_kept)[0]
    kept_XC = logits_UWC.flatten(0, 1).gather(1, best_XC)
    mass_XC = _normalized(kept_XC).exp()
    # The best child has nothing before it and always stays.
    kept_XC = kept_XC.masked_fill(mass_XC.cumsum(1) - mass_XC >= config.top_p, -torch.inf)
    out_XC = torch.full_like(logits_UWC, -torch.inf).flatten(0, 1).scatter(1, best_XC, kept_XC)
    return out_XC.view_as(logits_UWC)


def _normalized(logits: Tensor) -> Tensor:
    """Log-softmax over the last axis, in which rows without any finite logit stay -inf."""
    total = logits.logsumexp(-1, keepdim=True)
    return logits - total.masked_fill(total == -torch.inf, 0)


def distinct_prefixes(children: Children, index_UN: Tensor, missing_UN: Tensor) -> tuple[Prefixes, Tensor]:
    """The chosen children as prefixes, each once however often it was chosen, in order of nodes.

    Args:
        children: to choose from.
        index_UN: int64[U, N], places among the children, with repeats and in any order.
        missing_UN: bool[U, N], where nothing was chosen.

    Returns:
        the prefixes, W of a user, and int64[U, N] which of them each choice became.
    """
    num_children = children.scores_UM.shape[1]
    index_UN, order_UN = index_UN.masked_fill(missing_UN, num_children).sort(dim=1)
    is_new_UN = index_UN.diff(dim=1, prepend=index_UN.new_full((len(index_UN), 1), -1)) > 0
    place_UN = is_new_UN.cumsum(1) - 1
    width = int(place_UN[:, -1].max()) + 1
    chosen_UW = index_UN.new_full((len(index_UN), width), num_children).scatter(1, place_UN, index_UN)
    missing_UW = chosen_UW == num_children
    scores_UW = children.scores_UM.gather(1, chosen_UW.masked_fill(missing_UW, 0)).masked_fill(missing_UW, -torch.inf)
    return children.take(chosen_UW, scores_UW), torch.empty_like(place_UN).scatter(1, order_UN, place_UN)


def drawn_samples(
    walk: Walk, leaves: Prefixes, order_UN: Tensor, logp_UN: Tensor, uniform: Callable[[Tensor], Tensor]
) -> Samples:
    """Samples of leaves that were drawn, with an item of each: of all that the user may get, with equal chances.

    Args:
        walk: that led to the leaves; its end step is taken here.
        leaves: each once.
        order_UN: int64[U, N], which of them each draw is.
        logp_UN: float64[U, N], log-probabilities of the draws; -inf where nothing was drawn.
        uniform: leaves int64[U, N] → float64[U, N] between 0 and 1, which item of the leaf.
    """
    missing_UN = logp_UN == -torch.inf
    scores_UN = walk.finish(leaves).gather(1, order_UN).masked_fill(missing_UN, -torch.inf)
    leaves_UN = leaves.nodes_UW.gather(1, order_UN)
    exists_UN, uniform_UN = (values.cpu().numpy() for values in (~missing_UN, uniform(leaves_UN)))
    rows_UN = _draw_items(leaves_UN.cpu().numpy(), exists_UN, uniform_UN, walk.exclusions)
    return Samples(rows_UN, codes_of(rows_UN, walk.exclusions.trie), to_float32(scores_UN), to_float32(logp_UN))


def _draw_items(leaves_UN: IntArray, exists_UN: BoolArray, uniform_UN: FloatArray, exclusions: Exclusions) -> IntArray:
    """Rows int32[U, N], one item of each leaf, by a number from 0 to below 1; -1 where there is no leaf."""
    trie, users = exclusions.trie, np.arange(len(leaves_UN))[:, None]
    leaves_UN = np.where(exists_UN, leaves_UN, 0)
    first_UN = exclusions.num_allowed_before(users, trie.item_ptr[leaves_UN].astype(np.int64))
    last_UN = exclusions.num_allowed_before(users, trie.item_ptr[leaves_UN + 1].astype(np.int64))
    ranks_UN = first_UN + (uniform_UN * (last_UN - first_UN)).astype(np.int64)
    positions_UN = exclusions.allowed_position(users, ranks_UN)
    return np.where(exists_UN, trie.rows[np.where(exists_UN, positions_UN, 0)], -1).astype(np.int32)


def codes_of(rows: IntArray, trie: ItemTrie) -> IntArray:
    """int32[…, L], codes of items of a trie by their rows; -1 where the row is -1."""
    positions = np.where(rows >= 0, trie.positions[rows], 0)
    columns = [codes[trie.nodes_at(depth, positions)] for depth, codes in enumerate(trie.codes, start=1)]
    return np.where(rows[..., None] >= 0, np.stack(columns, axis=-1).astype(np.int32), np.int32(-1))


def to_float32(values: Tensor) -> FloatArray:
    """As an array for the caller."""
    return values.float().cpu().numpy()
