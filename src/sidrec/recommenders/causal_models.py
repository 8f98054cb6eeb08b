"""Which causal language models can score a tree of prefixes at once, by asking the model, never its name.

`CausalScorer` needs full attention that takes a 4-D mask, positions that are told, and a head that is
one matrix product. The config says what the layers are; the rest is tried on two short prompts.
A model that fails is searched with one row for each prefix, which gives the same lists more slowly.
"""

import re
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

TOLERANCE, HALF_TOLERANCE = 1e-3, 0.15
"""How far scores of the two ways may differ by rounding, as a share of how far they differ between prefixes: of a
model in float32 and in less. Measured: 1e-5 in float32; 0.002 to 0.07 in bfloat16, where wrong positions make 0.25."""
TINY = 1e-5
"""Difference, in nats, that is rounding wherever it occurs."""
WINDOW = re.compile(r"window(_size)?$")
"""Names of settings that limit how far attention looks back."""
TRIED_TOKENS = 24
"""Tokens of the longer prompt of a trial: far enough for positions that are told wrongly to matter."""
TRIED_CODES = 512
"""Tokens that a trial compares the scores of."""

_TRIED: WeakKeyDictionary[PreTrainedModel, str] = WeakKeyDictionary()


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

    A model object is tried once; its config is read every time.
    """
    reason = _from_config(model)
    if not reason and model not in _TRIED:
        _TRIED[model] = _from_trial(model)
    return reason or _TRIED[model]


def _from_config(model: PreTrainedModel) -> str:
    """What the config gives away."""
    config: Any = model.config.get_text_config()
    attention: str = getattr(config, "_attn_implementation", None) or "eager"
    if attention not in ("sdpa", "eager"):
        return f"its attention is '{attention}' (load it with attn_implementation='sdpa')"
    kinds: set[str] = set(getattr(config, "layer_types", None) or [])
    if kinds - {"full_attention"}:
        return f"its layers are {', '.join(sorted(kinds))}"
    settings: dict[str, Any] = config.to_dict()
    for name, value in settings.items():
        if not value or isinstance(value, bool):
            continue
        if WINDOW.search(name) and not kinds and settings.get("use_sliding_window", True):
            return f"its attention looks back {value} tokens only ({name})"
        # Soft caps hardly show while logits are small, as they are before training.
        if re.match("(?!attn).*logit.*soft_?cap", name):
            return f"its logits are capped ({name})"
    return ""


@torch.no_grad()
def _from_trial(model: PreTrainedModel) -> str:
    """What a search of two levels shows."""
    was_training = model.training
    model.eval()
    try:
        tree_UWK, expanded_UWK = (_trial_scores(kind, model) for kind in (CausalScorer, ExpandedScorer))
    except torch.OutOfMemoryError:
        raise  # says nothing about the model, and must not be remembered of it
    except Exception as error:  # noqa: BLE001  # a foreign model may raise anything
        return f"it raised {type(error).__name__} ({error})"
    finally:
        model.train(was_training)
    difference = float((tree_UWK - expanded_UWK).square().mean().sqrt())
    between_prefixes = float(expanded_UWK.flatten(0, 1).var(0).mean().sqrt())
    tolerance = TOLERANCE if model.dtype == torch.float32 else HALF_TOLERANCE
    if not difference <= tolerance * between_prefixes + TINY:
        return f"scores differ by {difference:.3g} nats from those of prefixes read one by one"
    return ""


def _trial_scores(kind: type[CausalScorer | ExpandedScorer], model: PreTrainedModel) -> Tensor:
    """Log-probabilities float32[2, 2, K] of tokens after two prefixes of a long and of a short prompt."""
    size = int(model.config.get_text_config().vocab_size)
    mask_UT = torch.ones(2, TRIED_TOKENS, dtype=torch.long)
    mask_UT[1, 2:] = 0
    prompts = Prompts(torch.arange(1, 2 * TRIED_TOKENS + 1).view(2, -1) % size, mask_UT)
    levels = [torch.arange(min(TRIED_CODES, size))] * 2
    scorer = kind(model, levels, lambda _: prompts, "vocabulary")
    state = scorer.start(Histories.of([[], []]))
    scorer.step(state, 0, None, None)
    parents, codes = torch.zeros(2, 2, dtype=torch.long), torch.tensor([[0, 1], [1, 0]])
    return scorer.step(state, 1, parents.to(model.device), codes.to(model.device))
