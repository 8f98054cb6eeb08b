"""Whatever the server does, each request ends with its own answer or with a reason."""

import json
import sys
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.embeddings.enrich.bad_server import BadServer

from sidrec.config import RunSettings
from sidrec.embeddings.enrich.cache import AnswerCache
from sidrec.embeddings.enrich.client import Client, Headers, Request, WrongReplyError
from sidrec.embeddings.enrich.pace import Pace, RequestConfig, StoppedError
from sidrec.errors import DataError, MissingExtraError

QUICK = {"per_second": 1000, "first_wait": 0.01, "timeout": 0.3, "attempts": 4}
KEY = "sk-secret/0123456789"


def path_of(path: str, body: Any) -> Any:
    return {"you_asked": path}


def read(payload: Any) -> str:
    if "you_asked" not in payload:
        raise WrongReplyError("you_asked is missing")
    return payload["you_asked"]


def client(tmp_path: Path, dry: bool = False, **settings: Any) -> Client:
    config = RequestConfig(**(QUICK | settings))
    headers = Headers({"Authorization": f"Bearer {KEY}"}, (KEY,))
    return Client("test", config, lambda: headers, AnswerCache(tmp_path / "answers.sqlite"), RunSettings(), dry)


def requests(server: BadServer, count: int) -> list[Request]:
    return [Request(f"{server.address}/{number}") for number in range(count)]


MOODS = [
    "status 500",
    "status 503",
    "status 429 0",
    "status 429 soon",
    "slow",
    "dribble",
    "dribble-headers",
    "truncated",
    "bad-json",
    "wrong-schema",
    "reset",
    "echo 502",
]


@pytest.mark.parametrize("mood", MOODS)
def test_trouble_that_passes_costs_an_attempt_and_nothing_else(tmp_path: Path, mood: str) -> None:
    with BadServer(path_of, lambda key, attempt: mood if attempt < 3 and key != "/1" else "ok") as server:
        replies = client(tmp_path).send(requests(server, 3), read)
        assert [reply.value for reply in replies] == ["/0", "/1", "/2"]
        assert [server.attempts[f"/{number}"] for number in range(3)] == [3, 1, 3]
        assert all(not reply.problem for reply in replies)


REASONS = {
    "status 500": "status 500: sorry",
    "slow": "no whole answer within 0.3 s",
    "dribble": "no whole answer within 0.3 s",
    "dribble-headers": "no whole answer within 0.3 s",
    "truncated": "closed connection without sending complete message body",
    "bad-json": "the answer is not JSON",
    "wrong-schema": "you_asked is missing",
    "reset": "ReadError",
    "echo 500": "status 500: what does Bearer [hidden] mean?",
}


@pytest.mark.parametrize("mood", REASONS)
def test_trouble_that_stays_is_a_reason_and_shifts_nobody(tmp_path: Path, mood: str) -> None:
    with BadServer(path_of, lambda key, attempt: mood if key == "/1" else "ok") as server:
        replies = client(tmp_path, attempts=2).send(requests(server, 3), read)
        assert [reply.value for reply in replies] == ["/0", None, "/2"]
        assert REASONS[mood] in replies[1].problem
        assert "attempts: 2" in replies[1].problem
        assert server.attempts["/1"] == 2
        assert KEY not in replies[1].problem


def test_a_refused_request_is_not_repeated(tmp_path: Path) -> None:
    with BadServer(path_of, lambda key, attempt: "status 404" if key == "/0" else "ok") as server:
        replies = client(tmp_path).send(requests(server, 2), read)
        assert (replies[0].problem, replies[1].value) == ("status 404: sorry", "/1")
        assert server.attempts["/0"] == 1


def test_a_refused_key_ends_the_run_and_is_not_told(tmp_path: Path) -> None:
    with BadServer(path_of, lambda key, attempt: "echo 401") as server:
        with pytest.raises(DataError, match="refuses to answer: status 401") as caught:
            client(tmp_path, concurrency=1).send(requests(server, 50), read)
        assert KEY not in str(caught.value)
        assert sum(server.attempts.values()) < 5


