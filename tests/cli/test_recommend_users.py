"""`sidrec recommend --input --output`: real recommenders over files of users."""

import json
from pathlib import Path

import polars as pl
import pytest

LISTS = {"u1": ["1", "2", "3"], "u2": [], "u3": ["7"], "u4": ["4", "5"]}


@pytest.fixture
def tiger(trained: Path) -> Path:
    return trained / "recommenders" / "tiger"


@pytest.fixture
def users(tmp_path: Path) -> Path:
    path = tmp_path / "users.parquet"
    pl.DataFrame({"user_id": list(LISTS), "history": list(LISTS.values())}).write_parquet(path)
    return path


def test_a_file_holds_what_the_command_line_shows(sidrec, tiger: Path, users: Path, tmp_path: Path) -> None:
    output = tmp_path / "new" / "folder" / "top.parquet"
    done = sidrec("recommend", tiger, "--input", users, "--output", output, "-k", "4", "--exact", "--part-size", "3")
    assert (done.code, done.out) == (0, ""), done.err
    assert "4 users" in done.err
    assert "certified exact: 100.0 %" in done.err
    table = pl.read_parquet(output)
    assert table["user_id"].to_list() == list(LISTS)
    asked = [word for items in LISTS.values() for word in ("--history", ",".join(items))]
    answers = sidrec("recommend", tiger, *asked, "-k", "4", "--exact", "--json").json
    for row, answer in zip(table.iter_rows(named=True), answers, strict=True):
        assert row["items"] == [item["item"] for item in answer["items"]]
        assert row["scores"] == pytest.approx([item["score"] for item in answer["items"]], abs=1e-4)
        assert row["exact"]


def test_csv_in_the_layout_of_the_original(sidrec, tiger: Path, tmp_path: Path) -> None:
    source, output = tmp_path / "test.csv", tmp_path / "top.csv"
    source.write_text("user_id,history_item_id,history_item_title\n12,\"[1, 2]\",\"['A', 'B']\"\n13,[3],['C']\n")
    ask = ("recommend", tiger, "--input", source, "--output", output, "-k", "2")
    assert sidrec(*ask).code == 0
    lines = output.read_text().splitlines()
    answers = sidrec("recommend", tiger, "--history", "1,2", "--history", "3", "-k", "2", "--json").json
    pairs = [", ".join(item["item"] for item in answer["items"]) for answer in answers]
    assert lines == ["user_id,item_id", f'12,"[{pairs[0]}]"', f'13,"[{pairs[1]}]"']
    assert "up to date" in sidrec(*ask).err


def test_lists_unknown_items_and_json(sidrec, tiger: Path, tmp_path: Path) -> None:
    source, output, allow = tmp_path / "u.jsonl", tmp_path / "top.jsonl", tmp_path / "allow.txt"
    source.write_text('{"who": 1, "what": ["1", "gone"]}\n{"who": 2, "what": ["5"]}\n')
    allow.write_text("1\n5\n7\n")
    ask = ["recommend", tiger, "--input", source, "--output", output, "--allow", allow, "--json"]
    ask += ["--user-column", "who", "--items-column", "what"]
    done = sidrec(*ask)
    assert done.code == 1
    assert "'gone'" in done.err
    assert "u.jsonl, line 1" in done.err
    done = sidrec(*ask, "--on-unknown", "skip")
    assert done.json["summary"] == {
        "users": 2,
        "certified": 1.0,
        "empty_lists": 0,
        "skipped_items": 1,
        "users_with_skipped_items": 1,
    }
    assert "1 unknown items in the histories of 1 users were left out" in done.err
    lines = [json.loads(line) for line in output.read_text().splitlines()]
    assert [line["user_id"] for line in lines] == [1, 2]
    assert [set(line["items"]) for line in lines] == [{"5", "7"}, {"1", "7"}]


def test_force_overwrites(sidrec, tiger: Path, users: Path, tmp_path: Path) -> None:
    ask = ("recommend", tiger, "--input", users, "--output", tmp_path / "top.parquet")
    assert sidrec(*ask, "-k", "2").code == 0
    done = sidrec(*ask, "-k", "3")
    assert done.code == 1
    assert "--force" in done.err
    assert sidrec(*ask, "-k", "3", "--force").code == 0
    assert pl.read_parquet(tmp_path / "top.parquet")["items"].list.len().to_list() == [3] * 4


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["--input", "u.csv"], "--output"),
        (["--history", "1", "--output", "top.csv"], "--input"),
        (["--input", "u.csv", "--output", "t.csv", "--history", "1"], "give one of"),
        (["--input", "u.csv", "--output", "t.csv", "--on-unknown", "guess"], "skip"),
    ],
)
def test_options_that_do_not_go_together(sidrec, words: list[str], hint: str) -> None:
    done = sidrec("recommend", "nowhere", *words)
    assert done.code == 2
    assert hint in done.err
