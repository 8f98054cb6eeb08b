"""The network of the item decoder: a causal transformer over items, and a chain of small layers that spells codes.

The division of labour is that of the RQ-Transformer (Lee et al., 2022, arXiv:2203.01941): one deep model sees a
vector a position, one shallow model writes the position's codes. Here the shallow one is a residual layer a level
instead of a transformer. The deep one has SASRec's layers. Importing this module makes
`AutoModel.from_pretrained` know the weights.

Legend: B batch · T positions · W tokens a position · P places · L levels · K codes of a level · D width.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoConfig, AutoModel, PreTrainedModel
from transformers.modeling_outputs import ModelOutput

from sidrec.errors import DataError
from sidrec.recommenders.code_tree import Branches, CodeTree
from sidrec.recommenders.sasrec_layers import Block, SASRecModelConfig, Sight, draw_weights

__all__ = ["ItemDecoderModel", "ItemDecoderModelConfig", "OutputVectors"]


class ItemDecoderModelConfig(SASRecModelConfig):
    """Sizes of the network, and which of its tokens are codes."""

    model_type = "sidrec-item-decoder"
    vocab_size: int = 4
    """Rows of the table of tokens: special ones, codes, users, items."""
    level_sizes: Sequence[int] = (1,)
    """Codes of each level."""
    first_code: int = 3
    """Token of the first code of the first level; those of all levels follow it."""
    depth_dropout: float = 0.0
    """Dropout rate of the layers that spell codes."""
    outputs: str = "codes"
    """What has output vectors: "codes", or "nodes" of the catalogue's tree too."""
    first_item: int = 0
    """Token of the first item, whose vectors and all later ones are those of items; read with "nodes" only."""


@dataclass
class LevelOutput(ModelOutput):
    """For each level the logits float[P, K] of its codes."""

    logits: tuple[Tensor, ...] = ()


@dataclass(frozen=True)
class OutputVectors:
    """Vectors of what is written, taken from the table of tokens once a pass.

    Each slice of the table costs a gradient as large as the table.

    Attributes:
        codes: float[K, D] of each level.
        branches: the catalogue's tree with vectors, by the items' own; None where only codes have output vectors.
    """

    codes: tuple[Tensor, ...]
    branches: Branches | None

    def prefixes(self, codes: Tensor) -> Sequence[Tensor | None]:
        """For each level the nodes int64[...] before its code on paths int64[..., L]; None where there is no tree."""
        return [None] * len(self.codes) if self.branches is None else self.branches.tree.prefixes(codes)


class Speller(nn.Module):
    """What a written code does to a state: it is added, and a residual layer follows."""

    def __init__(self, config: ItemDecoderModelConfig) -> None:
        super().__init__()
        width, inner = config.hidden_size, config.inner_width or 4 * config.hidden_size
        self.norm = nn.LayerNorm(width, eps=config.norm_eps)
        self.up, self.down = nn.Linear(width, inner), nn.Linear(inner, width)
        self.dropout = nn.Dropout(config.depth_dropout)

    def forward(self, states: Tensor, code_vectors: Tensor) -> Tensor:
        """float[..., D] of a level and the vectors float[..., D] of its codes → float[..., D] of the next level."""
        states = states + self.dropout(code_vectors)
        return states + self.dropout(self.down(F.gelu(self.up(self.norm(states)))))


