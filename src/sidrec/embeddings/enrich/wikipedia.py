"""Facts from Wikipedia: a search for the title, then the summary of the article whose title is near enough.

The REST API of MediaWiki (`/w/rest.php/v1/search/page`) and Wikimedia's page summaries
(`/api/rest_v1/page/summary/TITLE`). Wikimedia asks for a contact address in the user agent and for
requests one after the other; both are the defaults here. Left out: infoboxes, which a chat model reads
better than rules do, and whole articles.
"""

import os
from typing import Any, Literal
from urllib.parse import quote

from pydantic import BaseModel, Field, field_validator

from sidrec.config import Config
from sidrec.embeddings.enrich.answers import Answer, Findings, Question
from sidrec.embeddings.enrich.client import Client, Headers, Reply, Request
from sidrec.embeddings.enrich.matching import Matcher
from sidrec.embeddings.enrich.pace import RequestConfig
from sidrec.embeddings.enrich.source import Desk, FactSource, checked, secret_from, server_address
from sidrec.version import __version__

__all__ = ["Wikipedia", "WikipediaRequests"]


class WikipediaRequests(RequestConfig):
    """How Wikipedia is asked: one request after the other, as Wikimedia wants it."""

    concurrency: int = Field(default=1, ge=1)
    """Requests under way at once; Wikimedia asks for one."""


class _Page(BaseModel):
    key: str
    title: str


class _Pages(BaseModel):
    pages: list[_Page]


class _Summary(BaseModel):
    title: str
    type: str = "standard"
    extract: str = ""
    description: str | None = None

    @property
    def lists_others(self) -> bool:
        """Whether the article is about no thing of its own: a list of things of the same name."""
        return self.type == "disambiguation"


def _read_pages(payload: Any) -> list[_Page]:
    return checked(_Pages, payload).pages


def _read_summary(payload: Any) -> _Summary:
    return checked(_Summary, payload)


class Wikipedia(FactSource):
    """Finds items in Wikipedia."""

    class Config(Config):
        """An encyclopaedia that runs MediaWiki."""

        kind: Literal["wikipedia"] = "wikipedia"
        site: str = "https://en.wikipedia.org"
        """Address of the encyclopaedia; its language is that of the facts."""
        hint: str = ""
        """What all items are, such as `video game`: added to every search, and `TITLE (video game)` is the item."""
        candidates: int = Field(default=5, ge=1, le=50)
        """Articles of a search whose titles are compared with the item's."""
        shortest: int = Field(default=50, ge=0)
        """Characters below which a summary says nothing."""
        longest: int = Field(default=600, ge=50)
        """Characters at which a summary is cut, at the end of a word."""
        contact_variable: str = "SIDREC_CONTACT"
        """Environment variable with an address of yours (mail or page) that goes into the user agent."""
        requests: WikipediaRequests = Field(default=WikipediaRequests(), exclude=True)
        """How the server is asked."""

        _address = field_validator("site")(server_address)

    def ask(self, name: str, questions: list[Question], desk: Desk) -> Findings:
        """One answer a question: the summary of the article of equal or nearest title, if it is about one thing.

        Raises:
            ConfigError: the contact address is not set.
            DataError: the server refuses everything.
        """
        client, matcher = desk.client(name, self.config.requests, self._headers), desk.matcher()
        titled = [question for question in questions if matcher.clean(question.title)]
        searches = client.send([self._search(matcher.clean(q.title)) for q in titled], _read_pages, "search")
        known = [(q, reply.value) for q, reply in zip(titled, searches, strict=True) if not reply.problem]
        answers = {
            q.item: Answer(q.item, "failed", reason=f"search: {reply.problem}")
            for q, reply in zip(titled, searches, strict=True)
            if reply.problem
        }
        answers |= self._read(client, matcher, known)
        self._expect(client, searches, desk)
        return Findings([answers.get(q.item) or self._nothing(q, matcher) for q in questions])

    def _read(self, client: Client, matcher: Matcher, known: list[tuple[Question, list[_Page]]]) -> dict[Any, Answer]:
        """Answers about items that have articles of their title; others are missing.

        After an article that only lists others of its title, the next best of the search is read.
        """
        answers: dict[Any, Answer] = {}
        while known:
            titles = [[page.title for page in pages] for _, pages in known]
            matches = matcher.best([question.title for question, _ in known], titles, self.config.hint)
            chosen = [
                (question, pages, pages[match.position], match.score)
                for (question, pages), match in zip(known, matches, strict=True)
                if match is not None
            ]
            replies, known = self._summaries(client, [page for _, _, page, _ in chosen]), []
            for (question, pages, page, score), reply in zip(chosen, replies, strict=True):
                answers[question.item] = self._answer(question, page, score, reply)
                if not reply.problem and reply.value.lists_others:
                    known.append((question, [other for other in pages if other is not page]))
        return answers

    def _answer(self, question: Question, page: _Page, score: float, reply: Reply) -> Answer:
        item = question.item
        if reply.problem:
            return Answer(item, "failed", reason=f"summary: {reply.problem}", match=page.title, score=score)
        summary: _Summary = reply.value
        if summary.lists_others:
            return Answer(item, "none", reason="the article only lists others of that title", match=page.title)
        text = " ".join(summary.extract.split())
        if len(text) < self.config.shortest:
            return Answer(item, "none", reason="the article has no summary", match=page.title)
        facts = {"about": summary.description, "description": _cut(text, self.config.longest)}
        return Answer.of_facts(item, facts, page.title, score)

    @staticmethod
    def _nothing(question: Question, matcher: Matcher) -> Answer:
        has_title = bool(matcher.clean(question.title))
        reason = "no article of that title" if has_title else "the item has no title"
        return Answer(question.item, "none", reason=reason)

    def _search(self, title: str) -> Request:
        words = f"{title} {self.config.hint}".strip()
        return Request(
            f"{self.config.site}/w/rest.php/v1/search/page", {"q": words, "limit": str(self.config.candidates)}
        )

    def _summaries(self, client: Client, pages: list[_Page]) -> list[Reply]:
        home = f"{self.config.site}/api/rest_v1/page/summary"
        return client.send([Request(f"{home}/{quote(page.key, safe='')}") for page in pages], _read_summary, "read")

    @staticmethod
    def _expect(client: Client, searches: list[Reply], desk: Desk) -> None:
        """Count one summary for every search that is still to be made; few items need none, or a second one."""
        if desk.dry:
            client.plan.requests += sum(1 for reply in searches if reply.problem)

    def _headers(self) -> Headers:
        contact = secret_from(
            os.environ,
            self.config.contact_variable,
            "a mail address or a page of yours",
            "Wikimedia wants to know whom to write to about a robot",
        )
        import httpx2

        agent = f"sidrec/{__version__} ({contact}) httpx2/{httpx2.__version__}"
        return Headers({"User-Agent": agent, "Accept": "application/json"}, (contact,))


def _cut(text: str, longest: int) -> str:
    """A text of at most so many characters, without half a word at its end.

    >>> _cut("one two three", 9), _cut("short", 9)
    ('one two', 'short')
    """
    if len(text) <= longest:
        return text
    return text[: longest + 1].rpartition(" ")[0] or text[:longest]
