"""One question and its answer over HTTP, within a given time whatever the server does.

Exchanges run in an event loop with a thread of its own: there they can be ended at any moment, which a thread that
waits for bytes cannot.
"""

import asyncio
from collections.abc import Mapping
from concurrent.futures import CancelledError
from dataclasses import dataclass
from threading import Thread
from typing import Any

from sidrec.embeddings.enrich.pace import StoppedError
from sidrec.errors import MissingExtraError
from sidrec.types import Json

__all__ = ["AgainError", "Exchange", "GoneError", "Response"]

LARGEST = 8 * 2**20
"""Bytes of an answer; nothing that is asked here has a longer one."""


class AgainError(Exception):
    """Something went wrong that another attempt may mend."""


class GoneError(AgainError):
    """The server cannot be reached, or serves nobody for now."""


@dataclass(frozen=True)
class Response:
    """What a server sent.

    Attributes:
        status: of HTTP.
        text: all of the answer.
        retry_after: the header of that name.
    """

    status: int
    text: str
    retry_after: str | None


class Exchange:
    """Asks servers, for any number of threads; a context manager.

    Args:
        headers: sent with everything.
        timeout: seconds from the question to the last byte of the answer.
        concurrency: connections at once.

    Raises:
        MissingExtraError: the HTTP client is not installed.
    """

    def __init__(self, headers: Mapping[str, str], timeout: float, concurrency: int) -> None:
        try:
            import httpx2
        except ImportError as error:
            raise MissingExtraError("asking a server for facts", "enrich") from error
        limits = httpx2.Limits(max_connections=concurrency)
        # httpx2 limits each wait for bytes; here the whole is limited.
        self._http = httpx2.AsyncClient(headers=dict(headers), timeout=None, limits=limits)
        self._timeout, self._is_cut = timeout, False
        self._loop = asyncio.new_event_loop()
        self._thread = Thread(target=self._loop.run_forever, name="exchange", daemon=True)

    def __enter__(self) -> "Exchange":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._http.aclose(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def ask(self, url: str, params: Mapping[str, str], body: Json | None) -> Response:
        """The answer to a GET, or to a POST of a body.

        Raises:
            AgainError: there is no whole answer; a `GoneError` where the server cannot be reached.
            StoppedError: all exchanges were cut.
        """
        try:
            return asyncio.run_coroutine_threadsafe(self._ask(url, params, body), self._loop).result()
        except CancelledError:
            raise StoppedError from None

    def cut(self) -> None:
        """End all exchanges under way, and begin no other."""
        self._loop.call_soon_threadsafe(self._cut)

    def _cut(self) -> None:
        self._is_cut = True
        for task in asyncio.all_tasks(self._loop):
            task.cancel()

    async def _ask(self, url: str, params: Mapping[str, str], body: Json | None) -> Response:
        import httpx2

        if self._is_cut:
            raise StoppedError
        method = "GET" if body is None else "POST"
        arguments: Json = {"params": dict(params)} if body is None else {"json": body}
        try:
            # Redirects are followed only where nothing but a question was sent.
            async with (
                asyncio.timeout(self._timeout),
                self._http.stream(method, url, follow_redirects=method == "GET", **arguments) as response,
            ):
                text = (await _all_of(response)).decode("utf-8", errors="replace")
        except TimeoutError as error:
            raise GoneError(f"no whole answer within {self._timeout:g} s") from error
        except httpx2.RequestError as error:
            kind = GoneError if isinstance(error, httpx2.TransportError) else AgainError
            raise kind(f"{type(error).__name__}: {error}") from error
        return Response(response.status_code, text, response.headers.get("Retry-After"))


async def _all_of(response: Any) -> bytes:
    """All of an answer; a server that never ends is left."""
    data = bytearray()
    async for piece in response.aiter_bytes():
        data += piece
        if len(data) > LARGEST:
            raise AgainError(f"the answer has more than {LARGEST} bytes")
    return bytes(data)
