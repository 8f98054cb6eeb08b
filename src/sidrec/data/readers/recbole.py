"""RecBole atomic files: tab-separated tables whose header gives each column a type.

- `X.inter`: `user_id:token  item_id:token  rating:float  timestamp:float`.
- `X.item` (optional): `item_id:token` and descriptions.
- Benchmark files `X.train.inter`, `X.valid.inter`, `X.test.inter` with `item_id_list:token_seq` hold ready-made
  examples (LC-Rec, MQL4GRec); they are a given split.

`.user`, `.kg`, `.link` and `.net` files are not read. Quotes have no special meaning, as in RecBole.
"""

from pathlib import Path
from typing import Literal

import polars as pl
from pydantic import Field

from sidrec.config import Config
from sidrec.data.columns import Columns
from sidrec.data.dataset import PARTS
from sidrec.data.files import existing, find_one, open_text, read_csv, reading, require
from sidrec.data.items import dense_order
from sidrec.data.raw import RawData, Reader
from sidrec.errors import DataError

__all__ = ["RecBoleReader"]

HISTORY = "item_id_list"
ITEM_COLUMNS = {"movie_title": "title", "class": "categories", "genre": "categories"}


class RecBoleReader(Reader):
    """Reads a folder with atomic files, or one `.inter` file; each file may be gzip'd."""

    class Config(Config):
        """Settings."""

        kind: Literal["recbole"] = "recbole"
        user: str = "user_id"
        """Column of users, without its type."""
        item: str = "item_id"
        """Column of items."""
        time: str = "timestamp"
        """Column of times; not there: the order of the file counts."""
        rating: str = "rating"
        """Column of ratings, if any."""
        item_columns: dict[str, str] = Field(default_factory=lambda: dict(ITEM_COLUMNS))
        """Columns of the item file under other names, old → new."""

    def sources(self, path: Path) -> list[Path]:
        """The interaction files and the item file."""
        parts, items = self._files(path)
        return [*parts.values(), *([items] if items else [])]

    def read(self, path: Path) -> RawData:
        """One lazy table of events, or the examples of the benchmark files."""
        parts, item_file = self._files(path)
        items = self._items(item_file) if item_file else None
        if "" not in parts:
            return self._benchmark(parts, items)
        file = parts[""]
        columns = _header(file)
        require((self.config.user, self.config.item), list(columns), file)
        roles = {
            Columns.USER: self.config.user,
            Columns.ITEM: self.config.item,
            Columns.TIME: self.config.time,
            Columns.RATING: self.config.rating,
        }
        with reading(file):
            table = pl.scan_csv(file, separator="\t", quote_char=None, infer_schema=False)
        wanted = [pl.col(columns[name]).alias(role) for role, name in roles.items() if name in columns]
        return RawData(str(file), table.select(wanted), items, first_line=2)

    def _files(self, path: Path) -> tuple[dict[str, Path], Path | None]:
        """Interaction files by part ("" for one with all events), and the item file."""
        found = path
        if path.is_dir():
            whole = [file for pattern in ("*.inter", "*.inter.gz") for file in path.glob(pattern)]
            whole = [file for file in whole if _part(file) is None]
            patterns = ["*.inter"] if not whole else [whole[0].name]
            found = whole[0] if len(whole) == 1 else find_one(path, ["*.test.inter", *patterns], "interactions file")
        elif not path.is_file():
            raise DataError("there is no such file or folder", where=str(path), next="check --path")
        part = _part(found)
        if part is None:
            stem = found.name.partition(".inter")[0]
            return {"": found}, existing(found.with_name(f"{stem}.item"))
        stem = found.name.partition(f".{part}.inter")[0]
        parts = {name: existing(found.with_name(f"{stem}.{name}.inter")) for name in PARTS}
        return {name: file for name, file in parts.items() if file}, existing(found.with_name(f"{stem}.item"))

    def _items(self, path: Path) -> pl.DataFrame:
        columns = _header(path)
        require([self.config.item], list(columns), path)
        table = read_csv(path, [columns[self.config.item]], separator="\t", quote=None)
        names: dict[str, str] = {columns[self.config.item]: Columns.ITEM}
        for name, typed in columns.items():
            new = self.config.item_columns.get(name, name)
            if name != self.config.item:
                names[typed] = new if new not in names.values() else name
        return table.select(pl.col(typed).fill_null("").alias(new) for typed, new in names.items())

    def _benchmark(self, parts: dict[str, Path], items: pl.DataFrame | None) -> RawData:
        tables: list[pl.DataFrame] = []
        for part, file in parts.items():
            columns = _header(file)
            require((self.config.user, HISTORY, self.config.item), list(columns), file)
            table = read_csv(file, [], separator="\t", quote=None)
            history = (
                pl.col(columns[HISTORY]).fill_null("").str.split(" ").list.eval(pl.element().filter(pl.element() != ""))
            )
            tables.append(
                table.select(
                    pl.col(columns[self.config.user]).alias(Columns.USER),
                    history.alias(Columns.HISTORY),
                    pl.col(columns[self.config.item]).alias(Columns.TARGET),
                    pl.lit(part).alias(Columns.PART),
                )
            )
        examples = pl.concat(tables)
        ids = pl.concat([examples[Columns.HISTORY].explode().drop_nulls(), examples[Columns.TARGET]]).unique()
        source = str(next(iter(parts.values())).parent)
        return RawData(source, None, items, examples=examples, item_order=dense_order(ids.to_list()))


def _part(file: Path) -> str | None:
    """`train`, `valid` or `test` for a benchmark file, None for a whole one."""
    return next((part for part in PARTS if f".{part}.inter" in file.name), None)


def _header(path: Path) -> dict[str, str]:
    """Column name → typed name as it stands in the header."""
    with open_text(path) as file:
        line = file.readline().rstrip("\r\n")
    if not line:
        raise DataError("the file is empty", where=str(path), expected="a header such as 'user_id:token'")
    if ":" not in line:
        raise DataError(
            f"the header has no types: {line[:80]!r}",
            where=f"{path}, line 1",
            expected="names such as 'user_id:token', separated by tabs",
            next="use the 'table' reader for other tables",
        )
    return {typed.partition(":")[0]: typed for typed in line.split("\t")}
