"""Several processes that share one piece of work, as `torchrun` starts them.

What the first process found out, small results and "are we all here?" pass between them over torch's gloo backend: it
works without a GPU, across machines, and notices at once, where processes meet, that one has died. Left out: gradients,
which the training loop exchanges itself; artefacts, which are files that the first process writes; ending the others
early, which `torchrun` does.
"""

import os
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

from sidrec.errors import ConfigError, SidrecError

__all__ = ["ALONE", "Team", "TeamError", "launched"]

Result = TypeVar("Result")

MEETING = timedelta(minutes=5)
"""How much later than the first process the last one may start."""
PATIENCE = timedelta(days=7)
"""How much later it may finish. That one is dead is noticed at once by those who wait."""
NEEDED = ("RANK", "MASTER_ADDR", "MASTER_PORT")


class TeamError(SidrecError):
    """Another process of the team has ended before the work was done."""


@dataclass(frozen=True)
class Team:
    """This process among those that work together; by default it is alone.

    Attributes:
        rank: its number, from 0.
        size: number of processes.
        group: of torch.distributed; None for a process alone.
    """

    rank: int = 0
    size: int = 1
    group: Any = None

    @property
    def leads(self) -> bool:
        """Whether this is the first process."""
        return self.rank == 0

    def told(self, numbers: Sequence[int]) -> list[int]:
        """The numbers that the first process gives; the others give as many of any kind.

        Raises:
            TeamError: another process has ended.
        """
        if self.group is None:
            return list(numbers)
        import torch
        import torch.distributed as dist

        shared = torch.tensor(numbers, dtype=torch.int64)
        with self._together():
            dist.broadcast(shared, src=0, group=self.group)
        return shared.tolist()

    def gathered(self, result: Result) -> list[Result]:
        """What every process has, in the order of their numbers, for all of them.

        Raises:
            TeamError: another process has ended.
        """
        if self.group is None:
            return [result]
        import torch.distributed as dist

        out: list[Any] = [None] * self.size
        with self._together():
            dist.all_gather_object(out, result, group=self.group)
        return out

    def meet(self) -> None:
        """Wait until all processes are here.

        Raises:
            TeamError: another process has ended.
        """
        if self.group is not None:
            import torch.distributed as dist

            with self._together():
                dist.barrier(group=self.group)

    @contextmanager
    def _together(self) -> Generator[None]:
        try:
            yield
        except RuntimeError as error:
            raise TeamError(
                f"another of the {self.size} processes has ended before the work was done",
                where=f"process {self.rank + 1} of {self.size}",
                next="its own message says why; finished parts are kept, run the same command again to go on",
            ) from error


ALONE = Team()
"""A process that works alone."""


@contextmanager
def launched() -> Generator[Team]:
    """The team that `torchrun` started, as the environment tells; a process alone where it did not.

    Raises:
        ConfigError: the environment tells of several processes, but not how they meet.
        TeamError: they do not meet.
    """
    size = os.environ.get("WORLD_SIZE", "1")
    if size == "1":
        yield Team()
        return
    missing = [name for name in NEEDED if name not in os.environ]
    if missing:
        raise ConfigError(
            f"WORLD_SIZE is {size}, but {', '.join(missing)} are not set",
            where="environment",
            next="start the processes with torchrun, or unset WORLD_SIZE",
        )
    import torch.distributed as dist

    try:
        # Two limits: all must come soon, but who waits for a long piece of work waits for days.
        store, rank, world_size = next(dist.rendezvous("env://", timeout=MEETING))
        backend = _take_a_gpu()
        dist.init_process_group(backend, store=store, rank=rank, world_size=world_size, timeout=PATIENCE)
        group = dist.new_group(timeout=PATIENCE, backend="gloo")
    except (RuntimeError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise TeamError(f"the processes do not meet: {reason}", where=f"environment, WORLD_SIZE {size}") from error
    try:
        yield Team(dist.get_rank(), dist.get_world_size(), group)
    finally:
        dist.destroy_process_group()


def _take_a_gpu() -> str:
    """Take turns with the other processes of this machine for its GPUs; the backends for what there is."""
    import torch

    if not torch.cuda.is_available():
        return "gloo"
    torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", os.environ["RANK"])) % torch.cuda.device_count())
    return "cpu:gloo,cuda:nccl"
