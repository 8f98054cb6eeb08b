"""Bad input: one clear `DataError` each, that says what, where, what was expected or what to do next."""

import gzip
import json

import pytest

from sidrec.config import RunSettings
from sidrec.data.preparation import PrepareConfig, build_dataset
from sidrec.data.readers.amazon import AmazonReader
from sidrec.data.readers.etegrec import ETEGRecReader
from sidrec.data.readers.letter import LetterReader
from sidrec.data.readers.list_csv import ListCsvReader
from sidrec.data.readers.minionerec import MiniOneRecReader
from sidrec.data.readers.movielens import MovieLensReader
from sidrec.data.readers.recbole import RecBoleReader
from sidrec.data.readers.table import TableReader
from sidrec.errors import DataError


def failure(reader, path, files):
    """The error of preparing a folder with these files."""
    for name, content in files.items():
        file = path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
    config = PrepareConfig(reader=reader.config, user_core=0, item_core=0)

    def prepare():
        reader.sources(path)
        build_dataset(reader.read(path), config, RunSettings())

    with pytest.raises(DataError) as error:
        prepare()
    assert error.value.where
    assert error.value.expected or error.value.next
    return str(error.value)


def check(text, *parts):
    for part in parts:
        assert part in text, text


RECBOLE = "user_id:token\titem_id:token\ttimestamp:float\n"
TABLE = TableReader(time="timestamp")
TIMED = "user_id,item_id,timestamp\n"
GOOD = {"X.inter.json": json.dumps({"0": [0, 1]})}


