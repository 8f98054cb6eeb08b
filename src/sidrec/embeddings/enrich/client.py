"""Requests to a server that may misbehave: cached, paced, retried, and each with an answer or a reason.

Left out: anything that a source means by its requests; and streaming, since answers are short.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from typing import Any

from sidrec.artifact import digest_of
from sidrec.config import RunSettings
from sidrec.embeddings.enrich.cache import AnswerCache
from sidrec.embeddings.enrich.exchange import AgainError, Exchange, GoneError, Response
from sidrec.embeddings.enrich.pace import Pace, RequestConfig, StoppedError, backoff, seconds_to_wait
from sidrec.embeddings.enrich.secrets import Secrets
from sidrec.errors import DataError
from sidrec.types import Json

__all__ = ["Client", "Headers", "Plan", "Reply", "Request", "WrongReplyError"]

OK = 200
AGAIN = frozenset({409, 425})
"""Statuses of trouble that passes and is the request's own."""
GONE = frozenset({408, 429, *range(500, 600)})
"""Statuses of a server that serves nobody for now."""
MESSAGE_LENGTH = 200
"""Characters of a server's own words in a reason."""
SECRET_LENGTH = 12
"""Characters from which a secret is too rare to be a word of an answer by chance."""


@dataclass(frozen=True)
class Request:
    """One request; equal ones are made once.

    Attributes:
        url: where to.
        params: of the query.
        body: sent as JSON by POST; without one, the request is a GET.
    """

    url: str
    params: Mapping[str, str] = field(default_factory=dict)
    body: Json | None = None

    @property
    def digest(self) -> str:
        """What tells requests apart: all that is sent, apart from headers."""
        return digest_of([self.url, dict(self.params), self.body])

    @property
    def characters(self) -> int:
        """Characters sent, apart from the address and headers."""
        body = "" if self.body is None else json.dumps(self.body, ensure_ascii=False)
        return len(body) + sum(map(len, self.params.values()))


@dataclass(frozen=True)
class Reply:
    """What came of a request.

    Attributes:
        value: what was read from the answer, or None.
        problem: why there is none.
        is_gone: whether the server could not be reached or served nobody.
    """

    value: Any = None
    problem: str = ""
    is_gone: bool = False


@dataclass
class Plan:
    """What a source would send.

    Attributes:
        requests: requests that were never answered.
        cached: requests whose answers are on disk.
        characters: of the texts in those requests.
    """

    requests: int = 0
    cached: int = 0
    characters: int = 0


@dataclass(frozen=True)
class Headers:
    """What goes with every request and is stored nowhere.

    Attributes:
        values: the headers.
        secrets: texts in them that must not be written.
    """

    values: Mapping[str, str] = field(default_factory=dict)
    secrets: tuple[str, ...] = ()


class WrongReplyError(Exception):
    """An answer came that is not of the form that was asked for.

    Args:
        what: is wrong with it.
        is_final: whether the same request would bring the same answer again.
    """

    def __init__(self, what: str, is_final: bool = False) -> None:
        super().__init__(what)
        self.is_final = is_final


class _RefusedError(Exception):
    """The server will not answer this request, however often it is made."""


