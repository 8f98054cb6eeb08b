"""The tokenizer of recipes that do not care: the codes that came with the data, else RQ-k-means."""

from typing import Any, Literal

from pydantic import Field

from sidrec.config import Config
from sidrec.data.dataset import Dataset
from sidrec.tokenizers.base import Tokenizer, TokenizerConfig

__all__ = ["Auto", "resolve_auto"]


class Auto(Tokenizer):
    """Stands for another tokenizer until the dataset is known; `resolve_auto` says which."""

    class Config(TokenizerConfig):
        """The codes that came with the data if there are any, else RQ-k-means with these settings."""

        kind: Literal["auto"] = "auto"
        levels: int = Field(default=3, ge=1)
        """L of RQ-k-means."""
        codebook_size: int = Field(default=256, ge=1)
        """K of RQ-k-means."""


def resolve_auto(config: Any, dataset: Dataset) -> Config:
    """The configuration that `auto` stands for with this dataset; any other is returned as it is."""
    if not isinstance(config, Auto.Config):
        return config
    if dataset.given_codes is not None:
        from sidrec.tokenizers.given import Given

        return Given.Config()
    from sidrec.tokenizers.rqkmeans import RQKMeans

    return RQKMeans.Config(levels=config.levels, codebook_size=config.codebook_size, collisions=config.collisions)
