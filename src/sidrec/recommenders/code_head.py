"""From hidden states to log-probabilities of the codes of a level, over the level or over the vocabulary.

A level has a few hundred codes, a vocabulary tens of thousands of tokens: a head that scores the codes
alone is most of what makes a small model fast. Shared by the scorers of all backbones.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["CodeHead"]

AT_ONCE = 2048
"""Tokens whose logits are held at once: few enough for them to stay in a processor's cache until they are summed."""


class CodeHead:
    """Scores the codes of each level.

    Args:
        weight_VD: the output matrix.
        bias_V: what it adds, if anything.
        token_ids: for each level int64[K], the tokens of its codes.
        over_vocabulary: normalise over all tokens instead of those of the level.
    """

    def __init__(
        self, weight_VD: Tensor, bias_V: Tensor | None, token_ids: Sequence[Tensor], *, over_vocabulary: bool
    ) -> None:
        self._levels = [(weight_VD[ids], None if bias_V is None else bias_V[ids]) for ids in token_ids]
        self._all = (weight_VD, bias_V) if over_vocabulary else None

    def __call__(self, hidden_UWD: Tensor, level: int) -> Tensor:
        """Log-probabilities float32[U, W, K]."""
        logits_UWK = F.linear(hidden_UWD, *self._levels[level]).float()
        if self._all is None:
            return logits_UWK.log_softmax(-1)
        return logits_UWK - self._total(hidden_UWD, *self._all)

    def _total(self, hidden_UWD: Tensor, weight_VD: Tensor, bias_V: Tensor | None) -> Tensor:
        """float32[U, W, 1], log of the summed exponentials of all tokens' logits."""
        size = len(weight_VD) if hidden_UWD.device.type != "cpu" else AT_ONCE
        weights = weight_VD.split(size)
        biases = [None] * len(weights) if bias_V is None else bias_V.split(size)
        parts = [
            F.linear(hidden_UWD, weight, bias).float().logsumexp(-1)
            for weight, bias in zip(weights, biases, strict=True)
        ]
        return torch.stack(parts, dim=-1).logsumexp(-1, keepdim=True)
