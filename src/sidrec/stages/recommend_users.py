"""A trained recommender and a file of users → a file of their lists, for any number of users.

The users are cut into parts of fixed size. A part is read, ranked by one call and committed before the next one
begins: memory does not grow with the number of users, a killed run loses at most a part, and processes that share the
work need not talk. No list depends on who ranked it, or when, so the file is the same to the byte.
"""

import os
import time
import warnings
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import polars as pl
from pydantic import Field

from sidrec.artifact import digest_of, file_digest, open_artifact
from sidrec.config import Config, RunSettings
from sidrec.data.catalog import Catalog
from sidrec.data.columns import Columns
from sidrec.data.sequences import Histories, user_keys
from sidrec.data.users import UserFile, Users, user_file
from sidrec.decoding.recommendations import Recommendations, Request
from sidrec.errors import DataError
from sidrec.progress import Advance, Silent
from sidrec.recommenders.base import Recommender
from sidrec.stages.parts import SKIPPED, Parts, check_free, check_place, finished, key_of
from sidrec.stages.recommend import load_recommender, read_item_ids
from sidrec.team import ALONE, Team
from sidrec.types import IntArray, Json
from sidrec.version import __version__

__all__ = ["BatchConfig", "BatchReport", "recommend_users"]


class BatchConfig(Config):
    """What is asked for each user, and how the file of users is read."""

    k: int = Field(default=10, ge=1)
    """Items a user."""
    exclude_seen: bool = True
    """Never recommend an item of the user's own history."""
    exact: bool = False
    """Go on with what the search dropped until every list is certified to be the true top k."""
    on_unknown: Literal["raise", "skip"] = "raise"
    """What to do with items of a history that are not in the catalogue."""
    allowed: Path | None = None
    """File of the items that may be recommended, one id a line; None means all."""
    denied: Path | None = None
    """File of items that must not be, likewise."""
    user_column: str | None = None
    """Column of user ids; None takes the one with a usual name (`user_id`, `user`)."""
    items_column: str | None = None
    """Column of item lists; None takes `history`, `history_item_id`, `item_ids` or `items`."""
    part_size: int = Field(default=8192, ge=1)
    """Users read, ranked and committed at once: what a killed run may lose, and what is held in memory."""


DEFAULTS = BatchConfig()


@dataclass(frozen=True)
class BatchReport:
    """What became of a file of users.

    Attributes:
        path: the file of lists.
        summary: figures of all lists: users, share certified, empty lists, skipped items.
        resumed: users whose lists an earlier run had made.
        seconds: wall-clock time of this run.
        up_to_date: whether nothing had to be done.
    """

    path: Path
    summary: Json
    resumed: int
    seconds: float
    up_to_date: bool = False


def recommend_users(
    recommender: Path,
    source: Path,
    target: Path,
    settings: BatchConfig = DEFAULTS,
    run: RunSettings = RunSettings(),
    *,
    items: Path | None = None,
    force: bool = False,
    tell: Callable[[str], None] = warnings.warn,
    team: Team = ALONE,
) -> BatchReport | None:
    """Lists for every row of a file of users, in the same order.

    Args:
        recommender: its artefact.
        source: Parquet, CSV with list literals, or JSON Lines; see `sidrec.data.users`.
        target: `.parquet` and `.jsonl` hold user id, `items` and `scores` (best first) and `exact`; `.csv` holds
            `user_id,item_id`, the second a list literal. Finished parts stand in a hidden folder beside it.
        settings: what is asked.
        run: device and progress.
        items: a tokenizer artefact that extends the semantic IDs, as for `load_recommender`.
        force: overwrite a finished target.
        tell: is told when finished parts of another request are thrown away.
        team: this process among those that share the work; each takes its own parts.

    Returns:
        The report, in the first process; None in the others.

    Raises:
        DataError: the file, a row of it, or an item in it is wrong; file, row and column are named.
        ArtifactError: there is no such recommender, or something else stands at the target.
        ConstraintError: the lists leave no item.
        TeamError: another process has ended.
    """
    started = time.monotonic()
    users = user_file(source, settings.user_column, settings.items_column)
    model = load_recommender(recommender, items)
    lists = [
        None if file is None else read_item_ids(file, model.catalog) for file in (settings.allowed, settings.denied)
    ]
    asked = model.request(
        settings.k, exclude_seen=settings.exclude_seen, exact=settings.exact, allowed=lists[0], denied=lists[1]
    )
    worker = _Worker(model, asked, users, settings, run, team)
    if not team.leads:
        num_users, key, is_missing = team.told([0, 0, 0])
        if is_missing:
            worker.work(Parts(target, key), num_users)
            team.meet()
        return None
    check_place(target, source)
    request = _request(recommender, items, users, settings, lists, run)
    if not force:
        known = finished(target, request)
        if known is not None:
            team.told([0, 0, 0])
            return BatchReport(target, known, known["users"], time.monotonic() - started, up_to_date=True)
        check_free(target)
    parts = Parts(target, key_of(request))
    with parts.locked():
        parts.answer(request, tell)
        sizes = _sizes(request["users"], settings.part_size)
        resumed = sum(sizes[number] for number in parts.done())
        team.told([request["users"], parts.key, 1])
        worker.work(parts, request["users"])
        team.meet()
        with run.progress("join the parts", None):
            summary = parts.join(len(sizes), request, bare_ids=are_integers(model.catalog))
    return BatchReport(target, summary, resumed, time.monotonic() - started)