def test_a_server_that_is_gone_ends_the_run(tmp_path: Path) -> None:
    with BadServer(path_of) as server:
        pass
    start = time.monotonic()
    with pytest.raises(DataError, match="6 requests in a row failed that had not failed before"):
        client(tmp_path, attempts=2, give_up_after=6).send(requests(server, 500), read)
    assert time.monotonic() - start < 5


def test_failures_that_are_not_in_a_row_end_nothing(tmp_path: Path) -> None:
    with BadServer(path_of, lambda key, attempt: "status 500" if int(key[1:]) % 3 else "ok") as server:
        replies = client(tmp_path, concurrency=1, give_up_after=3).send(requests(server, 12), read)
        assert sum(1 for reply in replies if reply.problem) == 8


@pytest.mark.parametrize("mood", ["status 400", "status 404", "wrong-schema", "bad-json", "status 409"])
def test_a_server_that_answers_is_not_gone_whatever_it_says(tmp_path: Path, mood: str) -> None:
    with BadServer(path_of, lambda key, attempt: "ok" if key == "/8" else mood) as server:
        replies = client(tmp_path, attempts=2, give_up_after=2).send(requests(server, 9), read)
        assert [reply.value for reply in replies] == [None] * 8 + ["/8"]


@pytest.mark.parametrize("mood", ["status 429", "status 500", "status 520", "slow", "reset", "truncated"])
def test_a_server_that_serves_nobody_is_gone(tmp_path: Path, mood: str) -> None:
    with BadServer(path_of, lambda key, attempt: mood) as server:
        with pytest.raises(DataError, match="2 requests in a row failed"):
            client(tmp_path, attempts=1, concurrency=1, give_up_after=2).send(requests(server, 9), read)
        assert sum(server.attempts.values()) < 9


def test_what_failed_before_comes_last_and_does_not_count(tmp_path: Path) -> None:
    settings = {"attempts": 1, "concurrency": 1, "give_up_after": 3}
    with BadServer(path_of, lambda key, attempt: "status 500" if int(key[1:]) < 5 else "ok") as server:
        with pytest.raises(DataError, match="3 requests in a row failed"):
            client(tmp_path, **settings).send(requests(server, 12), read)
        server.order.clear()
        replies = client(tmp_path, **settings).send(requests(server, 12), read)
        assert [number for number, reply in enumerate(replies) if reply.problem] == [0, 1, 2, 3, 4]
        first_failed = server.order.index("/0")
        assert first_failed >= 12 - 5, "all that never failed was asked for before"
        assert sorted(server.order[first_failed:]) <= ["/0", "/1", "/2", "/3", "/4"]
        again = client(tmp_path, **settings)
        assert [reply.value for reply in again.send(requests(server, 12), read)][5:] == [f"/{n}" for n in range(5, 12)]
        server.mood = lambda key, attempt: "ok"
        assert all(reply.value for reply in client(tmp_path, **settings).send(requests(server, 12), read))
    cache = AnswerCache(tmp_path / "answers.sqlite")
    assert [cache.failure(request.digest) for request in requests(server, 12)] == [None] * 12


def test_what_is_sent_goes_nowhere_else(tmp_path: Path) -> None:
    def mood(key: str, attempt: int) -> str:
        return "ok" if key == "/new" else "moved"

    with BadServer(path_of, mood) as server:
        got, posted = client(tmp_path).send(
            [Request(f"{server.address}/a"), Request(f"{server.address}/b", body={})], read
        )
        assert got.value == "/new"
        assert posted.problem.startswith("status 307")
        assert server.attempts["/new"] == 1


def test_answers_are_asked_once_whoever_asks(tmp_path: Path) -> None:
    with BadServer(path_of, lambda key, attempt: "status 500" if key == "/2" and attempt <= 4 else "ok") as server:
        first = client(tmp_path).send([*requests(server, 4), *requests(server, 2)], read)
        assert [reply.value for reply in first] == ["/0", "/1", None, "/3", "/0", "/1"]
        assert sum(server.answered.values()) == 3
        dry = client(tmp_path, dry=True)
        assert [reply.value for reply in dry.send(requests(server, 5), read)] == ["/0", "/1", None, "/3", None]
        assert (dry.plan.requests, dry.plan.cached) == (2, 3)
        again = client(tmp_path)
        assert [reply.value for reply in again.send(requests(server, 4), read)] == ["/0", "/1", "/2", "/3"]
        assert (again.plan.requests, again.plan.cached) == (1, 3)
        assert sorted(server.answered.values()) == [1, 1, 1, 1]


