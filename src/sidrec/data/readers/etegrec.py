"""ETEGRec's files: examples as JSON Lines in three parts, and an id map that fixes the rows.

- `X.train.jsonl`, `X.valid.jsonl`, `X.test.jsonl`, one example a line:
  `{"user_id": …, "inter_history": [ids, oldest first], "target_id": …}`.
- `X.emb_map.json` (optional): `{"[PAD]": 0, "id": 1, …}`. Item k has row k-1 here: padding is no item, so a matrix
  with a row for `[PAD]` must lose its first row, and one without fits.

The split is given. Vectors and code tables are read elsewhere.
"""

from pathlib import Path
from typing import Literal

import polars as pl

from sidrec.config import Config
from sidrec.data.columns import Columns
from sidrec.data.dataset import PARTS
from sidrec.data.files import existing, find_one, json_lines, parse_json_object
from sidrec.data.raw import RawData, Reader
from sidrec.errors import DataError

__all__ = ["ETEGRecReader"]

FIELDS = ("user_id", "inter_history", "target_id")


class ETEGRecReader(Reader):
    """Reads the folder with the parts, or one of its `.jsonl` files."""

    prepared = True

    class Config(Config):
        """Settings."""

        kind: Literal["etegrec"] = "etegrec"
        map_file: str = ".emb_map.json"
        """Ending of the id map after the data set's name."""
        padding: str = "[PAD]"
        """The entry of the map that is no item."""

    def sources(self, path: Path) -> list[Path]:
        """The parts and the id map."""
        parts, id_map = self._files(path)
        return [*parts.values(), *([id_map] if id_map else [])]

    def read(self, path: Path) -> RawData:
        """Examples of all parts; the id map gives the order of the items."""
        parts, id_map = self._files(path)
        rows = [
            (*_example(value, file, line), part) for part, file in parts.items() for line, value in json_lines(file)
        ]
        schema = {
            Columns.USER: pl.String,
            Columns.HISTORY: pl.List(pl.String),
            Columns.TARGET: pl.String,
            Columns.PART: pl.String,
        }
        examples = pl.DataFrame(rows, schema=schema, orient="row")
        order = self._order(id_map, examples) if id_map else None
        return RawData(str(next(iter(parts.values())).parent), examples=examples, item_order=order)

    def _files(self, path: Path) -> tuple[dict[str, Path], Path | None]:
        found = find_one(path, ["*.test.jsonl", "*.valid.jsonl", "*.train.jsonl"], "examples file")
        part = next((part for part in PARTS if f".{part}.jsonl" in found.name), None)
        if part is None:
            raise DataError("this is no part", where=str(found), expected="a name like 'X.train.jsonl'")
        stem = found.name.partition(f".{part}.jsonl")[0]
        parts = {name: existing(found.with_name(f"{stem}.{name}.jsonl")) for name in PARTS}
        return {name: file for name, file in parts.items() if file}, existing(
            found.with_name(stem + self.config.map_file)
        )

    def _order(self, path: Path, examples: pl.DataFrame) -> list[str]:
        numbers = {item: number for item, number in parse_json_object(path).items() if item != self.config.padding}
        order = sorted(numbers, key=lambda item: numbers[item] if isinstance(numbers[item], int) else -1)
        if [numbers[item] for item in order] != list(range(1, len(order) + 1)):
            raise DataError(
                "the numbers of the id map have gaps or repeats",
                where=str(path),
                expected=f"1 to {len(order)}, and 0 for '{self.config.padding}'",
            )
        named = pl.concat([examples[Columns.TARGET], examples[Columns.HISTORY].explode().drop_nulls()]).unique()
        unknown = sorted(set(named.to_list()) - set(order))
        if unknown:
            raise DataError(
                f"{len(unknown)} items of the examples are not in the id map, the first is '{unknown[0]}'",
                where=str(path),
                next="check that the files belong together",
            )
        return order


def _example(value: dict[str, object], file: Path, line: int) -> tuple[str, list[str], str]:
    where = f"{file}, line {line}"
    missing = [name for name in FIELDS if name not in value]
    if missing:
        raise DataError(f"the field '{missing[0]}' is missing", where=where, expected=", ".join(FIELDS))
    user, history, target = (value[name] for name in FIELDS)
    if not isinstance(history, list) or not all(isinstance(item, str | int) for item in (user, target, *history)):
        raise DataError("a field has the wrong type", where=where, expected="ids, and 'inter_history' a list of ids")
    return str(user), [str(item) for item in history], str(target)
