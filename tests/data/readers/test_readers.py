"""Readers: one small file set a format, written by hand, and what comes out of it."""

import gzip
import json

import polars as pl
import pytest

from sidrec.config import RunSettings
from sidrec.data.dataset import PARTS
from sidrec.data.interactions import collect
from sidrec.data.preparation import PrepareConfig, build_dataset
from sidrec.data.readers.amazon import AmazonReader
from sidrec.data.readers.etegrec import ETEGRecReader
from sidrec.data.readers.letter import LetterReader
from sidrec.data.readers.list_csv import ListCsvReader
from sidrec.data.readers.minionerec import MiniOneRecReader
from sidrec.data.readers.movielens import MovieLensReader
from sidrec.data.readers.recbole import RecBoleReader
from sidrec.data.readers.table import TableReader


def write(path, text, *, encoding="utf-8"):
    path.parent.mkdir(parents=True, exist_ok=True)
    data = text.encode(encoding)
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def events(raw):
    """Rows (user, item[, time[, rating]]) in file order."""
    data, _ = collect(raw)
    columns = [data.user_ids.gather(data.users).to_list(), data.item_ids.gather(data.items).to_list()]
    columns += [column.tolist() for column in (data.times, data.ratings) if column is not None]
    return list(zip(*columns, strict=True))


def dataset(reader, path, **settings):
    config = PrepareConfig(reader=reader.config, **settings)
    return build_dataset(reader.read(path), config, RunSettings())[0]


@pytest.fixture
def triple(tmp_path):
    # Item 2 comes first in the interactions, but rows follow the ids.
    write(tmp_path / "X.inter.json", json.dumps({"0": [2, 0, 1], "1": [1, 2, 0]}))
    write(
        tmp_path / "X.item.json.gz",
        json.dumps({"0": {"title": "A", "categories": ["p", "q"]}, "1": {}, "2": {"title": None}}),
    )
    write(
        tmp_path / "X.index.json",
        json.dumps({"1": ["<a_1>", "<b_7>"], "0": ["<a_0>", "<b_5>"], "2": ["<a_2>", "<b_9>"]}),
    )
    write(tmp_path / "X.index_upper.json", json.dumps({str(n): [f"<A_{n}>", "<B_3>"] for n in range(3)}))
    return tmp_path


def test_letter_rows_are_ids(triple):
    data = dataset(LetterReader(), triple)
    assert data.catalog.ids == ["0", "1", "2"]
    assert data.sequences.rows.tolist() == [2, 0, 1, 1, 2, 0]
    assert data.given_codes is not None
    assert data.given_codes.tolist() == [[0, 5], [1, 7], [2, 9]]
    assert data.catalog.items["categories"].to_list() == ["p, q", "", ""]
    assert data.catalog.items["title"].to_list() == ["A", "", ""]
    assert [len(data.examples(part)) for part in PARTS] == [0, 2, 2]


@pytest.mark.parametrize("name", [".index_upper.json", "X.index_upper.json"])
def test_letter_other_index(triple, name):
    reader = LetterReader(index_file=name)
    data = dataset(reader, triple / "X.inter.json")
    assert data.given_codes is not None
    assert data.given_codes.tolist() == [[0, 3], [1, 3], [2, 3]]
    assert [file.name for file in reader.sources(triple)] == ["X.inter.json", "X.item.json.gz", "X.index_upper.json"]
    assert dataset(LetterReader(index_file="none"), triple).given_codes is None


def test_letter_mismatch_can_be_dropped(triple):
    write(triple / "X.index.json", json.dumps({"0": ["<a_1>"], "1": ["<a_2>"], "77": ["<a_3>"]}))
    (triple / "X.item.json.gz").unlink()
    data = dataset(LetterReader(index_mismatch="drop"), triple)
    assert data.sequences.rows.tolist() == [0, 1, 1, 0]
    # Item 2 stays in the numbering of the format only if it has codes; without them it is gone.
    assert data.catalog.ids == ["0", "1"]


