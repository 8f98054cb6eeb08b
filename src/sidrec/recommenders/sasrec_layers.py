"""Layers of SASRec's network and the sizes and slots they are built by. Leaves out tables, positions and the loss."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedConfig

from sidrec.errors import ConfigError
from sidrec.training.objectives import balance_loss

__all__ = ["HAS_TABLE", "NORMS", "Block", "Experts", "SASRecModelConfig", "Sight", "chosen", "draw_weights"]

ChoiceT = TypeVar("ChoiceT")

HAS_TABLE = {"learned": True, "rope": False}
IS_GATED = {"dense": False, "gated": True}
FEED_FORWARDS: dict[str, bool | None] = {**IS_GATED, "moe": None}
IS_PRE = {"pre": True, "post": False}
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
    bos_token_id: int | None = None
    eos_token_id: int | None = None
    pad_token_id: int | None = None


def chosen(choices: Mapping[str, ChoiceT], config: SASRecModelConfig, slot: str) -> ChoiceT:
    """What a slot of the configuration names.

    Raises:
        ConfigError: it names nothing that there is.
    """
    name = getattr(config, slot)
    if name not in choices:
        raise ConfigError(f"{slot}: there is no '{name}'", next=f"choose {' or '.join(choices)}")
    return choices[name]


@dataclass(frozen=True)
class Sight:
    """What a batch's layers must know of its shape.

    Attributes:
        mask: bool[B, 1, T, T], which position sees which; None where each sees itself and all before it.
        turn: cosines and sines float32[B or 1, 1, T, head width / 2] of rotary positions, or None.
        real_BT: bool[B, T], whether there is an item; None where all are.
        begin: whether the first position is no item but the token that begins a history.
    """

    mask: Tensor | None
    turn: tuple[Tensor, Tensor] | None
    real_BT: Tensor | None
    begin: bool = False


def draw_weights(module: nn.Module) -> None:
    """Draw a layer's first weights: matrices and tables from a normal distribution, biases and padding 0."""
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=0.02)
    if isinstance(module, nn.Linear) and module.bias is not None:  # pyright: ignore[reportUnnecessaryComparison]
        nn.init.zeros_(module.bias)
    if isinstance(module, nn.Embedding) and module.padding_idx is not None:
        nn.init.zeros_(module.weight[module.padding_idx])


class Block(nn.Module):
    """Causal self-attention and a feed-forward layer; a norm stands before each, or behind the sum it is part of."""

    def __init__(self, config: SASRecModelConfig) -> None:
        super().__init__()
        width, self.num_heads = config.hidden_size, config.num_heads
        inner = config.num_heads * (config.head_width or width // config.num_heads)
        self.rate, self.is_pre = config.dropout, chosen(IS_PRE, config, "norm_place")
        self.attention_norm = chosen(NORMS, config, "attention_norm")(width, eps=config.norm_eps)
        self.feed_norm = chosen(NORMS, config, "feed_norm")(width, eps=config.norm_eps)
        self.query_key_value = nn.Linear(width, 3 * inner, bias=config.bias)
        self.output = nn.Linear(inner, width, bias=config.bias)
        self.experts, gated = None, chosen(FEED_FORWARDS, config, "feed_forward")
        if gated is None:
            self.experts = Experts(config)
        else:
            self.up, self.gate, self.down = _matrices(config, gated)
            self.activation = chosen(ACTIVATIONS, config, "activation")
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
        return self.experts(states_BTD, sight.real_BT, sight.begin)


class Expert(nn.Module):
    """One feed-forward layer among others."""

    def __init__(self, config: SASRecModelConfig) -> None:
        super().__init__()
        self.up, self.gate, self.down = _matrices(config, chosen(IS_GATED, config, "expert"))
        self.activation = chosen(ACTIVATIONS, config, "activation")

    def forward(self, states: Tensor) -> Tensor:
        """Float[..., D] → float[..., D]."""
        return _fed(states, self.up, self.gate, self.down, self.activation)


class Experts(nn.Module):
    """Feed-forward layers of which a router chooses some for each position (Shazeer et al., 2017, arXiv:1701.06538).

    The router works in float32; its probabilities of the chosen experts, made to sum to 1, weigh their outputs. One
    chosen expert has its probability as it is (Fedus et al., 2021, arXiv:2101.03961, Eq. 2): made to sum to 1 it would
    be 1 and tell the router nothing.

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

    def forward(self, states_BTD: Tensor, real_BT: Tensor | None = None, begin: bool = False) -> tuple[Tensor, Tensor]:
        """The experts' output, 0 where nothing is real, and how unevenly they are used by items."""
        if real_BT is None:
            real_BT = torch.ones(states_BTD.shape[:2], dtype=torch.bool, device=states_BTD.device)
        states_PD = states_BTD[real_BT]
        with torch.autocast(states_PD.device.type, enabled=False):
            probabilities_PE = F.linear(states_PD.float(), self.router.weight.float()).softmax(dim=-1)
        weights_PK, chosen_PK = probabilities_PE.topk(self.num_chosen, dim=-1)
        if self.num_chosen > 1:
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
        if begin:
            # The same token before every history: its expert says nothing of how items are spread.
            is_item_P = (torch.arange(real_BT.shape[1], device=real_BT.device) > 0).expand_as(real_BT)[real_BT]
            probabilities_PE, chosen_PK = probabilities_PE[is_item_P], chosen_PK[is_item_P]
        return output_BTD.to(states_BTD.dtype), balance_loss(probabilities_PE, chosen_PK)


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
