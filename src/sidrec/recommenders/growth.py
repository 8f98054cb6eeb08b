"""How a model reads and scores items that it was not trained on: as the nearest item that it knows.

A level that counts the items behind a prefix of codes (`append_level`) says nothing about an item. Under a
prefix of two trained items a model has learnt that the count 2 never comes, so a third item would never be
recommended; a count beyond all trained ones has no token at all. A new item therefore stands for the last
trained item of its prefix: the two read and score alike, and share a leaf of the trie. Under a prefix
without trained items it stands for the first. Scores of trained items stay as they are, to the bit;
only where a softmax runs over the children of a prefix (the item decoder's outputs "nodes") a new leaf lowers them.

Codes with a meaning of their own stand for themselves, whether or not the model met them together. Left
out: new rows in the model's tables. They would be random, and would take their share of the softmax.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

import numpy as np

from sidrec.errors import DataError
from sidrec.tokenizers.semantic_ids import SemanticIds
from sidrec.types import IntArray

__all__ = ["Trained", "check_sizes"]

FILE = "trained.json"


@dataclass(frozen=True)
class Trained:
    """What a recommender of a grown catalogue was trained on.

    Attributes:
        items: number of its first items that it was trained on.
        sizes: codes in each level that the model has tokens for.

    >>> codes = np.array([[0, 0], [0, 1], [1, 0], [0, 2], [3, 0], [3, 1]])
    >>> Trained(items=3, sizes=(4, 2)).read(codes).tolist()
    [[0, 0], [0, 1], [1, 0], [0, 1], [3, 0], [3, 0]]
    """

    items: int
    sizes: tuple[int, ...]

    def read(self, codes: IntArray) -> IntArray:
        """The codes [N, L] of all items as the model reads and writes them."""
        if not counts_groups(codes[: self.items]):
            return codes
        group = np.unique(codes[:, :-1], axis=0, return_inverse=True)[1].reshape(-1)
        known = np.bincount(group[: self.items], minlength=int(group.max()) + 1)
        out = codes.copy()
        out[:, -1] = np.minimum(codes[:, -1], np.maximum(known[group] - 1, 0))
        return out

    def save(self, directory: Path) -> None:
        """Write the file beside the weights."""
        (directory / FILE).write_text(json.dumps(asdict(self)), encoding="utf-8")

    @classmethod
    def load(cls, directory: Path) -> Self | None:
        """What `save` wrote; None where the recommender was trained on all of its items."""
        path = directory / FILE
        if not path.is_file():
            return None
        found = json.loads(path.read_text(encoding="utf-8"))
        return cls(found["items"], tuple(found["sizes"]))


def counts_groups(codes: IntArray) -> bool:
    """Whether the last level only counts the items that share the codes before it.

    >>> counts_groups(np.array([[5, 0], [5, 1], [7, 0]])), counts_groups(np.array([[5, 0], [5, 2], [7, 0]]))
    (True, False)
    """
    if codes.shape[1] < 2:
        return False
    group = np.unique(codes[:, :-1], axis=0, return_inverse=True)[1].reshape(-1)
    order = np.lexsort((codes[:, -1], group))
    starts = np.searchsorted(group[order], group[order], side="left")
    return bool((codes[order, -1] == np.arange(len(codes)) - starts).all())


def check_sizes(earlier: SemanticIds, grown: SemanticIds) -> None:
    """Raise `DataError` unless the levels are as large as before; one that counts may have grown."""
    old, new = earlier.sizes, grown.sizes
    may_grow = counts_groups(earlier.codes)
    if new[:-1] != old[:-1] or new[-1] < old[-1] or (new[-1] > old[-1] and not may_grow):
        raise DataError(
            f"the new semantic IDs have {' × '.join(map(str, new))} codes, the recommender knows "
            f"{' × '.join(map(str, old))}",
            expected="levels of the same sizes; only a last one that counts collisions may grow",
            next="extend the semantic IDs that the recommender was trained on",
        )
