"""Different leaves, drawn without replacement: beam search over perturbed log-probabilities.

Kool, van Hoof & Welling, *Stochastic Beams and Where to Find Them*, ICML 2019, arXiv:1903.06059. Give
every leaf independent Gumbel noise on its log-probability: the k largest are k draws without replacement.
The largest sum under a node is again Gumbel distributed around the node's own log-probability, so the
tree can be walked from above: a node draws its own largest sum, and its children draw theirs under the
condition that the largest of them is the node's. Leaves that were never visited lie below.
"""

import math
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from sidrec.decoding.choices import child_log_probs, drawn_samples, to_float32
from sidrec.decoding.expansion import Children, Prefixes, Walk
from sidrec.decoding.noise import Noise
from sidrec.decoding.samples import Samples, SamplingConfig

__all__ = ["stochastic_beams"]


def stochastic_beams(walk: Walk, k: int, config: SamplingConfig, noise: Noise) -> Samples:
    """Draw k leaves of every user without replacement, and an item of each.

    A leaf's noise hangs on its nodes, not on what else is searched: the first leaves of a larger k are those
    of a smaller one. One beam more than k is kept, whose score is the threshold.

    Args:
        walk: not yet started.
        k: leaves a user; fewer where the user cannot get as many.
        config: temperature, `top_k` and `top_p`.
        noise: of the users.
    """
    children = walk.start()
    root_U1 = torch.zeros(len(children.scores_UM), 1, dtype=torch.long, device=children.scores_UM.device)
    logp_UW = root_U1.double()
    # Drawn, not set to 0: the same leaves come out, but weights are unbiased only if the root is free, as
    # otherwise all scores hang together.
    perturbed_UW = noise.gumbel(0, root_U1)
    leaves, logp_UW, perturbed_UW = _best(children, logp_UW, perturbed_UW, k + 1, config, noise)
    for level in range(1, walk.exclusions.trie.num_levels):
        children = walk.children(leaves, level)
        leaves, logp_UW, perturbed_UW = _best(children, logp_UW, perturbed_UW, k + 1, config, noise)
    perturbed_UN, order_UN = perturbed_UW.sort(dim=1, descending=True)
    lacking = max(0, k + 1 - perturbed_UN.shape[1])
    perturbed_UN = F.pad(perturbed_UN, (0, lacking), value=-torch.inf)
    order_UN = F.pad(order_UN, (0, lacking))[:, :k]
    logp_UN = logp_UW.gather(1, order_UN).masked_fill(perturbed_UN[:, :k] == -torch.inf, -torch.inf)
    samples = drawn_samples(walk, leaves, order_UN, logp_UN, partial(noise.uniform, children.depth + 1))
    scores = to_float32(perturbed_UN)
    return replace(samples, perturbed=scores[:, :k], thresholds=scores[:, k])


def _best(
    children: Children, logp_UW: Tensor, perturbed_UW: Tensor, width: int, config: SamplingConfig, noise: Noise
) -> tuple[Prefixes, Tensor, Tensor]:
    """The children of the largest perturbed scores, in order of nodes, missing ones last.

    Args:
        children: of W prefixes.
        logp_UW: float64[U, W], log-probabilities of the prefixes under the distribution that is drawn from.
        perturbed_UW: float64[U, W], the largest perturbed score of a leaf under each.
        width: children kept.
        config: the distribution.
        noise: of the users.

    Returns:
        the children, and both numbers for each of them; -inf where one is missing.
    """
    logp_UWC = logp_UW.unsqueeze(-1) + child_log_probs(children, config)
    noise_UM = noise.gumbel(children.depth, children.nodes_UM.long())
    perturbed_UM = _with_maximum(logp_UWC + noise_UM.view_as(logp_UWC), perturbed_UW).flatten(1)
    # Equal scores are as good as impossible, so the order that topk gives them does not matter.
    index_UW = perturbed_UM.topk(min(width, children.num_nodes, perturbed_UM.shape[1]), dim=1).indices
    is_missing_UW = perturbed_UM.gather(1, index_UW) == -torch.inf
    index_UW = index_UW.masked_fill(is_missing_UW, perturbed_UM.shape[1]).sort(dim=1).values
    is_missing_UW = index_UW == perturbed_UM.shape[1]
    index_UW = index_UW.masked_fill(is_missing_UW, 0)
    scores_UW, logp_UW, perturbed_UW = (
        values_UM.gather(1, index_UW).masked_fill(is_missing_UW, -torch.inf)
        for values_UM in (children.scores_UM, logp_UWC.flatten(1), perturbed_UM)
    )
    return children.take(index_UW, scores_UW), logp_UW, perturbed_UW


def _with_maximum(perturbed_UWC: Tensor, maximum_UW: Tensor) -> Tensor:
    """Gumbel-perturbed scores under the condition that the largest of each row is given (appendix B.3).

    With T the maximum asked for, Z the row's own and v = T - G + log(1 - exp(G - Z)) the score is
    T - max(0, v) - log(1 + exp(-|v|)), which never overflows; G = Z becomes T itself, -inf stays -inf.
    """
    largest_UW1 = perturbed_UWC.amax(-1, keepdim=True)
    # Rows without any child, and prefixes that are missing: any finite numbers serve.
    largest_UW1 = largest_UW1.masked_fill(largest_UW1 == -torch.inf, 0)
    wanted_UW1 = maximum_UW.unsqueeze(-1)
    wanted_UW1 = wanted_UW1.masked_fill(wanted_UW1 == -torch.inf, 0)
    v_UWC = wanted_UW1 - perturbed_UWC + _log1mexp(perturbed_UWC - largest_UW1)
    return wanted_UW1 - v_UWC.clamp(min=0) - (-v_UWC.abs()).exp().log1p()


def _log1mexp(x: Tensor) -> Tensor:
    """log(1 - exp(x)) for x ≤ 0, without cancellation on either side (Mächler, 2012)."""
    return torch.where(x > -math.log(2), (-x.expm1()).log(), (-x.exp()).log1p())
