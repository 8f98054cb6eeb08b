"""MovieLens as GroupLens publishes it: 100K (`u.data`), 1M (`ratings.dat`), 20M, 25M and 32M (`ratings.csv`).

Titles and genres are read, tags, links, genome scores and user data are not.
"""

from pathlib import Path
from typing import Literal

import polars as pl

from sidrec.config import Config
from sidrec.data.columns import Columns
from sidrec.data.files import existing, find_one, open_text, read_csv, reading
from sidrec.data.raw import RawData, Reader
from sidrec.errors import DataError

__all__ = ["MovieLensReader"]

EVENTS = (Columns.USER, Columns.ITEM, Columns.RATING, Columns.TIME)
CATEGORIES = "categories"
GENRES_100K = (
    "unknown|Action|Adventure|Animation|Children's|Comedy|Crime|Documentary|Drama|Fantasy|Film-Noir|"
    "Horror|Musical|Mystery|Romance|Sci-Fi|Thriller|War|Western"
)


class MovieLensReader(Reader):
    """Reads the unpacked folder, or the ratings file in it."""

    class Config(Config):
        """Settings."""

        kind: Literal["movielens"] = "movielens"

    def sources(self, path: Path) -> list[Path]:
        """The ratings and the movies file."""
        ratings, movies = self._files(path)
        return [ratings, *([movies] if movies else [])]

    def read(self, path: Path) -> RawData:
        """Ratings in file order, movies with title and genres."""
        ratings, movies = self._files(path)
        items = _movies(movies) if movies else None
        return RawData(str(ratings), _ratings(ratings), items, first_line=2 if ".csv" in ratings.name else 1)

    def _files(self, path: Path) -> tuple[Path, Path | None]:
        ratings = find_one(path, ["ratings.csv", "ratings.dat", "u.data"], "ratings file")
        movies = {"u.data": "u.item", "ratings.dat": "movies.dat"}.get(ratings.name.removesuffix(".gz"), "movies.csv")
        return ratings, existing(ratings.with_name(movies))


def _ratings(path: Path) -> pl.LazyFrame:
    with reading(path):
        if ".csv" in path.name:
            table = pl.scan_csv(path, infer_schema=False)
            names = dict(zip(("userId", "movieId", "rating", "timestamp"), EVENTS, strict=True))
            missing = set(names) - set(table.collect_schema().names())
            if missing:
                raise DataError(
                    f"the column '{sorted(missing)[0]}' is missing",
                    where=f"{path}, header",
                    expected=", ".join(names),
                )
            return table.select(pl.col(old).alias(new) for old, new in names.items())
        # A pair of colons separates the fields of the 1M files; every second column is empty.
        double = path.name.startswith("ratings.dat")
        step, separator = (2, ":") if double else (1, "\t")
        table = pl.scan_csv(path, separator=separator, quote_char=None, has_header=False, infer_schema=False)
        columns = table.collect_schema().names()
        if len(columns) != 3 * step + 1:
            raise DataError(
                f"a line has {len(columns)} fields",
                where=f"{path}, line 1",
                expected="user, item, rating, time separated by " + ("'::'" if double else "tabs"),
            )
        return table.select(pl.col(columns[step * i]).alias(name) for i, name in enumerate(EVENTS))


def _movies(path: Path) -> pl.DataFrame:
    if ".csv" in path.name:
        table = read_csv(path, ("movieId", "title", "genres"))
        return table.select(
            pl.col("movieId").alias(Columns.ITEM),
            pl.col("title").fill_null("").alias(Columns.TITLE),
            pl.col("genres").fill_null("").str.replace_all("|", ", ", literal=True).alias(CATEGORIES),
        )
    old = path.name.startswith("u.item")
    rows: list[tuple[str, str, str]] = []
    with open_text(path, encoding="latin-1") as file:
        for number, line in enumerate(file, 1):
            fields = line.rstrip("\r\n").split("|" if old else "::")
            if len(fields) != (24 if old else 3):
                raise DataError(
                    f"a line has {len(fields)} fields",
                    where=f"{path}, line {number}",
                    expected=f"{24 if old else 3} fields separated by '{'|' if old else '::'}'",
                )
            genres = (
                [genre for genre, flag in zip(GENRES_100K.split("|"), fields[5:], strict=True) if flag == "1"]
                if old
                else fields[2].split("|")
            )
            rows.append((fields[0], fields[1], ", ".join(genres)))
    return pl.DataFrame(rows, schema=[Columns.ITEM, Columns.TITLE, CATEGORIES], orient="row")
