"""Scores of the item decoder: histories read once, one state a prefix, no attention among codes.

Legend: U users · W prefixes · M nodes of a user's tree · K codes of a level · D width.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from sidrec.data.sequences import Histories
from sidrec.decoding.scorer import PromptState
from sidrec.recommenders.code_tree import CodeTree
from sidrec.recommenders.item_decoder_model import ItemDecoderModel
from sidrec.recommenders.model_input import read_prompts
from sidrec.tasks.next_item import Prompts

__all__ = ["ItemDecoderScorer", "SpelledState", "last_states"]


@dataclass
class SpelledState:
    """The states of all prefixes of some users that were scored.

    Attributes:
        nodes_UMD: of each node; node 0, the empty prefix, is the history's.
        trie_nodes_UM: int64[U, M], the nodes of the catalogue's tree that they are; 0 where no tree is read.
    """

    nodes_UMD: Tensor
    trie_nodes_UM: Tensor

    def select(self, users: Tensor) -> Self:
        """A fresh state, at level 0, of some of the users."""
        return type(self)(self.nodes_UMD[users, :1], self.trie_nodes_UM[users, :1])

    def take(self, users: Tensor) -> Self:
        """The state of some of the users with all of their nodes."""
        return type(self)(self.nodes_UMD[users], self.trie_nodes_UM[users])


class ItemDecoderScorer:
    """Scores codes with an item decoder: over the codes of the level, with outputs "nodes" over a prefix's children.

    Args:
        model: in evaluation mode; vectors of nodes are made of its weights as they are now.
        build_prompt: histories → prompts of whole items, padded on either side.
        tree: of the catalogue, for outputs "nodes".
    """

    has_end = False

    def __init__(
        self, model: ItemDecoderModel, build_prompt: Callable[[Histories], Prompts], tree: CodeTree | None = None
    ) -> None:
        self.model, self._build_prompt = model, build_prompt
        with torch.no_grad():
            self._outputs = model.output_vectors(tree)
        self.level_sizes = tuple(model.config.level_sizes)

    def start(self, histories: Histories) -> SpelledState:
        """Read the histories."""
        states_UD = last_states(self.model, *read_prompts(self.model, self._build_prompt, histories))
        return SpelledState(
            states_UD[:, None], torch.zeros(len(states_UD), 1, dtype=torch.long, device=states_UD.device)
        )

    def step(self, state: PromptState, level: int, parents_UW: Tensor | None, codes_UW: Tensor | None) -> Tensor:
        """Log-probabilities float32[U, W, K] of the codes of `level` after each prefix.

        With outputs "nodes", those of codes that leave the catalogue have next to no probability.
        """
        assert isinstance(state, SpelledState)
        states_UWD, nodes_UW = state.nodes_UMD, state.trie_nodes_UM
        if parents_UW is not None and codes_UW is not None:
            index_UWD = parents_UW[..., None].expand(-1, -1, states_UWD.shape[-1])
            states_UWD = self.model.spell(states_UWD.gather(1, index_UWD), codes_UW, level - 1, self._outputs)
            nodes_UW = nodes_UW.gather(1, parents_UW)
            if self._outputs.branches is not None:
                nodes_UW = self._outputs.branches.tree.child(nodes_UW, codes_UW, level - 1)
            state.nodes_UMD = torch.cat([state.nodes_UMD, states_UWD], dim=1)
            state.trie_nodes_UM = torch.cat([state.trie_nodes_UM, nodes_UW], dim=1)
        return self.model.log_probs(states_UWD, nodes_UW, level, self._outputs)


def last_states(model: ItemDecoderModel, tokens_UTW: Tensor, mask_UT: Tensor) -> Tensor:
    """States float[U, D] of the last real position of prompts that are padded on either side."""
    users, places = (torch.arange(size, device=mask_UT.device) for size in mask_UT.shape)
    # The model wants what is real at the beginning.
    shifted_UT = (places + mask_UT.long().argmax(1)[:, None]) % max(len(places), 1)
    states_UTD = model.read(tokens_UTW[users[:, None], shifted_UT])
    return states_UTD[users, mask_UT.long().sum(1) - 1]
