"""Cold start: whole items are held out of training and come to the catalogue afterwards, by content alone.

What a report of new items needs: which items are held out, the dataset without them, the examples that
ask for them, and two yardsticks beside which a recommender's figures mean something: chance, and the
nearest items by content. Training and the growth of the catalogue are left to the stages.

New items have no past: their events are taken out of every history, of training and of test. A user
with several of them in the test part has one example for each. Left out: new users.
"""

from dataclasses import dataclass

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from sidrec.config import Config, RunSettings
from sidrec.data.catalog import Catalog
from sidrec.data.dataset import PARTS, Dataset, Examples, Split
from sidrec.data.sequences import Histories, Sequences
from sidrec.decoding.recommendations import Recommendations, Request
from sidrec.embeddings.base import unit_length
from sidrec.errors import DataError
from sidrec.evaluation.evaluator import score
from sidrec.evaluation.protocol import Protocol
from sidrec.evaluation.ranking import Places, metric_values
from sidrec.evaluation.table import MetricTable
from sidrec.evaluation.ties import close_ties
from sidrec.random import generator
from sidrec.recommenders.scored import rank_scores
from sidrec.types import BoolArray, FloatArray, IntArray, Json

__all__ = ["ColdStartConfig", "HeldOut", "chance", "content_neighbours", "draw_new_items", "hold_out", "share_of_new"]


class ColdStartConfig(Config):
    """What is held out, and how the yardstick by content looks."""

    share: float = Field(default=0.05, gt=0, le=0.5)
    """Share of the items with events that are held out: few, so that training hardly misses them."""
    content_history: int = Field(default=5, ge=1)
    """Newest items of a history whose mean vector the yardstick by content starts from."""

    def describe(self, codes: str = "by content") -> str:
        """What was held out in a few words, for the protocol of a report.

        Args:
            codes: how the new items got theirs.
        """
        return (
            f"new items: {100 * self.share:g} % of the items with events, drawn evenly over popularity, "
            f"unseen in the training of the recommender and in all histories, given codes {codes}"
        )


@dataclass(frozen=True)
class HeldOut:
    """A dataset without some of its items, and the same with them behind the others.

    Attributes:
        warm: catalogue, sequences and split without the new items.
        grown: the same items, events and training examples in the whole catalogue, the new items last. Its test
            part is that of `warm` and then one example for each test target that is a new item.
        figures: how much was held out and lost.
    """

    warm: Dataset
    grown: Dataset
    figures: Json

    @property
    def warm_examples(self) -> IntArray:
        """Positions of the test examples that ask for an old item, the same in `warm` and `grown`."""
        return np.arange(len(self.warm.split.test))

    @property
    def new_examples(self) -> IntArray:
        """Positions in the test part of `grown` of the examples that ask for a new item."""
        return np.arange(len(self.warm.split.test), len(self.grown.split.test))

    @property
    def is_new(self) -> BoolArray:
        """bool[N], whether an item of the grown catalogue is new."""
        return np.arange(len(self.grown.catalog)) >= len(self.warm.catalog)


def draw_new_items(counts: IntArray, share: float, seed: int) -> BoolArray:
    """bool[N], the items to hold out: items with events in order of popularity, one drawn from every block of them.

    Args:
        counts: int64[N], events of each item.
        share: of the items with events.
        seed: of the draw.

    >>> draw_new_items(np.array([5, 0, 9, 7, 1]), 0.5, seed=0).sum()
    np.int64(2)
    """
    order = np.argsort(-counts, kind="stable")[: int((counts > 0).sum())]
    draw = generator(seed, "new items")
    blocks = np.array_split(order, max(1, round(share * len(order))))
    out = np.zeros(len(counts), dtype=np.bool_)
    out[[block[draw.integers(len(block))] for block in blocks]] = True
    return out