def test_recbole_atomic(tmp_path):
    head = "user_id:token\titem_id:token\trating:float\ttimestamp:float\n"
    write(tmp_path / "X.inter.gz", head + "u\tb\t4\t20.0\nu\ta\t5\t10.0\nv\ta\t1\t5.0\n")
    write(tmp_path / "X.item", 'item_id:token\tmovie_title:token_seq\tclass:token_seq\na\tThe "A"\tDrama War\nc\t\t\n')
    raw = RecBoleReader().read(tmp_path)
    assert events(raw) == [("u", "b", 20, 4.0), ("u", "a", 10, 5.0), ("v", "a", 5, 1.0)]
    data = dataset(RecBoleReader(), tmp_path, user_core=0, item_core=0)
    # The item table gives the order, then items it does not know; unseen "c" is not kept.
    assert data.catalog.ids == ["a", "b"]
    assert data.catalog.items["title"].to_list() == ['The "A"', ""]
    assert data.sequences.rows.tolist() == [0, 1, 0]


def test_recbole_benchmark_files_are_a_given_split(tmp_path):
    head = "user_id:token\titem_id_list:token_seq\titem_id:token\n"
    write(tmp_path / "X.train.inter", head + "0\t0 1\t2\n0\t0\t1\n")
    write(tmp_path / "X.valid.inter", head + "0\t0 1 2\t3\n")
    write(tmp_path / "X.test.inter.gz", head + "0\t0 1 2 3\t4\n")
    data = dataset(RecBoleReader(), tmp_path)
    assert data.sequences.rows.tolist() == [0, 1, 2, 3, 4]
    assert data.split.name == "given"
    assert [data.targets(part).tolist() for part in PARTS] == [[1, 2], [3], [4]]


def test_movielens_layouts(tmp_path):
    expected = [("1", "10", 7, 5.0), ("2", "11", 8, 3.0)]
    write(tmp_path / "old/u.data", "1\t10\t5\t7\n2\t11\t3\t8\n")
    flags = "|".join("1" if n in (1, 5) else "0" for n in range(19))
    write(tmp_path / "old/u.item", f"10|Café (1995)|01-Jan-1995||http://x|{flags}\n", encoding="latin-1")
    write(tmp_path / "million/ratings.dat", "1::10::5::7\n2::11::3::8\n")
    write(tmp_path / "million/movies.dat", "10::Two: A::Crime|War\n", encoding="latin-1")
    write(tmp_path / "new/ratings.csv.gz", "userId,movieId,rating,timestamp\n1,10,5.0,7\n2,11,3.0,8\n")
    write(tmp_path / "new/movies.csv", 'movieId,title,genres\n10,"One, The",Crime|War\n')
    found = {name: MovieLensReader().read(tmp_path / name) for name in ("old", "million", "new")}
    assert all(events(raw) == expected for raw in found.values())
    items = {name: raw.items.row(0) for name, raw in found.items() if raw.items is not None}
    assert items["old"] == ("10", "Café (1995)", "Action, Comedy")
    assert items["million"] == ("10", "Two: A", "Crime, War")
    assert items["new"] == ("10", "One, The", "Crime, War")


OLD = {"reviewerID": "u", "asin": "a", "overall": 5.0, "unixReviewTime": 9, "reviewText": "x", "helpful": [1, 2]}
META_2014 = """{'asin': 'a', 'title': "It's", 'categories': [['P', 'Q']], 'price': 1.5, 'related': {'also': ['b']}}\n"""


def test_amazon_2014(tmp_path):
    write(tmp_path / "reviews_X_5.json.gz", json.dumps(OLD) + "\n")
    write(tmp_path / "meta_X.json.gz", META_2014)
    raw = AmazonReader().read(tmp_path)
    assert events(raw) == [("u", "a", 9, 5.0)]
    assert raw.items is not None
    assert raw.items.row(0) == ("a", "It's", "", "", "P, Q")