def halved(text):
    data = gzip.compress(text.encode())
    return data[: len(data) // 2]


LONG = "".join(f"u{n},i{n * 7919 % 1000},{n}\n" for n in range(3000))
SCRAMBLED = [n * 7919 % 1000 for n in range(3000)]
HALF_JSON = halved(json.dumps({str(n): [item] for n, item in enumerate(SCRAMBLED)}))
HALF_LINES = halved(
    "\n".join(json.dumps({"user_id": n, "target_id": item, "inter_history": [n]}) for n, item in enumerate(SCRAMBLED))
)
HALF_REVIEWS = halved(
    "\n".join(
        json.dumps({"user_id": f"u{n}", "parent_asin": f"i{i}", "rating": 1, "timestamp": n})
        for n, i in enumerate(SCRAMBLED)
    )
)
EXAMPLE = '{"user_id": 1, "target_id": "b", "inter_history": ["a"]}\n'

CASES = {
    "missing column": (
        TABLE,
        {"x.csv": "user_id,item,timestamp\nu,i,1\n"},
        ["'item_id' is missing", "did you mean 'item'"],
    ),
    "missing column, recbole": (
        RecBoleReader(),
        {"x.inter": "user:token\titem_id:token\nu\ti\n"},
        ["'user_id' is missing", "x.inter"],
    ),
    "missing column, movielens": (
        MovieLensReader(),
        {"ratings.csv": "userId,movieId,timestamp\n1,2,3\n"},
        ["'rating' is missing"],
    ),
    "missing column, list-csv": (
        ListCsvReader(),
        {"x.csv": "user_id,titles\nu,[]\n"},
        ["'history_item_id' is missing"],
    ),
    "missing field, etegrec": (
        ETEGRecReader(),
        {"x.test.jsonl": '{"user_id": "u", "target_id": "i"}\n'},
        ["'inter_history' is missing", "line 1"],
    ),
    "wrong type of time": (
        TABLE,
        {"x.csv": TIMED + "u,i,1\nu,j,today\n"},
        ["'today' is not a number", "line 3, column 'timestamp'"],
    ),
    "wrong type of time, recbole": (
        RecBoleReader(),
        {"x.inter": RECBOLE + "u\ti\tx\n"},
        ["'x' is not a number", "line 2"],
    ),
    "wrong type of time, amazon": (
        AmazonReader(),
        {"X.json": '{"reviewerID": "u", "asin": "a", "overall": 5.0, "unixReviewTime": "x"}\n'},
        ["'x' is not a number", "line 1, column 'timestamp'"],
    ),
    "nothing but missing values": (TABLE, {"x.csv": TIMED + "u,,1\n"}, ["every row lacks its user, item or time"]),
    "wrong type of history": (
        LetterReader(),
        {"X.inter.json": '{"0": [1], "1": 5}'},
        ["user '1' is not a list", "X.inter.json"],
    ),
    "wrong type of item": (LetterReader(), {"X.inter.json": '{"0": [1.5]}'}, ["user '0' is not a list of item ids"]),
    "wrong type of list": (
        ListCsvReader(),
        {"x.csv": 'user_id,history_item_id\nu,"open(1)"\n'},
        ["not a Python literal", "row 1, column 'history_item_id'"],
    ),
    "list that is none": (
        ListCsvReader(),
        {"x.csv": "user_id,history_item_id\nu,5\n"},
        ["the cell holds '5'", "row 1"],
    ),
    "titles do not fit": (
        ListCsvReader(),
        {"x.csv": 'user_id,history_item_id,history_item_title\nu,"[1, 2]","[\'a\']"\n'},
        ["2 items and 1 titles", "row 1"],
    ),
    "unknown item in index": (
        LetterReader(),
        GOOD | {"X.index.json": '{"0": ["<a_1>"], "1": ["<a_2>"], "9": ["<a_3>"]}'},
        ["1 items are in the index, but in neither", "'9'", "index_mismatch: drop"],
    ),
    "item without index": (
        LetterReader(),
        GOOD | {"X.index.json": '{"0": ["<a_1>"]}'},
        ["1 items are in the interactions, but not in the index", "'1'"],
    ),
    "bad token": (
        LetterReader(),
        GOOD | {"X.index.json": '{"0": ["<a_1>"], "1": ["a-b"]}'},
        ["malformed token 'a-b'", "item '1', level 1", "<a_0>"],
    ),
    "ragged index": (
        LetterReader(),
        GOOD | {"X.index.json": '{"0": ["<a_1>"], "1": ["<a_1>", "<b_1>"]}'},
        ["an item has 2 tokens", "item '1'", "1, as item '0' has"],
    ),
    "no such index": (
        LetterReader(index_file=".index_x.json"),
        GOOD | {"X.index.json": "{}"},
        ["no index file '.index_x.json'", "X.index.json"],
    ),
    "duplicate ids, json": (LetterReader(), {"X.inter.json": '{"0": [1], "0": [2]}'}, ["key '0' occurs twice"]),
    "duplicate ids, items": (
        TableReader(items="items.tsv"),
        {"x.csv": "user_id,item_id\nu,a\n", "items.tsv": "item_id\ttitle\na\tA\na\tB\n"},
        ["item id 'a' occurs 2 times", "item table"],
    ),
    "duplicate ids, users": (
        ListCsvReader(),
        {"x.csv": "user_id,history_item_id\nu,[1]\nv,[1]\nu,[2]\n"},
        ["user 'u' has several rows", "rows 1, 3"],
    ),
    "empty csv": (TABLE, {"x.csv": ""}, ["the file is empty", "x.csv"]),
    "header only": (TABLE, {"x.csv": TIMED}, ["there are no interactions", "x.csv"]),
    "empty json": (LetterReader(), {"X.inter.json": ""}, ["the file is empty"]),
    "empty object": (LetterReader(), {"X.inter.json": "{}"}, ["holds no entries"]),
    "empty histories": (LetterReader(), {"X.inter.json": '{"0": []}'}, ["there are no interactions"]),
    "empty recbole": (RecBoleReader(), {"x.inter": ""}, ["the file is empty"]),
    "empty amazon": (AmazonReader(), {"X.jsonl": ""}, ["the file is empty"]),
    "empty etegrec": (ETEGRecReader(), {"x.test.jsonl": ""}, ["the file is empty"]),
    "empty movielens": (MovieLensReader(), {"u.data": ""}, ["the file is empty"]),
    "truncated gzip, csv": (TABLE, {"x.csv.gz": halved(TIMED + LONG)}, ["ends too early", "x.csv.gz"]),
    "truncated gzip, json": (LetterReader(), {"X.inter.json.gz": HALF_JSON}, ["ends too early", "X.inter.json.gz"]),
    "truncated gzip, jsonl": (ETEGRecReader(), {"x.test.jsonl.gz": HALF_LINES}, ["ends too early"]),
    "truncated gzip, reviews": (
        AmazonReader(),
        {"X.jsonl.gz": HALF_REVIEWS},
        ["ends too early", "X.jsonl.gz"],
    ),
    "not gzip": (LetterReader(), {"X.inter.json.gz": "{}"}, ["ends too early or is damaged", "Not a gzipped file"]),
    "broken json": (LetterReader(), {"X.inter.json": '{"0": [1,\n 2'}, ["not valid JSON", "line 2, column"]),
    "broken json line": (
        ETEGRecReader(),
        {"x.test.jsonl": '{"user_id": 1, "target_id": 2, "inter_history": [1]}\n{\n'},
        ["not valid JSON", "line 2"],
    ),
    "broken json line, table": (
        TableReader(),
        {"x.jsonl": '{"user_id": 1, "item_id": 2}\n{oops\n'},
        ["not valid JSON", "line 2"],
    ),
    "json list": (LetterReader(), {"X.inter.json": "[1]"}, ["the file holds a list", "one JSON object"]),
    "no types": (RecBoleReader(), {"x.inter": "user_id\titem_id\nu\ti\n"}, ["the header has no types", "line 1"]),
    "not utf-8": (LetterReader(), {"X.inter.json": b'{"\xff": [1]}'}, ["not UTF-8"]),
    "several files": (
        LetterReader(),
        {"X.inter.json": "{}", "Y.inter.json": "{}"},
        ["2 files could be", "X.inter.json, Y.inter.json"],
    ),
    "wrong metadata setting": (
        AmazonReader(metadata="m.json"),
        {"X.csv": "a,u,5,1\n"},
        ["there is no such file\n", "m.json", "the metadata file", "check reader.metadata"],
    ),
    "wrong items setting": (
        TableReader(items="items"),
        {"x.csv": "user_id,item_id\nu,a\n", "items/a.csv": "item_id,title\na,A\n"},
        ["there is no item table", "a file, not a folder", "check reader.items", "a.csv"],
    ),
    "no files": (LetterReader(), {"readme.md": ""}, ["there is no interactions file", "*.inter.json", "readme.md"]),
    "no parts": (MiniOneRecReader(), {"train/readme": ""}, ["there are no examples", "train/*.csv"]),
    "four columns": (AmazonReader(), {"X.csv": "a,b,c\n"}, ["3 columns", "line 1"]),
    "bad record": (
        AmazonReader(metadata="m.json"),
        {"X.csv": "a,u,5,1\n", "m.json": "{'asin': 'a'}\n{'asin': exit()}\n"},
        ["the line is no record", "line 2"],
    ),
    "map with gaps": (
        ETEGRecReader(),
        {"x.test.jsonl": EXAMPLE, "x.emb_map.json": '{"[PAD]": 0, "a": 1, "b": 3}'},
        ["gaps or repeats", "1 to 2"],
    ),
    "item not in map": (
        ETEGRecReader(),
        {"x.test.jsonl": EXAMPLE, "x.emb_map.json": '{"[PAD]": 0, "a": 1}'},
        ["not in the id map", "'b'"],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_bad_input(name, tmp_path):
    reader, files, parts = CASES[name]
    check(failure(reader, tmp_path, files), *parts)


@pytest.mark.parametrize("reader", [LetterReader(), RecBoleReader(), TableReader(), AmazonReader(), MiniOneRecReader()])
def test_missing_path(reader, tmp_path):
    with pytest.raises(DataError, match="there is no such"):
        reader.sources(tmp_path / "nowhere")
