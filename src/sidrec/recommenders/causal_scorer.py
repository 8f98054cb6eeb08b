"""Scores of any transformers causal language model: prompt once a user, prefixes as a tree.

The new tokens of all prefixes of one user are one block of queries. Each sees the prompt, its own
ancestors and itself, which a 4-D attention mask says; keys and values of the prompt are stored once
a user and none is ever reordered. Which models can be read so is said in `causal_models`.
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
from sidrec.recommenders.attention import NodeStates, is_ancestor, reads_paths
from sidrec.recommenders.code_head import CodeHead
from sidrec.recommenders.model_input import level_tokens, read_prompts
from sidrec.recommenders.prefix_tree import PrefixTree
from sidrec.tasks.next_item import Prompts

__all__ = ["CausalScorer", "CausalState"]

PREFIXES_PER_BLOCK = 64
"""Prefixes of a user that share one forward pass where the tree is wide. Copies of their ancestors stand side by
side in the keys, so the attention of a block grows with its square; blocks keep very wide searches linear."""


@dataclass
class CausalState:
    """Prompts and trees of some users.

    Attributes:
        hidden_UD: hidden state of the last prompt token, which predicts the first level.
        mask_US: bool[U, S], which prompt tokens are real.
        layers: for each layer keys and values of the prompt, then of the tree's nodes but the first.
        tree: the prefixes that were scored.
    """

    hidden_UD: Tensor
    mask_US: Tensor
    layers: list[NodeStates]
    tree: PrefixTree

    def select(self, users: Tensor) -> Self:
        """A fresh state, at level 0, of some of the users."""
        mask_US = self.mask_US[users]
        layers = [layer.take(users, mask_US.shape[1]) for layer in self.layers]
        return type(self)(self.hidden_UD[users], mask_US, layers, PrefixTree.at_root(len(users), mask_US.device))

    def take(self, users: Tensor) -> Self:
        """The state of some of the users with all of their nodes."""
        layers = [layer.take(users) for layer in self.layers]
        return type(self)(self.hidden_UD[users], self.mask_US[users], layers, self.tree.take(users))


class CausalScorer:
    """Scores codes with a causal language model that writes one token a level.

    Args:
        model: a causal language model of transformers, in evaluation mode, that `causal_models` says yes to. The
            rows of its head are copied: make a new scorer after a step of training.
        level_token_ids: for each level int64[K], the token ids of its codes (any ids, in any order).
        build_prompt: histories → prompts of at least one token, padded on either side.
        normalize: "vocabulary" makes log-probabilities over all tokens, which equals transformers'
            beam search; anything else normalises over the codes of the level.

    Raises:
        DataError: codes are no tokens of the model, or, when a search starts, prompts are not what it can read.
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
        self._tokens = level_tokens(model, level_token_ids)
        self._body: Any = model.base_model
        head: Any = model.get_output_embeddings()
        self._score = CodeHead(head.weight, head.bias, self._tokens, over_vocabulary=normalize == "vocabulary")

    def start(self, histories: Histories) -> CausalState:
        """Read the prompts, once a user."""
        tokens_US, mask_US = read_prompts(self.model, self._build_prompt, histories)
        cache = DynamicCache()
        # Counted over real tokens, so that padding on the left moves nothing.
        positions_US = (mask_US.cumsum(1) - 1).clamp(min=0)
        out = self._body(
            input_ids=tokens_US,
            attention_mask=mask_US.long(),
            position_ids=positions_US,
            past_key_values=cache,
            use_cache=True,
        )
        last_U = (mask_US * torch.arange(1, mask_US.shape[1] + 1, device=self._device)).argmax(1)
        hidden_UD = out.last_hidden_state[torch.arange(len(last_U), device=self._device), last_U]
        states: list[Any] = cache.layers
        layers = [NodeStates(layer.keys, layer.values, layer.keys.shape[2]) for layer in states]
        return CausalState(hidden_UD, mask_US, layers, PrefixTree.at_root(len(last_U), self._device))

    def step(self, state: PromptState, level: int, parents_UW: Tensor | None, codes_UW: Tensor | None) -> Tensor:
        """Log-probabilities float32[U, W, K] of the codes of `level` after each prefix."""
        assert isinstance(state, CausalState)
        if parents_UW is None or codes_UW is None:
            return self._score(state.hidden_UD[:, None], level)
        paths_UWT = state.tree.add(parents_UW, level)
        tokens_UW = self._tokens[level - 1][codes_UW]
        if not reads_paths(state.tree.num_nodes):
            # The root has no token, so the tree's columns begin with node 1.
            columns_UWM = is_ancestor(paths_UWT, state.tree)[..., 1:]
            return self._score(self._read(state, tokens_UW, level, columns_UWM, _TreeCache(state)), level)
        ancestors_UWT = paths_UWT[..., 1:-1] + state.mask_US.shape[1] - 1
        logps: list[Tensor] = []
        for first in range(0, tokens_UW.shape[1], PREFIXES_PER_BLOCK):
            block = slice(first, first + PREFIXES_PER_BLOCK)
            cache, width = _PathCache(state, ancestors_UWT[:, block]), tokens_UW[:, block].shape[1]
            # For each depth one column a prefix, the last of them the prefixes themselves.
            columns_CX = torch.eye(width, dtype=torch.bool, device=self._device).repeat(1, level)
            columns_UCX = columns_CX.expand(len(tokens_UW), -1, -1)
            logps.append(self._score(self._read(state, tokens_UW[:, block], level, columns_UCX, cache), level))
        return torch.cat(logps, dim=1)

    def _read(
        self, state: CausalState, tokens_UW: Tensor, level: int, columns_UWX: Tensor, cache: DynamicCache
    ) -> Tensor:
        """Hidden states [U, W, D] of one new token for each prefix, which sees the prompt and its own columns."""
        prompt_UWS = state.mask_US[:, None].expand(-1, tokens_UW.shape[1], -1)
        allowed = torch.cat([prompt_UWS, columns_UWX], dim=2)[:, None]
        mask = torch.zeros(allowed.shape, dtype=state.hidden_UD.dtype, device=self._device)
        mask.masked_fill_(~allowed, torch.finfo(mask.dtype).min)
        positions_UW = (state.mask_US.sum(1, keepdim=True) + level - 1).expand_as(tokens_UW)
        out = self._body(
            input_ids=tokens_UW, attention_mask=mask, position_ids=positions_UW, past_key_values=cache, use_cache=True
        )
        return out.last_hidden_state


