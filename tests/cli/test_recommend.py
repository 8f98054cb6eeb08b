"""Recommendations on the command line and for files of users."""

import gzip
import json
import os
import threading
from pathlib import Path

import pytest


@pytest.fixture
def tiger(trained: Path) -> Path:
    return trained / "recommenders" / "tiger"


def test_a_table_with_titles_and_semantic_ids(sidrec, tiger: Path) -> None:
    done = sidrec("recommend", tiger, "--history", "1,2,3", "-k", "4")
    assert done.code == 0
    assert "Part " in done.out
    assert "<a_" in done.out
    assert done.err == ""


def test_json_holds_k_unseen_items_in_falling_order(sidrec, tiger: Path) -> None:
    (answer,) = sidrec("recommend", tiger, "--history", "1,2,3", "-k", "4", "--exact", "--json").json
    assert answer["history"] == ["1", "2", "3"]
    assert answer["exact"] is True
    items = [item["item"] for item in answer["items"]]
    scores = [item["score"] for item in answer["items"]]
    assert len(set(items)) == 4
    assert not set(items) & {"1", "2", "3"}
    assert scores == sorted(scores, reverse=True)


def test_allow_seen_and_all_items(sidrec, tiger: Path) -> None:
    (answer,) = sidrec("recommend", tiger, "--history", "1,2,3", "-k", "12", "--allow-seen", "--json").json
    assert {item["item"] for item in answer["items"]} == {str(k) for k in range(12)}
    (answer,) = sidrec("recommend", tiger, "--history", "1,2,3", "-k", "12", "--json").json
    assert {item["item"] for item in answer["items"]} == {str(k) for k in range(12)} - {"1", "2", "3"}


def test_several_users_and_the_empty_history(sidrec, tiger: Path) -> None:
    answers = sidrec("recommend", tiger, "--history", "1,2", "--history", "", "-k", "2", "--json").json
    assert [len(answer["items"]) for answer in answers] == [2, 2]


def test_files_of_users_answer_line_by_line_like_the_command_line(sidrec, tiger: Path, tmp_path: Path) -> None:
    source = tmp_path / "users.jsonl"
    source.write_text('{"user": "u1", "history": ["1", "2", "3"]}\n{"user": "u2", "history": []}\n')
    done = sidrec("recommend", tiger, "--histories", source, "-k", "3")
    lines = [json.loads(line) for line in done.out.splitlines()]
    assert [line["user"] for line in lines] == ["u1", "u2"]
    (single,) = sidrec("recommend", tiger, "--history", "1,2,3", "-k", "3", "--json").json
    assert [item["item"] for item in lines[0]["items"]] == [item["item"] for item in single["items"]]
    assert "2 users" in done.err


def test_files_may_be_zipped_and_end_in_blank_lines(sidrec, tiger: Path, tmp_path: Path) -> None:
    content = '{"history": ["1", "2"]}\n\n{"history": ["3"]}\n\n'
    plain, zipped = tmp_path / "users.jsonl", tmp_path / "users.jsonl.gz"
    plain.write_text(content)
    zipped.write_bytes(gzip.compress(content.encode()))
    done = sidrec("recommend", tiger, "--histories", plain, "-k", "3")
    assert done.code == 0, done.err
    assert len(done.out.splitlines()) == 2
    assert sidrec("recommend", tiger, "--histories", zipped, "-k", "3").out == done.out


def test_a_pipe_is_read_once(sidrec, tiger: Path, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_text, args=('{"history": ["1"]}\n',), daemon=True)
    writer.start()
    done = sidrec("recommend", tiger, "--histories", pipe, "-k", "2")
    writer.join(timeout=5)
    assert len(json.loads(done.out)["items"]) == 2


