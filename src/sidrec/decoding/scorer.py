"""The two methods by which a model takes part in beam search. Torch tensors, code space only."""

from typing import Protocol, Self

from torch import Tensor

from sidrec.data.sequences import Histories
from sidrec.decoding.trie import ItemTrie
from sidrec.errors import DataError

__all__ = ["PromptState", "SidScorer", "check_fits"]


class PromptState(Protocol):
    """What `start` computed once a user, and during a search what `step` appended for the beams.

    For an encoder-decoder that is the encoder's output, for a causal model the prompt's keys and values.
    """

    def select(self, users: Tensor) -> Self:
        """A fresh state, at level 0, of some of the users; prompts are not recomputed.

        Args:
            users: int64[U'] positions, on the CPU.
        """
        ...

    def take(self, users: Tensor) -> Self:
        """The state of some of the users with the nodes that were scored so far; this one stays as it is."""
        ...


class SidScorer(Protocol):
    """Scores codes level by level. A search calls `start` once, then `step` for levels 0 … L-1.

    Every step adds nodes to a tree that the state keeps for each user, one for each prefix that it scores.
    Nodes are numbered in the order of their making: node 0 is the empty prefix. A prefix may continue any
    node one level shorter, so a search can come back to prefixes that it had passed over.

    Attributes:
        level_sizes: (K1, …, KL).
        has_end: whether a further `step` at level L gives the log-probability of ending there.
    """

    level_sizes: tuple[int, ...]
    has_end: bool

    def start(self, histories: Histories) -> PromptState:
        """Read the users' histories, once a user."""
        ...

    def step(self, state: PromptState, level: int, parents_UW: Tensor | None, codes_UW: Tensor | None) -> Tensor:
        """Log-probabilities of the codes of `level` after each of W prefixes, which become nodes of the tree.

        Args:
            state: of `start` or `select`; changed in place (the prefixes' own keys and values are added).
            level: 0 … L-1, or L for the end step of a scorer with `has_end`.
            parents_UW: int64[U, W], for each prefix the node that it continues by one code; None at level 0.
            codes_UW: int64[U, W], the code of level-1 that it continues with; None at level 0.
                Prefixes that do not exist (a user has fewer than W) carry code 0 and are ignored.

        Returns:
            float32[U, W, K] (W = 1 at level 0; K = 1 at the end step), normalised as the scorer was
            told; the search renormalises over children itself where that is asked.
        """
        ...


def check_fits(scorer: SidScorer, trie: ItemTrie, histories: Histories) -> None:
    """Raise `DataError` unless scorer and trie have the same levels and histories name catalogue rows."""
    if tuple(scorer.level_sizes) != trie.sizes:
        raise DataError(
            f"the scorer has levels {tuple(scorer.level_sizes)}, the trie {trie.sizes}",
            expected="a trie of the semantic IDs that the model was trained on",
        )
    rows = histories.rows
    outside = (rows < 0) | (rows >= trie.num_rows)
    if outside.any():
        raise DataError(f"a history names row {rows[outside][0]}", expected=f"0 to {trie.num_rows - 1}")
