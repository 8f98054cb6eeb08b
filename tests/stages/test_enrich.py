"""Facts artefacts: what all sources said, kept by item id, made again only as far as something is missing."""

import json
from pathlib import Path
from typing import Any

import pytest
from tests.embeddings.enrich.bad_server import BadServer, asked_words, chat_key, completion

from sidrec.artifact import create, open_artifact
from sidrec.config import RunSettings, parse
from sidrec.embeddings.enrich.config import EnrichConfig
from sidrec.embeddings.enrich.facts import ItemFacts
from sidrec.errors import ConfigError
from sidrec.stages.embed import embed
from sidrec.stages.enrich import enrich, enrich_plan
from sidrec.stages.layout import RunFolder
from sidrec.stages.recipe import part_config
from sidrec.testing.toy import cycle_dataset

RUN = RunSettings()
QUICK = {"per_second": 1000, "first_wait": 0.01, "timeout": 2, "attempts": 2}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunFolder:
    """A run with six items called "Part 0 of the cycle, colour red", …; and everything a source wants."""
    monkeypatch.setenv("SIDREC_CONTACT", "somebody@example.org")
    run = RunFolder(tmp_path / "run")
    with create(run.dataset, kind="dataset", config={}) as writer:
        cycle_dataset(num_items=6, num_users=6, length=4).save(writer.path)
    games = {str(part): {"name": f"part {part} OF the cycle", "genres": ["Ring"]} for part in (0, 2)}
    (tmp_path / "games.json").write_text(json.dumps(games))
    return run


def answer(path: str, body: Any) -> Any:
    """An encyclopaedia that knows parts 1 and 2, and a model that knows all."""
    if body is not None:
        number = chat_key(path, body).split()[1]
        about = f"chat {number}" if "about (wikipedia)" in body["messages"][1]["content"] else "alone"
        return completion({"year": f"200{number}", "genres": "ring", "about": about})
    words = asked_words(path)
    number = words.split("_" if "summary" in path else None)[1]
    if "summary" in path:
        return {"title": words, "extract": f"This is what is known about part {number} of that cycle. " * 2}
    known = number in ("1", "2")
    return {"pages": [{"key": f"Part_{number}", "title": f"Part {number} of the Cycle"}] if known else []}


def config(server: BadServer, tmp_path: Path, **settings: Any) -> EnrichConfig:
    chat = {"base_url": server.address, "model": "m", "key_variable": "", "requests": QUICK}
    chat["form"] = {"year": "text", "genres": "list", "about": "text"}
    chat["context"] = ["description"]
    return parse(
        EnrichConfig,
        {
            "sources": {
                "steam": {"path": str(tmp_path / "games.json"), "implies": {}},
                "wikipedia": {"site": server.address, "requests": QUICK},
                "model": {"kind": "chat", **chat},
            },
            "match": {"cut": [",.*$"], "embedder": "tfidf", "threshold": 1},
            **settings,
        },
    )


def outcomes(facts: ItemFacts) -> dict[str, str]:
    return {item: "".join(own[name].outcome[:2] for name in own) for item, own in facts.answers.items()}


def test_sources_are_asked_in_order_and_merged_by_id(folder: RunFolder, tmp_path: Path) -> None:
    with BadServer(answer) as server:
        result = enrich(folder, config(server, tmp_path), RUN)
        assert [body["messages"][1]["content"].count("description (wikipedia)") for body in server.bodies if body]
        facts = ItemFacts.load(result.artifact.path)
        assert outcomes(facts) == {
            "item-0": "fonofo",
            "item-1": "nofofo",
            "item-2": "fofofo",
            "item-3": "nonofo",
            "item-4": "nonofo",
            "item-5": "nonofo",
        }
        assert facts.lines["item-0"] == "about: alone; genres: Ring; year: 2000"
        assert facts.facts["item-1"]["genres"] == ["ring"]
        assert facts.facts["item-1"]["description"].startswith("This is what is known about part 1")
        assert list(facts.answers["item-1"]) == ["steam", "wikipedia", "model"]
        summary = result.artifact.summary
        assert (summary["items"], summary["items_with_facts"], summary["failed"]) == (6, 6, 0)
        assert summary["sources"]["wikipedia"]["found"] == 2
        assert summary["sources"]["model"]["requests"] == 6
        asked = sum(server.attempts.values())
        assert enrich(folder, config(server, tmp_path), RUN).skipped
        other = enrich(folder, config(server, tmp_path, line=["year"]), RUN, name="other")
        assert sum(server.attempts.values()) == asked, "other settings, the same answers"
        assert ItemFacts.load(other.artifact.path).lines["item-3"] == "year: 2003"
    assert list(parse_order(result.artifact.config)) == ["steam", "wikipedia", "model"]
    assert not (folder.path / ".scratch" / "enrich-facts").exists()


