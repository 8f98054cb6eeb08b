"""Search first, then the summary of the article that is the item; against a server on loopback."""

from pathlib import Path
from typing import Any

import pytest
from tests.embeddings.enrich.bad_server import BadServer, asked_words
from tests.embeddings.enrich.desk import QUICK, desk, questions

from sidrec.embeddings.enrich.answers import Findings
from sidrec.embeddings.enrich.wikipedia import Wikipedia
from sidrec.errors import ConfigError

ARTICLES = {
    "Dirt_3": ("Dirt 3 (video game)", "standard", "Dirt 3 is a rallying game of the year 2011, made by Codemasters."),
    "Dirt_2": ("Dirt 2", "standard", "Dirt 2 is another racing game, made earlier and by the same people."),
    "Mercury": ("Mercury", "disambiguation", "Mercury may be a planet, a metal, a god, or a record label of old."),
    "Hero": ("Hero", "disambiguation", "Hero may be a person, a sandwich, a film of 2002, or any of many games."),
    "HERO": ("HERO", "disambiguation", "HERO may be an acronym, and the acronym may be one of many and many things."),
    "Hero!": ("Hero!", "standard", "Hero! is a game about somebody who is a hero, and has little else to say here."),
    "Short": ("Short", "standard", "A stub."),
    "A/B_&_?": ("A/B & ?", "standard", "An article whose title must be quoted to be found by anybody at all."),
    "Elsewhere": ("Something else entirely", "standard", "This article has nothing to do with what was sought."),
}
FOUND = {
    "Dirt 3": ["Dirt_2", "Dirt_3", "Elsewhere"],
    "Mercury": ["Mercury", "Dirt_2"],
    "Hero": ["Elsewhere", "Hero", "HERO", "Hero!"],
    "Short": ["Short"],
    "A/B & ?": ["A/B_&_?"],
    "Violin Sonata": ["Elsewhere"],
}


def answer(path: str, body: Any) -> Any:
    assert body is None
    words = asked_words(path)
    if path.startswith("/w/rest.php/v1/search/page?"):
        pages = FOUND.get(words.removesuffix(" video game"), [])
        return {"pages": [{"id": 1, "key": key, "title": ARTICLES[key][0], "excerpt": "…"} for key in pages]}
    assert path.startswith("/api/rest_v1/page/summary/")
    title, kind, extract = ARTICLES[words]
    return {"title": title, "type": kind, "extract": extract, "description": f"about {title}"}


def ask(server: BadServer, tmp_path: Path, *titles: str, **settings: Any) -> Findings:
    source = Wikipedia(**{"site": server.address, "requests": QUICK, "hint": "video game"} | settings)
    return source.ask("wikipedia", questions(*titles), desk(tmp_path))


