"""From a model and a batch to the mean loss of its targets: the one place that training and validation share.

Leaves out which examples make a batch, and what SASRec and preference tuning compute inside their models.
"""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sidrec.config import RunSettings
from sidrec.random import torch_seed
from sidrec.training.batches import TrainingExamples, num_targets
from sidrec.training.isolation import isolated_rng
from sidrec.training.objectives import IGNORE, next_token_cross_entropy

__all__ = ["OWN_LOSS", "BatchLoss", "LevelLoss", "OwnLoss", "TokenLoss", "mean_loss"]

EXAMPLES_AT_ONCE = 256
"""Examples in a forward pass of `mean_loss`."""


class BatchLoss(Protocol):
    """The mean loss of a batch over its targets.

    Implementations are dataclasses, by whose fields a resumed run knows its objective again.
    """

    def __call__(self, model: nn.Module, batch: dict[str, Any]) -> Tensor:
        """float[], of what `TrainingExamples.collate` returns; the model may be wrapped for distribution."""
        ...


@dataclass(frozen=True)
class OwnLoss:
    """The loss that a model computes itself."""

    def __call__(self, model: nn.Module, batch: dict[str, Any]) -> Tensor:
        """The model's `.loss`."""
        return model(**batch).loss


OWN_LOSS = OwnLoss()


@dataclass(frozen=True)
class TokenLoss:
    """Cross-entropy of tokens by a transformers model's logits, divided by a temperature.

    With a temperature below 1 it is the "ranking-guided generation loss" of LETTER (Wang et al., CIKM 2024,
    arXiv:2405.07314): −log softmax(logits / τ) of the label, in which wrong tokens that come close to the right one
    weigh more. With τ = 1 and no smoothing it is the loss that transformers computes.

    Where the batch holds `decoder_input_ids`, the logits of a position are compared with its label, else with the label
    of the next position.

    Attributes:
        temperature: τ.
        label_smoothing: share of each target that is spread evenly over the vocabulary.
    """

    temperature: float = 1.0
    label_smoothing: float = 0.0

    def __call__(self, model: nn.Module, batch: dict[str, Any]) -> Tensor:
        """The mean over labels that are not `IGNORE`."""
        inputs = {name: tensor for name, tensor in batch.items() if name != "labels"}
        logits_BTV, labels_BT = model(**inputs, use_cache=False).logits, batch["labels"]
        if "decoder_input_ids" not in batch:
            # Shifting the labels instead of the logits copies less.
            labels_BT = F.pad(labels_BT, (0, 1), value=IGNORE)[:, 1:]
        if self.temperature != 1:
            logits_BTV = logits_BTV.float() / self.temperature
        return next_token_cross_entropy(logits_BTV, labels_BT, self.label_smoothing)


@dataclass(frozen=True)
class LevelLoss:
    """Cross-entropy of each code of an item among the codes of its level, by logits divided by a temperature.

    Where `TokenLoss` compares a code with all tokens, here levels are known, as in a search that normalises over them.

    Attributes:
        temperature: τ.
        label_smoothing: share of each target that is spread evenly over the codes of its level.
    """

    temperature: float = 1.0
    label_smoothing: float = 0.0

    def __call__(self, model: nn.Module, batch: dict[str, Any]) -> Tensor:
        """The mean over all codes of labels int64[P, L]; the model's `.logits` are float[P, K] of each level."""
        inputs = {name: tensor for name, tensor in batch.items() if name != "labels"}
        losses = [
            next_token_cross_entropy(logits_PK.float() / self.temperature, labels_P, self.label_smoothing)
            for logits_PK, labels_P in zip(model(**inputs).logits, batch["labels"].unbind(1), strict=True)
        ]
        return torch.stack(losses).mean()


def mean_loss(model: nn.Module, examples: TrainingExamples, run: RunSettings, loss: BatchLoss = OWN_LOSS) -> float:
    """Mean loss over all targets of some examples; the same for the same seed, also where negatives are drawn.

    Args:
        model: on the run's device, in evaluation mode, outside of gradients.
        examples: at least one.
        run: seed, device, and the processes that share the batches; all of them get the mean.
        loss: of a batch.
    """
    order, found = np.argsort(examples.lengths, kind="stable"), dict[int, tuple[float, int]]()
    for number in range(run.team.rank, -(-len(order) // EXAMPLES_AT_ONCE), run.team.size):
        batch = examples.collate(order[number * EXAMPLES_AT_ONCE : (number + 1) * EXAMPLES_AT_ONCE])
        batch = {name: tensor.to(run.torch_device()) for name, tensor in batch.items()}
        with isolated_rng(torch_seed(run.seed, "validation loss", str(number))), torch.no_grad():
            targets = int(num_targets(batch))
            found[number] = float(loss(model, batch)) * targets, targets
    # Added up in one order, so that the sum does not depend on the number of processes.
    every = [pair for _, pair in sorted(item for share in run.team.gathered(found) for item in share.items())]
    return sum(total for total, _ in every) / max(sum(targets for _, targets in every), 1)
