"""Scores of a causal language model by whole forward passes: one row for each prefix, prompt and all.

Slow, and right for every model whatever its layers are: windows, recurrence, soft-capped logits. Rows of
one length share a pass, so nothing is ever padded. It is what `causal_models` falls back on, and the
reference of `CausalScorer`.
"""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor
from transformers import PreTrainedModel

from sidrec.data.sequences import Histories
from sidrec.decoding.recommendations import Normalize
from sidrec.decoding.scorer import PromptState
from sidrec.recommenders.model_input import level_tokens, read_prompts
from sidrec.recommenders.prefix_tree import PrefixTree
from sidrec.tasks.next_item import Prompts

__all__ = ["ExpandedScorer", "ExpandedState"]

ROWS_AT_ONCE = 64
"""Rows of a forward pass, whose logits over the vocabulary are held together."""


@dataclass
class ExpandedState:
    """Prompts and prefixes of some users.

    Attributes:
        prompts: tokens of each user, int64[S].
        tokens_UM: int64[U, M], the last token of each node; anything at node 0.
        tree: the prefixes that were scored.
    """

    prompts: list[Tensor]
    tokens_UM: Tensor
    tree: PrefixTree

    @classmethod
    def at_root(cls, prompts: list[Tensor], device: torch.device) -> Self:
        """A state before the first step."""
        tokens_UM = torch.zeros(len(prompts), 1, dtype=torch.long, device=device)
        return cls(prompts, tokens_UM, PrefixTree.at_root(len(prompts), device))

    def select(self, users: Tensor) -> Self:
        """A fresh state, at level 0, of some of the users."""
        return self.at_root([self.prompts[user] for user in users.tolist()], self.tokens_UM.device)

    def take(self, users: Tensor) -> Self:
        """The state of some of the users with all of their nodes."""
        prompts = [self.prompts[user] for user in users.tolist()]
        return type(self)(prompts, self.tokens_UM[users], self.tree.take(users))


class ExpandedScorer:
    """Scores codes with any causal language model; arguments are those of `CausalScorer`."""

    has_end = False

    def __init__(
        self,
        model: PreTrainedModel,
        level_token_ids: Sequence[Tensor],
        build_prompt: Callable[[Histories], Prompts],
        normalize: Normalize = "level",
    ) -> None:
        self.model: Any = model
        self.level_sizes = tuple(len(ids) for ids in level_token_ids)
        self._build_prompt, self._device = build_prompt, model.device
        self._tokens = level_tokens(model, level_token_ids)
        self._over_vocabulary = normalize == "vocabulary"
        # A model that can leaves out the logits of all positions but the last, which are most of a pass's memory.
        can_leave_out = "logits_to_keep" in inspect.signature(model.forward).parameters
        self._last_only = {"logits_to_keep": 1} if can_leave_out else {}

    def start(self, histories: Histories) -> ExpandedState:
        """Make the prompts; nothing is read yet."""
        pairs = zip(*read_prompts(self.model, self._build_prompt, histories), strict=True)
        return ExpandedState.at_root([tokens[is_real] for tokens, is_real in pairs], self._device)

    def step(self, state: PromptState, level: int, parents_UW: Tensor | None, codes_UW: Tensor | None) -> Tensor:
        """Log-probabilities float32[U, W, K] of the codes of `level` after each prefix."""
        assert isinstance(state, ExpandedState)
        if parents_UW is None or codes_UW is None:
            prefixes_UWT = state.tokens_UM[..., None, :0]
        else:
            paths_UWT = state.tree.add(parents_UW, level)[..., 1:]
            state.tokens_UM = torch.cat([state.tokens_UM, self._tokens[level - 1][codes_UW]], dim=1)
            prefixes_UWT = state.tokens_UM.gather(1, paths_UWT.flatten(1)).view_as(paths_UWT)
        users, width = prefixes_UWT.shape[:2]
        out = torch.empty(users, width, self.level_sizes[level], device=self._device)
        lengths = torch.tensor([len(prompt) for prompt in state.prompts])
        for length in lengths.unique():
            chosen = torch.nonzero(lengths == length)[:, 0]
            prompts = torch.stack([state.prompts[user] for user in chosen.tolist()])
            prompts = prompts[:, None].expand(-1, width, -1)
            rows = torch.cat([prompts, prefixes_UWT[chosen.to(self._device)]], dim=2).flatten(0, 1)
            scores = torch.cat([self._score(part, level) for part in rows.split(ROWS_AT_ONCE)])
            out[chosen.to(self._device)] = scores.view(len(chosen), width, -1)
        return out

    def _score(self, tokens_RT: Tensor, level: int) -> Tensor:
        """Log-probabilities float32[R, K] after each of R rows of tokens."""
        mask_RT = torch.ones_like(tokens_RT)
        out = self.model(input_ids=tokens_RT, attention_mask=mask_RT, use_cache=False, **self._last_only)
        logits_RV = out.logits[:, -1].float()
        if self._over_vocabulary:
            return logits_RV.log_softmax(-1)[:, self._tokens[level]]
        return logits_RV[:, self._tokens[level]].log_softmax(-1)