def hold_out(dataset: Dataset, is_new: BoolArray) -> HeldOut:
    """The dataset without its new items, and the examples that ask for them.

    An example keeps its target; its history loses the new items. Examples without any history left are dropped.

    Args:
        dataset: the whole dataset.
        is_new: bool[N], items to hold out.

    Raises:
        DataError: no training example is left, or no test target is a new item.
    """
    order = np.concatenate([np.flatnonzero(~is_new), np.flatnonzero(is_new)])
    row_of = np.empty(len(order), np.int32)
    row_of[order] = np.arange(len(order), dtype=np.int32)
    num_old = int((~is_new).sum())
    cut = _Cut(dataset, is_new, row_of)
    warm = Dataset(
        Catalog(dataset.catalog.items[order[:num_old]]),
        cut.sequences,
        Split(dataset.split.name, **{part: cut.examples(dataset.examples(part), of_new=False) for part in PARTS}),
        None if dataset.given_codes is None else dataset.given_codes[order[:num_old]],
    )
    asked = cut.examples(dataset.split.test, of_new=True)
    if not len(warm.split.train) or not len(asked):
        raise DataError(
            "no training example is left" if len(asked) else "no test target is one of the new items",
            where=f"{int(is_new.sum())} of {len(is_new)} items held out, split '{dataset.split.name}'",
            next="hold out another share of the items",
        )
    targets = row_of[dataset.targets("test")[cut.chosen(dataset.split.test, of_new=True)]]
    grown = _with_examples(warm, Catalog(dataset.catalog.items[order]), asked, targets)
    return HeldOut(warm, grown, _figures(dataset, warm, asked, cut.is_kept))


class _Cut:
    """Sequences without the events of new items, and where the examples stand in them."""

    def __init__(self, dataset: Dataset, is_new: BoolArray, row_of: IntArray) -> None:
        self._old, sequences = dataset.sequences, dataset.sequences
        self.is_kept = ~is_new[sequences.rows]
        self._kept_before = np.concatenate([[0], np.cumsum(self.is_kept)])
        ends = self._kept_before[sequences.offsets]
        lengths = np.diff(ends)
        self._line_of = np.cumsum(lengths > 0) - 1
        self.sequences = Sequences(
            rows=row_of[sequences.rows[self.is_kept]],
            offsets=np.concatenate([[0], np.cumsum(lengths[lengths > 0])]).astype(np.int64),
            users=[user for user, length in zip(sequences.users, lengths, strict=True) if length],
            times=None if sequences.times is None else sequences.times[self.is_kept],
        )

    def _places(self, examples: Examples) -> tuple[IntArray, IntArray]:
        """For each example the number of its target event, and of the events of its history that are kept."""
        starts = self._old.offsets[examples.users]
        events = starts + examples.cuts
        return events, self._kept_before[events] - self._kept_before[starts]

    def chosen(self, examples: Examples, *, of_new: bool) -> IntArray:
        """Positions of the examples that ask for new items, or for old ones, and have a history left."""
        events, cuts = self._places(examples)
        return np.flatnonzero((self.is_kept[events] != of_new) & (cuts > 0))

    def examples(self, examples: Examples, *, of_new: bool) -> Examples:
        """The chosen examples as (line, cut) of the new sequences; new targets themselves do not stand there."""
        chosen = self.chosen(examples, of_new=of_new)
        cuts = self._places(examples)[1][chosen]
        return Examples(self._line_of[examples.users[chosen]].astype(np.int32), cuts.astype(np.int32))


def _with_examples(warm: Dataset, catalog: Catalog, asked: Examples, targets: IntArray) -> Dataset:
    """The dataset in a larger catalogue, with one more line and test example for each new target."""
    old, split = warm.sequences, warm.split
    histories = old.before(asked.users, asked.cuts)
    ends = histories.offsets[1:]
    lengths = asked.cuts.astype(np.int64) + 1
    sequences = Sequences(
        rows=np.concatenate([old.rows, np.insert(histories.rows, ends, targets)]).astype(np.int32),
        offsets=np.concatenate([old.offsets, old.offsets[-1] + np.cumsum(lengths)]),
        users=old.users + [old.users[line] for line in asked.users],
    )
    lines = (len(old) + np.arange(len(asked))).astype(np.int32)
    test = Examples(np.concatenate([split.test.users, lines]), np.concatenate([split.test.cuts, asked.cuts]))
    return Dataset(catalog, sequences, Split(split.name, split.train, split.valid, test))


