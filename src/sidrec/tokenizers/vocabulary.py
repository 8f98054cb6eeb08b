"""Code ↔ token id: the only place that knows token offsets."""

from dataclasses import dataclass

import numpy as np

from sidrec.types import IntArray

__all__ = ["CodeVocabulary"]


@dataclass(frozen=True)
class CodeVocabulary:
    """A compact vocabulary: three special tokens, the codes of level 1, level 2, …, then users and items if any.

    Attributes:
        sizes: (K1, …, KL), codes a level.
        num_users: tokens among which users are shared out.
        num_items: items that have a token of their own beside their codes.

    >>> vocabulary = CodeVocabulary((4, 4))
    >>> tokens = vocabulary.tokens(np.array([[1, 3]]))
    >>> tokens.tolist(), vocabulary.codes(tokens).tolist(), len(vocabulary)
    ([[4, 10]], [[1, 3]], 11)
    """

    sizes: tuple[int, ...]
    num_users: int = 0
    num_items: int = 0

    PAD = 0
    """Padding; also the decoder's start token, as in T5."""
    EOS = 1
    BOS = 2
    NUM_SPECIAL = 3

    def __len__(self) -> int:
        return self.first_item + self.num_items

    @property
    def first_user(self) -> int:
        """Token id of the first user token, one past the last code."""
        return self.NUM_SPECIAL + sum(self.sizes)

    @property
    def first_item(self) -> int:
        """Token id of the first item's own token, one past the last user token."""
        return self.first_user + self.num_users

    @property
    def offsets(self) -> IntArray:
        """int64[L], token id of code 0 of each level."""
        return self.NUM_SPECIAL + np.concatenate([[0], np.cumsum(self.sizes)[:-1]])

    def level_range(self, level: int) -> tuple[int, int]:
        """First token id of a level and one past its last."""
        first = int(self.offsets[level])
        return first, first + self.sizes[level]

    def tokens(self, codes: IntArray) -> IntArray:
        """Token ids [..., L] of codes [..., L]; the inverse of `codes`."""
        return codes + self.offsets

    def codes(self, tokens: IntArray) -> IntArray:
        """Codes [..., L] of token ids [..., L]; the inverse of `tokens`."""
        return tokens - self.offsets