def parse_order(settings: Any) -> list[str]:
    return settings["order"]


def test_the_order_of_sources_is_part_of_the_request(folder: RunFolder, tmp_path: Path) -> None:
    with BadServer(answer) as server:
        first = config(server, tmp_path)
        turned = first.model_copy(update={"sources": dict(reversed(first.sources.items()))})
        one, two = enrich(folder, first, RUN), enrich(folder, turned, RUN, name="turned")
    assert one.artifact.fingerprint != two.artifact.fingerprint
    assert ItemFacts.load(two.artifact.path).facts["item-0"]["genres"] == ["ring"]


def test_failed_items_are_recorded_and_asked_again(folder: RunFolder, tmp_path: Path) -> None:
    with BadServer(answer, lambda path, attempt: "status 500" if "Part+4" in path else "ok") as server:
        broken = enrich(folder, config(server, tmp_path), RUN)
        facts = ItemFacts.load(broken.artifact.path)
        assert outcomes(facts)["item-4"] == "nofafo"
        assert facts.answers["item-4"]["wikipedia"].reason == "search: status 500: sorry (attempts: 2)"
        assert facts.lines["item-4"] == "about: alone; genres: ring; year: 2004", "of the others, and of nobody else"
        assert broken.artifact.summary["sources"]["wikipedia"]["reasons"] == [
            "1 × search: status 500: sorry (attempts: 2)"
        ]
        server.mood, asked = lambda path, attempt: "ok", sum(server.attempts.values())
        whole = enrich(folder, config(server, tmp_path), RUN)
        assert not whole.skipped
        assert sum(server.attempts.values()) == asked + 1
        assert outcomes(ItemFacts.load(whole.artifact.path))["item-4"] == "nonofo"
        assert enrich(folder, config(server, tmp_path), RUN).skipped


def test_a_plan_counts_what_is_missing_and_sends_nothing(
    folder: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SIDREC_CONTACT")
    with BadServer(answer) as server:
        settings = config(server, tmp_path)
        plans = enrich_plan(folder, settings, RUN)
        assert {name: (plan.requests, plan.cached) for name, plan in plans.items()} == {
            "wikipedia": (12, 0),
            "model": (6, 0),
        }
        assert not server.attempts
        assert not (folder.path / ".cache").exists()
        monkeypatch.setenv("SIDREC_CONTACT", "x")
        enrich(folder, settings, RUN)
        plans = enrich_plan(folder, settings, RUN)
        assert {name: (plan.requests, plan.cached) for name, plan in plans.items()} == {
            "wikipedia": (0, 8),
            "model": (0, 6),
        }
        assert all(plan.characters == 0 for plan in plans.values())


def test_vectors_of_facts_are_made_again_when_the_facts_change(folder: RunFolder, tmp_path: Path) -> None:
    with BadServer(answer) as server:
        result = enrich(folder, config(server, tmp_path), RUN)
        settings = part_config(
            "embedder", "tfidf", [f"facts={result.artifact.path}", "fields=[title, facts]", "dims=4"]
        )
        vectors = embed(folder, settings, RUN)
        assert vectors.artifact.parents["facts"] == result.artifact.digest
        assert vectors.artifact.summary["fields"] == ["title", "facts"]
        assert embed(folder, settings, RUN).skipped
        enrich(folder, config(server, tmp_path, line=["year"]), RUN)
        again = embed(folder, settings, RUN)
        assert not again.skipped
        assert again.artifact.digest != vectors.artifact.digest
        assert open_artifact(again.artifact.path).parents["facts"] != result.artifact.digest


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({}, "sources: "),
        ({"sources": {}}, "sources: "),
        ({"sources": {"mine": {"path": "x"}}}, "sources.mine: 'kind' is missing"),
        ({"sources": {"steam": {}}}, "sources.steam.path"),
        ({"sources": {"chat": {"model": "m", "fields": {}}}}, "sources.chat.fields: unknown key; available: base_url"),
        ({"sources": {"wikipedia": "wikipedia"}, "precedence": {"year": ["steam"]}}, "there is no source 'steam'"),
    ],
)
def test_wrong_settings_are_named(settings: Any, problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(EnrichConfig, settings)
    assert problem in str(caught.value)