def _request(
    recommender: Path,
    items: Path | None,
    users: UserFile,
    settings: BatchConfig,
    lists: Sequence[list[str] | None],
    run: RunSettings,
) -> Json:
    """All that decides the lists, by content; two runs with equal requests may share parts."""
    with run.progress("read the users", None):
        num_users = users.count()
        if not num_users:
            raise DataError("the file holds no user", where=str(users.path), expected="at least one row")
        digest = file_digest(users.path)
    allowed, denied = (None if ids is None else digest_of(sorted(set(ids))) for ids in lists)
    return {
        "version": __version__,
        "recommender": open_artifact(recommender, "recommender").digest,
        "new items": None if items is None else open_artifact(items, "tokenizer").digest,
        "input": digest,
        "columns": list(users.columns),
        "users": num_users,
        "allowed": allowed,
        "denied": denied,
        # Another kind of device rounds otherwise: its lists may differ from those that are there.
        "device": run.torch_device().partition(":")[0],
        **settings.model_dump(include={"k", "exclude_seen", "exact", "on_unknown", "part_size"}),
    }


class _Worker:
    """The parts of one process."""

    def __init__(
        self,
        model: Recommender,
        asked: Request,
        users: UserFile,
        settings: BatchConfig,
        run: RunSettings,
        team: Team,
    ) -> None:
        self.model, self.asked, self.users = model, asked, users
        self.settings, self.team = settings, team
        self.run = replace(run, device=_device(run, team), progress=run.progress if team.leads else Silent())
        self.item_ids = pl.Series(model.catalog.ids)

    def work(self, parts: Parts, num_users: int) -> None:
        """Make the parts of this process that are missing."""
        sizes, done = _sizes(num_users, self.settings.part_size), parts.done()
        wanted = [n for n in range(self.team.rank, len(sizes), self.team.size) if n not in done]
        task = "recommend" if self.team.size == 1 else f"recommend, process {self.team.rank + 1} of {self.team.size}"
        # Only what this process does counts, or a resumed run would promise too early an end.
        with self.run.progress(task, sum(sizes[number] for number in wanted)) as advance:
            for number, users in self.users.parts(self.settings.part_size, wanted):
                histories, skipped = histories_of(users, self.model.catalog, self.settings.on_unknown == "skip")
                share = _Share(advance, len(users))
                ranked = self.model.rank(histories, self.asked, replace(self.run, progress=share))
                parts.add(number, self.table(users, ranked, skipped))
                share.finish()

    def table(self, users: Users, ranked: Recommendations, skipped: IntArray) -> pl.DataFrame:
        """The rows of a part."""
        missing = pl.Series(ranked.rows.reshape(-1) < 0)
        ids = self.item_ids.gather(np.maximum(ranked.rows, 0).reshape(-1))
        columns = {Columns.ITEMS: ids, Columns.SCORES: pl.Series(ranked.scores.reshape(-1))}
        shape = ranked.rows.shape
        lists = {
            name: pl.select(pl.when(~missing).then(flat)).to_series().reshape(shape).arr.to_list().list.drop_nulls()
            for name, flat in columns.items()
        }
        return pl.DataFrame({Columns.USER: users.ids, **lists, Columns.EXACT: ranked.exact, SKIPPED: skipped})


class _Share:
    """A display for one part of the users inside that of them all, whatever steps the recommender counts."""

    def __init__(self, advance: Advance, num_users: int) -> None:
        self._advance, self._users, self._left = advance, num_users, float(num_users)
        self._open = 0

    @contextmanager
    def __call__(self, task: str, total: float | None) -> Generator[Advance]:
        """A piece of work; the outermost ones count by the share of it that is done."""
        self._open += 1
        counts = self._open == 1 and bool(total)

        def advance(steps: float = 1, note: str = "") -> None:
            users = min(self._left, self._users * steps / (total or 1)) if counts else 0.0
            self._left -= users
            self._advance(users, note)

        try:
            yield advance
        finally:
            self._open -= 1

    def finish(self) -> None:
        """The part is done."""
        self._advance(self._left)
        self._left = 0.0


def _sizes(num_users: int, part_size: int) -> list[int]:
    """Users of each part.

    >>> _sizes(7, 3)
    [3, 3, 1]
    """
    return [min(part_size, num_users - first) for first in range(0, num_users, part_size)]


def histories_of(users: Users, catalog: Catalog, skip_unknown: bool) -> tuple[Histories, IntArray]:
    """Rows and owners of the users' items, and int64[U], how many unknown items of each were left out.

    Raises:
        DataError: an item is unknown and not to be skipped; its user's row is named.
    """
    rows = catalog.find(users.items)
    known = rows >= 0
    owners = np.repeat(np.arange(len(users)), users.lengths)
    if not known.all() and not skip_unknown:
        user = int(owners[~known][0])
        catalog.rows(users.of(user), where=users.where(user))
    skipped = np.bincount(owners[~known], minlength=len(users))
    offsets = np.concatenate([[0], np.cumsum(users.lengths - skipped)]).astype(np.int64)
    return Histories(rows[known], offsets, user_keys(users.ids.cast(pl.String))), skipped


def are_integers(catalog: Catalog) -> bool:
    """Whether all item ids are integers as they are printed, so that a list literal may hold them bare."""
    return all(
        len(item) < 19 and item.isascii() and item.isdecimal() and str(int(item)) == item for item in catalog.ids
    )


def _device(run: RunSettings, team: Team) -> str:
    """The device of this process: those of one machine take turns with its GPUs, unless one of them is named."""
    if run.device not in ("auto", "cuda") or team.size == 1:
        return run.device
    import torch

    if not torch.cuda.is_available():
        return run.device
    return f"cuda:{int(os.environ.get('LOCAL_RANK', team.rank)) % torch.cuda.device_count()}"
