"""The interface of everything that knows facts about items."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar
from urllib.parse import urlsplit

from pydantic import BaseModel, ValidationError

from sidrec.config import Part, RunSettings
from sidrec.embeddings.enrich.answers import Answer, Findings, Question
from sidrec.embeddings.enrich.cache import AnswerCache
from sidrec.embeddings.enrich.client import Client, Headers, Plan, WrongReplyError
from sidrec.embeddings.enrich.matching import Matcher
from sidrec.embeddings.enrich.pace import RequestConfig
from sidrec.errors import ConfigError

__all__ = ["Desk", "FactSource", "checked", "secret_from", "server_address"]

ModelT = TypeVar("ModelT", bound=BaseModel)


@dataclass
class Desk:
    """What a source needs to find answers, and what earlier sources found.

    Attributes:
        matcher: finds items by their titles.
        cache: answers on disk.
        run: progress.
        dry: whether nothing may be sent.
        earlier: source → its answers, in the order of the questions; sources in the order in which they were asked.
        plans: source → what it would send or has sent.
    """

    matcher: Callable[[], Matcher]
    cache: AnswerCache
    run: RunSettings
    dry: bool = False
    earlier: dict[str, Sequence[Answer]] = field(default_factory=dict)
    plans: dict[str, Plan] = field(default_factory=dict)

    def client(self, source: str, config: RequestConfig, headers: Callable[[], Headers]) -> Client:
        """A client whose requests are counted under the name of the source."""
        client = Client(source, config, headers, self.cache, self.run, self.dry)
        self.plans[source] = client.plan
        return client


class FactSource(Part, ABC):
    """Knows facts about items."""

    is_remote: bool = True
    """Whether it asks a server."""

    def sources(self) -> dict[str, str]:
        """Role → digest of files that decide what is found."""
        return {}

    @abstractmethod
    def ask(self, name: str, questions: list[Question], desk: Desk) -> Findings:
        """One answer a question, in the order of the questions.

        Args:
            name: what the source is called in this run.
            questions: the items.
            desk: matcher, cache and the answers of earlier sources.
        """


def checked(model: type[ModelT], payload: Any) -> ModelT:
    """An answer in the form of a model.

    Raises:
        WrongReplyError: it has another form; the first mistake is named.
    """
    try:
        return model.model_validate(payload)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"])) or "the whole"
        raise WrongReplyError(f"{place}: {first['msg']}") from error


def server_address(address: str) -> str:
    """An address without a slash at its end; for validators of configurations.

    >>> server_address("https://api.example.org/v1/")
    'https://api.example.org/v1'

    Raises:
        ValueError: not an address, or one with a user, a key or a query in it, which would be written to artefacts.
    """
    parts = urlsplit(address)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("expected an address such as https://api.example.org/v1")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ValueError("keep users, keys and queries out of the address; a key belongs in an environment variable")
    return address.rstrip("/")


def secret_from(environment: Mapping[str, str], variable: str, what: str, why: str) -> str:
    """The value of an environment variable.

    Args:
        environment: usually `os.environ`.
        variable: its name.
        what: what it holds.
        why: what it is needed for.

    Raises:
        ConfigError: it is not set, or holds what no header can.
    """
    value = environment.get(variable, "").strip()
    if not value:
        raise ConfigError(f"{variable} is not set: {why}", next=f"export {variable}=… ({what})")
    if not (value.isascii() and value.isprintable()):
        raise ConfigError(f"{variable} holds characters that cannot be sent", next=f"set it to {what} in plain letters")
    return value
