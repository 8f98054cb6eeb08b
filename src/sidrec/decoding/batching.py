"""How many users to search at once: a fixed number, or one that is tuned while the work is done.

A larger batch saves calls until it no longer fits the caches; where that is depends on machine, model, beams
and lengths. `BatchTuner` tries the next power of two up or down on real batches and keeps what is faster.
Lists never depend on the batch, so nothing is run for the measurement alone.

What is compared: users stand in order of history length, so their cost rises on the way, though not in
proportion (beams cost as much behind a short history as behind a long one). Neither users nor tokens a second
are therefore fair to a later batch. A trial is compared with the mean of the batches before and after it, in
which a steady rise cancels out. Left out: the memory of a CPU, which runs out with no error to catch.
"""

import time
from collections.abc import Callable, Iterator
from typing import TypeVar

import torch

from sidrec.decoding.recommendations import UsersPerBatch

__all__ = ["BatchTuner", "in_batches"]

Found = TypeVar("Found")

START, LARGEST = 8, 1024
"""Users in the first batch of a tuned search, and in the largest."""
MARGIN = 0.03
"""Share by which a size must be faster to be taken: less is noise."""
LONGEST_WAIT = 16
"""Batches between trials where none has paid for long."""


class BatchTuner:
    """Climbs towards the batch size with the least time a user.

    Attributes:
        size: the best size so far.
        limit: never to be exceeded.

    >>> tuner = BatchTuner()
    >>> for seconds in (0.8, 0.8, 1.0, 0.8):  # 16 users in 1 s are faster than 8 in 0.8 s
    ...     tuner.observe(tuner.propose(), seconds)
    >>> tuner.size
    16
    """

    def __init__(self) -> None:
        self.size, self.limit = START, LARGEST
        self._grows = True
        self._waited, self._wait = -1, 1  # the very first batch also pays for what is set up once
        self._before = 0.0  # seconds a user of the last batch of the best size
        self._trial: tuple[int, float] | None = None  # size and seconds a user of a trial that is not judged yet

    def propose(self, *, may_grow: bool = True) -> int:
        """Users of the next batch.

        Args:
            may_grow: whether there is memory for twice as many as now.
        """
        if self._trial is not None or self._waited < self._wait:
            return self.size
        larger = self.size * 2 if may_grow and self.size * 2 <= self.limit else None
        smaller = self.size // 2 or None
        return (larger or smaller if self._grows else smaller or larger) or self.size

    def observe(self, size: int, seconds: float) -> None:
        """Learn what a batch of a proposed size took."""
        cost = seconds / size
        if size != self.size:
            self._trial = (size, cost)
            return
        self._waited += 1
        if self._trial is not None:
            self._judge(*self._trial, expected=(self._before + cost) / 2)
        self._before = cost

    def shrink(self, limit: int) -> None:
        """Stay at or below a limit from now on, at least 1."""
        self.limit, self._trial, self._waited = limit, None, 0
        while self.size > limit:
            self.size //= 2

    def _judge(self, size: int, cost: float, expected: float) -> None:
        self._trial, self._waited = None, 0
        self._grows = size > self.size
        if cost < expected * (1 - MARGIN):
            self.size, self._wait = size, 1
        else:
            self._grows, self._wait = not self._grows, min(2 * self._wait, LONGEST_WAIT)


def in_batches(
    num_users: int,
    users_per_batch: UsersPerBatch,
    search: Callable[[slice], Found],
    clock: Callable[[], float] = time.perf_counter,
) -> Iterator[Found]:
    """What `search` finds for the users 0 … num_users - 1, batch by batch.

    With "auto" a batch for which a GPU has too little memory is searched again in halves, and no later one
    is larger than those.

    Args:
        num_users: users in all.
        users_per_batch: as in `BeamConfig`.
        search: searches a range of the users.
        clock: seconds.

    Raises:
        torch.OutOfMemoryError: the number is fixed, or not even one user fits.
    """
    if users_per_batch != "auto":
        for first in range(0, num_users, users_per_batch):
            yield search(slice(first, min(first + users_per_batch, num_users)))
        return
    tuner, first = BatchTuner(), 0
    while first < num_users:
        proposed = tuner.propose(may_grow=_has_room())
        size = min(proposed, num_users - first)
        started = clock()
        found = _unless_too_large(search, slice(first, first + size))
        if found is None:
            tuner.shrink(size // 2)
            continue
        if size == proposed:
            tuner.observe(size, clock() - started)
        yield found
        first += size


def _has_room() -> bool:
    """Whether as much memory is free as is held on every GPU that is used, so that twice the users surely fit."""
    if not torch.cuda.is_initialized():
        return True
    held = {device: torch.cuda.memory_reserved(device) for device in range(torch.cuda.device_count())}
    return all(torch.cuda.mem_get_info(device)[0] >= size for device, size in held.items() if size)


def _unless_too_large(search: Callable[[slice], Found], users: slice) -> Found | None:
    """What is found; None if memory ran out and there is a smaller batch to try."""
    try:
        return search(users)
    except torch.OutOfMemoryError:
        if users.stop - users.start == 1:
            raise
    # Behind the handler, whose traceback holds on to the tensors of the search.
    torch.cuda.empty_cache()
    return None
