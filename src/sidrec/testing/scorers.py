"""Scorers without a model, whose log-probabilities anyone can compute again."""

from dataclasses import dataclass, field
from typing import Literal, Self

import numpy as np
import torch
from torch import Tensor

from sidrec.data.sequences import Histories

__all__ = ["TableScorer", "TableState"]

MIXERS = (-0x40A7B892E31B1A47, -0x6B2FB644ECCEEE15)
"""Multipliers of the splitmix64 finaliser, as signed integers."""


@dataclass
class TableState:
    """What `TableScorer` knows of its users and beams.

    Attributes:
        users_U: int64[U], hash of each history.
        nodes_UM: int64[U, M], hash of history and codes of each node.
        depths: number of codes of each node.
    """

    users_U: Tensor
    nodes_UM: Tensor = field(init=False)
    depths: list[int] = field(init=False, default_factory=list[int])

    def __post_init__(self) -> None:
        self.nodes_UM = self.users_U[:, None][:, :0]

    def select(self, users: Tensor) -> Self:
        """A fresh state of some of the users."""
        return type(self)(self.users_U[users.to(self.users_U.device)])

    def take(self, users: Tensor) -> Self:
        """The state of some of the users with all of their nodes."""
        taken = self.select(users)
        taken.nodes_UM, taken.depths = self.nodes_UM[users.to(self.nodes_UM.device)], list(self.depths)
        return taken


@dataclass(frozen=True)
class TableScorer:
    """A `SidScorer` whose logits are a hash of (seed, history, whole prefix, code).

    Every number depends on its own user and prefix alone, so results do not change with the batch.
    It also checks that it is called as `SidScorer` demands.

    Attributes:
        level_sizes: (K1, …, KL).
        has_end: whether there is an end step.
        seed: another seed, another table.
        sharpness: scale of the logits; 0 makes all codes equal.
        ties: round logits to whole numbers, so that many scores are equal.
        impossible: share of codes with probability zero.
        over: what log-probabilities are normalised over; for "vocabulary", a few tokens that are no codes too.
        device: where tensors live.
    """

    level_sizes: tuple[int, ...]
    has_end: bool = False
    seed: int = 0
    sharpness: float = 1.0
    ties: bool = False
    impossible: float = 0.0
    over: Literal["vocabulary", "level"] = "level"
    device: str = "cpu"

    def start(self, histories: Histories) -> TableState:
        """Hash every history; the order of its items matters."""
        with np.errstate(over="ignore"):
            ages = np.repeat(histories.offsets[1:], histories.lengths) - np.arange(len(histories.rows))
            items = _mix(torch.from_numpy(histories.rows.astype(np.int64) + 1)) * _mix(torch.from_numpy(ages))
            users = torch.from_numpy(histories.owners)
        sums = torch.zeros(len(histories), dtype=torch.long).index_add(0, users, items)
        return TableState(_mix(sums + self.seed * 7919).to(self.device))

    def step(self, state: TableState, level: int, parents_UW: Tensor | None, codes_UW: Tensor | None) -> Tensor:
        """Log-probabilities float32[U, W, K] of the codes of a level after each beam."""
        if parents_UW is None or codes_UW is None:
            assert parents_UW is codes_UW is None
            assert level == len(state.depths) == 0, f"step {level} without parents, {len(state.depths)} nodes"
            prefixes_UW = state.users_U.unsqueeze(1)
        else:
            depths_M = torch.tensor(state.depths, device=parents_UW.device)
            assert (depths_M[parents_UW] == level - 1).all(), f"step {level} continues a node of another length"
            assert (codes_UW < self.level_sizes[level - 1]).all()
            prefixes_UW = _mix(state.nodes_UM.gather(1, parents_UW) * 31 + codes_UW + 1)
        state.nodes_UM = torch.cat([state.nodes_UM, prefixes_UW], dim=1)
        state.depths += [level] * prefixes_UW.shape[1]
        if level == len(self.level_sizes):
            return torch.nn.functional.logsigmoid(self._logits(prefixes_UW, 1))
        return self._normalized(prefixes_UW, self.level_sizes[level])

    def _logits(self, prefixes_UW: Tensor, size: int) -> Tensor:
        """float32[U, W, size], about normally distributed."""
        bits_UWK = _mix(prefixes_UW.unsqueeze(-1) + torch.arange(size, device=prefixes_UW.device) * 104_729)
        uniform_UWK3 = torch.stack([(bits_UWK >> shift) & 0xFFFF for shift in (0, 16, 32)], dim=-1).float() / 2**15
        logits_UWK = (uniform_UWK3.sum(-1) - 3) * self.sharpness * 2
        return logits_UWK.round() if self.ties else logits_UWK

    def _normalized(self, prefixes_UW: Tensor, size: int) -> Tensor:
        others = 3 if self.over == "vocabulary" else 0
        logits_UWK = self._logits(prefixes_UW, size + others)
        if self.impossible:
            chance = (_mix(prefixes_UW.unsqueeze(-1) - torch.arange(size + others, device=self.device)) & 1023) / 1024
            chance[..., 0] = 1.0  # one code always stays possible
            logits_UWK = logits_UWK.masked_fill(chance < self.impossible, -torch.inf)
        return logits_UWK.log_softmax(-1)[..., :size]


def _mix(values: Tensor) -> Tensor:
    """A hash of each integer (the finaliser of splitmix64, wrapping arithmetic)."""
    for multiplier, shift in zip(MIXERS, (30, 27), strict=True):
        values = (values ^ (values >> shift)) * multiplier
    return values ^ (values >> 31)
