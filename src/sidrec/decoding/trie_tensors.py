"""The arrays of a trie as tensors on a device.

Apart from `trie`, which is also the index of the table of semantic IDs and imports no torch.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from torch import Tensor

from sidrec.decoding.filters import TrieMasks
from sidrec.decoding.trie import ItemTrie

__all__ = ["TrieTensors", "held_tensor"]


@dataclass(frozen=True)
class TrieTensors:
    """The arrays of an `ItemTrie` on a device, for levels 0 … L-1.

    Attributes:
        child_ptr: int32[n + 2] a level; one more entry than in the trie, so that node n, which stands
            for "no prefix", has no children.
        codes: int32[m] a level, codes of the children.
    """

    child_ptr: tuple[Tensor, ...]
    codes: tuple[Tensor, ...]

    @classmethod
    def of(cls, trie: ItemTrie, device: torch.device | str) -> Self:
        """The tree's arrays on a device, made once a trie and device."""
        name = str(device)
        if name not in trie.copies:
            trie.copies[name] = cls(
                tuple(torch.from_numpy(np.append(ptr, ptr[-1])).to(name) for ptr in trie.child_ptr),
                tuple(torch.from_numpy(codes.astype(np.int32)).to(name) for codes in trie.codes),
            )
        return trie.copies[name]


def held_tensor(masks: TrieMasks, depth: int, device: torch.device | str) -> Tensor:
    """bool[F, n], `masks.held` of a depth on a device, made once."""
    key = depth, str(device)
    if key not in masks.copies:
        masks.copies[key] = torch.from_numpy(masks.held[depth]).to(device)
    return masks.copies[key]
