"""Which entry of a source is the item: an equal title, else the nearest one in an embedding of titles.

What shops add is cut from the title alone: the bracket of an entry may say that it is something else of that name,
a soundtrack or a film, so `Portal (PC)` equals `Portal` and is only near `Portal (Soundtrack)`. The score is the
cosine of unit vectors. Left out: learnt matchers, and matching by anything but titles.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import polars as pl
from pydantic import Field, SerializeAsAny, field_validator

from sidrec.config import Config, RunSettings, build, kind_of, slot
from sidrec.data.catalog import Catalog
from sidrec.data.columns import Columns
from sidrec.embeddings.base import ContentEmbedder, unit_length
from sidrec.embeddings.enrich.titles import clean_title, numbers_in, title_key
from sidrec.errors import ConfigError
from sidrec.types import FloatArray

__all__ = ["Match", "MatchConfig", "Matcher"]

WORD = re.compile(r"\w\w")
NEIGHBOURS = 8
"""Nearest names among which the best acceptable one is sought."""


class MatchConfig(Config):
    """How an item is found by its title."""

    embedder: Annotated[
        SerializeAsAny[Config],
        slot("embedder"),
        Field(description="What makes vectors of titles: text (a sentence encoder) or tfidf."),
    ] = "text"  # type: ignore[assignment]  # The slot makes a Config of the name.
    threshold: float = Field(default=0.85, gt=0, le=1)
    """Cosine from which the nearest name is taken for the item's; equal ones need none."""
    cut: tuple[str, ...] = (r"\s*[(\[][^()\[\]]*[)\]]$",)
    """Regular expressions whose matches are taken out of an item's title, in this order: what shops add. By default,
    brackets at the end. The names of a source stay whole."""
    numbers_agree: bool = True
    """Whether titles with different numbers are never taken for each other: parts of a series have similar vectors.
    Numbers in what `cut` would take out of a name do not count."""

    @field_validator("cut")
    @classmethod
    def _are_expressions(cls, cuts: tuple[str, ...]) -> tuple[str, ...]:
        for cut in cuts:
            try:
                re.compile(cut)
            except re.error as error:
                raise ValueError(f"'{cut}' is no regular expression: {error}") from error
        return cuts


@dataclass(frozen=True)
class Match:
    """An entry that was taken for an item.

    Attributes:
        position: which of the names.
        score: cosine of the title, cut, and the whole name; 1 for equal ones.
    """

    position: int
    score: float


