"""Pairs from files of three formats, and clear words about what is wrong in them."""

import json

import numpy as np
import polars as pl
import pytest

from sidrec.algorithms.pair_file import FilePairs
from sidrec.config import RunSettings
from sidrec.errors import ConfigError, DataError
from sidrec.recommenders.sasrec import SASRec
from sidrec.testing.toy import cycle_dataset

DATASET = cycle_dataset()
"""User 0 has nine events; those at 1 to 6 are training targets, 7 and 8 are held out."""
OF_USER_0 = DATASET.sequences.rows[:9].tolist()


def read(path, dataset=DATASET):
    return FilePairs(path=str(path)).pairs(SASRec(), dataset, RunSettings(device="cpu"))


def write(path, records):
    """The same records in the format that the file's ending says."""
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(record) + "\n" for record in records))
    elif path.suffix == ".parquet":
        pl.DataFrame(records).write_parquet(path)
    else:
        texts = [{name: str(value) for name, value in record.items()} for record in records]
        pl.DataFrame(texts).write_csv(path)
    return path


@pytest.mark.parametrize("ending", [".jsonl", ".parquet", ".csv"])
def test_histories_in_three_formats(tmp_path, ending):
    records = [
        {"history": ["item-3", "item-4"], "chosen": "item-5", "rejected": ["item-9"]},
        {"history": ["item-7"], "chosen": "item-8", "rejected": ["item-1", "item-2"]},
    ]
    pairs = read(write(tmp_path / f"pairs{ending}", records))
    assert pairs.chosen_P.tolist() == [5, 8]
    assert [pairs.histories(np.array([at])).rows.tolist() for at in (0, 1)] == [[3, 4], [7]]
    assert pairs.rejected_PM.tolist() == [[9, -1], [1, 2]]
    assert pairs.items(np.array([1, 0])).tolist() == [[8, 1, 2], [5, 9, -1]]


@pytest.mark.parametrize("ending", [".jsonl", ".parquet", ".csv"])
def test_a_user_has_the_history_before_the_chosen_training_target(tmp_path, ending):
    first, target, other = OF_USER_0[0], OF_USER_0[4], (OF_USER_0[8] + 3) % 24
    records = [{"user_id": "user-0", "chosen": f"item-{target}", "rejected": f"item-{other}"}]
    pairs = read(write(tmp_path / f"pairs{ending}", records))
    assert pairs.chosen_P.tolist() == [target]
    assert pairs.rejected_PM.tolist() == [[other]]
    history = pairs.histories(np.array([0])).rows.tolist()
    assert history == OF_USER_0[:4]
    assert history[0] == first


@pytest.mark.parametrize("place", [0, 7, 8])
def test_held_out_targets_cannot_be_chosen(tmp_path, place):
    records = [{"user_id": "user-0", "chosen": f"item-{OF_USER_0[place]}", "rejected": "item-1"}]
    with pytest.raises(DataError, match=r"is no training target of user 'user-0'[\s\S]*pair 1, column 'user_id'"):
        read(write(tmp_path / "pairs.jsonl", records))


GOOD = {"history": ["item-3"], "chosen": "item-5", "rejected": ["item-9"]}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"chosen": "item-99"}, r"the first is 'item-99'[\s\S]*pair 2, column 'chosen'"),
        ({"history": ["item-3", "nothing"]}, r"the first is 'nothing'[\s\S]*pair 2, column 'history'"),
        ({"rejected": ["item-5"]}, r"'item-5' is chosen and rejected[\s\S]*pair 2"),
        ({"rejected": ["item-7", "item-3", "item-7"]}, r"'item-7' is rejected twice[\s\S]*pair 2, column 'rejected'"),
        ({"rejected": []}, r"the list is empty[\s\S]*pair 2, column 'rejected'"),
        ({"history": []}, r"the list is empty[\s\S]*pair 2, column 'history'"),
        ({"chosen": ""}, r"the cell holds ''[\s\S]*pair 2, column 'chosen'[\s\S]*one item id"),
        ({"chosen": None}, r"the cell holds None[\s\S]*pair 2, column 'chosen'"),
        ({"rejected": None}, r"the cell holds None[\s\S]*pair 2, column 'rejected'"),
        ({"rejected": "[item-3"}, r"not a Python literal[\s\S]*pair 2, column 'rejected'"),
        ({"chosen": ["item-5"]}, r"the cell holds \['item-5'\]"),
    ],
)
def test_bad_lines(tmp_path, change, message):
    path = tmp_path / "pairs.jsonl"
    path.write_text(json.dumps(GOOD) + "\n" + json.dumps({**GOOD, **change}) + "\n")
    with pytest.raises(DataError, match=message):
        read(path)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("pairs.csv", "history,chosen\n['item-1'],item-2\n", "the column 'rejected' is missing"),
        ("pairs.csv", "user,chosen,rejected\nu,item-1,item-2\n", "the column 'history' is missing"),
        ("pairs.csv", "user_id,chosen,rejected\nnobody,item-1,item-2\n", "the dataset has no user 'nobody'"),
        ("pairs.csv", "history,chosen,rejected\n", "holds no pairs"),
        ("pairs.csv", "", "empty"),
        ("pairs.jsonl", '{"history": \n', "not valid JSON"),
        ("pairs.parquet", "no parquet", "cannot be read|damaged"),
        ("pairs.txt", "x", "says nothing of its format"),
    ],
)
def test_bad_files(tmp_path, name, text, message):
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        read(path)


def test_no_file():
    with pytest.raises(ConfigError, match=r"pairs.path: no file of pairs is named"):
        FilePairs().sources()
    with pytest.raises(DataError, match="there is no such file"):
        read("nowhere.csv")
