"""Amazon reviews in the layouts of 2014, 2018 and 2023; each file may be gzip'd.

| year | reviews | metadata |
|---|---|---|
| 2014 | `reviews_X.json` (JSON or Python records), `ratings_X.csv` (user, item, rating, time) | `meta_X.json` |
| 2018 | `X.json`, `X.csv` (item, user, rating, time) | `meta_X.json` |
| 2023 | `X.jsonl`, `X.csv` with a header; times in milliseconds, items by `parent_asin` | `meta_X.jsonl` |

The metadata of 2014 are records as Python prints them. Title, description, brand and categories are read; review
texts, images (they are addresses, not files), prices and links between items are not. Of repeated metadata lines the
first counts.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import polars as pl

from sidrec.config import Config
from sidrec.data.columns import Columns
from sidrec.data.files import existing, find_one, open_text, reading, require
from sidrec.data.items import as_text
from sidrec.data.literals import parse_literal
from sidrec.data.raw import RawData, Reader
from sidrec.errors import DataError

__all__ = ["AmazonReader"]

EVENTS = (Columns.USER, Columns.ITEM, Columns.RATING, Columns.TIME)
FIELDS = {
    "old": ("reviewerID", "asin", "overall", "unixReviewTime"),
    "2023": ("user_id", "parent_asin", "rating", "timestamp"),
}
TEXTS = {
    Columns.TITLE: ("title",),
    Columns.DESCRIPTION: ("description",),
    "brand": ("brand", "store"),
    "categories": ("categories", "category"),
}


class AmazonReader(Reader):
    """Reads one reviews or ratings file and the metadata beside it."""

    class Config(Config):
        """Settings."""

        kind: Literal["amazon"] = "amazon"
        csv_order: Literal["auto", "user-item", "item-user"] = "auto"
        """Columns of a CSV without header; `auto`: user-item for `ratings_X.csv` (2014), else item-user (2018)."""
        metadata: str = "auto"
        """Metadata file, a path from the folder of the reviews; `none`; `auto`: `meta_X` beside them."""

    def sources(self, path: Path) -> list[Path]:
        """The reviews and the metadata."""
        reviews, metadata = self._files(path)
        return [reviews, *([metadata] if metadata else [])]

    def read(self, path: Path) -> RawData:
        """One event a review in file order; item texts where there is metadata."""
        reviews, metadata = self._files(path)
        first = _first_line(reviews)
        if ".csv" in reviews.name:
            events, first_line = self._csv(reviews, first), 2 if "parent_asin" in first else 1
        else:
            events, first_line = _json_reviews(reviews, first), 1
        return RawData(str(reviews), events, _metadata(metadata) if metadata else None, first_line=first_line)

    def _files(self, path: Path) -> tuple[Path, Path | None]:
        patterns = ["reviews_*.json", "ratings_*.csv", "[!m]*.jsonl", "[!m]*.json", "*.csv"]
        reviews = find_one(path, patterns, "reviews file")
        if self.config.metadata == "none":
            return reviews, None
        if self.config.metadata != "auto":
            return reviews, find_one(reviews.parent / self.config.metadata, [], "metadata file", "reader.metadata")
        stem = reviews.name.removesuffix(".gz").rpartition(".")[0].removeprefix("reviews_").removeprefix("ratings_")
        names = [f"meta_{name}.{ending}" for name in (stem, stem.removesuffix("_5")) for ending in ("jsonl", "json")]
        found = (existing(reviews.with_name(name)) for name in names)
        return reviews, next((file for file in found if file), None)

    def _csv(self, path: Path, first: str) -> pl.LazyFrame:
        header = "parent_asin" in first
        with reading(path):
            table = pl.scan_csv(path, has_header=header, infer_schema=False)
            columns = table.collect_schema().names()
        if header:
            require(FIELDS["2023"], columns, path)
            return table.select(pl.col(old).alias(new) for old, new in zip(FIELDS["2023"], EVENTS, strict=True))
        if len(columns) != 4:
            raise DataError(
                f"a line has {len(columns)} columns",
                where=f"{path}, line 1",
                expected="four: user and item, rating, time",
                next="use the 'table' reader for other tables",
            )
        user_first = self.config.csv_order == "user-item"
        if self.config.csv_order == "auto":
            user_first = path.name.startswith("ratings_")
        names = EVENTS if user_first else (Columns.ITEM, Columns.USER, *EVENTS[2:])
        return table.select(pl.col(old).alias(new) for old, new in zip(columns, names, strict=True))


def _first_line(path: Path) -> str:
    with open_text(path) as file:
        line = file.readline()
    if not line.strip():
        raise DataError("the file is empty", where=str(path), expected="at least one review")
    return line


def _json_reviews(path: Path, first: str) -> pl.LazyFrame:
    """Reviews as a lazy table; records that Python printed are parsed line by line."""
    record = _record(first, f"{path}, line 1")
    fields = FIELDS["2023"] if "parent_asin" in record else FIELDS["old"]
    require(fields[:2], list(record), f"{path}, line 1")
    names = dict(zip(fields, EVENTS, strict=True))
    if not _is_json(first):
        rows = [[record.get(name) for name in fields] for record in _records(path)]
        return pl.DataFrame(rows, schema=list(EVENTS), orient="row", strict=False, infer_schema_length=None).lazy()
    with reading(path):
        # Numbers are read as text, so that a wrong one is reported with its line.
        table = pl.scan_ndjson(path, schema=dict.fromkeys(fields, pl.String))
        return table.select(pl.col(old).alias(new) for old, new in names.items())


def _is_json(line: str) -> bool:
    try:
        json.loads(line)
    except ValueError:
        return False
    return True


def _records(path: Path) -> Iterator[dict[str, Any]]:
    with open_text(path) as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                yield _record(line, f"{path}, line {number}")


def _record(line: str, where: str) -> dict[str, Any]:
    """One record, written as JSON or as Python prints a dict."""
    try:
        value = json.loads(line)
    except ValueError:
        try:
            value = parse_literal(line)
        except DataError as error:
            raise DataError("the line is no record", where=f"{where}, {error.where}", expected="JSON") from error
    if not isinstance(value, dict):
        raise DataError(f"the line holds a {type(value).__name__}", where=where, expected="one record a line")
    return value


def _metadata(path: Path) -> pl.DataFrame:
    texts: dict[str, list[str]] = {}
    for number, record in enumerate(_records(path), 1):
        item = record.get("parent_asin") or record.get("asin")
        if not item:
            raise DataError("a record has no 'asin'", where=f"{path}, record {number}", expected="asin or parent_asin")
        if item not in texts:
            texts[str(item)] = [_text(name, record) for name in TEXTS]
    rows = [(item, *fields) for item, fields in texts.items()]
    return pl.DataFrame(rows, schema=dict.fromkeys((Columns.ITEM, *TEXTS), pl.String), orient="row")


def _text(name: str, record: dict[str, Any]) -> str:
    """One field under any of its names; paragraphs of a description are joined by spaces."""
    value = next((record[key] for key in TEXTS[name] if record.get(key)), None)
    if name == Columns.DESCRIPTION and isinstance(value, list):
        return " ".join(as_text(part) for part in value)
    return as_text(value)