def test_amazon_2014_python_records_and_ratings(tmp_path):
    file = write(tmp_path / "reviews_X.json", repr(OLD) + "\n" + repr(OLD | {"asin": "b"}) + "\n")
    assert events(AmazonReader().read(file)) == [("u", "a", 9, 5.0), ("u", "b", 9, 5.0)]
    file = write(tmp_path / "ratings_X.csv", "u,a,5.0,9\n")
    assert events(AmazonReader().read(file)) == [("u", "a", 9, 5.0)]


def test_amazon_2018(tmp_path):
    file = write(tmp_path / "X.csv", "a,u,5.0,9\n")
    meta = {"asin": "a", "title": "T", "description": ["one", "two"], "category": ["P"], "brand": "B"}
    write(tmp_path / "meta_X.json.gz", json.dumps(meta) + "\n" + json.dumps(meta | {"title": "again"}) + "\n")
    raw = AmazonReader().read(file)
    assert events(raw) == [("u", "a", 9, 5.0)]
    assert raw.items is not None
    assert raw.items.rows() == [("a", "T", "one two", "B", "P")]
    file = write(tmp_path / "Y.json.gz", json.dumps(OLD) + "\n")
    assert events(AmazonReader(metadata="none").read(file)) == [("u", "a", 9, 5.0)]
    assert events(AmazonReader(csv_order="user-item").read(write(tmp_path / "Z.csv", "u,a,5.0,9\n"))) == [
        ("u", "a", 9, 5.0)
    ]


def test_amazon_2023(tmp_path):
    review = {"user_id": "u", "parent_asin": "a", "asin": "v", "rating": 4.0, "timestamp": 1588687728923, "images": []}
    file = write(tmp_path / "X.jsonl.gz", json.dumps(review) + "\n")
    write(
        tmp_path / "meta_X.jsonl.gz",
        json.dumps({"parent_asin": "a", "title": "T", "store": "S", "description": []}) + "\n",
    )
    raw = AmazonReader().read(tmp_path)
    assert events(raw) == [("u", "a", 1588687728923, 4.0)]
    assert raw.items is not None
    assert raw.items.row(0) == ("a", "T", "", "S", "")
    assert [path.name for path in AmazonReader().sources(file)] == ["X.jsonl.gz", "meta_X.jsonl.gz"]
    file = write(tmp_path / "Y.csv", "user_id,parent_asin,rating,timestamp,history\nu,a,4.0,1588687728923,\n")
    assert events(AmazonReader().read(file)) == [("u", "a", 1588687728923, 4.0)]


@pytest.mark.parametrize("ending", ["csv", "csv.gz", "tsv", "parquet", "jsonl", "jsonl.gz"])
def test_table_formats(tmp_path, ending):
    table = pl.DataFrame({"who": ["u", "v"], "what": [3, 1], "when": [5, 4], "stars": [1.5, 2.0], "more": ["", "x"]})
    file = tmp_path / f"log.{ending}"
    if ending == "parquet":
        table.write_parquet(file)
    elif "json" in ending:
        write(file, table.write_ndjson())
    else:
        write(file, table.write_csv(separator="\t" if ending == "tsv" else ","))
    reader = TableReader(user="who", item="what", time="when", rating="stars")
    assert events(reader.read(file)) == [("u", "3", 5, 1.5), ("v", "1", 4, 2.0)]


def test_table_with_items(tmp_path):
    file = write(tmp_path / "log.csv", "user_id,item_id\nu,b\nu,a\n")
    write(tmp_path / "things.tsv", "sku\tname\tprice\na\tAlpha\t3\nb\t\t4\nz\tZ\t5\n")
    reader = TableReader(items="things.tsv", items_id="sku", item_columns={"name": "title"})
    data = dataset(reader, file, user_core=0, item_core=0, keep_unseen_items=True)
    assert data.catalog.items.rows() == [("a", "Alpha"), ("b", ""), ("z", "Z")]
    assert data.sequences.rows.tolist() == [1, 0]
    # Without an item table rows follow the users' reading order.
    assert dataset(TableReader(), file, user_core=0, item_core=0).catalog.ids == ["b", "a"]


