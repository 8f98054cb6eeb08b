"""Answers on disk: each is written as it comes, so that no answer is paid twice; and which requests failed.

One sqlite file; every answer is a transaction of its own, which a killed process leaves whole or not at
all. Keys and addresses of people are in headers, and headers are not stored; what a server repeats of them is
hidden before it comes here.
"""

import json
import sqlite3
import threading
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from sidrec.errors import DataError
from sidrec.types import Json

__all__ = ["AnswerCache"]

PATIENCE = 30.0
"""Seconds to wait for another process that is writing."""


class AnswerCache:
    """Digest of a request → the answer, for any number of threads.

    Args:
        path: the file, made where there is none; None keeps answers in memory.

    Raises:
        DataError: the file is something else, or cannot be written.
    """

    def __init__(self, path: Path | None) -> None:
        self._path, self._lock = path, threading.Lock()
        with self._trouble():
            if path is not None:
                path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(path or ":memory:", timeout=PATIENCE, check_same_thread=False)
            # Safe against a killed process, and no wait for the disk: only a power cut may lose the last answers.
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = NORMAL")
            with self._db:
                self._db.execute(
                    "CREATE TABLE IF NOT EXISTS answers (digest TEXT PRIMARY KEY, source TEXT, answer TEXT)"
                )
                self._db.execute(
                    "CREATE TABLE IF NOT EXISTS failures (digest TEXT PRIMARY KEY, source TEXT, problem TEXT)"
                )

    def get(self, digest: str) -> Json | None:
        """The answer to a request, or None if it was never answered."""
        with self._lock, self._trouble():
            row = self._db.execute("SELECT answer FROM answers WHERE digest = ?", (digest,)).fetchone()
        return None if row is None else json.loads(row[0])

    def put(self, digest: str, source: str, answer: Json) -> None:
        """Write an answer to disk before returning; the request has not failed then."""
        text = json.dumps(answer, ensure_ascii=False)
        with self._lock, self._trouble(), self._db:
            self._db.execute("INSERT OR REPLACE INTO answers VALUES (?, ?, ?)", (digest, source, text))
            self._db.execute("DELETE FROM failures WHERE digest = ?", (digest,))

    def put_failure(self, digest: str, source: str, problem: str) -> None:
        """Write to disk that a request was made in vain."""
        with self._lock, self._trouble(), self._db:
            self._db.execute("INSERT OR REPLACE INTO failures VALUES (?, ?, ?)", (digest, source, problem))

    def failure(self, digest: str) -> str | None:
        """Why a request was made in vain; None if it was answered since, or never made."""
        with self._lock, self._trouble():
            row = self._db.execute("SELECT problem FROM failures WHERE digest = ?", (digest,)).fetchone()
        return None if row is None else row[0]

    def count(self) -> int:
        """How many answers there are."""
        with self._lock, self._trouble():
            return self._db.execute("SELECT COUNT(*) FROM answers").fetchone()[0]

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._db.close()

    @contextmanager
    def _trouble(self) -> Generator[None]:
        try:
            yield
        except (sqlite3.DatabaseError, OSError) as error:
            raise DataError(
                f"the file of answers cannot be used: {error}",
                where=str(self._path),
                expected="a file that earlier runs wrote, or a folder in which one can be made",
                next="choose another folder with --cache, or move the file away",
            ) from error