class Matcher:
    """Finds titles among names.

    Args:
        config: threshold, cuts and embedder.
        run: device, progress and scratch folder of the embedder.

    Raises:
        ConfigError: the embedder makes no vectors of texts.
    """

    def __init__(self, config: MatchConfig, run: RunSettings) -> None:
        self._config, self._run = config, run
        self._embedder: Any = build("embedder", config.embedder)
        if kind_of(config.embedder) == "import" or not isinstance(self._embedder, ContentEmbedder):
            raise ConfigError(
                f"match.embedder: '{kind_of(config.embedder)}' makes no vectors of titles", next="use text or tfidf"
            )

    def clean(self, title: str) -> str:
        """A title without what the configuration cuts."""
        return clean_title(title, self._config.cut)

    def among(self, titles: Sequence[str], names: Sequence[str]) -> list[Match | None]:
        """For each title the name that is it, of all names.

        A name that equals the whole title wins, then one that equals the cut title; the first of several. Empty titles
        match nothing.
        """
        first: dict[str, int] = {}
        for position, name in enumerate(names):
            first.setdefault(title_key(clean_title(name)), position)
        equal = {title: _equal(self._keys(title), first) for title in dict.fromkeys(titles)}
        left = list(dict.fromkeys(self.clean(title) for title, match in equal.items() if match is None))
        near = self._nearest([title for title in left if title], names, sorted(first.values()))
        return [equal[title] or near.get(self.clean(title)) for title in titles]

    def best(self, titles: Sequence[str], candidates: Sequence[Sequence[str]], hint: str = "") -> list[Match | None]:
        """For each title the one of its own candidates that is it; equal ones win, as in `among`.

        Args:
            titles: of items.
            candidates: names for each title.
            hint: what all items are; a name that equals title and hint, such as `Mercury (video game)`, wins over all.
        """
        names = [[clean_title(name) for name in own] for own in candidates]
        pairs = list(zip(map(self.clean, titles), names, strict=True))
        places = [{title_key(name): place for place, name in reversed(list(enumerate(own)))} for own in names]
        found = [_equal(self._keys(title, hint), own) for title, own in zip(titles, places, strict=True)]
        is_open = [match is None and bool(title and own) for match, (title, own) in zip(found, pairs, strict=True)]
        left = [pair for pair, still in zip(pairs, is_open, strict=True) if still]
        row_of = {
            text: row for row, text in enumerate(dict.fromkeys(text for title, own in left for text in (title, *own)))
        }
        vectors_TD = self._vectors(list(row_of)) if left else None
        for place, (title, own) in enumerate(pairs):
            if is_open[place] and vectors_TD is not None:
                scores = vectors_TD[[row_of[name] for name in own]] @ vectors_TD[row_of[title]]
                found[place] = self._accepted(title, own, list(range(len(own))), scores.tolist())
        return found

    def _keys(self, title: str, hint: str = "") -> list[str]:
        """The keys of names that are this title's, best first."""
        cut = self.clean(title)
        texts = ([f"{cut} {hint}"] if hint else []) + [clean_title(title), cut]
        return [title_key(text) for text in texts] if cut else []

    def _nearest(self, titles: list[str], names: Sequence[str], positions: list[int]) -> dict[str, Match]:
        """Titles that no name equals, with the nearest acceptable of the names at `positions`."""
        import faiss

        if not titles or not positions:
            return {}
        texts = [clean_title(names[position]) for position in positions]
        vectors_TD = self._vectors([*texts, *titles])
        index: Any = faiss.IndexFlatIP(vectors_TD.shape[1])
        index.add(vectors_TD[: len(texts)])
        scores, rows = index.search(vectors_TD[len(texts) :], min(NEIGHBOURS, len(texts)))
        found: dict[str, Match] = {}
        for title, own_rows, own_scores in zip(titles, rows.tolist(), scores.tolist(), strict=True):
            match = self._accepted(title, [texts[row] for row in own_rows], own_rows, own_scores)
            if match is not None:
                found[title] = Match(positions[match.position], match.score)
        return found

    def _accepted(self, title: str, names: list[str], places: list[int], scores: list[float]) -> Match | None:
        """The best of some names that reaches the threshold; of equal ones the first place."""
        for score, place, name in sorted(zip(scores, places, names, strict=True), key=lambda of: (-of[0], of[1])):
            if score < self._config.threshold:
                return None
            if not self._config.numbers_agree or numbers_in(title) == numbers_in(self.clean(name)):
                return Match(place, min(score, 1.0))
        return None

    def _vectors(self, texts: list[str]) -> FloatArray:
        """float32[len(texts), D] of length 1; a text that says nothing to the embedder stays zero."""
        if not any(WORD.search(text) for text in texts):
            return np.zeros((len(texts), 1), np.float32)
        ids = [str(number) for number in range(len(texts))]
        catalog = Catalog(pl.DataFrame({Columns.ITEM: ids, Columns.TITLE: texts}))
        vectors = self._embedder.embed(catalog, self._run).vectors
        return np.ascontiguousarray(unit_length(vectors), np.float32)


def _equal(keys: Sequence[str], places: Mapping[str, int]) -> Match | None:
    """The place of the first key that has one.

    >>> _equal(["dirt 3 pc", "dirt 3"], {"dirt": 0, "dirt 3": 1}), _equal([], {"": 0})
    (Match(position=1, score=1.0), None)
    """
    return next((Match(places[key], 1.0) for key in keys if key in places), None)