def test_list_csv(tmp_path):
    rows = "user_id,history_item_id,history_item_title,item_id\n"
    rows += """u,"[3, 5]","['A, b', ""It's""]",7\nv,[5],[''],3\nw,[],[],5\n"""
    file = write(tmp_path / "x.csv", rows)
    raw = ListCsvReader(target="item_id").read(file)
    assert events(raw) == [("u", "3"), ("u", "5"), ("u", "7"), ("v", "5"), ("v", "3"), ("w", "5")]
    assert raw.items is not None
    assert raw.items.rows() == [("3", "A, b"), ("5", "It's"), ("7", "")]
    assert events(ListCsvReader().read(file)) == [("u", "3"), ("u", "5"), ("v", "5")]


@pytest.fixture
def minionerec(tmp_path):
    head = "user_id,history_item_title,item_title,history_item_id,item_id,history_item_sid,item_sid\n"
    write(tmp_path / "valid/X_5.csv", head + "u,\"['t']\",t,[2],0,['<a_1>'],<a_0>\n")
    write(tmp_path / "test/X_5.csv", head + 'u,"[]",t,"[2, 0]",1,[],<a_0>\n')
    write(tmp_path / "index/X.index.json", json.dumps({str(n): [f"<a_{n}>", "<b_1>"] for n in range(4)}))
    entry = {"title": "T", "description": "['one', 'two']", "categories": ""}
    write(tmp_path / "index/X.item.json", json.dumps({str(n): entry for n in range(4)}))
    write(tmp_path / "info/X_5.txt", "<a_0><b_1>\tT\t0\n")
    return tmp_path


def test_minionerec(minionerec):
    data = dataset(MiniOneRecReader(), minionerec)
    assert data.catalog.ids == ["0", "1", "2", "3"]  # Item 3 is unseen: rows of a prepared format do not move.
    assert data.sequences.rows.tolist() == [2, 0, 1]
    assert [data.targets(part).tolist() for part in PARTS] == [[], [0], [1]]
    assert data.catalog.items["description"][0] == "one two"
    assert data.given_codes is not None
    assert data.given_codes[3].tolist() == [3, 1]
    assert len(MiniOneRecReader(category="X").sources(minionerec)) == 5


def test_minionerec_without_index(minionerec):
    (minionerec / "index/X.index.json").unlink()
    (minionerec / "index/X.item.json").unlink()
    write(minionerec / "info/X_5.txt", "".join(f"<a_{n}><b_7>\tTitle {n}\t{n}\n" for n in range(4)))
    data = dataset(MiniOneRecReader(), minionerec)
    assert data.catalog.titles_of([3]) == ["Title 3"]
    assert data.given_codes is not None
    assert data.given_codes.tolist() == [[n, 7] for n in range(4)]


def test_etegrec_map_gives_the_rows(tmp_path):
    for part, history, target in (("train", ["a"], "b"), ("valid", ["a", "b"], "c"), ("test", ["a", "b", "c"], "d")):
        line = json.dumps({"user_id": "u", "inter_history": history, "target_id": target})
        write(tmp_path / f"X.{part}.jsonl", line + "\n")
    write(tmp_path / "X.emb_map.json", json.dumps({"[PAD]": 0, "d": 1, "c": 2, "b": 3, "a": 4, "unseen": 5}))
    data = dataset(ETEGRecReader(), tmp_path)
    assert data.catalog.ids == ["d", "c", "b", "a", "unseen"]
    assert data.sequences.rows.tolist() == [3, 2, 1, 0]
    assert [data.targets(part).tolist() for part in PARTS] == [[2], [1], [0]]