def _figures(dataset: Dataset, warm: Dataset, asked: Examples, is_kept: BoolArray) -> Json:
    def learners(data: Dataset) -> int:
        return len({data.sequences.users[line] for line in np.unique(data.split.train.users)})

    return {
        "items": len(dataset.catalog),
        "new_items": len(dataset.catalog) - len(warm.catalog),
        "events_held_out": int((~is_kept).sum()),
        "events": len(is_kept),
        "users_lost_for_training": learners(dataset) - learners(warm),
        "train_examples_lost": len(dataset.split.train) - len(warm.split.train),
        "test_examples_without_history": len(dataset.split.test) - len(warm.split.test) - len(asked),
    }


def share_of_new(rows: IntArray, num_old: int, k: int) -> float:
    """Share of the items in the first k places of lists int32[U, W] that are new; 0 where there are no items.

    >>> share_of_new(np.array([[0, 7, -1], [8, 1, 9]]), num_old=7, k=2)
    0.5
    """
    listed = rows[:, :k]
    return float((listed >= num_old).sum() / max(1, (listed >= 0).sum()))


def chance(
    histories: Histories, num_items: int, protocol: Protocol, allowed: BoolArray | None = None
) -> dict[str, float]:
    """Expected metrics of a random order of the items that may be recommended: hit@k is k / candidates.

    Args:
        histories: of the users.
        num_items: N.
        protocol: cut-offs, and whether seen items are candidates.
        allowed: bool[N], items that may be recommended; None means all.

    >>> chance(Histories.of([[0, 1]]), 10, Protocol(k=(2,), primary="hit@2"))["hit@2"]
    0.25
    """
    allowed = np.ones(num_items, np.bool_) if allowed is None else allowed
    candidates = np.full(len(histories), int(allowed.sum()))
    if protocol.exclude_seen:
        seen = np.unique(np.stack([histories.owners, histories.rows], axis=1), axis=0)
        candidates -= np.bincount(seen[allowed[seen[:, 1]], 0], minlength=len(histories))
    values = metric_values(Places(np.zeros_like(candidates), candidates), protocol.k)
    return MetricTable(values, protocol.primary).means()


def content_neighbours(
    vectors: FloatArray,
    histories: Histories,
    targets: IntArray,
    protocol: Protocol,
    run: RunSettings,
    *,
    newest: int,
    allowed: BoolArray | None = None,
) -> MetricTable:
    """Metrics of the items whose vectors are nearest, by cosine, to the mean of a history's newest items.

    It learns nothing and knows no behaviour: what a semantic ID adds must show against it.

    Args:
        vectors: float32[N, D] of the items.
        histories: of the U users.
        targets: int32[U], target rows.
        protocol: the rules.
        run: progress.
        newest: items of a history that are averaged, each at length 1.
        allowed: bool[N], items that may be recommended; None means all.
    """
    unit_ND = torch.from_numpy(unit_length(vectors))

    def similarities(users: Histories) -> Tensor:
        last = users.last(newest)
        total_BD = torch.zeros(len(last), unit_ND.shape[1])
        total_BD.index_add_(0, torch.from_numpy(last.owners), unit_ND[torch.from_numpy(last.rows.astype(np.int64))])
        # The length of the mean does not matter for the order of the items.
        return total_BD @ unit_ND.T

    def rank(users: Histories, width: int) -> Recommendations:
        request = Request(k=width, exclude_seen=protocol.exclude_seen, allowed=allowed)
        return rank_scores(similarities, len(unit_ND), users, request, run)

    k = max(protocol.k)
    found = rank(histories, min(k + 1, len(unit_ND)))
    places = None
    if protocol.ties == "expected":
        places = close_ties(rank, histories, targets, found, k, len(unit_ND), run.progress)
    return score(found, targets, protocol, places=places)[0]
