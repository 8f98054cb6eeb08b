"""Which causal language models can score a tree of prefixes at once, by asking the model, never its name.

`CausalScorer` needs full attention that takes a 4-D mask, positions that are told, and a head that is
one matrix product. The config says what the layers are; the rest is tried on a prompt of a few tokens.
A model that fails is searched with one row for each prefix, which gives the same lists more slowly.
"""

import warnings
from collections.abc import Callable, Sequence
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from transformers import PreTrainedModel

from sidrec.data.sequences import Histories
from sidrec.decoding.recommendations import Normalize
from sidrec.decoding.scorer import SidScorer
from sidrec.recommenders.causal_scorer import CausalScorer
from sidrec.recommenders.expanded_scorer import ExpandedScorer
from sidrec.tasks.next_item import Prompts

__all__ = ["causal_scorer", "why_expanded"]

TOLERANCE = {torch.float32: 1e-3}
"""Largest difference of log-probabilities, in nats, that rounding may explain; a quarter in half precision."""

_KNOWN: WeakKeyDictionary[PreTrainedModel, str] = WeakKeyDictionary()


def causal_scorer(
    model: PreTrainedModel,
    level_token_ids: Sequence[Tensor],
    build_prompt: Callable[[Histories], Prompts],
    normalize: Normalize = "level",
) -> SidScorer:
    """The fastest scorer that is right for a model; arguments are those of `CausalScorer`.

    Warns where that is the slow one, and says why.
    """
    reason = why_expanded(model)
    if not reason:
        return CausalScorer(model, level_token_ids, build_prompt, normalize)
    warnings.warn(
        f"{type(model).__name__} cannot score a tree of prefixes at once: {reason}; every prefix is read with "
        "its whole prompt instead, which gives the same lists more slowly",
        stacklevel=2,
    )
    return ExpandedScorer(model, level_token_ids, build_prompt, normalize)


def why_expanded(model: PreTrainedModel) -> str:
    """Why a model must be searched with one row for each prefix; empty if it need not.

    The answer is found once a model object.
    """
    if model not in _KNOWN:
        _KNOWN[model] = _from_config(model) or _from_trial(model)
    return _KNOWN[model]


def _from_config(model: PreTrainedModel) -> str:
    """What the config gives away."""
    config: Any = model.config.get_text_config()
    attention: str = getattr(config, "_attn_implementation", None) or "eager"
    if attention not in ("sdpa", "eager"):
        return f"its attention is '{attention}' (load it with attn_implementation='sdpa')"
    kinds: set[str] = set(getattr(config, "layer_types", None) or [])
    if kinds - {"full_attention"}:
        return f"its layers are {', '.join(sorted(kinds))}"
    window = getattr(config, "sliding_window", None)
    if window and not kinds and getattr(config, "use_sliding_window", True):
        return f"its attention looks back {window} tokens only"
    return ""


@torch.no_grad()
def _from_trial(model: PreTrainedModel) -> str:
    """What a search of two levels shows."""
    was_training = model.training
    model.eval()
    try:
        tree_UWK, expanded_UWK = (_trial_scores(kind, model) for kind in (CausalScorer, ExpandedScorer))
    except Exception as error:  # noqa: BLE001  # a foreign model may raise anything
        return f"it raised {type(error).__name__} ({error})"
    finally:
        model.train(was_training)
    difference = float((tree_UWK - expanded_UWK).abs().max())
    if not difference <= TOLERANCE.get(model.dtype, 0.25):
        return f"scores differ by {difference:.3g} nats from those of prefixes read one by one"
    return ""


def _trial_scores(kind: type[CausalScorer | ExpandedScorer], model: PreTrainedModel) -> Tensor:
    """Log-probabilities of a few tokens after two prefixes of a long and of a short prompt."""
    size = int(model.config.get_text_config().vocab_size)
    prompts = Prompts(torch.tensor([[4, 1, 3], [2, 0, 0]]) % size, torch.tensor([[1, 1, 1], [1, 0, 0]]))
    levels = [torch.arange(min(3, size), device=model.device)] * 2
    scorer = kind(model, levels, lambda _: prompts, "vocabulary")
    state = scorer.start(Histories.of([[], []]))
    scorer.step(state, 0, None, None)
    parents, codes = torch.zeros(2, 2, dtype=torch.long), torch.tensor([[0, 1], [1, 0]])
    return scorer.step(state, 1, parents.to(model.device), codes.to(model.device))
