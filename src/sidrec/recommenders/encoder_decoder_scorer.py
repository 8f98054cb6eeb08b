"""Beam-search scores of a T5 or mT5: encoder and cross-attention keys once a user, beams as query positions.

The weights are those of a transformers `T5ForConditionalGeneration`; its layers are written anew (`t5_layers`),
because `generate` repeats the encoder's keys for every beam and reorders all of them after every step. Other
encoder-decoders (UMT5, BART and kin) are not covered.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor
from transformers import T5ForConditionalGeneration

from sidrec.data.sequences import Histories
from sidrec.decoding.recommendations import Normalize
from sidrec.decoding.scorer import PromptState
from sidrec.recommenders.attention import NodeStates, is_ancestor, reads_paths
from sidrec.recommenders.code_head import CodeHead
from sidrec.recommenders.model_input import level_tokens, read_prompts
from sidrec.recommenders.prefix_tree import PrefixTree
from sidrec.recommenders.t5_layers import T5Decoder, T5Encoder
from sidrec.tasks.next_item import Prompts

__all__ = ["EncoderDecoderScorer", "EncoderDecoderState"]


@dataclass
class EncoderDecoderState:
    """Prompt side and beam tree of some users. H heads, S prompt tokens, M nodes of the beam tree.

    Attributes:
        cross: for each layer the cross-attention keys and values, both [U, H, S, D].
        mask: [U, 1, 1, S], what is added to cross-attention scores.
        nodes: for each layer the self-attention keys and values of the tree.
        tree: the prefixes that were scored.
    """

    cross: list[tuple[Tensor, Tensor]]
    mask: Tensor
    nodes: list[NodeStates]
    tree: PrefixTree

    def select(self, users: Tensor) -> Self:
        """A fresh state, at level 0, of some of the users."""
        cross = [(keys[users], values[users]) for keys, values in self.cross]
        return type(self).at_root(cross, self.mask[users])

    def take(self, users: Tensor) -> Self:
        """The state of some of the users with all of their nodes."""
        taken = self.select(users)
        taken.nodes, taken.tree = [nodes.take(users) for nodes in self.nodes], self.tree.take(users)
        return taken

    @classmethod
    def at_root(cls, cross: list[tuple[Tensor, Tensor]], mask: Tensor) -> Self:
        """A state before the first step."""
        nodes = [NodeStates.like(keys) for keys, _ in cross]
        return cls(cross, mask, nodes, PrefixTree.at_root(len(mask), mask.device))


class EncoderDecoderScorer:
    """Scores codes with a T5 whose decoder writes one token a level, then the end token.

    Args:
        model: in evaluation mode, with tied or untied head. Most of its weights are copied: make a new scorer after a
            step of training.
        level_token_ids: for each level int64[K], the token ids of its codes.
        build_prompt: histories → encoder input of at least one token, padded on either side.
        normalize: "vocabulary" makes log-probabilities over all tokens and adds the end step, which
            equals transformers' beam search; anything else normalises over the codes of the level.

    Raises:
        DataError: codes are no tokens of the model, it is no T5 or mT5, or, when a search starts, prompts are not
            what it can read.
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
        self._build_prompt, self._device = build_prompt, model.device
        self._encoder, self._decoder = T5Encoder(model), T5Decoder(model)
        self._tokens = level_tokens(model, level_token_ids)
        self._start, end = config.decoder_start_token_id, torch.tensor([config.eos_token_id], device=self._device)
        weight_VD: Any = model.lm_head.weight
        # An mT5 never scales, and says nothing of it.
        scale = config.d_model**-0.5 if getattr(config, "scale_decoder_outputs", False) else 1.0
        folded_VD = self._decoder.fold(weight_VD) * scale
        self._head = CodeHead(folded_VD, None, [*self._tokens, end], over_vocabulary=normalize == "vocabulary")
        steps = len(self.level_sizes) + 1
        self._bias_HTT: Tensor = self._decoder.compute_bias(steps, steps)[0]

    def start(self, histories: Histories) -> EncoderDecoderState:
        """Run the encoder and the cross-attention projections, once a user."""
        tokens_US, mask_US = read_prompts(self.model, self._build_prompt, histories)
        cross = self._encoder(tokens_US, mask_US)
        added = torch.zeros(mask_US.shape, dtype=cross[0][0].dtype, device=self._device)
        return EncoderDecoderState.at_root(cross, added.masked_fill_(~mask_US, -torch.inf)[:, None, None])

    def step(self, state: PromptState, level: int, parents_UW: Tensor | None, codes_UW: Tensor | None) -> Tensor:
        """Log-probabilities float32[U, W, K] of the codes of `level`; of ending, where level is L."""
        assert isinstance(state, EncoderDecoderState)
        if parents_UW is None or codes_UW is None:
            tokens_UW = torch.full((len(state.mask), 1), self._start, device=self._device)
            paths_UWT = torch.zeros(len(state.mask), 1, 1, dtype=torch.long, device=self._device)
        else:
            tokens_UW = self._tokens[level - 1][codes_UW]
            paths_UWT = state.tree.add(parents_UW, level)
        bias = self._position_bias(state.tree, paths_UWT)
        hidden_UWD = self._decoder(tokens_UW, paths_UWT, state.nodes, bias, state.cross, state.mask)
        return self._head(hidden_UWD, level)

    def _position_bias(self, tree: PrefixTree, paths_UWT: Tensor) -> Tensor:
        """What is added to self-attention scores: [H, 1, T] over paths, [U, H, W, M] over the tree."""
        depth = paths_UWT.shape[2] - 1
        if reads_paths(tree.num_nodes):
            return self._bias_HTT[:, depth, : depth + 1].unsqueeze(1)
        # Nodes of a greater depth are masked, whatever bias stands there.
        bias_HM = self._bias_HTT[:, depth, tree.depths_M]
        return bias_HM[None, :, None].masked_fill(~is_ancestor(paths_UWT, tree)[:, None], -torch.inf)
