"""Beam-search scores of any transformers causal language model: prompt once a user, beams as a tree.

The new tokens of all beams of one user are one block of queries. Each sees the prompt, its own
ancestors and itself, which a 4-D attention mask says; keys and values of the prompt are stored once
a user and none is ever reordered. Models whose head does more than one matrix product (soft-capped
logits) and models with sliding-window or recurrent layers are not covered.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from sidrec.data.sequences import Histories
from sidrec.decoding.recommendations import Normalize
from sidrec.decoding.scorer import PromptState
from sidrec.recommenders.code_head import CodeHead
from sidrec.recommenders.prefix_tree import PrefixTree
from sidrec.tasks.next_item import Prompts

__all__ = ["CausalScorer", "CausalState"]

BEAMS_PER_BLOCK = 64
"""Beams of a user that share one forward pass. Their ancestors stand side by side in the keys, so the
attention of a block grows with its square; blocks keep very wide searches linear."""


@dataclass
class CausalState:
    """Prompt side and beam tree of some users. H key heads, S prompt tokens, M nodes of the beam tree.

    Attributes:
        hidden_UD: hidden state of the last prompt token, which predicts the first level.
        prompt: for each layer keys and values of the prompt, both [U, H, S, D].
        mask_US: bool[U, S], which prompt tokens are real.
        nodes: for each layer keys and values of the beam tree, both [U, H, M, D].
        tree: the prefixes that were scored; its node i + 1 has the keys and values i.
    """

    hidden_UD: Tensor
    prompt: list[tuple[Tensor, Tensor]]
    mask_US: Tensor
    nodes: list[tuple[Tensor, Tensor]]
    tree: PrefixTree

    def select(self, users: Tensor) -> Self:
        """A fresh state, at level 0, of some of the users."""
        prompt = [(keys[users], values[users]) for keys, values in self.prompt]
        return type(self).at_root(self.hidden_UD[users], prompt, self.mask_US[users])

    def take(self, users: Tensor) -> Self:
        """The state of some of the users with all of their nodes."""
        taken = self.select(users)
        taken.nodes = [(keys[users], values[users]) for keys, values in self.nodes]
        taken.tree = self.tree.take(users)
        return taken

    @classmethod
    def at_root(cls, hidden_UD: Tensor, prompt: list[tuple[Tensor, Tensor]], mask_US: Tensor) -> Self:
        """A state before the first step."""
        nodes = [(keys[:, :, :0], values[:, :, :0]) for keys, values in prompt]
        return cls(hidden_UD, prompt, mask_US, nodes, PrefixTree.at_root(len(mask_US), mask_US.device))


class CausalScorer:
    """Scores codes with a causal language model that writes one token a level.

    Args:
        model: any causal language model of transformers with full attention, in evaluation mode.
        level_token_ids: for each level int64[K], the token ids of its codes (any ids, in any order).
        build_prompt: histories → prompts, padded on the right.
        normalize: "vocabulary" makes log-probabilities over all tokens, which equals transformers'
            beam search; anything else normalises over the codes of the level.
    """

    has_end = False

    def __init__(
        self,
        model: PreTrainedModel,
        level_token_ids: Sequence[Tensor],
        build_prompt: Callable[[Histories], Prompts],
        normalize: Normalize = "level",
    ) -> None:
        self.model = model
        self.level_sizes = tuple(len(ids) for ids in level_token_ids)
        self._build_prompt = build_prompt
        self._device = model.device
        self._tokens = [ids.to(self._device) for ids in level_token_ids]
        self._body: Any = model.base_model
        head: Any = model.get_output_embeddings()
        self._score = CodeHead(head.weight, head.bias, self._tokens, over_vocabulary=normalize == "vocabulary")

    def start(self, histories: Histories) -> CausalState:
        """Read the prompts, once a user."""
        prompts = self._build_prompt(histories)
        tokens, mask = prompts.tokens_BT.to(self._device), prompts.mask_BT.to(self._device)
        cache = DynamicCache()
        positions = torch.arange(tokens.shape[1], device=self._device)[None]
        out = self._body(
            input_ids=tokens, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True
        )
        last_U = mask.sum(1) - 1
        hidden_UD = out.last_hidden_state[torch.arange(len(tokens), device=self._device), last_U]
        layers: list[Any] = cache.layers
        return CausalState.at_root(hidden_UD, [(layer.keys, layer.values) for layer in layers], mask.bool())

    def step(self, state: PromptState, level: int, parents_UW: Tensor | None, codes_UW: Tensor | None) -> Tensor:
        """Log-probabilities float32[U, W, K] of the codes of `level` after each beam."""
        assert isinstance(state, CausalState)
        if parents_UW is None or codes_UW is None:
            return self._score(state.hidden_UD[:, None], level)
        ancestors_UWT = state.tree.add(parents_UW, level)[..., 1:-1] - 1
        tokens_UW = self._tokens[level - 1][codes_UW]
        blocks = [
            self._forward(state, tokens_UW[:, block], ancestors_UWT[:, block]) for block in _blocks(tokens_UW.shape[1])
        ]
        for number, old in enumerate(state.nodes):
            keys, values = zip(old, *(cache.new[number] for _, cache in blocks), strict=True)
            state.nodes[number] = (torch.cat(keys, dim=2), torch.cat(values, dim=2))
        return torch.cat([self._score(hidden, level) for hidden, _ in blocks], dim=1)

    def _forward(self, state: CausalState, tokens_UC: Tensor, ancestors_UCT: Tensor) -> "tuple[Tensor, _TreeCache]":
        """Hidden states [U, C, D] of one new token for each of C beams, and the cache with its new keys."""
        users, beams, depth = ancestors_UCT.shape
        cache = _TreeCache(state, ancestors_UCT)
        # Columns: the prompt, then for each depth one column a beam, the last of them the beams themselves.
        own_CX = torch.eye(beams, dtype=torch.bool, device=self._device).repeat(1, depth + 1)
        prompt_UCS = state.mask_US[:, None].expand(-1, beams, -1)
        allowed = torch.cat([prompt_UCS, own_CX.expand(users, -1, -1)], dim=2)[:, None]
        dtype = state.hidden_UD.dtype
        mask = torch.zeros(allowed.shape, dtype=dtype, device=self._device)
        mask.masked_fill_(~allowed, torch.finfo(dtype).min)
        positions = (state.mask_US.sum(1, keepdim=True) + depth).expand(-1, beams)
        out = self._body(
            input_ids=tokens_UC, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True
        )
        return out.last_hidden_state, cache


class _TreeCache(DynamicCache):
    """Gives each layer the prompt's keys, those of the beams' ancestors and the new ones; keeps the new ones."""

    def __init__(self, state: CausalState, ancestors_UCT: Tensor) -> None:
        super().__init__()
        self.new: list[tuple[Tensor, Tensor]] = []
        self._state = state
        # Ancestors depth by depth, so that the mask is the same identity for every depth.
        self._index = ancestors_UCT.transpose(1, 2).flatten(1)[:, None, :, None]

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Keys and values that the layer attends to."""
        self.new.append((key_states, value_states))
        prompt_keys, prompt_values = self._state.prompt[layer_idx]
        keys, values = self._state.nodes[layer_idx]
        index = self._index.expand(-1, keys.shape[1], -1, keys.shape[3])
        return (
            torch.cat([prompt_keys, keys.gather(2, index), key_states], dim=2),
            torch.cat([prompt_values, values.gather(2, index), value_states], dim=2),
        )

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Number of keys before the new ones."""
        return self._state.mask_US.shape[1] + self._index.shape[2]


def _blocks(beams: int) -> list[slice]:
    return [slice(first, first + BEAMS_PER_BLOCK) for first in range(0, beams, BEAMS_PER_BLOCK)]
