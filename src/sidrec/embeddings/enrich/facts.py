"""Facts on disk, by item id, and as one more text field of a catalogue."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import polars as pl

from sidrec.artifact import open_artifact
from sidrec.data.catalog import Catalog
from sidrec.data.columns import Columns
from sidrec.embeddings.enrich.answers import Answer, Facts
from sidrec.errors import DataError
from sidrec.types import ItemId

__all__ = ["FIELD", "ItemFacts", "described", "facts_digest"]

FIELD = "facts"
"""The text field that facts become."""
FACTS, ANSWERS = "facts.parquet", "answers.parquet"
VALUES = "values"
ANSWER_SCHEMA = {
    Columns.ITEM: pl.String,
    "source": pl.String,
    "outcome": pl.String,
    "reason": pl.String,
    "match": pl.String,
    "score": pl.Float64,
    VALUES: pl.String,
}


@dataclass(frozen=True)
class ItemFacts:
    """What is known about items.

    Attributes:
        lines: item → facts as one line of text, `""` where nothing is known.
        facts: item → field → value.
        answers: item → source → what it said or why it said nothing.
    """

    lines: dict[ItemId, str]
    facts: dict[ItemId, Facts]
    answers: dict[ItemId, dict[str, Answer]]

    def save(self, directory: Path) -> None:
        """Write `facts.parquet` (one line an item) and `answers.parquet` (one line an item and source)."""
        pl.DataFrame(
            {
                Columns.ITEM: list(self.lines),
                FIELD: list(self.lines.values()),
                VALUES: [_json(self.facts[item]) for item in self.lines],
            },
            schema=dict.fromkeys((Columns.ITEM, FIELD, VALUES), pl.String),
        ).write_parquet(directory / FACTS)
        rows = [
            {Columns.ITEM: item, "source": source, VALUES: _json(answer.facts), **_rest(answer)}
            for item, own in self.answers.items()
            for source, answer in own.items()
        ]
        pl.DataFrame(rows, schema=ANSWER_SCHEMA).write_parquet(directory / ANSWERS)

    @classmethod
    def load(cls, path: Path | str) -> "ItemFacts":
        """Read and check a facts artefact.

        Raises:
            ArtifactError: it is missing, damaged or something else.
        """
        directory = open_artifact(path, "facts").path
        table = pl.read_parquet(directory / FACTS)
        answers: dict[ItemId, dict[str, Answer]] = {item: {} for item in table[Columns.ITEM]}
        for row in pl.read_parquet(directory / ANSWERS).iter_rows(named=True):
            item, source, facts = row.pop(Columns.ITEM), row.pop("source"), json.loads(row.pop(VALUES))
            answers[item][source] = Answer(item, facts=facts, **row)
        values = zip(table[Columns.ITEM], table[VALUES], strict=True)
        return cls(
            dict(zip(table[Columns.ITEM], table[FIELD], strict=True)),
            {item: json.loads(text) for item, text in values},
            answers,
        )


def _json(facts: Mapping[str, str | Sequence[str]]) -> str:
    return json.dumps(facts, ensure_ascii=False)


def _rest(answer: Answer) -> dict[str, str | float | None]:
    """The fields of an answer that are columns of their own."""
    return {name: value for name, value in asdict(answer).items() if name not in ("item", "facts")}


def described(catalog: Catalog, path: str) -> Catalog:
    """A catalogue with the facts about its items as one more text field, matched by id.

    Args:
        catalog: the items.
        path: a facts artefact; `""` leaves the catalogue as it is.

    Raises:
        ArtifactError: there is no such artefact.
        DataError: the facts are not about all of these items, or the catalogue has such a field already.
    """
    if not path:
        return catalog
    lines = ItemFacts.load(path).lines
    unknown = [item for item in catalog.ids if item not in lines]
    if unknown:
        raise DataError(
            f"{len(unknown)} items were never asked about, the first is '{unknown[0]}'",
            where=path,
            expected="facts made for all items, found or not",
            next="run 'sidrec enrich' on a dataset that holds them, then embed and tokenize anew",
        )
    if FIELD in catalog.text_fields:
        raise DataError(
            f"the catalogue has a field '{FIELD}' of its own", where=path, next="give that field another name"
        )
    return Catalog(catalog.items.with_columns(pl.Series(FIELD, [lines[item] for item in catalog.ids], dtype=pl.String)))


def facts_digest(path: str) -> dict[str, str]:
    """`{"facts": digest}` of a facts artefact, nothing without one; for `Embedder.sources`.

    Raises:
        ArtifactError: there is no such artefact.
    """
    return {"facts": open_artifact(path, "facts").digest} if path else {}
