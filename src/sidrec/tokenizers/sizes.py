"""How many levels a tokenizer has and how many codes each level: the fields that learned quantizers share."""

from typing import Self

from pydantic import Field, model_validator

from sidrec.tokenizers.base import TokenizerConfig

__all__ = ["SizedConfig"]


class SizedConfig(TokenizerConfig):
    """Levels of equal size by two numbers, or any sizes one by one.

    >>> SizedConfig(levels=2, codebook_size=8).sizes, SizedConfig(codebook_sizes=(64, 16, 4, 4)).sizes
    ((8, 8), (64, 16, 4, 4))
    """

    levels: int = Field(default=3, ge=1)
    """L, number of codes an item gets before collisions are settled."""
    codebook_size: int = Field(default=256, ge=1)
    """K, codes in a level; fewer where the data hold fewer distinct vectors."""
    codebook_sizes: tuple[int, ...] = ()
    """Codes in each level where levels differ; then the two fields above stay as they are or agree."""

    @property
    def sizes(self) -> tuple[int, ...]:
        """(K1, …, KL) as configured."""
        return self.codebook_sizes or (self.codebook_size,) * self.levels

    @model_validator(mode="after")
    def _sizes_agree(self) -> Self:
        if not self.codebook_sizes:
            return self
        if min(self.codebook_sizes) < 1:
            raise ValueError(f"codebook_sizes {list(self.codebook_sizes)}: every level needs at least one code")
        fields = type(self).model_fields
        if self.levels not in (fields["levels"].default, len(self.codebook_sizes)):
            raise ValueError(f"codebook_sizes names {len(self.codebook_sizes)} levels, levels says {self.levels}")
        if self.codebook_size != fields["codebook_size"].default and set(self.codebook_sizes) != {self.codebook_size}:
            raise ValueError(
                f"codebook_sizes {list(self.codebook_sizes)} and codebook_size {self.codebook_size} contradict each "
                "other; leave one of them out"
            )
        return self
