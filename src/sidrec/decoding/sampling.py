"""Stochastic search under the trie: roll-outs for training, exploration in serving.

All kinds walk the catalogue's tree with the expansion that beam search uses, so every drawn item is
one that the user may get. Prefixes that several draws share are scored once. What a user draws is
decided by the seed, the user's number and the settings (`sidrec.decoding.noise`): not by the batch,
the order of users or the device, up to rounding of the model's scores, and global random state is
neither read nor changed. No gradients: a trainer scores the drawn codes again.
"""

import numpy as np
import torch
from torch import Tensor

from sidrec.config import RunSettings
from sidrec.data.sequences import Histories
from sidrec.decoding.batching import in_batches
from sidrec.decoding.choices import child_log_probs, distinct_prefixes, drawn_samples
from sidrec.decoding.constraints import Exclusions
from sidrec.decoding.diverse_beam import diverse_beams
from sidrec.decoding.expansion import Children, Prefixes, Walk
from sidrec.decoding.noise import Noise
from sidrec.decoding.recommendations import Request
from sidrec.decoding.samples import Samples, SamplingConfig
from sidrec.decoding.scorer import SidScorer, check_fits
from sidrec.decoding.stochastic_beam import stochastic_beams
from sidrec.decoding.trie import ItemTrie
from sidrec.errors import DataError
from sidrec.random import torch_seed
from sidrec.types import IntArray

__all__ = ["sample_items"]


@torch.no_grad()
def sample_items(
    scorer: SidScorer,
    trie: ItemTrie,
    histories: Histories,
    request: Request,
    config: SamplingConfig,
    run: RunSettings,
    users: IntArray | None = None,
) -> Samples:
    """Draw k items for every history.

    Args:
        scorer: the model's side; its codes are those of `trie`.
        trie: the items that can be drawn.
        histories: whole histories; they also say what was seen.
        request: k, how many are drawn, and what a user may get. `exact` and `search` mean nothing here.
            A user who may get no item draws none.
        config: how they are drawn.
        run: for the seed and progress.
        users: int64[U], numbers that tell the users' noise apart, for instance rows of a data set; equal
            numbers draw with the same noise. None takes the places 0 … U-1 in `histories`.

    Raises:
        DataError: scorer and trie have different levels, a history names a row outside the catalogue, `users`
            is not one number a history, a list is not for these users and items, or the scorer gives NaN.
        ConstraintError: a user's allow- and deny-lists leave no item of the trie.
    """
    check_fits(scorer, trie, histories)
    users = np.arange(len(histories)) if users is None else users
    if users.shape != (len(histories),):
        raise DataError(f"users of shape {users.shape} for {len(histories)} histories", expected="one a history")
    listed = Exclusions.of_lists(trie, request, len(histories))
    seed = torch_seed(run.seed, "sampling")
    by_length = np.argsort(histories.lengths, kind="stable")

    def search(part: slice) -> Samples:
        index = by_length[part]
        batch = histories.take(index)
        exclusions = listed.of_batch(index, batch, exclude_seen=request.exclude_seen)
        walk = Walk(scorer, scorer.start(batch), exclusions, config.normalize)
        return _search(walk, request.k, config, Noise(seed, torch.from_numpy(users[index].astype(np.int64))))

    parts = [Samples.empty(config.kind, request.k, trie.num_levels)]
    with run.progress("sample", len(histories)) as advance:
        for part in in_batches(len(histories), config.users_per_batch, search):
            parts.append(part)
            advance(len(part.rows))
    return Samples.concatenate(parts).take(np.argsort(by_length))


def _search(walk: Walk, k: int, config: SamplingConfig, noise: Noise) -> Samples:
    if config.kind == "diverse":
        return diverse_beams(walk, k, config)
    return stochastic_beams(walk, k, config, noise) if config.kind == "gumbel" else _draw(walk, k, config, noise)


def _draw(walk: Walk, n: int, config: SamplingConfig, noise: Noise) -> Samples:
    """Independent draws, n of each user, code by code.

    Each draw has a number of its own a level and takes the child at which the summed probabilities of
    the children pass it. Counts drawn a node (multinomial) would cost less noise, but then a draw would
    change with the number of draws beside it: so the first draws of a larger n are those of a smaller one.
    """
    num_levels, children = walk.exclusions.trie.num_levels, walk.start()
    draws_UN = torch.arange(n, device=children.scores_UM.device).expand(len(children.scores_UM), -1)
    places_UN, logp_UN = torch.zeros_like(draws_UN), torch.zeros_like(draws_UN, dtype=torch.double)
    prefixes, places_UN, logp_UN = _descend(children, places_UN, logp_UN, noise.uniform(0, draws_UN), config)
    for level in range(1, num_levels):
        children, uniform_UN = walk.children(prefixes, level), noise.uniform(level, draws_UN)
        prefixes, places_UN, logp_UN = _descend(children, places_UN, logp_UN, uniform_UN, config)
    return drawn_samples(walk, prefixes, places_UN, logp_UN, lambda _: noise.uniform(num_levels, draws_UN))


def _descend(
    children: Children, places_UN: Tensor, logp_UN: Tensor, uniform_UN: Tensor, config: SamplingConfig
) -> tuple[Prefixes, Tensor, Tensor]:
    """Every draw goes on to a child of its prefix.

    Args:
        children: of W prefixes.
        places_UN: int64[U, N], which of the prefixes each draw has come to.
        logp_UN: float64[U, N], log-probabilities of the draws so far.
        uniform_UN: float64[U, N] between 0 and 1.
        config: the distribution.

    Returns:
        the children that were drawn, each once; places among them; log-probabilities, -inf from where on
        there was nothing to draw.
    """
    logp_UWC = child_log_probs(children, config)
    index_UN = _pick(logp_UWC, places_UN, uniform_UN)
    logp_UN = logp_UN + logp_UWC.flatten(1).gather(1, index_UN)
    return *distinct_prefixes(children, index_UN, logp_UN == -torch.inf), logp_UN


def _pick(logp_UWC: Tensor, places_UN: Tensor, uniform_UN: Tensor) -> Tensor:
    """int64[U, N], place among all W·C children of the one that each draw takes.

    Args:
        logp_UWC: float64[U, W, C], log-probabilities; a row of -inf alone has nothing to take.
        places_UN: int64[U, N], prefix of each draw.
        uniform_UN: float64[U, N] between 0 and 1, both excluded.
    """
    num_children = logp_UWC.shape[2]
    sums_UWC = logp_UWC.exp().cumsum(-1)
    # Ends in 1 exactly, so every number is reached, and by a child that adds to the sum.
    sums_UWC = sums_UWC / sums_UWC[..., -1:]
    sums_UNC = sums_UWC.gather(1, places_UN.unsqueeze(-1).expand(-1, -1, num_children))
    child_UN = torch.searchsorted(sums_UNC, uniform_UN.unsqueeze(-1)).squeeze(-1)
    return places_UN * num_children + child_UN.clamp(max=num_children - 1)
