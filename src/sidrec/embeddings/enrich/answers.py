"""What a source is asked about an item and what it says. Nothing is fetched here."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BeforeValidator

from sidrec.types import ItemId, Json

__all__ = ["Answer", "Facts", "Findings", "Question", "Text", "Texts"]

Facts: TypeAlias = dict[str, str | list[str]]
"""Field → a text, or a list of texts."""

NOTHING = frozenset({"", "unknown", "n/a", "none", "null", "-"})
"""What people and models write for "I do not know"."""


def _text(value: Any) -> Any:
    """One line of text; numbers are written out, and what means nothing is nothing.

    >>> _text(2011), _text(" two  words "), _text("Unknown")
    ('2011', 'two words', None)
    """
    if isinstance(value, int | float) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str):
        return value
    line = " ".join(value.split())
    return None if line.casefold() in NOTHING else line


def _texts(value: Any) -> Any:
    """Several texts; one text is a list of one, never its letters, and what means nothing is left out.

    >>> _texts("Valve"), _texts(["Valve", "unknown"]), _texts(None)
    (['Valve'], ['Valve'], [])
    """
    if value is None:
        return []
    several = value if isinstance(value, list) else [value]
    return [text for text in map(_text, several) if text is not None]


Text = Annotated[str | None, BeforeValidator(_text)]
"""A field of one text, in whatever form a source writes it."""
Texts = Annotated[list[str], BeforeValidator(_texts)]
"""A field of several texts, in whatever form a source writes it."""


@dataclass(frozen=True)
class Question:
    """An item as sources see it.

    Attributes:
        item: its id.
        title: its title, `""` where it has none.
        text: its other texts, joined.
    """

    item: ItemId
    title: str
    text: str = ""


@dataclass(frozen=True)
class Answer:
    """What one source says about one item.

    Attributes:
        item: the item's id.
        outcome: `found`; `none` where the source knows no such item; `failed` where it could not be asked.
        facts: what it says, only where it was found.
        reason: why there are no facts.
        match: name under which the source knows the item.
        score: cosine of the titles, 1 for equal ones; None where nothing was matched.
    """

    item: ItemId
    outcome: Literal["found", "none", "failed"]
    facts: Facts = field(default_factory=dict)
    reason: str = ""
    match: str = ""
    score: float | None = None

    @classmethod
    def of_facts(cls, item: ItemId, facts: Mapping[str, Any], match: str = "", score: float | None = None) -> "Answer":
        """The answer with all facts that are something; without any, `none`.

        >>> Answer.of_facts("a", {"year": "2011", "genres": [], "price": None}).facts
        {'year': '2011'}
        """
        known = {name: value for name, value in facts.items() if value}
        if not known:
            return cls(item, "none", reason="the source knows the item and says nothing about it", match=match)
        return cls(item, "found", known, match=match, score=score)


@dataclass(frozen=True)
class Findings:
    """What one source says about all items.

    Attributes:
        answers: one an item, in the order of the questions.
        notes: what a report should say about the source.
    """

    answers: list[Answer]
    notes: Json = field(default_factory=dict)

    def check(self, questions: list[Question]) -> None:
        """Make sure that there is one answer a question, each about its own item."""
        assert [answer.item for answer in self.answers] == [question.item for question in questions], "answers shifted"
