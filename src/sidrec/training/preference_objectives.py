"""Objectives of preference tuning as pure functions: an item that was chosen against items that were not.

All of them compare log-ratios, the log-probability of an item under the policy minus that under a frozen
reference; β times a log-ratio is the item's implicit reward. Leaves out where log-probabilities come from.

Legend: B examples · M rejected items an example, of which some may be absent.
"""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["PREFERENCE_LOSSES", "PreferenceLoss", "ipo", "sigmoid_dpo", "softmax_dpo"]

PreferenceLoss = Literal["sigmoid", "ipo", "softmax"]
"""Names of the objectives."""


def sigmoid_dpo(
    chosen_B: Tensor, rejected_BM: Tensor, beta: float, present_BM: Tensor | None = None, label_smoothing: float = 0.0
) -> Tensor:
    """Direct preference optimisation: -log σ(β (chosen - rejected)), float[B].

    Rafailov et al., Direct Preference Optimization, NeurIPS 2023, arXiv:2305.18290, Eq. 7. Several rejected
    items are as many pairs, of which the mean is taken.

    Args:
        chosen_B: float[B], log-ratios of the chosen items.
        rejected_BM: float[B, M], log-ratios of the rejected ones.
        beta: strength of the pull towards the reference.
        present_BM: bool[B, M], which rejected items there are, at least one an example; None means all.
        label_smoothing: share of pairs taken to be the wrong way round (Mitchell, *A note on DPO with noisy
            preferences*, 2023).

    >>> sigmoid_dpo(torch.tensor([1.0]), torch.tensor([[0.0]]), beta=0.5).exp().item()  # 1 + exp(-0.5)
    1.6065...
    """
    margin_BM = beta * (chosen_B[:, None] - rejected_BM)
    loss_BM = -(1 - label_smoothing) * F.logsigmoid(margin_BM) - label_smoothing * F.logsigmoid(-margin_BM)
    return _mean_of_present(loss_BM, present_BM)


def ipo(chosen_B: Tensor, rejected_BM: Tensor, beta: float, present_BM: Tensor | None = None) -> Tensor:
    """Identity preference optimisation: (chosen - rejected - 1 / 2β)², float[B].

    Azar et al., A General Theoretical Paradigm to Understand Learning from Human Preferences, AISTATS 2024,
    arXiv:2310.12036, Eq. 17, where β is called τ. Unlike `sigmoid_dpo` it has a margin at which to stop. All
    paths of codes are equally long, so sums of log-probabilities are not divided by their length. Arguments
    are those of `sigmoid_dpo`.

    >>> ipo(torch.tensor([1.0]), torch.tensor([[0.0]]), beta=0.25)  # (1 - 2)²
    tensor([1.])
    """
    return _mean_of_present((chosen_B[:, None] - rejected_BM - 1 / (2 * beta)) ** 2, present_BM)


def softmax_dpo(chosen_B: Tensor, rejected_BM: Tensor, beta: float, present_BM: Tensor | None = None) -> Tensor:
    """S-DPO, one chosen item against several at once: log(1 + Σ exp(β (rejected - chosen))), float[B].

    Chen et al., On Softmax Direct Preference Optimization for Recommendation, NeurIPS 2024, arXiv:2406.09215.
    With one rejected item it is `sigmoid_dpo`, whose arguments it takes.

    >>> softmax_dpo(torch.tensor([0.0]), torch.zeros(1, 3), beta=0.1).exp()  # a chance of one in four
    tensor([4.])
    """
    gain_BM = beta * (rejected_BM - chosen_B[:, None])
    if present_BM is not None:
        gain_BM = gain_BM.masked_fill(~present_BM, -torch.inf)
    return F.softplus(gain_BM.logsumexp(-1))


PREFERENCE_LOSSES: dict[PreferenceLoss, Callable[..., Tensor]] = {
    "sigmoid": sigmoid_dpo,
    "ipo": ipo,
    "softmax": softmax_dpo,
}


def _mean_of_present(loss_BM: Tensor, present_BM: Tensor | None) -> Tensor:
    if present_BM is None:
        return loss_BM.mean(-1)
    return (loss_BM * present_BM).sum(-1) / present_BM.sum(-1)
