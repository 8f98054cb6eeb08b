"""Objectives as pure functions of tensors. Leaves out models, optimizers and how batches are made.

Models that `transformers` brings (T5, Llama) compute the same mean cross-entropy themselves.

Legend: B batch · T history · D width · N items · V vocabulary.
"""

from torch import Tensor
from torch.nn import functional as F

__all__ = ["IGNORE", "full_softmax", "next_token_cross_entropy"]

IGNORE = -100
"""Label of a position at which nothing is to be predicted, as `transformers` has it."""


def next_token_cross_entropy(logits_BTV: Tensor, labels_BT: Tensor) -> Tensor:
    """Mean cross-entropy over the labelled positions; 0 (not NaN) where there is none.

    Position t's logits are compared with position t's label: labels are not shifted here.

    Args:
        logits_BTV: float[..., V].
        labels_BT: int64[...], `IGNORE` where nothing is to be predicted.

    >>> import torch
    >>> logits = torch.tensor([[[0.0, 0.0], [9.0, 0.0]]])
    >>> round(next_token_cross_entropy(logits, torch.tensor([[1, IGNORE]])).item(), 4)
    0.6931
    """
    logits = logits_BTV.flatten(0, -2).float()
    labels = labels_BT.flatten()
    total = F.cross_entropy(logits, labels, ignore_index=IGNORE, reduction="sum")
    return total / (labels != IGNORE).sum().clamp(min=1)


def full_softmax(hidden_BTD: Tensor, items_ND: Tensor, labels_BT: Tensor) -> Tensor:
    """Cross-entropy of the next item among *all* items; logits are inner products with the item table.

    Unlike sampled negatives it needs no correction and makes SASRec a strong baseline (Klenitskiy and
    Vasilev, 2023, arXiv:2309.07602). Logits are computed at the labelled positions only.

    Args:
        hidden_BTD: float[B, T, D].
        items_ND: float[N, D].
        labels_BT: int64[B, T], item rows; `IGNORE` where nothing is to be predicted.
    """
    labelled = labels_BT != IGNORE
    return next_token_cross_entropy(hidden_BTD[labelled] @ items_ND.T, labels_BT[labelled])
