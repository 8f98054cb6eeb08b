"""A trained recommender and histories → readable lists of items, for one user or a file of users."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

from sidrec.config import RunSettings
from sidrec.errors import DataError
from sidrec.recommenders.base import Recommender
from sidrec.recommenders.recommended import RecommendedList
from sidrec.types import Json

__all__ = ["recommend", "recommend_file"]

BATCH = 1024
"""Users read, ranked and written at once."""


def recommend(
    recommender: Recommender | Path | str,
    histories: Sequence[Sequence[str]],
    run: RunSettings = RunSettings(),
    *,
    k: int = 10,
    exact: bool = False,
    exclude_seen: bool = True,
) -> list[RecommendedList]:
    """The k best next items of each history of item ids (oldest first).

    Args:
        recommender: a loaded one, or the path of its artefact.
        histories: item ids of each user.
        run: device and progress.
        k: items a user.
        exact: widen the search until every list is certified.
        exclude_seen: never recommend an item of the same history.

    Raises:
        DataError: an item is not in the recommender's catalogue.
        ArtifactError: there is no recommender at the path.
    """
    if not isinstance(recommender, Recommender):
        recommender = Recommender.load(recommender)
    return recommender.recommend(histories, k, exact=exact, exclude_seen=exclude_seen, run=run)


def recommend_file(
    path: Path | str,
    source: Path,
    target: TextIO,
    run: RunSettings = RunSettings(),
    *,
    k: int = 10,
    exact: bool = False,
    exclude_seen: bool = True,
) -> int:
    """Lists for a JSONL file of users, written as JSONL; returns the number of users.

    Each line of the source is `{"history": [id, …]}`; its other keys (a user id, say) are copied to
    the answer's line, which adds `items` and `exact`.

    Raises:
        DataError: a line is not such an object, or names an unknown item.
    """
    recommender = Recommender.load(path)
    done = 0
    with run.progress("recommend", None) as advance:
        for users in _batches(source):
            histories = [user["history"] for user in users]
            _check_known(recommender, histories, source, done)
            answers = recommend(recommender, histories, run, k=k, exact=exact, exclude_seen=exclude_seen)
            for user, answer in zip(users, answers, strict=True):
                target.write(json.dumps(user | answer.as_json(), ensure_ascii=False) + "\n")
            done += len(users)
            advance(len(users))
    return done


def _batches(source: Path) -> Iterator[list[Json]]:
    batch: list[Json] = []
    try:
        with source.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, start=1):
                batch.append(_user(line, f"{source}, line {number}"))
                if len(batch) == BATCH:
                    yield batch
                    batch = []
    except (FileNotFoundError, IsADirectoryError, UnicodeDecodeError) as error:
        raise DataError("the file of histories cannot be read", where=str(source), expected="JSON lines") from error
    if batch:
        yield batch


def _user(line: str, where: str) -> Json:
    expected = '{"history": ["first item id", "second item id"]}'
    try:
        user: Any = json.loads(line)
    except ValueError as error:
        raise DataError("the line is not JSON", where=where, expected=expected) from error
    history = user.get("history") if isinstance(user, dict) else None
    if not isinstance(history, list) or not all(isinstance(item, str) for item in history):
        raise DataError("the line has no list of item ids called 'history'", where=where, expected=expected)
    return user


def _check_known(recommender: Recommender, histories: list[list[str]], source: Path, done: int) -> None:
    """Raise `DataError` with the line that names an unknown item (the batch as a whole would not say)."""
    for offset, items in enumerate(histories, start=1):
        unknown = [item for item in items if not recommender.catalog.knows(item)]
        if unknown:
            raise DataError(
                f"the item '{unknown[0]}' is not in the recommender's catalogue",
                where=f"{source}, line {done + offset}",
                expected="ids such as " + ", ".join(f"'{item}'" for item in recommender.catalog.ids[:3]),
            )
