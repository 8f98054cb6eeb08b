"""How fast a server may be asked: a rate shared by all threads, pauses it asks for, waits between attempts."""

import random
import threading
import time
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from pydantic import Field

from sidrec.config import Config

__all__ = ["Pace", "RequestConfig", "StoppedError", "backoff", "seconds_to_wait"]


class RequestConfig(Config):
    """How a server is asked; nothing of this changes what is found."""

    per_second: float = Field(default=5.0, gt=0)
    """Requests begun in a second, at most."""
    concurrency: int = Field(default=4, ge=1)
    """Requests under way at once."""
    timeout: float = Field(default=60.0, gt=0)
    """Seconds from a request to the last byte of its answer, after which it counts as lost."""
    attempts: int = Field(default=5, ge=1)
    """Times a request is made before the item counts as failed."""
    first_wait: float = Field(default=1.0, ge=0)
    """Seconds before the second attempt; each later wait is twice as long, less up to a half by chance."""
    longest_wait: float = Field(default=300.0, gt=0)
    """Seconds that no wait exceeds; a server that asks for a longer one ends the run."""
    give_up_after: int = Field(default=20, ge=1)
    """Requests in a row without a word from the server (no connection, time-outs, status 429 or 5xx) after which the
    run ends: the server is gone, not the items. Requests that failed in an earlier run do not count."""


class StoppedError(Exception):
    """The run ends; raised in threads that wait."""


class Pace:
    """When the next request may begin.

    Args:
        per_second: requests begun in a second, at most.
    """

    def __init__(self, per_second: float) -> None:
        self._gap, self._next = 1 / per_second, 0.0
        self._lock, self._stopped = threading.Lock(), threading.Event()

    def wait(self) -> None:
        """Sleep until a request may begin.

        Raises:
            StoppedError: the run ends.
        """
        while True:
            with self._lock:
                now = time.monotonic()
                pause = self._next - now
                if pause <= 0:
                    self._next = now + self._gap
                    break
            self.sleep(pause)
        if self._stopped.is_set():
            raise StoppedError

    def hold(self, seconds: float) -> None:
        """Begin no request of any thread for a while."""
        with self._lock:
            self._next = max(self._next, time.monotonic() + seconds)

    def sleep(self, seconds: float) -> None:
        """Sleep, but no longer than the run lasts.

        Raises:
            StoppedError: the run ends.
        """
        if self._stopped.wait(seconds):
            raise StoppedError

    def stop(self) -> None:
        """End all waiting."""
        self._stopped.set()


def backoff(config: RequestConfig, attempt: int) -> float:
    """Seconds to wait after attempt 1, 2, …: doubled each time, less up to a half so that clients do not march in step.

    >>> config = RequestConfig(first_wait=2, longest_wait=10)
    >>> all(4 <= backoff(config, 3) <= 8 for _ in range(50)), all(5 <= backoff(config, 9) <= 10 for _ in range(50))
    (True, True)
    """
    longest = min(config.first_wait * 2.0 ** min(attempt - 1, 60), config.longest_wait)
    return longest * random.uniform(0.5, 1.0)


def seconds_to_wait(header: str | None, now: datetime | None = None) -> float | None:
    """What `Retry-After` asks for: a number of seconds or a date (RFC 9110, section 10.2.3); None if it says neither.

    >>> seconds_to_wait("2.5"), seconds_to_wait("soon"), seconds_to_wait(None)
    (2.5, None, None)
    >>> noon = datetime(2024, 1, 1, 12, tzinfo=UTC)
    >>> seconds_to_wait("Mon, 01 Jan 2024 12:00:30 GMT", noon), seconds_to_wait("Mon, 01 Jan 2024 11:00:00 GMT", noon)
    (30.0, 0.0)
    """
    if header is None:
        return None
    try:
        seconds = float(header)
    except ValueError:
        try:
            when = parsedate_to_datetime(header)
        except ValueError:
            return None
        when = when if when.tzinfo else when.replace(tzinfo=UTC)
        seconds = (when - (now or datetime.now(UTC))).total_seconds()
    return max(seconds, 0.0) if seconds < float("inf") else None
