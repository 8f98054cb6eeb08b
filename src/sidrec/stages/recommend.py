"""A trained recommender and histories → readable lists of items, for one user or a file of users."""

import json
from collections.abc import Collection, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

from sidrec.artifact import open_artifact
from sidrec.config import RunSettings
from sidrec.data.catalog import FILE as CATALOG
from sidrec.data.catalog import Catalog
from sidrec.data.files import json_lines, open_text
from sidrec.data.sequences import Histories
from sidrec.data.users import USER_COLUMNS
from sidrec.errors import DataError
from sidrec.recommenders.base import Recommender
from sidrec.recommenders.recommended import RecommendedList
from sidrec.tokenizers.semantic_ids import SemanticIds
from sidrec.types import IntArray, Json

__all__ = ["load_recommender", "read_item_ids", "recommend", "recommend_file"]

BATCH = 1024
"""Users read, ranked and written at once."""


def load_recommender(path: Path | str, items: Path | str | None = None) -> Recommender:
    """A trained recommender, with `items` one of a grown catalogue.

    Args:
        path: the recommender's artefact.
        items: a tokenizer artefact that extends the semantic IDs it was trained on.

    Raises:
        ArtifactError: one of them is missing, damaged or something else.
        DataError: the recommender cannot take new items, or these are not behind its own.
    """
    recommender = Recommender.load(path)
    if items is None:
        return recommender
    grown = open_artifact(items, "tokenizer")
    if not (grown.path / CATALOG).is_file():
        raise DataError(
            "these semantic IDs were not extended, so there are no new items",
            where=str(grown.path),
            expected="an artefact of 'sidrec tokenize --extend NEW'",
            next="leave --items out, or extend them first",
        )
    return recommender.extended(Catalog.load(grown.path), SemanticIds.load(grown.path))


def recommend(
    recommender: Recommender | Path | str,
    histories: Sequence[Sequence[str]],
    run: RunSettings = RunSettings(),
    *,
    k: int = 10,
    users: Sequence[str | None] | None = None,
    exact: bool = False,
    exclude_seen: bool = True,
    allowed: Collection[str] | None = None,
    denied: Collection[str] | None = None,
) -> list[RecommendedList]:
    """The k best next items of each history of item ids (oldest first).

    Args:
        recommender: a loaded one, or the path of its artefact.
        histories: item ids of each user.
        run: device and progress.
        k: items a user.
        users: id of each user, or None for one who is not known; only recommenders with user tokens read them.
        exact: search on until every list is certified to be the true top k.
        exclude_seen: never recommend an item of the same history.
        allowed: ids of the items that may be recommended; None means all.
        denied: ids of items that must not be.

    Raises:
        DataError: an item is not in the recommender's catalogue.
        ConstraintError: the lists leave no item.
        ArtifactError: there is no recommender at the path.
    """
    if not isinstance(recommender, Recommender):
        recommender = Recommender.load(recommender)
    return recommender.recommend(
        histories, k, users=users, exclude_seen=exclude_seen, allowed=allowed, denied=denied, exact=exact, run=run
    )


def recommend_file(
    recommender: Recommender | Path | str,
    source: Path,
    target: TextIO,
    run: RunSettings = RunSettings(),
    *,
    k: int = 10,
    exact: bool = False,
    exclude_seen: bool = True,
    allowed: Collection[str] | None = None,
    denied: Collection[str] | None = None,
) -> int:
    """Lists for a JSONL file of users, written as JSONL; returns the number of users.

    Each line of the source (gzip'd or not, blank ones aside) is `{"history": [id, …]}`; its other keys are copied to
    the answer's line, which adds `items` and `exact`. A key `user_id` or `user` says who it is to recommenders with
    user tokens. Settings are those of `recommend`.

    Raises:
        DataError: a line is not such an object, or names an unknown item; or there is no line.
        ConstraintError: the lists leave no item.
    """
    if not isinstance(recommender, Recommender):
        recommender = Recommender.load(recommender)
    request = recommender.request(k, exact=exact, exclude_seen=exclude_seen, allowed=allowed, denied=denied)
    done = 0
    with run.progress("answer users", _num_lines(source)) as advance:
        for users in _batches(source):
            rows = [_known(recommender, user, where) for where, user in users]
            histories = Histories.of(rows, [_user_id(user) for _, user in users])
            ranked = recommender.rank(histories, request, run)
            answers = RecommendedList.of(ranked, recommender.catalog, recommender.semantic_ids)
            for (_, user), answer in zip(users, answers, strict=True):
                target.write(json.dumps(user | answer.as_json(), ensure_ascii=False) + "\n")
            done += len(users)
            advance(len(users))
    return done


def read_item_ids(source: Path, catalog: Catalog) -> list[str]:
    """Item ids of a file with one a line (gzip'd or not; blank lines and blanks around an id aside).

    Raises:
        DataError: a line is no id of the catalogue.
    """
    with open_text(source) as lines:
        ids = [(number, line.strip()) for number, line in enumerate(lines, 1) if line.strip()]
    unknown = [(number, item) for number, item in ids if not catalog.knows(item)]
    if unknown:
        catalog.rows([item for _, item in unknown], where=f"{source}, line {unknown[0][0]}")
    return [item for _, item in ids]


def _num_lines(source: Path) -> int | None:
    """Lines that are not blank; None for a pipe, which can be read only once."""
    if source.exists() and not source.is_file():
        return None
    with open_text(source) as lines:
        return sum(1 for line in lines if line.strip())


def _batches(source: Path) -> Iterator[list[tuple[str, Json]]]:
    """(place in the file, user), some at once."""
    users = ((f"{source}, line {number}", user) for number, user in json_lines(source))
    while batch := list(islice(users, BATCH)):
        yield batch


def _user_id(user: Json) -> str | None:
    """Who a line is about, if it says so by a text or an integer."""
    names = [user[key] for key in USER_COLUMNS if isinstance(user.get(key), str | int)]
    return str(names[0]) if names else None


def _known(recommender: Recommender, user: Json, where: str) -> IntArray:
    """Rows of the user's history; the error says which line is wrong, which the batch as a whole could not."""
    history: Any = user.get("history")
    if not isinstance(history, list) or not all(isinstance(item, str) for item in history):
        raise DataError(
            "the line has no list of item ids called 'history'",
            where=where,
            expected='{"history": ["first item id", "second item id"]}',
        )
    return recommender.catalog.rows(history, where=where)
