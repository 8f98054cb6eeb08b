"""What is asked where, and how the answers become one."""

from typing import Annotated, Any, Self

from pydantic import Field, SerializeAsAny, field_validator, model_validator

from sidrec.config import Config, slot
from sidrec.data.columns import Columns
from sidrec.embeddings.enrich.matching import MatchConfig
from sidrec.registry import REGISTRY, kinds_text

__all__ = ["EnrichConfig"]


class EnrichConfig(Config):
    """Facts about items from outside."""

    sources: dict[str, Annotated[SerializeAsAny[Config], slot("source")]] = Field(
        min_length=1,
        description=f"Name → source, asked in this order: {kinds_text('source')}. The kind may be left out where the "
        "name is one; earlier sources precede later ones, and chat models read what earlier sources found.",
    )
    title: str = Columns.TITLE
    """Text field of the catalogue by which sources know an item."""
    match: MatchConfig = MatchConfig()
    """How an item is found by its title."""
    precedence: dict[str, tuple[str, ...]] = Field(default={})
    """Field → names of sources, best first, where their usual order is not right; lists are united in that order."""
    line: tuple[str, ...] = ()
    """Fields in the line of text, in this order; empty means all, in the order of their names."""

    @field_validator("sources", mode="before")
    @classmethod
    def _named_kinds(cls, sources: Any) -> Any:
        if not isinstance(sources, dict):
            return sources
        kinds = REGISTRY["source"]
        return {
            name: {"kind": name, **value} if name in kinds and isinstance(value, dict) else value
            for name, value in sources.items()
        }

    @model_validator(mode="after")
    def _known_sources(self) -> Self:
        for field, names in self.precedence.items():
            unknown = [name for name in names if name not in self.sources]
            if unknown:
                raise ValueError(f"precedence.{field}: there is no source '{unknown[0]}'")
        return self
