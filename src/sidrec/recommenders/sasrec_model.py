"""The network of SASRec and its training examples. Leaves out ranking, files and settings of a run.

SASRec: Kang and McAuley, 2018, arXiv:1808.09781; with the full softmax of Klenitskiy and Vasilev, 2023,
arXiv:2309.07602, instead of sampled negatives. Positions, feed-forward, norms, table and objective are slots of the
configuration. Importing this module makes `AutoModel.from_pretrained` know the weights. There is no cache of keys and
values: a ranking reads each history once.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoConfig, AutoModel, PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import ModelOutput

from sidrec.config import parse
from sidrec.errors import DataError
from sidrec.tasks.windows import Windows
from sidrec.training.item_loss import ObjectiveConfig, item_loss
from sidrec.training.log_partition import log_partition
from sidrec.training.objectives import IGNORE, balance_loss, item_scores
from sidrec.types import IntArray

__all__ = ["SASRecExamples", "SASRecModel", "SASRecModelConfig"]

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"gelu": F.gelu, "relu": F.relu, "silu": F.silu}
NORMS: dict[str, type[nn.LayerNorm | nn.RMSNorm]] = {"layer": nn.LayerNorm, "rms": nn.RMSNorm}


class SASRecModelConfig(PreTrainedConfig):
    """Sizes and slots of the network; `SASRec.Config` explains each of them."""

    model_type = "sidrec-sasrec"
    num_items: int = 1
    hidden_size: int = 64
    num_layers: int = 2
    num_heads: int = 2
    dropout: float = 0.2
    max_history: int = 50
    head_width: int = 0
    positions: str = "learned"
    rope_theta: float = 10000.0
    feed_forward: str = "dense"
    inner_width: int = 0
    activation: str = "gelu"
    expert: str = "dense"
    num_experts: int = 4
    experts_per_item: int = 2
    shared_expert: bool = False
    balance_weight: float = 0.01
    norm_place: str = "pre"
    attention_norm: str = "layer"
    feed_norm: str = "layer"
    final_norm: str = "layer"
    norm_eps: float = 1e-5
    bias: bool = True
    scale_inputs: bool = True
    tied: bool = True
    special_rows: int = 0
    begin: bool = False
    objective: dict[str, Any] | None = None


@dataclass
class SASRecOutput(ModelOutput):
    """Loss, where labels were given, and the last layer's states float[B, T, D]."""

    loss: Tensor | None = None
    hidden: Tensor | None = None


@dataclass(frozen=True)
class Sight:
    """What a batch's layers must know of its shape.

    Attributes:
        mask: bool[B, 1, T, T], which position sees which; None where each sees itself and all before it.
        turn: cosines and sines float32[B or 1, 1, T, head width / 2] of rotary positions, or None.
        real_BT: bool[B, T], whether there is an item; None where all are.
    """

    mask: Tensor | None
    turn: tuple[Tensor, Tensor] | None
    real_BT: Tensor | None


