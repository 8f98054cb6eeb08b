"""Beams in groups that avoid each other's codes: a list that covers more of the catalogue.

Vijayakumar et al., *Diverse Beam Search for Improved Description of Complex Scenes*, AAAI 2018,
arXiv:1610.02424. At every level the groups choose one after the other, each among the children of its
own beams, and a code costs a group `diversity` for every beam of an earlier group that took it at this
level (Hamming diversity). The penalty steers the choice at its own level only: it is not carried on, and
the list is ranked by the scores of the model.
"""

import torch
from torch import Tensor

from sidrec.decoding.choices import codes_of, distinct_prefixes
from sidrec.decoding.expansion import Children, Prefixes, Walk
from sidrec.decoding.samples import Samples, SamplingConfig
from sidrec.decoding.selection import list_items, top_candidates

__all__ = ["diverse_beams"]


def diverse_beams(walk: Walk, k: int, config: SamplingConfig) -> Samples:
    """The items behind k beams in groups, best first, each once. Deterministic; ties as in `beam_search`.

    Args:
        walk: not yet started. A prefix that several groups hold is scored once.
        k: beams of all groups together, and items at most. Different groups may end in the same leaf, so a
            user can get fewer; one group alone gives the list of `beam_search` with k beams.
        config: diversity and groups. There are never more groups than beams; where k is no multiple of
            their number, the first ones have one beam more.
    """
    trie, num_groups = walk.exclusions.trie, min(config.groups, k)
    sizes = [k // num_groups + (group < k % num_groups) for group in range(num_groups)]
    children = walk.start()
    root_U1 = torch.ones_like(children.prefixes_UW, dtype=torch.bool)
    beams, held = _choose(children, [root_U1] * num_groups, sizes, config.diversity, trie.sizes[0])
    for level in range(1, trie.num_levels):
        beams, held = _choose(walk.children(beams, level), held, sizes, config.diversity, trie.sizes[level])
    best_UW, scores_UW = top_candidates(walk.finish(beams), k)
    leaves_UW = beams.nodes_UW.gather(1, best_UW)
    rows, scores = list_items(leaves_UW.cpu().numpy(), scores_UW.cpu().numpy(), k, walk.exclusions)
    return Samples(rows, codes_of(rows, trie), scores)


def _choose(
    children: Children, held: list[Tensor], sizes: list[int], diversity: float, num_codes: int
) -> tuple[Prefixes, list[Tensor]]:
    """The children that the groups choose, in turn, and which of them each group holds.

    Args:
        children: of W prefixes.
        held: for each group bool[U, W], whether a prefix is a beam of it.
        sizes: beams of each group.
        diversity: cost of a code for each beam of an earlier group that has it.
        num_codes: K of the level.
    """
    codes_UM = children.arrays.codes[children.depth - 1][children.nodes_UM].long()
    times_taken_UK = children.scores_UM.new_zeros(len(codes_UM), num_codes)
    per_prefix = codes_UM.shape[1] // children.prefixes_UW.shape[1]
    indices: list[Tensor] = []
    missing: list[Tensor] = []
    for held_UW, size in zip(held, sizes, strict=True):
        own_UM = children.scores_UM.masked_fill(~held_UW.repeat_interleave(per_prefix, dim=1), -torch.inf)
        index_UB, score_UB = top_candidates(own_UM - diversity * times_taken_UK.gather(1, codes_UM), size)
        indices.append(index_UB)
        missing.append(score_UB == -torch.inf)
        times_taken_UK.scatter_add_(1, codes_UM.gather(1, index_UB), (~missing[-1]).float())
    beams, place_UN = distinct_prefixes(children, torch.cat(indices, dim=1), torch.cat(missing, dim=1))
    places = place_UN.split([index.shape[1] for index in indices], dim=1)
    nobody_UW = torch.zeros_like(beams.nodes_UW, dtype=torch.bool)
    return beams, [nobody_UW.scatter(1, place, True) for place in places]