class _TreeCache(DynamicCache):
    """Appends each layer's new keys and values to the state's and gives it all of them."""

    def __init__(self, state: CausalState) -> None:
        super().__init__()
        self._layers, self._before = state.layers, state.layers[0].size

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Keys and values that the layer attends to."""
        layer = self._layers[layer_idx]
        layer.append(key_states, value_states)
        return layer.keys, layer.values

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Number of keys before the new ones."""
        return self._before


class _PathCache(_TreeCache):
    """Appends likewise, but gives each layer the prompt, copies of the prefixes' ancestors, and the new tokens."""

    def __init__(self, state: CausalState, ancestors_UCT: Tensor) -> None:
        super().__init__(state)
        self._prompt = state.mask_US.shape[1]
        # Ancestors depth by depth, so that the mask is the same identity for every depth.
        self._index = ancestors_UCT.transpose(1, 2).flatten(1)[:, None, :, None]
        self._before = self._prompt + self._index.shape[2]

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Keys and values that the layer attends to."""
        everything = super().update(key_states, value_states, layer_idx)
        keys, values = (
            torch.cat([states[:, :, : self._prompt], self._ancestors(states), new], dim=2)
            for states, new in zip(everything, (key_states, value_states), strict=True)
        )
        return keys, values

    def _ancestors(self, states: Tensor) -> Tensor:
        """Copies of keys or values, whose heads may differ in width."""
        return states.gather(2, self._index.expand(-1, states.shape[1], -1, states.shape[3]))