class ItemDecoderModel(PreTrainedModel):
    """States of items, and logits of the codes of the item after each.

    A position's input is the sum of the vectors of its tokens: those of an item's codes and, if there is one, the
    item's own. The vectors of codes are the output matrix too, and with outputs "nodes" so are, by way of means, those
    of items: the model is then called with the catalogue's tree, which is none of its weights.
    """

    config_class = ItemDecoderModelConfig
    _supports_sdpa = True

    def __init__(self, config: ItemDecoderModelConfig) -> None:
        super().__init__(config)
        width = config.hidden_size
        self.tokens = nn.Embedding(config.vocab_size, width, padding_idx=config.pad_token_id)
        self.positions = nn.Embedding(config.max_history, width)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.num_layers))
        self.spellers = nn.ModuleList(Speller(config) for _ in config.level_sizes[1:])
        self.norm = nn.LayerNorm(width, eps=config.norm_eps)
        self.code_bias = nn.Parameter(torch.zeros(sum(config.level_sizes)))
        self.dropout = nn.Dropout(config.dropout)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        draw_weights(module)

    def get_input_embeddings(self) -> nn.Module:
        """The table of tokens."""
        return self.tokens

    def forward(
        self,
        input_ids: Tensor,
        places: Tensor,
        codes: Tensor,
        attention_mask: Tensor | None = None,
        tree: CodeTree | None = None,
    ) -> LevelOutput:
        """Logits of all levels at some places, each level's after the true codes of the levels before it.

        Args:
            input_ids: int64[B, T, W] tokens of each position, padded on the right.
            places: int64[P], positions of the flattened batch.
            codes: int64[P, L], the codes of the item behind each place; those of the last level are not read.
            attention_mask: not needed, since padding stands on the right, where nothing sees it.
            tree: of the catalogue, for outputs "nodes".

        Raises:
            DataError: there is no tree, and there are outputs "nodes".
        """
        del attention_mask
        outputs = self.output_vectors(tree)
        hidden_PD = self.read(input_ids).flatten(0, 1)[places]
        states_PSD = self.spelled(hidden_PD, codes[:, :-1], outputs)
        levels = enumerate(zip(states_PSD.unbind(1), outputs.prefixes(codes), strict=True))
        return LevelOutput(logits=tuple(self.logits(*parts, level, outputs) for level, parts in levels))

    def read(self, tokens_BTW: Tensor) -> Tensor:
        """States float[B, T, D] of all positions, each of which sees itself and those before it."""
        padding = self.config.pad_token_id
        sums = F.embedding_bag(tokens_BTW.flatten(0, 1), self.tokens.weight, mode="sum", padding_idx=padding)
        states = sums.unflatten(0, tokens_BTW.shape[:2]) * self.config.hidden_size**0.5
        states = self.dropout(states + self.positions.weight[: tokens_BTW.shape[1]])
        for block in self.blocks:
            states, _ = block(states, Sight(mask=None, turn=None, real_BT=None))
        return states

    def output_vectors(self, tree: CodeTree | None) -> OutputVectors:
        """The vectors of codes, and with outputs "nodes" those of the catalogue's tree.

        Raises:
            DataError: there is no tree, and there are outputs "nodes".
        """
        sizes, first_code, first_item = self.config.level_sizes, self.config.first_code, self.config.first_item
        weight = self.tokens.weight
        if self.config.outputs == "codes":
            _, *codes, _ = weight.split([first_code, *sizes, len(weight) - first_code - sum(sizes)])
            return OutputVectors(tuple(codes), None)
        if tree is None:
            raise DataError(
                'the model has outputs "nodes", and was given no tree of the catalogue',
                expected="tree=CodeTree(...)",
                next="load the whole recommender with Recommender.load, which gives it",
            )
        between = first_item - first_code - sum(sizes)
        _, *codes, _, items_ND = weight.split([first_code, *sizes, between, len(weight) - first_item])
        return OutputVectors(tuple(codes), tree.branches(items_ND))

    def spelled(self, hidden: Tensor, codes: Tensor, outputs: OutputVectors) -> Tensor:
        """States float[..., S + 1, D] before each of S codes int64[..., S] and behind the last; S < L."""
        states = [hidden]
        for level in range(codes.shape[-1]):
            states.append(self.spell(states[-1], codes[..., level], level, outputs))
        return torch.stack(states, dim=-2)

    def spell(self, states: Tensor, codes: Tensor, level: int, outputs: OutputVectors) -> Tensor:
        """The states float[..., D] of the next level, after the codes int64[...] of this one."""
        vectors = F.embedding(codes, outputs.codes[level]) * self.config.hidden_size**0.5
        speller: Any = self.spellers[level]
        return speller(states, vectors)

    def logits(self, states: Tensor, nodes: Tensor | None, level: int, outputs: OutputVectors) -> Tensor:
        """Logits float[..., K] of the codes of a level by its states float[..., D].

        Args:
            states: before the codes.
            nodes: int64[...], of the prefixes, read where there is a tree.
            level: of the codes.
            outputs: of `output_vectors`.
        """
        sizes, states = self.config.level_sizes, self.norm(states)
        bias_K = self.code_bias[sum(sizes[:level]) : sum(sizes[: level + 1])]
        logits, branches = F.linear(states, outputs.codes[level], bias_K), outputs.branches
        return logits if branches is None or nodes is None else branches.logits(logits, states, nodes, level)

    def log_probs(self, states: Tensor, nodes: Tensor | None, level: int, outputs: OutputVectors) -> Tensor:
        """Log-probabilities float32[..., K] of the codes of a level; arguments are those of `logits`."""
        return self.logits(states, nodes, level, outputs).float().log_softmax(-1)


AutoConfig.register(ItemDecoderModelConfig.model_type, ItemDecoderModelConfig, exist_ok=True)
AutoModel.register(ItemDecoderModelConfig, ItemDecoderModel, exist_ok=True)
