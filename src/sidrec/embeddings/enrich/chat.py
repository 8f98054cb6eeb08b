"""Facts from a chat model behind an OpenAI-compatible server, as JSON of a given schema.

The model gets the item's title and texts, and what earlier sources found; it answers with one field a fact
(`response_format` of type `json_schema`). Left out: tools, and servers that know no schemas.
"""

import json
import os
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, create_model, field_validator

from sidrec.config import Config
from sidrec.embeddings.enrich.answers import Answer, Findings, Question, Text, Texts
from sidrec.embeddings.enrich.client import Headers, Reply, Request, WrongReplyError
from sidrec.embeddings.enrich.pace import RequestConfig
from sidrec.embeddings.enrich.source import Desk, FactSource, checked, secret_from, server_address
from sidrec.types import Json

__all__ = ["ChatModel"]

INSTRUCTION = (
    "You fill in a form about one product of a shop. Use what the text says and what you know for certain of exactly "
    "this product. Where you do not know, write null for a text and an empty list for a list. Never guess."
)
FORM: dict[str, Literal["text", "list"]] = {
    "item_type": "text",
    "release_year": "text",
    "genres": "list",
    "developers": "list",
    "platforms": "list",
}


class _Message(BaseModel):
    content: str | None = None
    refusal: str | None = None


class _Choice(BaseModel):
    message: _Message
    finish_reason: str | None = None


class _Completion(BaseModel):
    choices: list[_Choice] = Field(min_length=1)


class ChatModel(FactSource):
    """Asks a chat model about each item."""

    class Config(Config):
        """A chat model."""

        kind: Literal["chat"] = "chat"
        model: str
        """Name of the model at the server."""
        base_url: str = "https://api.openai.com/v1"
        """Address of the server; requests go to `/chat/completions` under it."""
        key_variable: str = "OPENAI_API_KEY"
        """Environment variable with the key; empty for a server that wants none."""
        form: dict[str, Literal["text", "list"]] = Field(default=FORM, min_length=1)
        """What the model fills in: each field is one text or a list of texts."""
        instruction: str = INSTRUCTION
        """What the model is told before the item."""
        context: tuple[str, ...] = ("about", "description")
        """Fields that earlier sources found and the model may read."""
        least_context: int = Field(default=0, ge=0)
        """Characters of text beside the title without which the model is not asked."""
        longest: int = Field(default=2000, ge=1)
        """Characters of an item's own texts that the model reads."""
        max_tokens: int = Field(default=512, ge=1)
        """Tokens of an answer."""
        extra: Json = Field(default={})
        """More fields of the request, such as `{chat_template_kwargs: {enable_thinking: false}}`; null takes one out.
        No keys: this is stored."""
        requests: RequestConfig = Field(default=RequestConfig(), exclude=True)
        """How the server is asked."""

        _address = field_validator("base_url")(server_address)

    def ask(self, name: str, questions: list[Question], desk: Desk) -> Findings:
        """One answer a question.

        Raises:
            ConfigError: the key is not set.
            DataError: the server refuses everything.
        """
        client, form = desk.client(name, self.config.requests, self._headers), self._form()
        texts = [self._context(row, question, desk) for row, question in enumerate(questions)]
        asked = [
            row
            for row, (question, text) in enumerate(zip(questions, texts, strict=True))
            if (question.title or text) and len(text) >= self.config.least_context
        ]

        def read(payload: Any) -> Json | None:
            return _filled(form, payload, self._is_certain)

        requests = [self._request(questions[row], texts[row], form) for row in asked]
        replies = dict(zip(asked, client.send(requests, read), strict=True))
        return Findings([self._answer(question, replies.get(row)) for row, question in enumerate(questions)])

    @property
    def _is_certain(self) -> bool:
        """Whether the model draws nothing, so that it would say the same again."""
        return self._options().get("temperature") == 0

    def _options(self) -> Json:
        """Fields of every request, apart from the messages and the form."""
        config: ChatModel.Config = self.config
        usual = {"model": config.model, "temperature": 0, "max_tokens": config.max_tokens}
        return usual | config.extra

    def _answer(self, question: Question, reply: Reply | None) -> Answer:
        if reply is None:
            return Answer(question.item, "none", reason="the item has too little text to ask about")
        if reply.problem:
            return Answer(question.item, "failed", reason=reply.problem)
        if reply.value is None:
            return Answer(question.item, "none", reason="the model refused")
        return Answer.of_facts(question.item, reply.value)

    def _form(self) -> type[BaseModel]:
        """The form as a model; all fields must be there and no others, as strict schemas want it."""
        kinds: dict[str, Any] = {"text": Text, "list": Texts}
        fields: dict[str, Any] = {name: (kinds[kind], ...) for name, kind in self.config.form.items()}
        return create_model("Facts", __config__=ConfigDict(extra="forbid"), **fields)

    def _request(self, question: Question, text: str, form: type[BaseModel]) -> Request:
        config: ChatModel.Config = self.config
        item = "\n".join(filter(None, (f"Title: {question.title}", text)))
        messages = [{"role": "system", "content": config.instruction}, {"role": "user", "content": item}]
        schema = {"name": "facts", "strict": True, "schema": form.model_json_schema()}
        body = {"messages": messages, "response_format": {"type": "json_schema", "json_schema": schema}}
        body = {name: value for name, value in (body | self._options()).items() if value is not None}
        return Request(f"{config.base_url}/chat/completions", body=body)

    def _context(self, row: int, question: Question, desk: Desk) -> str:
        """What the model reads beside the title: the item's own texts, then what earlier sources found."""
        own = question.text[: self.config.longest]
        lines = [f"Text: {own}"] if own else []
        for source, answers in desk.earlier.items():
            facts = answers[row].facts
            for name in self.config.context:
                if name in facts:
                    value = facts[name]
                    lines.append(f"{name} ({source}): {value if isinstance(value, str) else ', '.join(value)}")
        return "\n".join(lines)

    def _headers(self) -> Headers:
        variable: str = self.config.key_variable
        if not variable:
            return Headers()
        key = secret_from(os.environ, variable, "the key of the server", f"{self.config.base_url} wants a key")
        return Headers({"Authorization": f"Bearer {key}"}, (key,))


def _filled(form: type[BaseModel], payload: Any, is_certain: bool) -> Json | None:
    """The facts of an answer; None where the model refuses.

    Raises:
        WrongReplyError: the answer was cut off, or does not fit the form; final if it is certain to come again.
    """
    choice = checked(_Completion, payload).choices[0]
    if choice.message.refusal:
        return None
    try:
        if choice.finish_reason == "length":
            raise WrongReplyError("it was cut off; raise max_tokens")
        return checked(form, _content(choice)).model_dump()
    except WrongReplyError as wrong:
        raise WrongReplyError(str(wrong), is_certain) from wrong


def _content(choice: _Choice) -> Any:
    try:
        return json.loads(choice.message.content or "")
    except ValueError as error:
        raise WrongReplyError(f"the content is not JSON: {error}") from error