def test_an_answer_on_disk_that_no_longer_fits_is_asked_for_again(tmp_path: Path) -> None:
    with BadServer(path_of) as server:
        client(tmp_path).send(requests(server, 1), lambda payload: payload)
        AnswerCache(tmp_path / "answers.sqlite").put(requests(server, 1)[0].digest, "test", {"json": {"old": 1}})
        assert client(tmp_path).send(requests(server, 1), read)[0].value == "/0"
        assert server.answered["/0"] == 2


def test_requests_differ_by_all_that_is_sent() -> None:
    all_of_them = [
        Request("http://a/"),
        Request("http://b/"),
        Request("http://a/", {"q": "x"}),
        Request("http://a/", body={}),
        Request("http://a/", body={"q": "x"}),
    ]
    assert len({request.digest for request in all_of_them}) == 5
    assert [request.characters for request in all_of_them] == [0, 0, 1, 2, 10]


@pytest.mark.parametrize(("mood", "least", "most"), [("status 429 0.5", 0.5, 3), ("status-date 503 2", 1.0, 4)])
def test_retry_after_pauses_all_threads(tmp_path: Path, mood: str, least: float, most: float) -> None:
    with BadServer(path_of, lambda key, attempt: mood if attempt == 1 and key == "/0" else "ok") as server:
        # One at a time, so that the others are still waiting when the first is put off.
        replies = client(tmp_path, concurrency=1).send(requests(server, 4), read)
        assert [reply.value for reply in replies] == ["/0", "/1", "/2", "/3"]
        assert least <= server.times[1] - server.times[0] < most


def test_a_server_that_wants_to_be_left_alone_is(tmp_path: Path) -> None:
    with BadServer(path_of, lambda key, attempt: "status 429 3600") as server:
        with pytest.raises(DataError, match="left alone for 3600 s"):
            client(tmp_path, concurrency=1).send(requests(server, 9), read)
        assert sum(server.attempts.values()) == 1


def test_rate_and_concurrency_are_kept(tmp_path: Path) -> None:
    with BadServer(path_of, lambda key, attempt: "ok") as server:
        client(tmp_path, per_second=50, concurrency=2, timeout=5).send(requests(server, 20), read)
        assert server.times[-1] - server.times[0] >= 19 / 50 - 0.02
        assert server.most_at_once <= 2
    with BadServer(path_of, lambda key, attempt: "slow") as server:
        client(tmp_path, concurrency=3, timeout=5).send(requests(server, 6), read)
        assert server.most_at_once == 3


def test_the_key_is_in_no_file(tmp_path: Path) -> None:
    with BadServer(lambda path, body: {"you_asked": f"{path} {KEY}"}) as server:
        replies = client(tmp_path).send(requests(server, 2), read)
        assert server.headers[0]["Authorization"] == f"Bearer {KEY}"
        assert replies[0].value == "/0 [hidden]"
    assert all(KEY.encode() not in path.read_bytes() for path in tmp_path.rglob("*"))


def echoes(key: str) -> list[bytes]:
    """Ways to repeat a key in a message."""
    escaped = "".join(f"\\u{ord(letter):04x}" for letter in key)
    return [
        json.dumps({"error": {"message": "x" * 190 + key}}).encode(),
        ("x" * 190 + key).encode(),
        json.dumps({"error": {"message": "who is " + key}}).replace("/", r"\/").encode(),
        b'{"error": {"message": "who is ' + escaped.encode() + b'"}}',
        json.dumps({"error": {"message": "upstream: " + json.dumps({"key": key}).replace("/", r"\/")}}).encode(),
        json.dumps({"error": {key: [key]}}).encode(),
        (json.dumps({"error": key}).replace("/", r"\/") + " and what is no JSON").encode(),
    ]


