"""Scores for a catalogue that has grown: counters that the model never saw, scored like the last one it knows.

The trained codes keep their log-probabilities to the bit; those of a level with further codes sum to more
than one. Left out: levels other than the last, whose codes have meanings that no other code can stand for.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from sidrec.data.sequences import Histories
from sidrec.decoding.scorer import PromptState, SidScorer

__all__ = ["GrownScorer"]


class GrownScorer:
    """A scorer whose last level has more codes than its model.

    Args:
        scorer: the model, with the sizes that it was trained on.
        sizes: (K1, …, KL) of the catalogue; those of the model but for the last, which is larger.
    """

    def __init__(self, scorer: SidScorer, sizes: Sequence[int]) -> None:
        self.level_sizes, self.has_end = tuple(sizes), scorer.has_end
        self._scorer, self._last = scorer, len(sizes) - 1
        self._known = scorer.level_sizes[-1]

    @classmethod
    def of(cls, scorer: SidScorer, sizes: Sequence[int]) -> SidScorer:
        """The scorer itself where the catalogue has no further codes."""
        return scorer if tuple(scorer.level_sizes) == tuple(sizes) else cls(scorer, sizes)

    def start(self, histories: Histories) -> PromptState:
        """Read the users' histories."""
        return self._scorer.start(histories)

    def step(self, state: PromptState, level: int, parents_UW: Tensor | None, codes_UW: Tensor | None) -> Tensor:
        """Log-probabilities of the codes of `level`; the further ones have that of the last known code."""
        if level > self._last and codes_UW is not None:
            codes_UW = codes_UW.clamp(max=self._known - 1)
        scores_UWK = self._scorer.step(state, level, parents_UW, codes_UW)
        if level != self._last:
            return scores_UWK
        further = self.level_sizes[-1] - self._known
        return torch.cat([scores_UWK, scores_UWK[..., -1:].expand(-1, -1, further)], dim=-1)
