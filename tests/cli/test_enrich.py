"""500 items through a server that misbehaves, killed in the middle: every item once, none lost, none shifted."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from tests.embeddings.enrich.bad_server import BadServer, chat_key, completion

from sidrec.artifact import create, open_artifact
from sidrec.embeddings.enrich.cache import AnswerCache
from sidrec.embeddings.enrich.facts import ItemFacts
from sidrec.testing.toy import cycle_dataset

NUM_ITEMS, CONCURRENCY, KILL_AFTER = 500, 6, 200
KEY = "sk-never-written-anywhere"
TROUBLE = [
    "status 500",
    "status 503 0",
    "status 429 0.05",
    "truncated",
    "bad-json",
    "wrong-schema",
    "reset",
    "status-date 429 0",
]
HOPELESS = {f"item-{row}" for row in (*range(2, 200, 5), 210, 211, 499)}
"""Forty of them are asked for before the kill: more than may fail in a row."""


def number_of(title: str) -> int:
    return int(title.split()[1])


def mood(title: str, attempt: int) -> str:
    """Every third item meets trouble once or twice, eight are slow, 43 never get an answer."""
    number = number_of(title)
    if f"item-{number}" in HOPELESS:
        return "status 500"
    if number % 61 == 0 and attempt == 1:
        return "slow"
    return TROUBLE[number // 3 % len(TROUBLE)] if number % 3 == 0 and attempt <= 1 + number % 2 else "ok"


def answer(path: str, body: Any) -> Any:
    number = number_of(chat_key(path, body))
    return completion({"year": str(number), "makers": f"Studio {number}"})


def command(run: Path, server: BadServer, *options: str) -> list[str]:
    pace = f"per_second: 5000, concurrency: {CONCURRENCY}, first_wait: 0.01, timeout: 0.8, attempts: 4"
    source = f"{{base_url: {server.address}, model: m, form: {{year: text, makers: list}}, requests: {{{pace}}}}}"
    code = "import sys; from sidrec.cli.main import main; sys.exit(main(sys.argv[1:]))"
    return [sys.executable, "-c", code, "enrich", "--run", str(run), f"sources.chat={source}", *options]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    with create(tmp_path / "run" / "dataset", kind="dataset", config={}) as writer:
        cycle_dataset(num_items=NUM_ITEMS, num_users=4, length=4).save(writer.path)
    return tmp_path / "run"


@pytest.fixture
def server() -> Iterator[BadServer]:
    with BadServer(answer, mood, chat_key) as bad:
        yield bad


def test_kill_9_in_the_middle_loses_nothing_and_shifts_nobody(
    sidrec, run: Path, server: BadServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    server.hold_after = KILL_AFTER
    first = subprocess.Popen(command(run, server), stderr=subprocess.DEVNULL)
    assert server.is_silent.wait(60), "the server never gave 200 answers"
    first.send_signal(signal.SIGKILL)
    assert first.wait(30) == -signal.SIGKILL
    server.released.set()
    assert not (run / "facts" / "facts").exists()
    cache = AnswerCache(run / ".cache" / "answers.sqlite")
    kept, answered = cache.count(), dict(server.answered)
    cache.close()
    assert KILL_AFTER - CONCURRENCY <= kept <= sum(answered.values()) == KILL_AFTER

    (plan,) = sidrec(*command(run, server)[3:], "--dry-run", "--json").json.values()
    assert (plan["requests"], plan["cached"]) == (NUM_ITEMS - kept, kept)
    assert server.answered == answered

    resumed = subprocess.run(command(run, server), capture_output=True, text=True, check=False)
    assert resumed.returncode == 0, resumed.stderr
    assert KEY not in resumed.stdout + resumed.stderr
    facts = ItemFacts.load(run / "facts" / "facts")
    ids = [f"item-{number}" for number in range(NUM_ITEMS)]
    assert list(facts.lines) == ids
    for number, item in enumerate(ids):
        said = facts.answers[item]["chat"]
        if item in HOPELESS:
            assert (said.outcome, facts.lines[item]) == ("failed", "")
            assert said.reason == "status 500: sorry (attempts: 4)"
        else:
            assert facts.lines[item] == f"makers: Studio {number}; year: {number}"
    # An answer under way at the kill may come again; nothing else is asked for twice.
    assert sum(server.answered.values()) == NUM_ITEMS - len(HOPELESS) + KILL_AFTER - kept
    assert max(server.answered.values()) <= 2
    table = pl.read_parquet(run / "facts" / "facts" / "answers.parquet")
    assert table["item_id"].n_unique() == table.height == NUM_ITEMS

    server.mood, before = lambda title, attempt: "ok", sum(server.answered.values())
    assert sidrec(*command(run, server)[3:]).code == 0
    assert sum(server.answered.values()) - before == len(HOPELESS)
    healed = ItemFacts.load(run / "facts" / "facts").lines
    assert all(healed[item] == line for item, line in facts.lines.items() if item not in HOPELESS)
    assert healed["item-77"] == "makers: Studio 77; year: 77"
    assert "up to date" in sidrec(*command(run, server)[3:]).err
    assert all(KEY.encode() not in path.read_bytes() for path in run.rglob("*") if path.is_file())


def test_outcomes_are_a_table_and_failures_have_reasons(sidrec, run: Path, server: BadServer, monkeypatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    server.mood = lambda title, attempt: "echo 500" if number_of(title) in (3, 4) else "ok"
    done = sidrec(*command(run, server)[3:])
    assert done.code == 0, done.err
    assert done.out.split()[-4:] == ["chat", "498", "0", "2"]
    assert "chat: 2 × status 500: what does Bearer [hidden] mean? (attempts: 4)" in done.err
    assert "run the same command again" in done.err
    told = sidrec("inspect", run / "facts" / "facts")
    assert "sources.chat.failed: 2" in told.out
    assert KEY not in done.err + done.out + told.out
    assert open_artifact(run / "facts" / "facts").summary["items"] == NUM_ITEMS


def test_what_is_missing_is_named_before_anything_is_sent(sidrec, run: Path, server: BadServer, monkeypatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("SIDREC_CONTACT", raising=False)
    done = sidrec(*command(run, server)[3:])
    assert (done.code, done.out) == (2, "")
    assert "OPENAI_API_KEY is not set" in done.err
    done = sidrec("enrich", "--run", run, f"sources.wikipedia.site={server.address}")
    assert done.code == 2
    assert "SIDREC_CONTACT is not set" in done.err
    done = sidrec("enrich", "--run", run)
    assert done.code == 2
    assert "sources" in done.err
    assert not server.attempts
    planned = sidrec("enrich", "--run", run, "--dry-run", f"sources.wikipedia.site={server.address}")
    assert planned.code == 0
    # A search for every title, with the limit of five, and at most one summary for each.
    characters = sum(len(title) + 1 for title in cycle_dataset(num_items=NUM_ITEMS).catalog.items["title"])
    assert planned.out.split()[-4:] == ["wikipedia", "1,000", "0", f"{characters:,}"]
    assert not server.attempts