@pytest.mark.parametrize("number", range(7))
def test_no_part_of_a_repeated_key_is_in_a_message(tmp_path: Path, number: int) -> None:
    said = echoes(KEY)[number]
    with BadServer(path_of, lambda key, attempt: "say 500") as server:
        server.said = said
        (reply,) = client(tmp_path, attempts=1).send(requests(server, 1), read)
        server.mood = lambda key, attempt: "say 403"
        with pytest.raises(DataError, match="refuses to answer") as caught:
            client(tmp_path).send(requests(server, 1), read)
    for message in (reply.problem, str(caught.value)):
        assert "secret" not in message
        assert "[hidden]" in message
    assert all(b"secret" not in path.read_bytes() for path in tmp_path.rglob("*"))


def test_a_key_that_an_answer_escapes_is_hidden_too(tmp_path: Path) -> None:
    with BadServer(path_of, lambda key, attempt: "say 200") as server:
        server.said = echoes(KEY)[3]
        (reply,) = client(tmp_path).send(requests(server, 1), lambda payload: payload)
        assert reply.value == {"error": {"message": "who is [hidden]"}}


def test_answers_nested_beyond_reason_are_no_json(tmp_path: Path) -> None:
    with BadServer(path_of, lambda key, attempt: "say 200" if key == "/0" else "say 500") as server:
        server.said = b"[" * 100_000
        nested, refused = client(tmp_path, attempts=1).send(requests(server, 2), read)
    assert nested.problem.startswith("the answer is not JSON")
    assert refused.problem.startswith("status 500: [[[")


@contextmanager
def impatient(task: str, total: float | None) -> Generator[Any]:
    """A display at whose first step Ctrl-C is pressed."""

    def advance(steps: float = 1, note: str = "") -> None:
        raise KeyboardInterrupt

    yield advance


def test_ctrl_c_ends_all_waiting_and_keeps_what_was_answered(tmp_path: Path) -> None:
    with BadServer(path_of, lambda key, attempt: "ok" if key == "/0" else "status 500") as server:
        start, config = time.monotonic(), RequestConfig(**(QUICK | {"concurrency": 2, "first_wait": 60}))
        cache = AnswerCache(tmp_path / "answers.sqlite")
        with pytest.raises(KeyboardInterrupt):
            Client("test", config, Headers, cache, RunSettings(progress=impatient)).send(requests(server, 4), read)
        assert time.monotonic() - start < 10
        assert cache.get(requests(server, 1)[0].digest) == {"json": {"you_asked": "/0"}}


@pytest.mark.parametrize("mood", ["dribble", "dribble-headers"])
def test_an_answer_takes_no_longer_than_it_may(tmp_path: Path, mood: str) -> None:
    with BadServer(path_of, lambda key, attempt: mood) as server:
        start = time.monotonic()
        (reply,) = client(tmp_path, attempts=1, timeout=0.2).send(requests(server, 1), read)
        assert reply.problem == "no whole answer within 0.2 s (attempts: 1)"
        assert 0.2 <= time.monotonic() - start < 1.5, "all bytes of the answer take two seconds"


def test_ctrl_c_waits_for_no_answer(tmp_path: Path) -> None:
    with BadServer(path_of) as server:
        server.hold_after = 1
        config = RequestConfig(**(QUICK | {"concurrency": 3, "timeout": 8}))
        cache, start = AnswerCache(tmp_path / "answers.sqlite"), time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            Client("test", config, Headers, cache, RunSettings(progress=impatient)).send(requests(server, 9), read)
        assert time.monotonic() - start < 3
        assert cache.count() == 1
        assert not [thread for thread in threading.enumerate() if thread.name == "exchange"], "no thread is left behind"


def test_a_stopped_pace_lets_nobody_wait() -> None:
    pace = Pace(per_second=0.001)
    pace.wait()
    threading.Timer(0.05, pace.stop).start()
    with pytest.raises(StoppedError):
        pace.wait()
    with pytest.raises(StoppedError):
        pace.sleep(60)


def test_a_missing_package_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "httpx2", None)
    with pytest.raises(MissingExtraError, match=r"sidrec\[enrich\]"):
        client(tmp_path).send([Request("http://127.0.0.1:1/")], read)


def test_a_file_that_is_no_cache_is_named(tmp_path: Path) -> None:
    (tmp_path / "answers.sqlite").write_text("something else, and long enough to look like a file of a database" * 20)
    with pytest.raises(DataError, match=r"answers\.sqlite"):
        AnswerCache(tmp_path / "answers.sqlite")