class Client:
    """Sends requests of one source.

    Args:
        source: its name.
        config: how the server is asked.
        headers: makes the headers, called once before the first request.
        cache: where answers are kept.
        run: progress.
        dry: send nothing, count in `plan` what would be sent.
    """

    def __init__(
        self,
        source: str,
        config: RequestConfig,
        headers: Callable[[], Headers],
        cache: AnswerCache,
        run: RunSettings,
        dry: bool = False,
    ) -> None:
        self._source, self._config, self._make_headers = source, config, headers
        self._cache, self._run, self._dry = cache, run, dry
        self._headers, self._secrets, self._long_secrets = Headers(), Secrets(), Secrets()
        self._fatal: DataError | None = None
        self._pace = Pace(config.per_second)
        self.plan = Plan()

    def send(self, requests: Sequence[Request], read: Callable[[Any], Any], task: str = "ask") -> list[Reply]:
        """Answers to requests, from disk or from the server, in the order of the requests.

        Args:
            requests: equal ones are made once.
            read: takes what is needed from the JSON of an answer, or raises `WrongReplyError`.
            task: what this is, for the progress display.

        Raises:
            MissingExtraError: the HTTP client is not installed.
            DataError: the server refuses everything, or wants to be left alone for long.
        """
        replies: dict[str, Reply] = {}
        missing: dict[str, Request] = {}
        for request in requests:
            digest = request.digest
            if digest in replies or digest in missing:
                continue
            reply = self._cached(digest, read)
            if reply is None:
                missing[digest] = request
            else:
                replies[digest] = reply
        self.plan.cached += len(replies)
        self.plan.requests += len(missing)
        self.plan.characters += sum(request.characters for request in missing.values())
        if self._dry:
            replies |= dict.fromkeys(missing, Reply(problem="not asked yet"))
        elif missing:
            replies |= self._ask_all(missing, read, task)
        return [replies[request.digest] for request in requests]

    def _cached(self, digest: str, read: Callable[[Any], Any]) -> Reply | None:
        answer = self._cache.get(digest)
        if answer is None:
            return None
        try:
            return Reply(read(answer["json"]))
        except WrongReplyError:
            return None

    def _ask_all(self, missing: dict[str, Request], read: Callable[[Any], Any], task: str) -> dict[str, Reply]:
        config, replies, in_a_row = self._config, dict[str, Reply](), 0
        # What failed before comes last, so that it keeps nobody from being asked, and says nothing new of the server.
        failed = {digest for digest in missing if self._cache.failure(digest) is not None}
        order = sorted(missing, key=failed.__contains__)
        self._headers = self._make_headers()
        self._secrets = Secrets(self._headers.secrets)
        self._long_secrets = Secrets(self._headers.secrets, SECRET_LENGTH)
        with (
            Exchange(self._headers.values, config.timeout, config.concurrency) as exchange,
            self._run.progress(f"{task} ({self._source})", len(missing)) as advance,
            ThreadPoolExecutor(config.concurrency) as pool,
        ):
            futures = {pool.submit(self._ask, exchange, missing[digest], read): digest for digest in order}
            try:
                for future in as_completed(futures):
                    digest = futures[future]
                    reply = replies[digest] = future.result()
                    if not reply.is_gone:
                        in_a_row = 0
                    elif digest not in failed:
                        in_a_row += 1
                    if in_a_row >= config.give_up_after:
                        raise self._hopeless(reply.problem, in_a_row)
                    advance()
            except StoppedError:
                assert self._fatal is not None, "only a fatal error stops threads before the main one does"
                raise self._fatal from None
            except BaseException:
                self._pace.stop()
                if self._fatal is None:  # Where the server ended it, answers under way are still worth their price.
                    exchange.cut()
                raise
            finally:
                pool.shutdown(cancel_futures=True)
        return replies

    def _ask(self, exchange: Exchange, request: Request, read: Callable[[Any], Any]) -> Reply:
        """What comes of one request; it is on disk on return."""
        reply = self._try(exchange, request, read)
        if reply.problem:
            self._cache.put_failure(request.digest, self._source, reply.problem)
        return reply

    def _try(self, exchange: Exchange, request: Request, read: Callable[[Any], Any]) -> Reply:
        """One request until it is answered, refused, or was tried often enough."""
        problem, is_gone, attempts = "", False, self._config.attempts
        for attempt in range(1, attempts + 1):
            self._pace.wait()
            try:
                answer = self._fetch(exchange, request)
                value = read(answer)
            except AgainError as again:
                problem, is_gone = self._secrets.hidden(str(again)), isinstance(again, GoneError)
            except WrongReplyError as wrong:
                what = f"the answer is not of the form that was asked for: {wrong}"
                problem, is_gone = self._secrets.hidden(what), False
                if wrong.is_final:
                    return Reply(problem=problem)
            except _RefusedError as refused:
                return Reply(problem=self._secrets.hidden(str(refused)))
            except DataError as fatal:
                # Other threads must not ask on until the main one hears of it.
                self._fatal = fatal
                self._pace.stop()
                raise
            else:
                self._cache.put(request.digest, self._source, {"json": answer})
                return Reply(value)
            if attempt < attempts:
                self._pace.sleep(backoff(self._config, attempt))
        return Reply(problem=f"{problem} (attempts: {attempts})", is_gone=is_gone)

    def _fetch(self, exchange: Exchange, request: Request) -> Any:
        """The JSON of one answer."""
        response = exchange.ask(request.url, request.params, request.body)
        if response.status != OK:
            self._refuse(response)
        try:
            return self._long_secrets.hidden_in(json.loads(response.text))
        except (ValueError, RecursionError) as error:
            raise AgainError(f"the answer is not JSON: {error}") from error

    def _refuse(self, response: Response) -> None:
        """Raise what fits a status that brings no answer; where it asks for a pause, all threads pause."""
        status = response.status
        what = f"status {status}{_message(response.text, self._secrets)}"
        if status in (401, 403, 407):
            raise DataError(
                f"the server refuses to answer: {what}",
                where=self._source,
                expected="a key or contact address that it accepts",
                next="check the environment variables that hold them; answers so far are kept",
            )
        if status not in AGAIN | GONE:
            raise _RefusedError(what)
        pause = seconds_to_wait(response.retry_after)
        if pause is not None and pause > self._config.longest_wait:
            raise DataError(
                f"the server asks to be left alone for {pause:.0f} s",
                where=f"{self._source}, status {status}",
                expected=f"at most {self._config.longest_wait:g} s (requests.longest_wait)",
                next="run the same command again later; answers so far are kept",
            )
        if pause:
            self._pace.hold(pause)
        raise (GoneError if status in GONE else AgainError)(what)

    def _hopeless(self, problem: str, in_a_row: int) -> DataError:
        return DataError(
            f"{in_a_row} requests in a row failed that had not failed before, the last one with: {problem}",
            where=self._source,
            expected="a server that can be reached and answers now and then",
            next="check its address and the network, then run the same command again; answers so far are kept",
        )


def _message(text: str, secrets: Secrets) -> str:
    """What an error page says: the message of the usual forms, else its beginning.

    >>> _message('{"error": {"message": "no such model"}}', Secrets()), _message("", Secrets())
    (': no such model', '')
    """
    try:
        said: Any = secrets.hidden_in(json.loads(text))
        said = said.get("error", said) if isinstance(said, dict) else said
        said = said.get("message", said) if isinstance(said, dict) else said
    except (ValueError, RecursionError):
        said = text
    # Cut last: half a key is no longer found.
    line = " ".join(secrets.hidden(str(said)).split())
    return f": {line[:MESSAGE_LENGTH]}" if line else ""
