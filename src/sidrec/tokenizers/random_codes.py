"""Random semantic IDs: the control that says what content in the codes is worth.

An item's codes are a hash of the run's seed and its id, so they do not change when the catalogue
grows or is reordered. Left out: balanced draws, whose codes would depend on the other items.
"""

import hashlib
from typing import Any, Literal

import numpy as np
from pydantic import Field, field_validator

from sidrec.config import RunSettings
from sidrec.data.dataset import Dataset
from sidrec.registry import load_class
from sidrec.tokenizers.base import ImportingTokenizer, TokenizerConfig
from sidrec.types import IntArray

__all__ = ["RandomCodes"]

BYTES = 8
"""Of the hash that decide a code; codebooks are far smaller than 2^64, so every code is equally likely."""


class RandomCodes(ImportingTokenizer):
    """Codes drawn for every item."""

    uses_seed = True

    class Config(TokenizerConfig):
        """Codes drawn at random."""

        kind: Literal["random"] = "random"
        levels: int = Field(default=3, ge=1)
        """L, number of codes an item gets before collisions are settled."""
        codebook_size: int = Field(default=256, ge=1)
        """K, codes in a level."""

        @field_validator("collisions")
        @classmethod
        def _works_without_vectors(cls, value: Any) -> Any:
            if load_class("collision", value.kind).needs_vectors:
                raise ValueError("drawn codes have no vectors to compare; use keep, append_level or hashed_round_robin")
            return value

    def codes(self, dataset: Dataset, run: RunSettings = RunSettings()) -> tuple[IntArray, tuple[int, ...]]:
        """Codes int32[N, L] that seed and item id decide, and the sizes of the levels."""
        config: RandomCodes.Config = self.config
        drawn = b"".join(
            hashlib.shake_128(f"{run.seed} {item}".encode()).digest(BYTES * config.levels)
            for item in dataset.catalog.ids
        )
        numbers = np.frombuffer(drawn, "<u8").reshape(len(dataset.catalog), config.levels)
        return (numbers % config.codebook_size).astype(np.int32), (config.codebook_size,) * config.levels