@pytest.fixture(autouse=True)
def contact(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIDREC_CONTACT", "somebody@example.org")


def test_an_article_is_found_by_search_and_its_title(tmp_path: Path) -> None:
    titles = ["Dirt 3 (Xbox)", "Mercury", "Short", "A/B & ?", "Violin Sonata", "Unheard Of", ""]
    with BadServer(answer) as server:
        found = ask(server, tmp_path, *titles).answers
        asked = dict(server.attempts)
    assert [each.outcome for each in found] == ["found", "none", "none", "found", "none", "none", "none"]
    assert found[0].facts == {"about": "about Dirt 3 (video game)", "description": ARTICLES["Dirt_3"][2]}
    assert (found[0].match, found[0].score) == ("Dirt 3 (video game)", 1.0)
    assert found[3].facts["description"] == ARTICLES["A/B_&_?"][2]
    assert [each.reason for each in found if each.reason] == [
        "the article only lists others of that title",
        "the article has no summary",
        "no article of that title",
        "no article of that title",
        "the item has no title",
    ]
    assert sum(asked.values()) == 6 + 4, "six searches, four summaries"
    assert all(header["User-Agent"].startswith("sidrec/") for header in server.headers)
    assert all("(somebody@example.org) httpx2/" in header["User-Agent"] for header in server.headers)
    assert server.most_at_once == 1


def test_after_a_list_of_others_the_next_candidate_is_read(tmp_path: Path) -> None:
    with BadServer(answer) as server:
        found = ask(server, tmp_path, "Hero (PC)", "Dirt 3", "Mercury").answers
        assert [(each.outcome, each.match) for each in found] == [
            ("found", "Hero!"),
            ("found", "Dirt 3 (video game)"),
            ("none", "Mercury"),
        ]
        assert found[0].facts["description"] == ARTICLES["Hero!"][2]
        assert found[2].reason == "the article only lists others of that title"
        assert sum(server.attempts.values()) == 3 + 5, "three searches; Hero needs three summaries"
        server.mood = lambda path, attempt: "status 400" if path.endswith("/HERO") else "ok"
        (failed,) = ask(server, tmp_path / "2", "Hero").answers
        assert (failed.outcome, failed.match, failed.reason) == ("failed", "HERO", "summary: status 400: sorry")


def test_a_bracket_is_no_certain_article_unless_the_hint_says_so(tmp_path: Path) -> None:
    with BadServer(answer) as server:
        assert ask(server, tmp_path, "Dirt 3 (Xbox)").answers[0].score == 1.0
        assert ask(server, tmp_path, "Dirt 3 (Xbox)", hint="").answers[0].reason == "no article of that title"


def test_a_hint_goes_with_the_search_and_long_texts_are_cut(tmp_path: Path) -> None:
    with BadServer(answer) as server:
        assert ask(server, tmp_path, "Dirt", hint="3", longest=50, shortest=10).answers[0].outcome == "none"
        assert "/w/rest.php/v1/search/page?q=Dirt+3&limit=5" in server.attempts
        cut = ask(server, tmp_path, "Dirt 3", longest=50).answers[0].facts["description"]
        assert "/w/rest.php/v1/search/page?q=Dirt+3+video+game&limit=5" in server.attempts
    assert cut == "Dirt 3 is a rallying game of the year 2011, made"


def test_each_failure_stays_with_its_item(tmp_path: Path) -> None:
    def mood(path: str, attempt: int) -> str:
        if "Dirt_3" in path or "q=Short" in path:
            return "status 503"
        return "reset" if attempt == 1 else "ok"

    with BadServer(answer, mood) as server:
        found = ask(server, tmp_path, "Short", "Dirt 3", "A/B & ?").answers
        assert [each.outcome for each in found] == ["failed", "failed", "found"]
        assert [each.reason.partition(":")[0] for each in found] == ["search", "summary", ""]
        assert found[1].match == "Dirt 3 (video game)"
        server.mood = lambda path, attempt: "ok"
        before = sum(server.answered.values())
        again = ask(server, tmp_path, "Short", "Dirt 3", "A/B & ?").answers
        assert [each.outcome for each in again] == ["none", "found", "found"]
        assert sum(server.answered.values()) - before == 3, "a search, its summary, and the summary that failed"


def test_a_dry_run_counts_and_sends_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with BadServer(answer) as server:
        ask(server, tmp_path, "Dirt 3")
        before = sum(server.attempts.values())
        monkeypatch.delenv("SIDREC_CONTACT")
        dry = desk(tmp_path, dry=True)
        source = Wikipedia(site=server.address, requests=QUICK, hint="video game")
        said = source.ask("wikipedia", questions("Dirt 3", "Mercury", "Short"), dry).answers
        assert [each.outcome for each in said] == ["found", "failed", "failed"]
        plan = dry.plans["wikipedia"]
        # Two searches, each with one summary; "Mercury" and "Short" are sent, each with hint and limit.
        assert (plan.requests, plan.cached) == (4, 2)
        assert plan.characters == len("Mercury") + len("Short") + 2 * len(" video game5")
        assert sum(server.attempts.values()) == before


def test_no_contact_address_no_request(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_ADDRESS", "")
    with BadServer(answer) as server:
        with pytest.raises(ConfigError, match="MY_ADDRESS is not set"):
            ask(server, tmp_path, "Dirt 3", contact_variable="MY_ADDRESS")
        assert not server.attempts
    monkeypatch.setenv("MY_ADDRESS", "jos\u00e9@example.org\r\nX: y")
    with BadServer(answer) as server, pytest.raises(ConfigError, match="cannot be sent") as caught:
        ask(server, tmp_path, "Dirt 3", contact_variable="MY_ADDRESS")
    assert "example.org" not in str(caught.value)


def test_the_contact_address_is_in_no_message_and_in_no_file(tmp_path: Path) -> None:
    with BadServer(answer, lambda path, attempt: "say 500") as server:
        server.said = b"x" * 160 + b" blocked: (somebody@example.org)"
        (found,) = ask(server, tmp_path, "Dirt 3").answers
        assert "blocked: ([hidden])" in found.reason
        server.mood, server.said = lambda path, attempt: "say 200", b'{"pages": [], "you": "somebody@example.org"}'
        assert ask(server, tmp_path, "Dirt 3").answers[0].outcome == "none"
    assert all(b"somebody" not in path.read_bytes() for path in tmp_path.rglob("*"))


@pytest.mark.parametrize("site", ["en.wikipedia.org", "ftp://x", "https://me:pw@example.org", "https://x.org?key=1"])
def test_addresses_hold_no_secrets(site: str) -> None:
    with pytest.raises(ConfigError, match="site"):
        Wikipedia(site=site)
