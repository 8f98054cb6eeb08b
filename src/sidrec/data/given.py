"""Ready-made examples (history, target, part) put back together into sequences with cuts.

Published splits come as one row an example, each repeating the user's history. Rows of one user are joined where
they continue each other without contradiction; where they contradict, the user owns several lines. If a file cut its
histories to the last M items, a joined line shows a recommender the older items too, unless its own history
length is at most M. Nothing is guessed: two windows join only if one contains the whole history of the other.
"""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import polars as pl

from sidrec.data.columns import Columns
from sidrec.data.dataset import PARTS, Examples, Split
from sidrec.errors import DataError
from sidrec.types import IntArray

__all__ = ["Joined", "join_examples"]

Window = tuple[int, ...]


@dataclass(frozen=True)
class Joined:
    """Lines of item codes and the examples on them.

    Attributes:
        items: int32[T], codes of all lines one after the other.
        offsets: int64[U+1].
        users: user id of each line.
        item_ids: what the codes mean, by first appearance.
        split: the examples of each part.
        empty_histories: examples left out because nothing precedes their target.
    """

    items: IntArray
    offsets: IntArray
    users: list[str]
    item_ids: list[str]
    split: Split
    empty_histories: int


def join_examples(examples: pl.DataFrame, where: str) -> Joined:
    """Sequences and split from a table of `user_id`, `history`, `target`, `part`.

    Raises:
        DataError: a value is missing or a part has another name.
    """
    _check(examples, where)
    code_of: dict[str, int] = {}
    windows: dict[str, list[tuple[Window, int]]] = defaultdict(list)
    for user, history, target, part in examples.select(
        Columns.USER, Columns.HISTORY, Columns.TARGET, Columns.PART
    ).iter_rows():
        codes = tuple(code_of.setdefault(item, len(code_of)) for item in (*history, target))
        windows[user].append((codes, PARTS.index(part)))
    lines: list[list[int]] = []
    users: list[str] = []
    longest = max(len(window) for own in windows.values() for window, _ in own)
    found: list[list[tuple[int, int]]] = [[] for _ in PARTS]
    for user, own in windows.items():
        own_lines, places = _join(own, longest)
        for (_, part), (line, cut) in zip(own, places, strict=True):
            found[part].append((len(lines) + line, cut))
        lines += own_lines
        users += [user] * len(own_lines)
    parts = {name: _examples(found[number]) for number, name in enumerate(PARTS)}
    return Joined(
        items=np.fromiter((code for line in lines for code in line), dtype=np.int32),
        offsets=np.cumsum([0, *map(len, lines)], dtype=np.int64),
        users=users,
        item_ids=list(code_of),
        split=Split("given", **parts),
        empty_histories=sum(cut < 1 for pairs in found for _, cut in pairs),
    )


def _check(examples: pl.DataFrame, where: str) -> None:
    if not examples.height:
        raise DataError("there are no examples", where=where, expected="at least one row")
    for name in (Columns.USER, Columns.TARGET, Columns.HISTORY):
        if examples[name].null_count():
            row = int(examples[name].is_null().arg_max() or 0)
            raise DataError(f"the column '{name}' is empty", where=f"{where}, example {row + 1}")
    other = set(examples[Columns.PART].unique().to_list()) - set(PARTS)
    if other:
        raise DataError(f"the part '{other.pop()}' is not known", where=where, expected=", ".join(PARTS))


def _examples(pairs: list[tuple[int, int]]) -> Examples:
    array = np.asarray([pair for pair in pairs if pair[1] >= 1], dtype=np.int32).reshape(-1, 2)
    order = np.lexsort((array[:, 1], array[:, 0]))
    return Examples(array[order, 0], array[order, 1])


def _join(windows: list[tuple[Window, int]], longest: int) -> tuple[list[list[int]], list[tuple[int, int]]]:
    """Lines of one user, and for each window the line and cut at which its target stands."""
    chains = _chains(sorted(dict.fromkeys(windows), key=lambda entry: (len(entry[0]), entry[1])), longest)
    lines: list[list[int]] = []
    place: dict[tuple[Window, int], tuple[int, int]] = {}
    for chain in chains:
        line: list[int] = []
        previous: Window = ()
        for window, part in chain:
            # A continued window repeats the one before, whole or without its oldest item.
            overlap = len(previous) if len(previous) < len(window) else len(window) - 1
            line += window[overlap:]
            place[window, part] = (len(lines), len(line) - 1)
            previous = window
        lines.append(line)
    return lines, [place[entry] for entry in windows]


def _chains(entries: list[tuple[Window, int]], longest: int) -> list[list[tuple[Window, int]]]:
    """Entries linked to what continues them; each belongs to exactly one chain."""
    candidates = _Candidates(entries, longest)
    following: dict[int, int] = {}
    head = list(range(len(entries)))

    def root(number: int) -> int:
        while head[number] != number:
            head[number] = head[head[number]]
            number = head[number]
        return number

    starts: list[int] = []
    for number, (window, part) in enumerate(entries):
        for before in candidates.before(window):
            # A link back into the own chain would close a circle (a user who repeats one item).
            if before not in following and entries[before][1] <= part and root(before) != root(number):
                following[before] = number
                head[root(number)] = root(before)
                break
        else:
            starts.append(number)
    chains: list[list[tuple[Window, int]]] = []
    for number in starts:
        chain = [entries[number]]
        while number in following:
            number = following[number]
            chain.append(entries[number])
        chains.append(chain)
    return chains


class _Candidates:
    """Which windows of one user another may continue, best first."""

    def __init__(self, entries: list[tuple[Window, int]], longest: int) -> None:
        self.longest = longest
        self.by_window: dict[Window, list[int]] = defaultdict(list)
        self.by_tail: dict[Window, list[int]] = defaultdict(list)
        for number, (window, _) in enumerate(entries):
            self.by_window[window].append(number)
            if len(window) == longest:
                self.by_tail[window[1:]].append(number)
        self.lengths = sorted({len(window) for window, _ in entries}, reverse=True)

    def before(self, window: Window) -> Iterator[int]:
        """The window that is the history; one shifted by an item (histories cut to a length); a shorter prefix."""
        history = window[:-1]
        yield from self.by_window.get(history, ())
        if len(window) == self.longest:
            yield from self.by_tail.get(history, ())
        for length in self.lengths:
            if length < len(history):
                yield from self.by_window.get(history[:length], ())
