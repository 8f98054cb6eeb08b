"""What a preference loss is computed from in the training loop: examples, and a model that answers with the loss."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from transformers.modeling_outputs import ModelOutput

from sidrec.algorithms.pairs import Pairs
from sidrec.config import RunSettings
from sidrec.data.sequences import Histories
from sidrec.recommenders.base import Recommender
from sidrec.types import FloatArray, IntArray

__all__ = ["PreferenceExamples", "PreferenceModel", "reference_log_probs"]

PAIRS_AT_ONCE = 256
"""Pairs of which the reference's log-probabilities are computed together."""


@dataclass(frozen=True)
class PreferenceExamples:
    """Pairs with what the frozen reference says about them.

    Attributes:
        pairs: P of them, with M rejected items.
        reference_PC: float32[P, 1 + M], log-probabilities of `Pairs.items` under the reference; 0 where there is none.
    """

    pairs: Pairs
    reference_PC: FloatArray

    def __len__(self) -> int:
        return len(self.pairs)

    @property
    def lengths(self) -> IntArray:
        """int64[P], items of each history."""
        return self.pairs.lengths

    @property
    def reference_accuracy(self) -> float:
        """Share of rejected items that the reference holds less likely than the chosen one."""
        wins_PM = self.reference_PC[:, :1] > self.reference_PC[:, 1:]
        return float(wins_PM[self.pairs.rejected_PM >= 0].mean())

    def collate(self, positions: IntArray) -> dict[str, Any]:
        """Keyword arguments of `PreferenceModel` for some of the pairs."""
        return {
            "histories": self.pairs.histories(positions),
            "items_BC": self.pairs.items(positions),
            "reference_BC": torch.from_numpy(self.reference_PC[positions]),
        }


@dataclass
class PreferenceOutput(ModelOutput):
    """The mean loss of a batch."""

    loss: Tensor | None = None


class PreferenceModel(nn.Module):
    """A recommender's model, seen as a function from pairs to their mean loss.

    Tied weights stand once in its state, because checkpoints refuse to hold them twice.

    Args:
        recommender: whose model is trained.
        loss: log-ratios of the chosen items float[B], of the rejected ones float[B, M], and which of those are
            there bool[B, M] → losses float[B].
        dropout: whether the model keeps its dropout in training.
    """

    def __init__(
        self, recommender: Recommender, loss: Callable[[Tensor, Tensor, Tensor], Tensor], dropout: bool = False
    ) -> None:
        super().__init__()
        self.policy: nn.Module = recommender.model
        self._recommender, self._loss, self._dropout = recommender, loss, dropout
        self.register_state_dict_post_hook(_drop_copies)
        self.register_load_state_dict_pre_hook(_add_copies)

    def tied(self) -> dict[str, str]:
        """Name of a weight → the earlier name of the very same weight, for all names but the first."""
        first: dict[int, str] = {}
        names = self.named_parameters(remove_duplicate=False)
        return {name: first[id(weight)] for name, weight in names if first.setdefault(id(weight), name) != name}

    def train(self, mode: bool = True) -> "PreferenceModel":
        """Training mode; without dropout the policy stays in evaluation mode."""
        super().train(mode)
        self.policy.train(mode and self._dropout)
        return self

    def forward(self, histories: Histories, items_BC: IntArray, reference_BC: Tensor) -> PreferenceOutput:
        """The mean loss of some pairs.

        Args:
            histories: B of them.
            items_BC: int[B, 1 + M], the chosen item first; -1 where there is none.
            reference_BC: float32[B, 1 + M], their log-probabilities under the reference.
        """
        ratios_BC = self._recommender.log_probs(histories, np.maximum(items_BC, 0)) - reference_BC
        present_BM = torch.from_numpy(items_BC[:, 1:] >= 0).to(ratios_BC.device)
        return PreferenceOutput(loss=self._loss(ratios_BC[:, 0], ratios_BC[:, 1:], present_BM).mean())


def reference_log_probs(
    recommender: Recommender, pairs: Pairs, run: RunSettings, precision: Literal["fp32", "bf16"] = "fp32"
) -> FloatArray:
    """Log-probabilities float32[P, 1 + M] of the pairs' items, without dropout and gradients; 0 where there is none.

    Args:
        recommender: in its first state.
        pairs: P of them.
        run: device, progress.
        precision: in which the policy is going to be trained: rounded otherwise, the two would differ from the start.
    """
    out_PC = np.zeros((len(pairs), 1 + pairs.rejected_PM.shape[1]), np.float32)
    order = np.argsort(pairs.lengths, kind="stable")
    with recommender.evaluating(run) as model, run.progress("reference", len(pairs)) as advance:
        for first in range(0, len(pairs), PAIRS_AT_ONCE):
            batch = order[first : first + PAIRS_AT_ONCE]
            items_BC = pairs.items(batch)
            with torch.autocast(model.device.type, torch.bfloat16, enabled=precision == "bf16"):
                found_BC = recommender.log_probs(pairs.histories(batch), np.maximum(items_BC, 0))
            out_PC[batch] = np.where(items_BC >= 0, found_BC.float().cpu().numpy(), 0)
            advance(len(batch))
    return out_PC


def _drop_copies(model: Any, state: dict[str, Any], prefix: str, *rest: Any) -> None:
    for name in model.tied():
        state.pop(prefix + name, None)


def _add_copies(model: Any, state: dict[str, Any], prefix: str, *rest: Any) -> None:
    for name, first in model.tied().items():
        if prefix + first in state:
            state.setdefault(prefix + name, state[prefix + first])
