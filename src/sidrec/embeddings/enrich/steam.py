"""Facts from a dump of Steam's shop: the `games.json` of FronkonGames' steam-games-dataset, read from disk.

The file is one object of some 100,000 games and read game by game. Left out: prices in other currencies, reviews,
languages and pictures.
"""

import re
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, Field, ValidationError

from sidrec.artifact import file_digest
from sidrec.config import Config, RunSettings
from sidrec.embeddings.enrich.answers import Answer, Facts, Findings, Question, Text, Texts
from sidrec.embeddings.enrich.json_stream import object_entries
from sidrec.embeddings.enrich.source import Desk, FactSource
from sidrec.errors import DataError

__all__ = ["SteamDump"]

NUM_EXAMPLES = 3
"""Skipped entries that are named in the report."""
YEAR = re.compile(r"\b\d{4}\b")


class _Game(BaseModel):
    """What is used of an entry."""

    name: str = Field(min_length=1)
    release_date: Text = None
    price: float | None = None
    short_description: Text = None
    developers: Texts = []
    genres: Texts = []

    def facts(self) -> Facts:
        year = YEAR.search(self.release_date or "")
        known: dict[str, Any] = {
            "release_year": year.group() if year else None,
            "price": None if self.price is None else f"{self.price:.2f} USD",
            "genres": self.genres,
            "developers": self.developers,
            "description": self.short_description,
        }
        return {name: value for name, value in known.items() if value}


class SteamDump(FactSource):
    """Finds items in a dump of Steam's shop by their titles."""

    class Config(Config):
        """A dump of Steam's shop."""

        kind: Literal["steam"] = "steam"
        path: str
        """The `games.json` of the dump, gzip'd or not."""
        implies: dict[str, str | tuple[str, ...]] = Field(default={"item_type": "game", "platforms": ("PC",)})
        """Facts that hold for all that the shop sells."""

    is_remote = False

    def sources(self) -> dict[str, str]:
        """The digest of the dump.

        Raises:
            DataError: there is no such file.
        """
        path = Path(self.config.path)
        if not path.is_file():
            raise DataError("there is no such file", where=str(path), expected="games.json of a Steam dump")
        return {"steam": file_digest(path)}

    def ask(self, name: str, questions: list[Question], desk: Desk) -> Findings:
        """One answer a question: the game of equal or nearest title.

        Raises:
            DataError: the dump is missing, broken, or holds no game.
        """
        names, facts, skipped = self._games(desk.run)
        matches = desk.matcher().among([question.title for question in questions], names)
        implied = {key: value if isinstance(value, str) else list(value) for key, value in self.config.implies.items()}
        answers: list[Answer] = []
        for question, match in zip(questions, matches, strict=True):
            if match is None:
                reason = "no game of that title" if question.title else "the item has no title"
                answers.append(Answer(question.item, "none", reason=reason))
            else:
                found = {**implied, **facts[match.position]}
                answers.append(Answer.of_facts(question.item, found, names[match.position], match.score))
        return Findings(
            answers, {"games": len(names), "skipped": len(skipped), "skipped_first": skipped[:NUM_EXAMPLES]}
        )

    def _games(self, run: RunSettings) -> tuple[list[str], list[Facts], list[str]]:
        """Names and facts of all games, and what was wrong with entries that are none."""
        path, names, facts, skipped = Path(self.config.path), list[str](), list[Facts](), list[str]()
        with run.progress("read the Steam dump", None) as advance:
            for key, entry in object_entries(path):
                try:
                    game = _Game.model_validate(entry)
                except ValidationError as error:
                    first = error.errors(include_url=False, include_input=False)[0]
                    place = ".".join(map(str, first["loc"]))
                    skipped.append(f"entry {key}{f', {place}' if place else ''}: {first['msg']}")
                else:
                    names.append(game.name)
                    facts.append(game.facts())
                advance()
        if not names:
            raise DataError(
                f"the dump holds no game ({len(skipped)} entries are none)",
                where=skipped[0] if skipped else str(path),
                expected='{"app id": {"name": …, "release_date": …, "developers": […], …}, …}',
                next="check sources.….path",
            )
        return names, facts, skipped
