"""Which objective a model over item rows learns by: settings, and the loss that they name."""

from typing import Any, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from sidrec.config import Config, refuse_unread
from sidrec.training.negatives import draw_each, draw_shared
from sidrec.training.objectives import IGNORE, binary_cross_entropy, full_softmax, gbce_beta, sampled_softmax

__all__ = ["ObjectiveConfig", "item_loss"]


READERS = {
    "full_softmax": ("label_smoothing", "max_logits"),
    "sampled_softmax": ("negatives", "num_negatives", "correction"),
    "bce": ("negatives", "num_negatives"),
    "gbce": ("negatives", "num_negatives", "calibration"),
}
"""Fields that each objective reads."""
DRAWS = ("num_negatives",)


class ObjectiveConfig(Config):
    """What is learnt at each target."""

    kind: Literal["full_softmax", "sampled_softmax", "bce", "gbce"] = "full_softmax"
    """full_softmax over all items, sampled_softmax with the logQ correction, bce (binary cross-entropy with negatives,
    the original SASRec) or gbce (gSASRec)."""
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    """full_softmax: share of each target that is spread evenly over all items."""
    max_logits: int = Field(default=2**27, ge=0)
    """full_softmax: logits of one slice (chunk) of items. Where targets of a batch × items are more, items are taken in
    slices: the same gradients for a third more work. 0 never slices."""
    negatives: Literal["uniform", "popularity", "in_batch"] = "uniform"
    """Any item alike (uniform), items by their training events (popularity), or the other targets (in_batch)."""
    num_negatives: int = Field(default=256, ge=1)
    """Negatives of each target (bce, gbce) or of the whole batch (sampled_softmax); in_batch takes all there are."""
    correction: Literal["negatives", "all", "none"] = "negatives"
    """sampled_softmax: which logits the logQ correction changes. With negatives the estimate of the full softmax's sum
    is unbiased; all corrects the target too (Yi et al., 2019)."""
    calibration: float = Field(default=0.75, ge=0, le=1)
    """gbce: t; 0 is plain binary cross-entropy, 1 gives probabilities that mean what they say."""

    @model_validator(mode="before")
    @classmethod
    def _name_alone(cls, value: Any) -> Any:
        return {"kind": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        refuse_unread(self, "kind", READERS)
        refuse_unread(self, "negatives", {"uniform": DRAWS, "popularity": DRAWS, "in_batch": ()})
        if self.kind == "bce" and self.negatives == "in_batch":
            raise ValueError("bce has num_negatives for each target; in_batch is for sampled_softmax")
        if self.kind == "gbce" and self.negatives != "uniform":
            raise ValueError(f"gbce is calibrated for uniform negatives, not for {self.negatives}; use bce or uniform")
        return self


def item_loss(
    config: ObjectiveConfig,
    hidden_BTD: Tensor,
    items_ND: Tensor,
    labels_BT: Tensor,
    popularity_N: Tensor,
    target_counts_N: Tensor | None = None,
) -> Tensor:
    """The mean loss over the labelled positions; 0 (not NaN) where there is none.

    Negatives are drawn from torch's global random state.

    Args:
        config: which objective.
        hidden_BTD: float[B, T, D].
        items_ND: float[N, D], the item table.
        labels_BT: int64[B, T], item rows; `IGNORE` where nothing is to be predicted.
        popularity_N: float[N], log(1 + training events); one is added to every item so that none has no chance.
        target_counts_N: float[N], how often each item is a training target, which decides how often `in_batch` meets
            it; None counts the targets of this batch.
    """
    if config.kind == "full_softmax":
        return full_softmax(hidden_BTD, items_ND, labels_BT, config.label_smoothing, config.max_logits)
    labelled = labels_BT != IGNORE
    hidden_PD, targets_P = hidden_BTD[labelled], labels_BT[labelled]
    if target_counts_N is None:
        target_counts_N = torch.bincount(targets_P, minlength=len(items_ND))
    shares_N = _shares(config, popularity_N, target_counts_N)
    if config.kind == "sampled_softmax":
        return _sampled_softmax(config, hidden_PD, items_ND, targets_P, shares_N)
    negatives = draw_each(shares_N, targets_P, config.num_negatives)
    beta = gbce_beta(config.num_negatives, len(items_ND), config.calibration) if config.kind == "gbce" else 1.0
    return binary_cross_entropy(hidden_PD, items_ND, targets_P, negatives, beta)


def _sampled_softmax(
    config: ObjectiveConfig, hidden_PD: Tensor, items_ND: Tensor, targets_P: Tensor, shares_N: Tensor
) -> Tensor:
    """All positions share the draws: thousands of negatives are then one matrix product."""
    if config.negatives == "in_batch":
        # A position's own target is left out by the loss: the others are its draws.
        negatives, num = targets_P, max(len(targets_P) - 1, 1)
    else:
        negatives, num = draw_shared(shares_N, config.num_negatives), config.num_negatives
    log_counts_N = (num * shares_N).log().float()
    return sampled_softmax(
        hidden_PD,
        items_ND,
        targets_P,
        negatives,
        None if config.correction == "none" else log_counts_N[negatives],
        log_counts_N[targets_P] if config.correction == "all" else None,
    )


def _shares(config: ObjectiveConfig, popularity_N: Tensor, target_counts_N: Tensor) -> Tensor:
    """float64[N], the probability of each item to be drawn."""
    if config.negatives == "uniform":
        return torch.full_like(popularity_N, 1 / len(popularity_N), dtype=torch.float64)
    if config.negatives == "popularity":
        return popularity_N.double().softmax(dim=0)
    # A target that training does not have counts as one, so that its correction is a number.
    return target_counts_N.double().clamp(min=1) / target_counts_N.sum().clamp(min=1)
