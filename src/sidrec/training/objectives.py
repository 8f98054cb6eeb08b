"""Objectives as pure functions of tensors. Leaves out models, optimizers, which negatives are drawn and batches.

Legend: B batch · T history · D width · N items · V vocabulary · P positions with a label · M negatives · E experts.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from sidrec.training.log_partition import log_partition

__all__ = [
    "IGNORE",
    "balance_loss",
    "binary_cross_entropy",
    "full_softmax",
    "gbce_beta",
    "item_scores",
    "next_token_cross_entropy",
    "sampled_softmax",
]

IGNORE = -100
"""Label of a position at which nothing is to be predicted, as `transformers` has it."""


def next_token_cross_entropy(logits_BTV: Tensor, labels_BT: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Mean cross-entropy over the labelled positions; 0 (not NaN) where there is none.

    Position t's logits are compared with position t's label: labels are not shifted here.

    Args:
        logits_BTV: float[..., V].
        labels_BT: int64[...], `IGNORE` where nothing is to be predicted.
        label_smoothing: share ε of each target that is spread evenly over all V (Szegedy et al., 2016,
            arXiv:1512.00567, section 7).

    >>> import torch
    >>> logits = torch.tensor([[[0.0, 0.0], [9.0, 0.0]]])
    >>> round(next_token_cross_entropy(logits, torch.tensor([[1, IGNORE]])).item(), 4)
    0.6931
    """
    logits = logits_BTV.flatten(0, -2).float()
    labels = labels_BT.flatten()
    total = F.cross_entropy(logits, labels, ignore_index=IGNORE, reduction="sum", label_smoothing=label_smoothing)
    return total / (labels != IGNORE).sum().clamp(min=1)


