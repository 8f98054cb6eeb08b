"""A real HTTP server on loopback that misbehaves as told."""

import json
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

SLOW = 1.0
"""Seconds that a slow answer takes; clients in tests are less patient."""


class BadServer:
    """Answers questions, or does not.

    Args:
        answer: JSON for a question.
        mood: question's key and attempt (1, 2, …) → what to do; `ok` answers.
        key: what makes questions equal when attempts are counted.
    """

    def __init__(
        self,
        answer: Callable[[str, Any], Any],
        mood: Callable[[str, int], str] = lambda key, attempt: "ok",
        key: Callable[[str, Any], str] = lambda path, body: path,
    ) -> None:
        self.answer, self.mood, self.key = answer, mood, key
        self.attempts: Counter[str] = Counter()
        self.answered: Counter[str] = Counter()
        self.headers: list[dict[str, str]] = []
        self.bodies: list[Any] = []
        self.times: list[float] = []
        self.order: list[str] = []
        self.said = b"sorry"
        """What the mood `say STATUS` answers."""
        self.most_at_once = 0
        self.hold_after = 10**9
        """Good answers after which the server falls silent until `released`."""
        self.is_silent, self.released = threading.Event(), threading.Event()
        self._at_once, self._lock = 0, threading.Lock()
        self._server = _Quiet(("127.0.0.1", 0), _handler_of(self))
        self.address = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> "BadServer":
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.released.set()
        self._server.shutdown()
        self._server.server_close()

    def respond(self, handler: "BaseHTTPRequestHandler", body: Any) -> None:
        path = handler.path
        key = self.key(path, body)
        with self._lock:
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
            self.times.append(time.monotonic())
            self.headers.append(dict(handler.headers))
            self.bodies.append(body)
            self.order.append(key)
            self.attempts[key] += 1
            mood = self.mood(key, self.attempts[key])
            if mood == "ok" and sum(self.answered.values()) >= self.hold_after:
                self.is_silent.set()
        try:
            if self.is_silent.is_set() and not self.released.is_set():
                self.released.wait()
                return
            if mood == "ok":
                with self._lock:
                    self.answered[key] += 1
            if mood.startswith("say "):
                send(handler, int(mood.split()[1]), self.said)
            else:
                misbehave(handler, mood, self.answer(path, body))
        finally:
            with self._lock:
                self._at_once -= 1


class _Quiet(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Broken connections are what this server is for."""


def _handler_of(server: BadServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            server.respond(self, None)

        def do_POST(self) -> None:
            server.respond(self, json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

        def log_message(self, *_: object) -> None:
            """Tests read `attempts` and `answered`."""

    return Handler


def misbehave(handler: BaseHTTPRequestHandler, mood: str, answer: Any) -> None:
    """Send an answer in the given mood."""
    data = json.dumps(answer).encode()
    match mood.split():
        case ["ok"]:
            send(handler, 200, data)
        case ["slow"]:
            time.sleep(SLOW)
            send(handler, 200, data)
        case ["dribble"]:
            send(handler, 200, b"", length=len(data))
            dribble(handler, [bytes([byte]) for byte in data])
        case ["dribble-headers"]:
            many = [f"X-{number}: y\r\n".encode() for number in range(20)]
            end = f"Content-Length: {len(data)}\r\n\r\n".encode()
            dribble(handler, [b"HTTP/1.1 200 OK\r\n", *many, end + data])
        case ["truncated"]:
            send(handler, 200, data[: len(data) // 2], length=len(data))
            handler.close_connection = True
        case ["bad-json"]:
            send(handler, 200, data[:-1])
        case ["wrong-schema"]:
            send(handler, 200, json.dumps({"unasked": [1, 2]}).encode())
        case ["reset"]:
            handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            handler.connection.close()
            handler.close_connection = True
        case words:
            refuse(handler, words)


def dribble(handler: BaseHTTPRequestHandler, pieces: list[bytes]) -> None:
    """Send pieces, none later than a patient client waits for bytes."""
    for piece in pieces:
        handler.wfile.write(piece)
        time.sleep(0.1)


def refuse(handler: BaseHTTPRequestHandler, words: list[str]) -> None:
    """Send a status that brings no answer."""
    match words:
        case ["status", status, *retry_after]:
            send(handler, int(status), b"sorry", retry_after=" ".join(retry_after))
        case ["status-date", status, seconds]:
            when = datetime.now(UTC) + timedelta(seconds=float(seconds))
            send(handler, int(status), b"", retry_after=format_datetime(when, usegmt=True))
        case ["moved"]:
            handler.send_response(307)
            handler.send_header("Location", "/new")
            handler.send_header("Content-Length", "0")
            handler.end_headers()
        case ["echo", status]:
            said = {"error": {"message": f"what does {handler.headers['Authorization']} mean?"}}
            send(handler, int(status), json.dumps(said).encode())
        case _:
            raise AssertionError(words)


def send(
    handler: BaseHTTPRequestHandler, status: int, data: bytes, length: int | None = None, retry_after: str = ""
) -> None:
    handler.send_response(status)
    handler.send_header("Content-Type", "application/json")
    handler.send_header("Content-Length", str(len(data) if length is None else length))
    if retry_after:
        handler.send_header("Retry-After", retry_after)
    handler.end_headers()
    handler.wfile.write(data)


def chat_key(path: str, body: Any) -> str:
    """The title that a chat model is asked about."""
    assert path.endswith("/chat/completions")
    return body["messages"][-1]["content"].splitlines()[0].removeprefix("Title: ")


def completion(facts: Any) -> Any:
    """An answer of a chat model."""
    content = facts if isinstance(facts, str) else json.dumps(facts)
    return {"choices": [{"finish_reason": "stop", "message": {"role": "assistant", "content": content}}]}


def asked_words(path: str) -> str:
    """The words of a search, or the article of a summary."""
    parts = urlsplit(path)
    return parse_qs(parts.query)["q"][0] if parts.query else unquote(parts.path.rpartition("/")[2])
