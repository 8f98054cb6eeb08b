"""Beam-search scores of a T5: encoder and cross-attention keys once a user, beams as query positions.

The weights are those of a transformers `T5ForConditionalGeneration`; only the decoder's attention is
written anew, because `generate` repeats the encoder's keys for every beam and reorders all of them
after every step. Other encoder-decoders (BART and kin) are not covered.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import T5ForConditionalGeneration

from sidrec.data.sequences import Histories
from sidrec.decoding.recommendations import Normalize
from sidrec.decoding.scorer import PromptState
from sidrec.recommenders.prefix_tree import PrefixTree
from sidrec.tasks.next_item import Prompts

__all__ = ["EncoderDecoderScorer", "EncoderDecoderState"]


@dataclass
class EncoderDecoderState:
    """Prompt side and beam tree of some users. H heads, S prompt tokens, M nodes of the beam tree.

    Attributes:
        cross: for each layer the cross-attention keys and values, both [U, H, S, D].
        mask: [U, 1, 1, S], what is added to cross-attention scores.
        nodes: for each layer the self-attention keys and values of the beam tree, [U, M, 2·H·D].
        tree: the prefixes that were scored.
    """

    cross: list[tuple[Tensor, Tensor]]
    mask: Tensor
    nodes: list[Tensor]
    tree: PrefixTree

    def select(self, users: Tensor) -> Self:
        """A fresh state, at level 0, of some of the users."""
        cross = [(keys[users], values[users]) for keys, values in self.cross]
        return type(self).at_root(cross, self.mask[users])

    def take(self, users: Tensor) -> Self:
        """The state of some of the users with all of their nodes."""
        taken = self.select(users)
        taken.nodes, taken.tree = [nodes[users] for nodes in self.nodes], self.tree.take(users)
        return taken

    @classmethod
    def at_root(cls, cross: list[tuple[Tensor, Tensor]], mask: Tensor) -> Self:
        """A state before the first step."""
        users, heads, _, width = cross[0][0].shape
        nodes = [keys.new_empty(users, 0, 2 * heads * width) for keys, _ in cross]
        return cls(cross, mask, nodes, PrefixTree.at_root(users, mask.device))


class EncoderDecoderScorer:
    """Scores codes with a T5 whose decoder writes one token a level, then the end token.

    Args:
        model: in evaluation mode, with tied or untied head.
        level_token_ids: for each level int64[K], the token ids of its codes.
        build_prompt: histories → encoder input.
        normalize: "vocabulary" makes log-probabilities over all tokens and adds the end step, which
            equals transformers' beam search; anything else normalises over the codes of the level.
    """

    def __init__(
        self,
        model: T5ForConditionalGeneration,
        level_token_ids: Sequence[Tensor],
        build_prompt: Callable[[Histories], Prompts],
        normalize: Normalize = "level",
    ) -> None:
        config: Any = model.config
        self.model = model
        self.level_sizes = tuple(len(ids) for ids in level_token_ids)
        self.has_end = normalize == "vocabulary"
        self._over_vocabulary = normalize == "vocabulary"
        self._build_prompt = build_prompt
        self._device, self._heads = model.device, config.num_heads
        self._tokens = [ids.to(self._device) for ids in level_token_ids]
        self._start, end = config.decoder_start_token_id, torch.tensor([config.eos_token_id], device=self._device)
        weight_VD: Any = model.lm_head.weight
        scale = config.d_model**-0.5 if config.scale_decoder_outputs else 1.0
        self._head_VD = weight_VD * scale if self._over_vocabulary else None
        self._targets = [*self._tokens, end]
        self._level_heads = [weight_VD[ids] * scale for ids in self._tokens]
        self._blocks: list[Any] = list(model.decoder.block)
        steps = len(self.level_sizes) + 1
        self._bias_HTT: Tensor = self._blocks[0].layer[0].SelfAttention.compute_bias(steps, steps)[0]

    def start(self, histories: Histories) -> EncoderDecoderState:
        """Run the encoder and the cross-attention projections, once a user."""
        prompts = self._build_prompt(histories)
        mask_US = prompts.mask_BT.to(self._device)
        encoded = self.model.encoder(input_ids=prompts.tokens_BT.to(self._device), attention_mask=mask_US)
        encoded_USD = encoded.last_hidden_state
        cross: list[tuple[Tensor, Tensor]] = []
        for block in self._blocks:
            attention = block.layer[1].EncDecAttention
            cross.append((self._split(attention.k(encoded_USD)), self._split(attention.v(encoded_USD))))
        added = torch.zeros(mask_US.shape, dtype=encoded_USD.dtype, device=self._device)
        added.masked_fill_(mask_US == 0, torch.finfo(encoded_USD.dtype).min)
        return EncoderDecoderState.at_root(cross, added[:, None, None])

    def step(self, state: PromptState, level: int, parents_UW: Tensor | None, codes_UW: Tensor | None) -> Tensor:
        """Log-probabilities float32[U, W, K] of the codes of `level`; of ending, where level is L."""
        assert isinstance(state, EncoderDecoderState)
        if parents_UW is None or codes_UW is None:
            tokens_UW = torch.full((len(state.mask), 1), self._start, device=self._device)
            paths_UWT = torch.zeros(len(state.mask), 1, 1, dtype=torch.long, device=self._device)
        else:
            tokens_UW = self._tokens[level - 1][codes_UW]
            paths_UWT = state.tree.add(parents_UW, level)
        hidden_UWD = self._decode(state, tokens_UW, paths_UWT)
        if self._head_VD is None:
            return F.linear(hidden_UWD, self._level_heads[level]).float().log_softmax(-1)
        logits_UWV = F.linear(hidden_UWD, self._head_VD).float()
        return logits_UWV[..., self._targets[level]] - logits_UWV.logsumexp(-1, keepdim=True)

    def _decode(self, state: EncoderDecoderState, tokens_UW: Tensor, paths_UWT: Tensor) -> Tensor:
        """Final hidden states [U, W, D] of one new token a beam; its keys and values join the tree."""
        depth = paths_UWT.shape[2]
        bias_HT = self._bias_HTT[:, depth - 1, :depth]
        hidden: Tensor = self.model.decoder.embed_tokens(tokens_UW)
        for number, block in enumerate(self._blocks):
            layer = block.layer[0]
            attention, normed = layer.SelfAttention, layer.layer_norm(hidden)
            new_nodes = torch.cat([attention.k(normed), attention.v(normed)], dim=-1)
            state.nodes[number] = torch.cat([state.nodes[number], new_nodes], dim=1)
            seen = _attend_path(attention.q(normed), state.nodes[number], paths_UWT, bias_HT)
            hidden = hidden + attention.o(seen)
            layer = block.layer[1]
            attention, normed = layer.EncDecAttention, layer.layer_norm(hidden)
            keys, values = state.cross[number]
            seen = F.scaled_dot_product_attention(
                self._split(attention.q(normed)), keys, values, attn_mask=state.mask, scale=1.0
            )
            hidden = hidden + attention.o(seen.transpose(1, 2).flatten(2))
            hidden = block.layer[2](hidden)
        return self.model.decoder.final_layer_norm(hidden)

    def _split(self, states_UTX: Tensor) -> Tensor:
        """[U, T, H·D] as [U, H, T, D]."""
        return states_UTX.unflatten(-1, (self._heads, -1)).transpose(1, 2)


def _attend_path(queries: Tensor, nodes: Tensor, paths_UWT: Tensor, bias_HT: Tensor) -> Tensor:
    """Self-attention [U, W, H·D] of each beam over its own path.

    Args:
        queries: [U, W, H·D].
        nodes: keys and values of the tree, [U, M, 2·H·D].
        paths_UWT: int64[U, W, T], nodes of each beam's path.
        bias_HT: relative position bias of the last position towards each position of the path.
    """
    users, beams, depth = paths_UWT.shape
    first_U = torch.arange(users, device=nodes.device)[:, None, None] * nodes.shape[1]
    path = nodes.flatten(0, 1).index_select(0, (paths_UWT + first_U).flatten())
    keys, values = path.view(users, beams, depth, 2, len(bias_HT), -1).unbind(3)
    scores = (queries.view(users, beams, 1, len(bias_HT), -1) * keys).sum(-1) + bias_HT.T
    weights = scores.float().softmax(2).to(values.dtype)
    return (weights[..., None] * values).sum(2).flatten(2)
