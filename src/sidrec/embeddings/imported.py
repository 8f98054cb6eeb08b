"""Item vectors from a `.npy` file, matched to the catalogue by id or by an order the caller vouches for.

Nothing is guessed: neither the order of the rows nor whether the first one is padding.
"""

import json
from collections import Counter
from pathlib import Path
from typing import Literal, Self

import numpy as np
import polars as pl
from pydantic import model_validator

from sidrec.artifact import Artifact, file_digest
from sidrec.config import Config, RunSettings
from sidrec.data.catalog import Catalog
from sidrec.data.columns import Columns
from sidrec.embeddings.base import ContentEmbedder, ItemEmbeddings
from sidrec.errors import DataError
from sidrec.types import FloatArray, IntArray, Json

__all__ = ["ImportedVectors"]


class ImportedVectors(ContentEmbedder):
    """Reads vectors that something else made."""

    class Config(Config):
        """Vectors from a .npy file."""

        kind: Literal["import"] = "import"
        path: str
        """A .npy file with a matrix of float16, float32 or float64, one row an item."""
        ids: str = ""
        """Item ids in the order of the rows: .txt (one a line), .json (a list) or .parquet (column item_id)."""
        rows: Literal["", "catalogue order"] = ""
        """Say `catalogue order` if row i belongs to item i of the prepared catalogue; then `ids` is not needed."""
        skip_first_row: bool = False
        """Whether row 0 is padding, as in tables taken from a model's embedding layer."""

        @model_validator(mode="after")
        def _one_order(self) -> Self:
            if bool(self.ids) == bool(self.rows):
                raise ValueError("say how rows belong to items: either ids=FILE or rows='catalogue order'")
            return self

    def sources(self) -> dict[str, str]:
        """Digests of the vector file and of the id file."""
        files = {"vectors": self.config.path, "ids": self.config.ids}
        return {role: file_digest(_existing(path)) for role, path in files.items() if path}

    def embed(self, catalog: Catalog, run: RunSettings) -> ItemEmbeddings:
        """Vectors of all items, in catalogue order.

        Raises:
            DataError: not a float matrix, rows and items do not match, or a value is not finite.
        """
        config: ImportedVectors.Config = self.config
        matrix = _mapped(_existing(config.path))[int(config.skip_first_row) :]
        if config.ids:
            order = self._order(catalog, len(matrix))
            vectors = matrix[order].astype(np.float32)
        else:
            _check_count(len(matrix), len(catalog), config.path, "items in the catalogue", config.skip_first_row)
            vectors = matrix.astype(np.float32)
        return ItemEmbeddings(vectors, f"imported from {Path(config.path).name}", catalog.digest)

    def extend(
        self, new: Catalog, old: Catalog, earlier: Artifact, run: RunSettings, vectors: Path | None = None
    ) -> FloatArray:
        """Vectors float32[M, D] of new items from the file `vectors`, whose rows are in their order.

        Raises:
            DataError: there is no such file, or it is no float matrix of M finite rows.
        """
        if vectors is None:
            raise DataError(
                "the vectors of this run were imported, so those of new items must be imported too",
                where=str(earlier.path),
                next="add --vectors FILE.npy, one row a new item in the order of their table, made by the same model",
            )
        matrix = _mapped(_existing(str(vectors)))
        if len(matrix) != len(new):
            raise DataError(f"{len(matrix)} rows do not match {len(new)} new items", where=str(vectors))
        return matrix.astype(np.float32)

    def facts(self, catalog: Catalog) -> Json:
        """Rows of the file and how many of them belong to no item of the catalogue."""
        rows = len(_mapped(_existing(self.config.path))) - self.config.skip_first_row
        return {"rows": rows, "rows_of_unknown_items": rows - len(catalog)}

    def _order(self, catalog: Catalog, num_rows: int) -> IntArray:
        """For each item of the catalogue its row; rows of other items are left out."""
        where = self.config.ids
        ids = _read_ids(_existing(where))
        _check_count(len(ids), num_rows, where, f"rows in {self.config.path}", self.config.skip_first_row)
        repeated = [item for item, times in Counter(ids).items() if times > 1]
        row_of = {item: row for row, item in enumerate(ids)}
        missing = [item for item in catalog.ids if item not in row_of]
        for problem, items in (("occur more than once", repeated), ("of the catalogue have no vector", missing)):
            if items:
                raise DataError(
                    f"{len(items)} item ids {problem}, the first is '{items[0]}'",
                    where=where,
                    expected=f"each of the {len(catalog)} items once, such as "
                    + ", ".join(f"'{item}'" for item in catalog.ids[:3]),
                )
        return np.asarray([row_of[item] for item in catalog.ids])


def _existing(path: str) -> Path:
    if not Path(path).is_file():
        raise DataError("there is no such file", where=path, next="check the path; it is relative to where you are")
    return Path(path)


def _mapped(path: Path) -> FloatArray:
    """The matrix in a file, mapped into memory and not read yet."""
    try:
        matrix = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise DataError(
            f"not a readable .npy file: {error}",
            where=str(path),
            expected="a matrix saved with numpy.save; pickled objects are refused",
        ) from error
    if not isinstance(matrix, np.ndarray) or matrix.ndim != 2 or not np.issubdtype(matrix.dtype, np.floating):
        found = f"{matrix.dtype} of shape {matrix.shape}" if isinstance(matrix, np.ndarray) else "an archive"
        raise DataError(f"the file holds {found}", where=str(path), expected="a float matrix, one row an item")
    return matrix


def _read_ids(path: Path) -> list[str]:
    try:
        if path.suffix == ".parquet":
            table = pl.read_parquet(path)
            column = table[Columns.ITEM] if Columns.ITEM in table.columns else table.to_series(0)
            return column.cast(pl.String).to_list()
        text = path.read_text(encoding="utf-8")
        if path.suffix != ".json":
            return text.splitlines()
        ids = json.loads(text)
    except (ValueError, pl.exceptions.PolarsError) as error:
        raise DataError(f"the ids cannot be read: {error}", where=str(path)) from error
    if not isinstance(ids, list):
        raise DataError("the ids are not a list", where=str(path), expected='["id of row 0", "id of row 1", …]')
    return [str(item) for item in ids]


def _check_count(found: int, wanted: int, where: str, of_what: str, skipped: bool) -> None:
    if found == wanted:
        return
    first = "; row 0 was skipped" if skipped else "; if row 0 is padding, say skip_first_row=true"
    hint = first if abs(found - wanted) == 1 else ""
    raise DataError(f"{found} rows do not match {wanted} {of_what}{hint}", where=where)
