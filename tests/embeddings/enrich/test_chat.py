"""The form that a chat model fills in, and what becomes of every way to get it wrong."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.embeddings.enrich.bad_server import BadServer, chat_key, completion
from tests.embeddings.enrich.desk import QUICK, desk, questions

from sidrec.embeddings.enrich.answers import Answer
from sidrec.embeddings.enrich.chat import ChatModel
from sidrec.embeddings.enrich.source import Desk
from sidrec.errors import ConfigError

FORM = {"year": "text", "makers": "list"}


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-0123456789abcdef")


def model(server: BadServer, **settings: Any) -> ChatModel:
    return ChatModel(**{"model": "m", "base_url": f"{server.address}/v1/", "form": FORM, "requests": QUICK} | settings)


def said(tmp_path: Path, content: Any, **settings: Any) -> Answer:
    with BadServer(lambda path, body: completion(content), key=chat_key) as server:
        return model(server, **settings).ask("chat", questions("Dirt 3"), desk(tmp_path)).answers[0]


def test_one_maker_is_a_list_of_one_and_never_letters(tmp_path: Path) -> None:
    assert said(tmp_path, {"year": 2011, "makers": "Codemasters"}).facts == {"year": "2011", "makers": ["Codemasters"]}


@pytest.mark.parametrize("nothing", [None, "", "Unknown", "unknown", "N/A"])
def test_what_means_nothing_is_nothing(tmp_path: Path, nothing: Any) -> None:
    assert said(tmp_path, {"year": nothing, "makers": ["A", nothing]}).facts == {"makers": ["A"]}
    assert said(tmp_path / "2", {"year": nothing, "makers": nothing}).outcome == "none"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("a game of the year 2011", "the content is not JSON"),
        ({"year": "2011"}, "makers: Field required"),
        ({"year": "2011", "makers": [], "price": "3"}, "price: Extra inputs"),
        ({"year": {"from": 2011}, "makers": []}, "year: Input should be a valid string"),
        ({"year": "2011", "makers": [{"name": "A"}]}, "makers.0: Input should be a valid string"),
        ({"year": True, "makers": []}, "year: Input should be a valid string"),
        ([], "the whole: Input should be"),
        ("", "the content is not JSON"),
    ],
)
def test_answers_of_another_form_are_reasons(tmp_path: Path, content: Any, reason: str) -> None:
    answer = said(tmp_path, content)
    assert answer.outcome == "failed"
    assert reason in answer.reason


def test_a_refusal_is_no_failure_and_a_cut_answer_is(tmp_path: Path) -> None:
    refusal = {"choices": [{"message": {"content": None, "refusal": "I would rather not."}}]}
    short = {"choices": [{"message": {"content": '{"year": "20'}, "finish_reason": "length"}]}
    titles = {"Dirt 3": refusal, "Dirt 2": short, "Dirt": {"choices": []}}
    with BadServer(lambda path, body: titles[chat_key(path, body)], key=chat_key) as server:
        found = model(server).ask("chat", questions(*titles), desk(tmp_path)).answers
        assert [answer.outcome for answer in found] == ["none", "failed", "failed"]
        assert "raise max_tokens" in found[1].reason
        assert server.attempts["Dirt 3"] == 1


@pytest.mark.parametrize("extra", [{}, {"temperature": 0.0}, {"temperature": 0.7}, {"temperature": None}])
def test_what_would_come_again_is_asked_for_once_a_run(tmp_path: Path, extra: Any) -> None:
    short = {"choices": [{"message": {"content": '{"year": "20'}, "finish_reason": "length"}]}
    titles = {"short": short, "misfit": completion({"year": "2011"}), "no JSON": completion("2011")}
    titles["no answer of a model"] = {"choices": []}
    with BadServer(lambda path, body: titles[chat_key(path, body)], key=chat_key) as server:
        found = model(server, extra=extra).ask("chat", questions(*titles), desk(tmp_path)).answers
        assert [answer.outcome for answer in found] == ["failed"] * 4
        many = QUICK["attempts"]
        final = 1 if extra.get("temperature", 0) == 0 else many
        assert [server.attempts[title] for title in titles] == [final, final, final, many]
        assert ("attempts" in found[0].reason) == (final == many)
        model(server, extra=extra).ask("chat", questions("short"), desk(tmp_path))
        assert server.attempts["short"] == 2 * final, "another run asks again"
        titles["short"] = completion({"year": "2011", "makers": []})
        (longer,) = model(server, extra=extra, max_tokens=999).ask("chat", questions("short"), desk(tmp_path)).answers
        assert longer.facts == {"year": "2011"}


def test_the_request_is_that_of_structured_output(tmp_path: Path) -> None:
    with BadServer(lambda path, body: completion({"year": "1", "makers": []}), key=chat_key) as server:
        chat = model(server, extra={"temperature": None, "seed": 7, "reasoning_effort": "none"}, longest=4)
        asked = [replace(questions("Dirt 3")[0], text="A long description")]
        table = desk(tmp_path)
        table.earlier["steam"] = [Answer(asked[0].item, "found", {"about": "fast", "genres": ["Racing"], "price": "1"})]
        chat.ask("chat", asked, table)
        (body,) = server.bodies
    assert server.headers[0]["Authorization"] == "Bearer sk-0123456789abcdef"
    assert (body["model"], body["seed"], body["reasoning_effort"]) == ("m", 7, "none")
    assert "temperature" not in body
    assert body["messages"][1]["content"] == "Title: Dirt 3\nText: A lo\nabout (steam): fast"
    schema = body["response_format"]["json_schema"]
    assert (body["response_format"]["type"], schema["strict"]) == ("json_schema", True)
    assert schema["schema"]["additionalProperties"] is False
    assert schema["schema"]["required"] == ["year", "makers"]
    assert schema["schema"]["properties"]["makers"]["items"] == {"type": "string"}


def test_who_has_too_little_text_is_not_asked(tmp_path: Path) -> None:
    with BadServer(lambda path, body: completion({"year": "1", "makers": []}), key=chat_key) as server:
        asked = questions("Dirt 3", "Dirt 2", "")
        texts = ["", "a game about cars on gravel", "a thing without a name"]
        asked = [replace(question, text=text) for question, text in zip(asked, texts, strict=True)]
        found = model(server, least_context=20).ask("chat", asked, desk(tmp_path)).answers
        assert [answer.outcome for answer in found] == ["none", "found", "found"]
        assert "too little text" in found[0].reason
        assert sum(server.attempts.values()) == 2


def test_keys_come_from_the_environment_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    with BadServer(lambda path, body: completion({"year": "1", "makers": []}), key=chat_key) as server:
        with pytest.raises(ConfigError, match="OPENAI_API_KEY is not set"):
            model(server).ask("chat", questions("Dirt 3"), desk(tmp_path))
        assert not server.attempts
        dry: Desk = desk(tmp_path, dry=True)
        model(server).ask("chat", questions("Dirt 3", "Dirt 3", "Dirt 2"), dry)
        assert dry.plans["chat"].requests == 2
        assert dry.plans["chat"].characters > 2 * len(ChatModel(model="m").config.instruction)
        assert not server.attempts
        model(server, key_variable="").ask("chat", questions("Dirt 3"), desk(tmp_path))
        assert "Authorization" not in server.headers[0]
