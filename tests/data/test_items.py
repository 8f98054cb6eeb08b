"""Item tables of every format hold the same texts."""

import gzip
import json
from pathlib import Path

import polars as pl
import pytest

from sidrec.data.items import read_item_table
from sidrec.errors import DataError

ITEMS = pl.DataFrame({"item_id": ["007", "8"], "title": ["red, large", ""], "year": ["1994", "1995"]})


def write(path: Path) -> Path:
    """The items in the format of the ending."""
    lines = [{"item_id": "007", "title": ["red", "large"], "year": 1994}, {"item_id": 8, "title": None, "year": 1995}]
    ending = path.name.partition(".")[2]
    if ending == "csv.gz":
        path.write_bytes(gzip.compress(ITEMS.write_csv().encode()))
    elif ending in ("csv", "tsv"):
        ITEMS.write_csv(path, separator="," if ending == "csv" else "\t")
    elif ending == "parquet":
        ITEMS.with_columns(pl.col("title").str.split(", "), pl.col("year").cast(pl.Int64)).write_parquet(path)
    elif ending == "jsonl":
        path.write_text("\n".join(json.dumps(line) for line in lines))
    else:
        path.write_text(json.dumps({str(line["item_id"]): line for line in lines}))
    return path


@pytest.mark.parametrize("ending", ["csv", "csv.gz", "tsv", "parquet", "jsonl", "json"])
def test_every_format(tmp_path: Path, ending: str) -> None:
    found = read_item_table(write(tmp_path / f"items.{ending}"))
    assert found.equals(ITEMS), found


def test_other_endings_and_broken_files(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="ending that says nothing"):
        read_item_table(tmp_path / "items.xlsx")
    with pytest.raises(DataError, match="no such file"):
        read_item_table(tmp_path / "items.csv")
    (tmp_path / "items.jsonl").write_text('{"item_id": "a"}\n{"item_id": \n')
    with pytest.raises(DataError, match="not valid JSON"):
        read_item_table(tmp_path / "items.jsonl")
    (tmp_path / "items.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataError, match="cannot be read"):
        read_item_table(tmp_path / "items.parquet")