def full_softmax(
    hidden_BTD: Tensor, items_ND: Tensor, labels_BT: Tensor, label_smoothing: float = 0.0, max_logits: int = 0
) -> Tensor:
    """Cross-entropy of the next item among *all* items; logits are inner products with the item table.

    Unlike sampled negatives it needs no correction and makes SASRec a strong baseline (Klenitskiy and
    Vasilev, 2023, arXiv:2309.07602). Logits are computed at the labelled positions only.

    Args:
        hidden_BTD: float[B, T, D].
        items_ND: float[N, D].
        labels_BT: int64[B, T], item rows; `IGNORE` where nothing is to be predicted.
        label_smoothing: share of each target that is spread evenly over all items.
        max_logits: where P × N is more, items are taken in slices of so many logits, which are computed again
            in the backward pass: the same loss and gradients for about a third more work. A slice has one item at
            least, P logits, and the peak is two to three times its logits. 0 never slices.
    """
    labelled = labels_BT != IGNORE
    hidden_PD, targets_P = hidden_BTD[labelled], labels_BT[labelled]
    size = len(targets_P) * len(items_ND)
    if not max_logits or size <= max_logits:
        return next_token_cross_entropy(hidden_PD @ items_ND.T, targets_P, label_smoothing)
    losses_P = log_partition(hidden_PD, items_ND, slice_size=max(1, max_logits // len(targets_P)))
    losses_P = losses_P - (1 - label_smoothing) * item_scores(hidden_PD, items_ND, targets_P[:, None]).squeeze(1)
    if label_smoothing:
        losses_P = losses_P - label_smoothing * (hidden_PD.float() @ items_ND.float().mean(dim=0))
    return losses_P.mean()


def sampled_softmax(
    hidden_PD: Tensor,
    items_ND: Tensor,
    targets_P: Tensor,
    negatives: Tensor,
    log_counts: Tensor | None = None,
    target_log_counts_P: Tensor | None = None,
) -> Tensor:
    """Cross-entropy of the target among itself and drawn negatives, with the logQ correction.

    The softmax's sum over all items but the target is estimated by importance sampling: a drawn item stands for
    exp(logit) / (how often it is drawn on average) (Bengio and Senécal, 2008, *Adaptive Importance Sampling to
    Accelerate Training of a Neural Probabilistic Language Model*; as logit − log Q in Yi et al., 2019,
    *Sampling-Bias-Corrected Neural Modeling for Large Corpus Item Recommendations*, RecSys). The estimate of the
    sum is unbiased: the target, which is there with certainty, is not corrected, and a draw that hits the target is
    not counted. Yi et al. correct the target's logit too: give `target_log_counts_P` for their rule.

    Args:
        hidden_PD: float[P, D].
        items_ND: float[N, D].
        targets_P: int64[P], item rows.
        negatives: int64[M] drawn for all positions, or int64[P, M] for each.
        log_counts: log of each negative's expected number of draws, shaped like `negatives`; None for no correction.
        target_log_counts_P: float[P], the same of the targets, where they are corrected.
    """
    target_P = item_scores(hidden_PD, items_ND, targets_P[:, None])
    drawn_PM = item_scores(hidden_PD, items_ND, negatives)
    if log_counts is not None:
        drawn_PM = drawn_PM - log_counts
    if target_log_counts_P is not None:
        target_P = target_P - target_log_counts_P[:, None]
    drawn_PM = drawn_PM.masked_fill(negatives == targets_P[:, None], -torch.inf)
    losses_P = torch.cat([target_P, drawn_PM], dim=1).logsumexp(dim=1) - target_P.squeeze(1)
    return losses_P.sum() / max(len(targets_P), 1)


def binary_cross_entropy(
    hidden_PD: Tensor, items_ND: Tensor, targets_P: Tensor, negatives: Tensor, beta: float = 1.0
) -> Tensor:
    """−(β log σ(target) + Σ log(1 − σ(negative))) / (1 + k), over k drawn negatives.

    With `beta` 1 it is the objective of SASRec (Kang and McAuley, 2018, arXiv:1808.09781, section III-E, which adds the
    terms of one negative instead of taking their mean); else gBCE, in which the target's probability is σ(logit)^β
    (Petrov and Macdonald, 2023, *gSASRec*, arXiv:2308.07192, section 5).

    Args:
        hidden_PD: float[P, D].
        items_ND: float[N, D].
        targets_P: int64[P], item rows.
        negatives: int64[k] for all positions or int64[P, k] for each; one that is the target is not counted.
        beta: exponent of the target's probability, of `gbce_beta`.
    """
    target_P = F.logsigmoid(item_scores(hidden_PD, items_ND, targets_P[:, None])).squeeze(1)
    drawn_PM = F.logsigmoid(-item_scores(hidden_PD, items_ND, negatives))
    is_target = negatives == targets_P[:, None]
    total_P = beta * target_P + drawn_PM.masked_fill(is_target, 0.0).sum(dim=1)
    losses_P = -total_P / (1 + (~is_target).sum(dim=1))
    return losses_P.sum() / max(len(targets_P), 1)


def gbce_beta(num_negatives: int, num_items: int, calibration: float) -> float:
    """The exponent β of gBCE: α (t (1 − 1/α) + 1/α), where α = k / (N − 1) is the share of negatives that is drawn.

    Petrov and Macdonald, 2023, arXiv:2308.07192, section 5. Negatives are drawn evenly.

    Args:
        num_negatives: k.
        num_items: N.
        calibration: t; 0 gives plain binary cross-entropy, 1 probabilities that mean what they say.

    >>> gbce_beta(10, 101, 0.0), gbce_beta(10, 101, 1.0), gbce_beta(10, 101, 0.5)
    (1.0, 0.1, 0.55)
    """
    share = min(1.0, num_negatives / max(num_items - 1, 1))
    return 1 - calibration + calibration * share


def balance_loss(probabilities_PE: Tensor, chosen_PK: Tensor) -> Tensor:
    """E · Σₑ fₑ pₑ: 1 where experts are used evenly, E where one does everything; differentiable by p.

    The load balancing loss of Switch Transformer (Fedus, Zoph and Shazeer, 2021, arXiv:2101.03961, Eq. 4 to 6),
    with fₑ the share of expert e in all K choices of all positions and pₑ its mean probability.

    Args:
        probabilities_PE: float[P, E], of the router at the real positions.
        chosen_PK: int64[P, K], experts chosen there.

    >>> even = torch.full((4, 2), 0.5)
    >>> balance_loss(even, torch.tensor([[0], [1], [0], [1]])).item()
    1.0
    """
    num_experts = probabilities_PE.shape[1]
    counts_E = torch.bincount(chosen_PK.flatten(), minlength=num_experts)
    shares_E = counts_E / max(chosen_PK.numel(), 1)
    means_E = probabilities_PE.sum(dim=0) / max(len(probabilities_PE), 1)
    return num_experts * (shares_E * means_E).sum()


def item_scores(hidden_PD: Tensor, items_ND: Tensor, rows: Tensor) -> Tensor:
    """float32[P, M], inner products with the items int64[M] of all positions or int64[P, M] of each."""
    if rows.ndim == 1:
        return (hidden_PD @ F.embedding(rows, items_ND).T).float()
    return torch.einsum("pd,pmd->pm", hidden_PD, F.embedding(rows, items_ND)).float()