class Block(nn.Module):
    """Causal self-attention and a feed-forward layer; a norm stands before each, or behind the sum it is part of."""

    def __init__(self, config: SASRecModelConfig) -> None:
        super().__init__()
        width, self.num_heads = config.hidden_size, config.num_heads
        inner = config.num_heads * (config.head_width or width // config.num_heads)
        self.rate, self.is_pre = config.dropout, config.norm_place == "pre"
        self.attention_norm = NORMS[config.attention_norm](width, eps=config.norm_eps)
        self.feed_norm = NORMS[config.feed_norm](width, eps=config.norm_eps)
        self.query_key_value = nn.Linear(width, 3 * inner, bias=config.bias)
        self.output = nn.Linear(inner, width, bias=config.bias)
        self.experts = None
        if config.feed_forward == "moe":
            self.experts = Experts(config)
        else:
            self.up, self.gate, self.down = _matrices(config, gated=config.feed_forward == "gated")
            self.activation = ACTIVATIONS[config.activation]
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, states_BTD: Tensor, sight: Sight) -> tuple[Tensor, Tensor | None]:
        """The states after this layer float[B, T, D] and, of experts, the balance loss."""
        if self.is_pre:
            states = states_BTD + self.dropout(self._attend(self.attention_norm(states_BTD), sight))
            fed, balance = self._feed(self.feed_norm(states), sight)
            return states + self.dropout(fed), balance
        states = self.attention_norm(states_BTD + self.dropout(self._attend(states_BTD, sight)))
        fed, balance = self._feed(states, sight)
        return self.feed_norm(states + self.dropout(fed)), balance

    def _attend(self, states_BTD: Tensor, sight: Sight) -> Tensor:
        size, length, _ = states_BTD.shape
        mixed = self.query_key_value(states_BTD)
        queries, keys, values = mixed.view(size, length, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        if sight.turn is not None:
            queries, keys = _turned(queries, *sight.turn), _turned(keys, *sight.turn)
        rate = self.rate if self.training else 0.0
        seen = F.scaled_dot_product_attention(
            queries, keys, values, attn_mask=sight.mask, dropout_p=rate, is_causal=sight.mask is None
        )
        return self.output(seen.transpose(1, 2).reshape(size, length, -1))

    def _feed(self, states_BTD: Tensor, sight: Sight) -> tuple[Tensor, Tensor | None]:
        if self.experts is None:
            return _fed(states_BTD, self.up, self.gate, self.down, self.activation), None
        return self.experts(states_BTD, sight.real_BT)


class Expert(nn.Module):
    """One feed-forward layer among others."""

    def __init__(self, config: SASRecModelConfig) -> None:
        super().__init__()
        self.up, self.gate, self.down = _matrices(config, gated=config.expert == "gated")
        self.activation = ACTIVATIONS[config.activation]

    def forward(self, states: Tensor) -> Tensor:
        """Float[..., D] → float[..., D]."""
        return _fed(states, self.up, self.gate, self.down, self.activation)


class Experts(nn.Module):
    """Feed-forward layers of which a router chooses some for each position (Shazeer et al., 2017, arXiv:1701.06538).

    The router works in float32; its probabilities of the chosen experts, made to sum to 1, weigh their outputs.
    Nothing is drawn and no expert has a limit, so a position's output depends on that position alone. Padding
    is not routed. A shared expert, if there is one, is added for every position (as in DeepSeekMoE, Dai et al.,
    2024, arXiv:2401.06066).
    """

    def __init__(self, config: SASRecModelConfig) -> None:
        super().__init__()
        self.num_chosen = config.experts_per_item
        self.router = nn.Linear(config.hidden_size, config.num_experts, bias=False)
        self.experts = nn.ModuleList(Expert(config) for _ in range(config.num_experts))
        self.shared = Expert(config) if config.shared_expert else None

    def forward(self, states_BTD: Tensor, real_BT: Tensor | None) -> tuple[Tensor, Tensor]:
        """The experts' output, 0 where nothing is real, and how unevenly they are used."""
        if real_BT is None:
            real_BT = torch.ones(states_BTD.shape[:2], dtype=torch.bool, device=states_BTD.device)
        states_PD = states_BTD[real_BT]
        with torch.autocast(states_PD.device.type, enabled=False):
            probabilities_PE = F.linear(states_PD.float(), self.router.weight.float()).softmax(dim=-1)
        weights_PK, chosen_PK = probabilities_PE.topk(self.num_chosen, dim=-1)
        weights_PK = weights_PK / weights_PK.sum(dim=-1, keepdim=True)
        total_PD = torch.zeros_like(states_PD, dtype=torch.float32)
        if self.shared is not None:
            total_PD = total_PD + self.shared(states_PD)
        # An expert without positions runs too: all processes of a distributed run get gradients for all weights.
        for number, expert in enumerate(self.experts):
            places, choices = (chosen_PK == number).nonzero(as_tuple=True)
            weighted = weights_PK[places, choices, None] * expert(states_PD[places])
            total_PD = total_PD.index_add(0, places, weighted)
        output_BTD = torch.zeros_like(states_BTD, dtype=torch.float32)
        output_BTD = output_BTD.masked_scatter(real_BT[..., None], total_PD)
        return output_BTD.to(states_BTD.dtype), balance_loss(probabilities_PE, chosen_PK)


class SASRecModel(PreTrainedModel):
    """A causal transformer over item rows; the item table is input and, unless it is untied, output.

    Row numbers from `num_items` on are special: the first of them, with `begin`, stands before every history. They are
    inputs only and never recommended. The buffer `popularity` float[N] answers for an empty history.
    """

    config_class = SASRecModelConfig
    _supports_sdpa = True
    popularity: Tensor

    def __init__(self, config: SASRecModelConfig) -> None:
        super().__init__(config)
        self.objective = parse(ObjectiveConfig, config.objective or {}, where="objective")
        self.items = nn.Embedding(config.num_items + config.special_rows, config.hidden_size)
        self.positions = None
        if config.positions == "learned":
            self.positions = nn.Embedding(config.max_history + config.begin, config.hidden_size)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.num_layers))
        self.norm = NORMS[config.final_norm](config.hidden_size, eps=config.norm_eps)
        self.outputs = None if config.tied else nn.Linear(config.hidden_size, config.num_items, bias=False)
        self.dropout = nn.Dropout(config.dropout)
        self.register_buffer("popularity", torch.zeros(config.num_items))
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=0.02)
        if isinstance(module, nn.Linear) and module.bias is not None:  # pyright: ignore[reportUnnecessaryComparison]
            nn.init.zeros_(module.bias)

    @property
    def output_table(self) -> Tensor:
        """float[N, D], what the last state is multiplied with to score items."""
        if self.outputs is not None:
            return self.outputs.weight
        return self.items.weight[: self.config.num_items] if self.config.special_rows else self.items.weight

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        labels: Tensor | None = None,
    ) -> SASRecOutput:
        """States of all positions and, with labels, the mean loss of the objective (and of experts' balance).

        Args:
            input_ids: int64[B, T] item rows, any row where there is none; under a mask any number, such
                as the padding token of the item tokenizer, which has no row.
            attention_mask: bool or int[B, T], 0 where there is no item; may be left out where histories are filled
                up on the right, because no earlier position sees what follows.
            position_ids: int64[B, T] place of each item in its history; by default items are counted from 0.
            labels: int64[B, T] the item after each position, `IGNORE` where it is no training target.

        Raises:
            DataError: a history is longer than the table of positions.
        """
        if attention_mask is not None:
            input_ids = input_ids.masked_fill(attention_mask == 0, 0)
        begin = self.config.begin
        if begin:
            input_ids = F.pad(input_ids, (1, 0), value=self.config.num_items)
            attention_mask = None if attention_mask is None else F.pad(attention_mask, (1, 0), value=1)
            position_ids = None if position_ids is None else F.pad(position_ids + 1, (1, 0), value=0)
        places, sight = self._sight(input_ids, attention_mask, position_ids)
        states = self.items(input_ids)
        if self.config.scale_inputs:
            states = states * self.config.hidden_size**0.5
        if self.positions is not None:
            states = states + self.positions(places)
        states = self.dropout(states)
        balances: list[Tensor] = []
        for block in self.blocks:
            states, balance = block(states, sight)
            balances += [] if balance is None else [balance]
        states = self.norm(states[:, 1:] if begin else states)
        if labels is None:
            return SASRecOutput(hidden=states)
        loss = item_loss(self.objective, states, self.output_table, labels, self.popularity)
        if balances:
            loss = loss + self.config.balance_weight * torch.stack(balances).mean()
        return SASRecOutput(loss=loss, hidden=states)

    def _sight(self, input_ids: Tensor, mask: Tensor | None, places: Tensor | None) -> tuple[Tensor, Sight]:
        """The places int64[T] or [B, T] of a batch in its histories, and what its layers must know."""
        length, device = input_ids.shape[1], input_ids.device
        real_BT = None if mask is None else mask.bool()
        sees = None
        if real_BT is not None and (_has_gaps(real_BT) or length > self._longest):
            itself = torch.eye(length, dtype=torch.bool, device=device)
            causal = torch.ones(length, length, dtype=torch.bool, device=device).tril()
            # Padding sees itself: a row that sees nothing would be no number.
            sees = (causal & real_BT[:, None, :] | itself)[:, None]
            places = (real_BT.long().cumsum(dim=1) - 1).clamp(min=0) if places is None else places
        if places is None:
            places = torch.arange(length, device=device)
        if length > self._longest and int(places.max()) >= self._longest:
            raise DataError(
                f"a history has {int(places.max()) + 1} items and there are {self._longest} learned positions",
                next="cut histories to their latest items, or use rotary positions",
            )
        return places, Sight(sees, self._turn(places), real_BT)

    @property
    def _longest(self) -> float:
        """Positions that there are; rotary ones have no end."""
        return math.inf if self.positions is None else self.positions.num_embeddings

    def _turn(self, places: Tensor) -> tuple[Tensor, Tensor] | None:
        """Cosines and sines of rotary positions (Su et al., 2021, arXiv:2104.09864, section 3.2), in float32."""
        config = self.config
        if config.positions == "learned":
            return None
        half = (config.head_width or config.hidden_size // config.num_heads) // 2
        speeds = config.rope_theta ** (-torch.arange(half, dtype=torch.float32, device=places.device) / half)
        angles = places.float().reshape(-1, 1, places.shape[-1], 1) * speeds
        return angles.cos(), angles.sin()

    def scores(self, input_ids: Tensor, lengths_B: Tensor) -> Tensor:
        """float32[B, N]: logits of the next item after histories of the given lengths (0 allowed)."""
        if input_ids.shape[1] == 0:
            return self.popularity.repeat(len(input_ids), 1)
        logits = (self._last(input_ids, lengths_B) @ self.output_table.T).float()
        return torch.where(lengths_B[:, None] > 0, logits, self.popularity)

    def log_probs(self, input_ids: Tensor, lengths_B: Tensor, rows_BM: Tensor, max_logits: int) -> Tensor:
        """float32[B, M]: log-softmax of `scores` over all items, at some of them; `max_logits` are held at once."""
        popular_BM = self.popularity.log_softmax(-1)[rows_BM]
        if input_ids.shape[1] == 0:
            return popular_BM
        last_BD, table_ND = self._last(input_ids, lengths_B), self.output_table
        total_B = log_partition(last_BD, table_ND, slice_size=max(1, max_logits // len(last_BD)))
        logp_BM = item_scores(last_BD, table_ND, rows_BM) - total_B[:, None]
        return torch.where(lengths_B[:, None] > 0, logp_BM, popular_BM)

    def _last(self, input_ids: Tensor, lengths_B: Tensor) -> Tensor:
        """float[B, D], the states after the last items; without meaning where there are none."""
        hidden: Tensor = self(input_ids).hidden
        return hidden[torch.arange(len(hidden), device=hidden.device), (lengths_B - 1).clamp(min=0)]


AutoConfig.register(SASRecModelConfig.model_type, SASRecModelConfig, exist_ok=True)
AutoModel.register(SASRecModelConfig, SASRecModel, exist_ok=True)


def _matrices(config: SASRecModelConfig, gated: bool) -> tuple[nn.Linear, nn.Linear | None, nn.Linear]:
    """Up, gate and down of a feed-forward layer; one with a gate (Shazeer, 2020, arXiv:2002.05202) has no biases."""
    width, bias = config.hidden_size, config.bias and not gated
    inner = config.inner_width or 4 * width
    up, down = nn.Linear(width, inner, bias=bias), nn.Linear(inner, width, bias=bias)
    return up, nn.Linear(width, inner, bias=False) if gated else None, down


def _fed(
    states: Tensor, up: nn.Linear, gate: nn.Linear | None, down: nn.Linear, activation: Callable[[Tensor], Tensor]
) -> Tensor:
    """Down(activation(up x)), or with a gate down(activation(gate x) ⊙ up x)."""
    return down(activation(up(states)) if gate is None else activation(gate(states)) * up(states))


def _turned(states_BHTD: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
    """Pairs (d, d + D/2) turned by their angles, computed in float32."""
    first, second = states_BHTD.float().chunk(2, dim=-1)
    turned = torch.cat([first * cosines - second * sines, second * cosines + first * sines], dim=-1)
    return turned.to(states_BHTD.dtype)


def _has_gaps(real_BT: Tensor) -> bool:
    """Whether an item stands behind padding, where causality alone would let it see the padding."""
    return bool((real_BT[:, 1:] & ~real_BT[:, :-1]).any())


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