@pytest.mark.parametrize("narrow", [True, False])
def test_the_certificate_is_shown(sidrec, tiger: Path, narrow: bool) -> None:
    done = sidrec("recommend", tiger, "--history", "1,2,3", "-k", "2", *([] if narrow else ["--exact"]))
    (answer,) = sidrec(
        "recommend", tiger, "--history", "1,2,3", "-k", "2", "--json", *([] if narrow else ["--exact"])
    ).json
    assert ("certified: the true top" in done.out) is answer["exact"]
    assert answer["exact"] or narrow


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('{"history": ["1"]}\nnot json\n', ["line 2", "not valid JSON"]),
        ('{"items": ["1"]}\n', ["line 1", "history"]),
        ('{"history": ["1"]}\n{"history": ["1", "nope"]}\n', ["line 2", "'nope'", "catalogue"]),
        ('{"history": [1]}\n', ["line 1", "list of item ids"]),
    ],
)
def test_wrong_lines_are_named(sidrec, tiger: Path, tmp_path: Path, content: str, words: list[str]) -> None:
    source = tmp_path / "users.jsonl"
    source.write_text(content)
    done = sidrec("recommend", tiger, "--histories", source)
    assert done.code == 1
    assert done.out == "", "nothing is answered for a batch with a mistake"
    for word in words:
        assert word in done.err


def items_of(answer: dict) -> set[str]:
    return {item["item"] for item in answer["items"]}


def test_lists_of_items_that_may_or_must_not_come(sidrec, tiger: Path, tmp_path: Path) -> None:
    allow, deny = tmp_path / "allow.txt", tmp_path / "deny.txt.gz"
    allow.write_text("1\n 5\n\n7\r\n9")
    deny.write_bytes(gzip.compress(b"9\n0\n"))
    ask = ("recommend", tiger, "--history", "1,2,3", "-k", "12", "--json")
    everything = {str(k) for k in range(12)} - {"1", "2", "3"}
    assert items_of(sidrec(*ask, "--allow", allow).json[0]) == {"5", "7", "9"}
    assert items_of(sidrec(*ask, "--deny", deny).json[0]) == everything - {"0", "9"}
    assert items_of(sidrec(*ask, "--allow", allow, "--deny", deny, "--allow-seen").json[0]) == {"1", "5", "7"}
    deny.write_bytes(gzip.compress(b""))
    assert items_of(sidrec(*ask, "--deny", deny).json[0]) == everything
    users = tmp_path / "users.jsonl"
    users.write_text('{"history": ["1"]}\n{"history": ["5"]}\n')
    done = sidrec("recommend", tiger, "--histories", users, "--allow", allow)
    assert [items_of(json.loads(line)) for line in done.out.splitlines()] == [{"5", "7", "9"}, {"1", "7", "9"}]


@pytest.mark.parametrize(
    ("allow", "deny", "words"),
    [
        ("1\n2\n\nnope\nnor this\n", "", ["2 item ids", "'nope'", "allow.txt, line 4"]),
        ("1\n", "x 1\n", ["'x 1'", "deny.txt, line 1"]),
        ("", "", ["the allow-list holds no item"]),
        ("1\n5\n", "5\n1\n", ["leave no item"]),
    ],
)
def test_lists_that_cannot_be_are_refused(sidrec, tiger: Path, tmp_path: Path, allow, deny, words) -> None:
    for name, content in (("allow.txt", allow), ("deny.txt", deny)):
        (tmp_path / name).write_text(content)
    done = sidrec(
        "recommend", tiger, "--history", "1,2", "--allow", tmp_path / "allow.txt", "--deny", tmp_path / "deny.txt"
    )
    assert done.code == 1
    for word in words:
        assert word in done.err.replace("\n", " ")


def test_unknown_items_are_named(sidrec, tiger: Path) -> None:
    done = sidrec("recommend", tiger, "--history", "1,nope")
    assert done.code == 1
    assert "'nope'" in done.err
    assert "expected: ids such as" in done.err
    assert "Traceback" not in done.err


def test_a_short_list_says_why(trained: Path, sidrec, tmp_path: Path) -> None:
    tiger = trained / "recommenders" / "tiger"
    allowed = tmp_path / "two.txt"
    allowed.write_text("1\n2\n", encoding="utf-8")
    done = sidrec("recommend", tiger, "--history", "1", "--allow", allowed, "-k", "3")
    assert done.code == 0
    assert "user 1 gets 1 of 3 items" in " ".join(done.err.split())
