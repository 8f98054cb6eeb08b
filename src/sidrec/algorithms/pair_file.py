"""Preference pairs from a file: judgements of people, clicks against impressions, another model's opinion.

One pair a line: who (a user of the dataset, or a history of item ids), the chosen item, the rejected ones.
"""

from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl

from sidrec.algorithms.pairs import Pairs, PairSource
from sidrec.artifact import file_digest
from sidrec.config import Config, RunSettings
from sidrec.data.catalog import Catalog
from sidrec.data.columns import Columns
from sidrec.data.dataset import Dataset
from sidrec.data.files import json_lines, reading, require
from sidrec.data.literals import parse_list
from sidrec.data.sequences import Histories
from sidrec.embeddings.base import ItemEmbeddings
from sidrec.errors import ConfigError, DataError
from sidrec.recommenders.base import Recommender
from sidrec.types import IntArray

__all__ = ["FilePairs"]

CHOSEN, REJECTED = "chosen", "rejected"


class FilePairs(PairSource):
    """Reads pairs from CSV, Parquet or JSON Lines.

    Columns: `chosen` (an item id), `rejected` (an item id or a list of them), and `history` (a list of item ids,
    oldest first) or `user_id`. With a user, `chosen` must be one of the user's training targets, and the history
    is what came before it. A history is taken as it stands: that it holds no test data is the file's business.
    """

    class Config(Config):
        """Where the pairs stand."""

        kind: Literal["file"] = "file"
        path: str = ""
        """CSV, Parquet or JSON Lines; in CSV a list is written as `['a', 'b']`."""

    def sources(self) -> dict[str, str]:
        """The file's digest."""
        return {"pairs": file_digest(self._path())}

    def pairs(
        self, recommender: Recommender, dataset: Dataset, run: RunSettings, embeddings: ItemEmbeddings | None = None
    ) -> Pairs:
        """The pairs of the file, in its order.

        Raises:
            DataError: a column is missing, an item or user is not known, or a line makes no pair.
            ConfigError: no path was given.
        """
        del recommender, run, embeddings
        path = self._path()
        table, catalog = _table(path), dataset.catalog
        require([CHOSEN, REJECTED], list(table), path)
        if not {Columns.HISTORY, Columns.USER} & set(table):
            require([Columns.HISTORY], list(table), path)
        chosen = [_one(value, _where(path, line, CHOSEN)) for line, value in enumerate(table[CHOSEN])]
        chosen_P = np.array([_rows(catalog, [item], path, line, CHOSEN)[0] for line, item in enumerate(chosen)])
        rejected = [_rows(catalog, value, path, line, REJECTED) for line, value in enumerate(table[REJECTED])]
        for line, (row, others) in enumerate(zip(chosen_P, rejected, strict=True)):
            if row in others:
                raise DataError(f"'{chosen[line]}' is chosen and rejected", where=_where(path, line, REJECTED))
            found, counts = np.unique(others, return_counts=True)
            if len(found) < len(others):
                twice = catalog.ids[found[counts > 1][0]]
                raise DataError(
                    f"'{twice}' is rejected twice", where=_where(path, line, REJECTED), expected="each once"
                )
        if Columns.HISTORY in table:
            histories = [
                _rows(catalog, value, path, line, Columns.HISTORY) for line, value in enumerate(table[Columns.HISTORY])
            ]
        else:
            histories = _before_targets(dataset, table[Columns.USER], chosen_P, path)
        whole = Histories.of([[*history, row] for history, row in zip(histories, chosen_P, strict=True)])
        return Pairs(whole.rows, whole.offsets[:-1], whole.lengths - 1, Histories.of(rejected).padded(-1))

    def _path(self) -> Path:
        if not self.config.path:
            raise ConfigError("pairs.path: no file of pairs is named", next="add algorithm.pairs.path=FILE")
        path = Path(self.config.path)
        if not path.is_file():
            raise DataError("there is no such file", where=str(path), expected="the pairs", next="check pairs.path")
        return path


def _table(path: Path) -> dict[str, list[Any]]:
    """Columns of a file of any of the three formats; lists of a CSV are still text."""
    ending = Path(path.name.removesuffix(".gz")).suffix.lower()
    with reading(path):
        if ending in (".jsonl", ".ndjson"):
            lines = [entry for _, entry in json_lines(path)]
            names = dict.fromkeys(name for entry in lines for name in entry)
            table = {name: [entry.get(name) for entry in lines] for name in names}
        elif ending == ".parquet":
            table = pl.read_parquet(path).to_dict(as_series=False)
        elif ending == ".csv":
            table = pl.read_csv(path, infer_schema=False).to_dict(as_series=False)
        else:
            raise DataError(
                f"'{path.name}' has an ending that says nothing of its format",
                where=str(path),
                expected=".csv, .parquet or .jsonl",
                next="rename the file",
            )
    if not any(table.values()):
        raise DataError("the file holds no pairs", where=str(path), expected="one pair a line")
    return table


def _where(path: Path, line: int, column: str) -> str:
    """Where a cell stands, for messages; pairs count from 1, without a header."""
    return f"{path}, pair {line + 1}, column '{column}'"


def _one(value: Any, where: str) -> str:
    if value is None or isinstance(value, list) or str(value) == "":
        raise DataError(f"the cell holds {value!r}", where=where, expected="one item id")
    return str(value)


def _rows(catalog: Catalog, value: Any, path: Path, line: int, column: str) -> IntArray:
    """Item rows of a cell: one item id, a list of them, or such a list as text."""
    where = _where(path, line, column)
    if isinstance(value, str) and not catalog.knows(value) and value.lstrip().startswith("["):
        value = parse_list(value, where)
    items = value if isinstance(value, list) else [_one(value, where)]
    if not items:
        raise DataError("the list is empty", where=where, expected="at least one item id")
    return catalog.rows([_one(item, where) for item in items], where)


def _before_targets(dataset: Dataset, users: list[Any], chosen_P: IntArray, path: Path) -> list[IntArray]:
    """The history before each chosen item, which is a training target of its user; the last of several."""
    sequences, train = dataset.sequences, dataset.split.train
    targets = sequences.targets(train.users, train.cuts)
    place: dict[tuple[str, int], int] = {}
    for number, (line, row) in enumerate(zip(train.users.tolist(), targets.tolist(), strict=True)):
        place[sequences.users[line], row] = number
    known = set(sequences.users)
    found: list[int] = []
    for line, (value, row) in enumerate(zip(users, chosen_P.tolist(), strict=True)):
        where = _where(path, line, Columns.USER)
        user = _one(value, where)
        if user not in known:
            raise DataError(f"the dataset has no user '{user}'", where=where, next="check the file")
        if (user, row) not in place:
            raise DataError(
                f"'{dataset.catalog.ids[row]}' is no training target of user '{user}'",
                where=where,
                expected="an item of the user's history that is not held out for validation or test, nor the first one",
                next="choose another item, or give the history itself in a column 'history'",
            )
        found.append(place[user, row])
    numbers = np.asarray(found)
    return list(map(np.asarray, _lists(sequences.before(train.users[numbers], train.cuts[numbers]))))


def _lists(histories: Histories) -> list[IntArray]:
    return [histories[number] for number in range(len(histories))]
