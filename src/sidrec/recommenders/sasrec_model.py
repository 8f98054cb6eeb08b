"""The network of SASRec and its training examples. Leaves out ranking, files and settings of a run.

SASRec: Kang and McAuley, 2018, arXiv:1808.09781; with the full softmax of Klenitskiy and Vasilev, 2023,
arXiv:2309.07602, instead of sampled negatives.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import ModelOutput

from sidrec.tasks.windows import Windows
from sidrec.training.objectives import IGNORE, full_softmax
from sidrec.types import IntArray

__all__ = ["SASRecExamples", "SASRecModel", "SASRecModelConfig"]


class SASRecModelConfig(PreTrainedConfig):
    """Sizes of the network."""

    model_type = "sidrec-sasrec"
    num_items: int = 1
    hidden_size: int = 64
    num_layers: int = 2
    num_heads: int = 2
    dropout: float = 0.2
    max_history: int = 50


@dataclass
class SASRecOutput(ModelOutput):
    """Loss, where labels were given, and the last layer's states float[B, T, D]."""

    loss: Tensor | None = None
    hidden: Tensor | None = None


class Block(nn.Module):
    """Causal self-attention and a feed-forward layer, each on normalised input and added to it."""

    def __init__(self, config: SASRecModelConfig) -> None:
        super().__init__()
        width = config.hidden_size
        self.num_heads, self.rate = config.num_heads, config.dropout
        self.attention_norm, self.feed_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query_key_value, self.output = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, states_BTD: Tensor) -> Tensor:
        """The states after this layer, float[B, T, D]."""
        size, length, width = states_BTD.shape
        mixed = self.query_key_value(self.attention_norm(states_BTD))
        parts = mixed.view(size, length, 3, self.num_heads, width // self.num_heads).permute(2, 0, 3, 1, 4)
        rate = self.rate if self.training else 0.0
        seen = F.scaled_dot_product_attention(*parts.unbind(0), dropout_p=rate, is_causal=True)
        states = states_BTD + self.dropout(self.output(seen.transpose(1, 2).reshape(size, length, width)))
        fed = self.down(F.gelu(self.up(self.feed_norm(states))))
        return states + self.dropout(fed)


class SASRecModel(PreTrainedModel):
    """A causal transformer over item rows; the item table is both input and output.

    Sequences start at position 0 and are filled up on the right, where no earlier position can see, so no
    attention mask is needed. The buffer `popularity` float[N] answers for an empty history.
    """

    config_class = SASRecModelConfig
    popularity: Tensor

    def __init__(self, config: SASRecModelConfig) -> None:
        super().__init__(config)
        self.items = nn.Embedding(config.num_items, config.hidden_size)
        self.positions = nn.Embedding(config.max_history, config.hidden_size)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.num_layers))
        self.norm = nn.LayerNorm(config.hidden_size)
        self.dropout = nn.Dropout(config.dropout)
        self.register_buffer("popularity", torch.zeros(config.num_items))
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=0.02)
        if isinstance(module, nn.Linear):
            nn.init.zeros_(module.bias)

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, labels: Tensor | None = None
    ) -> SASRecOutput:
        """States of all positions and, with labels, the mean cross-entropy over all items.

        Args:
            input_ids: int64[B, T] item rows, any row where the history has ended.
            attention_mask: bool or int[B, T], 0 where it has; then any number may stand there, such as the padding
                token of the item tokenizer, which has no row. For attention, causality makes it needless.
            labels: int64[B, T] the item after each position, `IGNORE` where it is no training target.
        """
        if attention_mask is not None:
            input_ids = input_ids.masked_fill(attention_mask == 0, 0)
        places = torch.arange(input_ids.shape[1], device=input_ids.device)
        states = self.items(input_ids) * self.config.hidden_size**0.5 + self.positions(places)
        states = self.dropout(states)
        for block in self.blocks:
            states = block(states)
        states = self.norm(states)
        loss = None if labels is None else full_softmax(states, self.items.weight, labels)
        return SASRecOutput(loss=loss, hidden=states)

    def scores(self, input_ids: Tensor, lengths_B: Tensor) -> Tensor:
        """float32[B, N]: logits of the next item after histories of the given lengths (0 allowed)."""
        if input_ids.shape[1] == 0:
            return self.popularity.repeat(len(input_ids), 1)
        hidden: Tensor = self(input_ids).hidden
        last = hidden[torch.arange(len(hidden), device=hidden.device), (lengths_B - 1).clamp(min=0)]
        logits = (last @ self.items.weight.T).float()
        return torch.where(lengths_B[:, None] > 0, logits, self.popularity)


@dataclass(frozen=True)
class SASRecExamples:
    """One example a window: every event but the last is an input, labelled with the event after it.

    Attributes:
        windows: which events, and which of them are learnt.
    """

    windows: Windows

    def __len__(self) -> int:
        return len(self.windows)

    @property
    def lengths(self) -> IntArray:
        """int64[P], inputs of each example."""
        return self.windows.sizes - 1

    def collate(self, positions: IntArray) -> dict[str, Tensor]:
        """Inputs, labels and mask of some windows, filled up on the right."""
        batch = self.windows.batch(positions)
        present_BT = batch.inside_BT[:, 1:]
        rows_BT = batch.rows_BT.astype(np.int64)
        return {
            "input_ids": torch.from_numpy(np.where(present_BT, rows_BT[:, :-1], 0)),
            "attention_mask": torch.from_numpy(present_BT),
            "labels": torch.from_numpy(np.where(batch.learnt_BT[:, 1:], rows_BT[:, 1:], IGNORE)),
        }
