"""Score a recommender on one part of a dataset under a protocol.

No group of tied items is cut inside the first k: items of equal codes are all asked for from the start,
other ties are closed by asking again. Writing files and comparing recommenders is left to the stages.
"""

import time
from dataclasses import dataclass, replace

import numpy as np

from sidrec.config import RunSettings
from sidrec.data.dataset import Dataset
from sidrec.data.sequences import Histories
from sidrec.decoding.recommendations import BeamConfig, Recommendations, Request
from sidrec.errors import DataError
from sidrec.evaluation.catalogue import catalogue_figures, list_defects
from sidrec.evaluation.protocol import Protocol, ScoredPart
from sidrec.evaluation.ranking import Places, collapse, find_target, has_open_tie, metric_values
from sidrec.evaluation.table import MetricTable
from sidrec.evaluation.ties import close_ties
from sidrec.progress import Silent
from sidrec.random import generator
from sidrec.recommenders.base import Recommender
from sidrec.tokenizers.semantic_ids import SemanticIds
from sidrec.types import BoolArray, FloatArray, IntArray

__all__ = ["Evaluation", "draw_examples", "evaluate", "item_figures", "rank_together", "score"]


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation found.

    Attributes:
        examples: int64[U], positions of the scored examples in the part; a user of a temporal split may
            own several.
        recommended: the lists, wider than the largest cut-off where ties are possible.
        targets: int32[U], target rows.
        table: per-user metrics, item level first, then `sid_…` where there are semantic IDs.
        ranks: float64[U], mean rank of the target counted from 1; inf where it is not listed.
        figures: catalogue-level figures and rates by name; `seen_targets` is the share of targets that
            stand in their own history, `open_ties` that of lists whose place k ties with items behind it
            (they count in the metrics all the same), `sid_short` that of lists with fewer than k different codes.
        seconds: wall-clock seconds that ranking took.
        search: how the lists were searched for; None for recommenders that score all items.
    """

    examples: IntArray
    recommended: Recommendations
    targets: IntArray
    table: MetricTable
    ranks: FloatArray
    figures: dict[str, float]
    seconds: float
    search: BeamConfig | None = None

    @property
    def users_per_second(self) -> float:
        """Users ranked in a second of wall-clock time."""
        return len(self.table) / self.seconds if self.seconds else float("inf")


def draw_examples(dataset: Dataset, part: ScoredPart, max_users: int, seed: int) -> IntArray:
    """int64[U], positions of the examples that are scored, rising; the same for the same seed.

    Raises:
        DataError: the part is empty.
    """
    num = len(dataset.examples(part))
    if not num:
        raise DataError(
            f"there is nothing to score: the {part} part is empty",
            where=f"split '{dataset.split.name}'",
            next="prepare the dataset with a split that has this part",
        )
    if not max_users or max_users >= num:
        return np.arange(num)
    return np.sort(generator(seed, "evaluation users", part).choice(num, size=max_users, replace=False))


def score(
    recommended: Recommendations,
    targets: IntArray,
    protocol: Protocol,
    semantic_ids: SemanticIds | None = None,
    places: Places | None = None,
) -> tuple[MetricTable, FloatArray]:
    """Per-user metrics of lists and the targets' mean ranks float64[U].

    `places` says where the targets stand if more than the lists is known about it.

    With semantic IDs, every metric is given again as `sid_…`: there, any item with the target's
    codes counts as the target, and items of equal codes take one place together. Where codes
    collide, a list may hold fewer than k different codes (the figure `sid_short` says how often).
    """
    rows, scores = recommended.rows, recommended.scores
    places = places or find_target(rows, scores, targets, protocol.ties)
    values = metric_values(places, protocol.k)
    if semantic_ids is not None:
        sid_places = places
        if semantic_ids.num_collided:
            tuples, tuple_scores = collapse(rows, scores, semantic_ids.group_of)
            sid_places = find_target(tuples, tuple_scores, semantic_ids.group_of[targets], protocol.ties)
        values |= {f"sid_{name}": column for name, column in metric_values(sid_places, protocol.k).items()}
    return MetricTable(values, protocol.primary), places.ranks


def evaluate(
    recommender: Recommender,
    dataset: Dataset,
    part: ScoredPart,
    protocol: Protocol,
    run: RunSettings,
    examples: IntArray | None = None,
    allowed: BoolArray | None = None,
) -> Evaluation:
    """Rank every user of a part and score the lists.

    Args:
        recommender: a fitted recommender of the dataset's catalogue.
        dataset: the dataset.
        part: `valid` or `test`.
        protocol: the rules.
        run: seed, device and progress; with a team, every process ranks its share and gets the whole evaluation.
        examples: positions of the examples to score; None draws them as the protocol says.
        allowed: bool[N], items that may be recommended; None means all.

    Raises:
        DataError: the part is empty, or recommender and dataset are of different catalogues.
    """
    _check_catalogues(recommender, dataset)
    if examples is None:
        examples = draw_examples(dataset, part, protocol.max_users, run.seed)
    pairs = dataset.examples(part)
    users, cuts = pairs.users[examples], pairs.cuts[examples]
    histories, targets = dataset.sequences.before(users, cuts), dataset.sequences.targets(users, cuts)
    request = Request(
        k=_num_wanted(recommender, protocol, len(dataset.catalog)),
        exclude_seen=protocol.exclude_seen,
        allowed=allowed,
        exact=protocol.exact,
        search=protocol.search,
    )
    start = time.perf_counter()
    recommended = rank_together(recommender, histories, request, run)
    seconds = time.perf_counter() - start
    ids, k, places = recommender.semantic_ids, max(protocol.k), None
    if ids is None and protocol.ties == "expected":
        quiet = replace(run, progress=Silent())

        def rank(users: Histories, width: int) -> Recommendations:
            return rank_together(recommender, users, replace(request, k=width), quiet)

        places = close_ties(rank, histories, targets, recommended, k, len(dataset.catalog), run.progress)
    table, ranks = score(recommended, targets, protocol, ids, places)
    figures = item_figures(recommended, dataset.training_counts(), protocol)
    figures["seen_targets"] = _share_seen(histories, targets)
    if ids is None:
        figures["open_ties"] = float(has_open_tie(recommended.rows, recommended.scores, k).mean())
    else:
        tuples, _ = collapse(recommended.rows, recommended.scores, ids.group_of)
        figures["sid_short"] = float(((tuples >= 0).sum(axis=1) < k).mean())
    return Evaluation(examples, recommended, targets, table, ranks, figures, seconds, recommender.search_for(request))


def rank_together(
    recommender: Recommender, histories: Histories, request: Request, run: RunSettings
) -> Recommendations:
    """The lists of all users, in every process: each ranks its share, every user once.

    Arguments and errors are those of `Recommender.rank`; `run.team` says who shares the work.
    """
    team = run.team
    if team.size == 1:
        return recommender.rank(histories, request, run)
    shares = [np.arange(rank, len(histories), team.size) for rank in range(team.size)]
    mine = shares[team.rank]
    found = recommender.rank(histories.take(mine), request, run) if len(mine) else None
    parts = [part for part in team.gathered(found) if part is not None]
    together, order = Recommendations.concatenate(parts), np.argsort(np.concatenate(shares))
    return Recommendations(together.rows[order], together.scores[order], together.exact[order])


def item_figures(recommended: Recommendations, counts: IntArray, protocol: Protocol) -> dict[str, float]:
    """Coverage, Gini, novelty, invalid and duplicate rates at every cut-off, and the share certified."""
    out: dict[str, float] = {}
    for k in protocol.k:
        out |= catalogue_figures(recommended.rows, counts, k) | list_defects(recommended.rows, k)
    return out | {"certified": float(recommended.exact.mean())}


def _check_catalogues(recommender: Recommender, dataset: Dataset) -> None:
    ours, theirs = recommender.catalog, dataset.catalog
    if ours.digest != theirs.digest:
        raise DataError(
            f"recommender and dataset are of different catalogues: {len(ours)} items of catalogue {ours.digest[:12]}, "
            f"{len(theirs)} items of catalogue {theirs.digest[:12]}",
            expected="a recommender trained on this dataset",
            next="train it again",
        )


def _num_wanted(recommender: Recommender, protocol: Protocol, num_items: int) -> int:
    """Items to ask for: no group of equal codes may be cut inside the first k.

    Without semantic IDs one more item shows whether a tie goes on behind the last place.
    """
    further = recommender.max_ties - (recommender.semantic_ids is not None)
    return min(max(protocol.k) + further, num_items)


def _share_seen(histories: Histories, targets: IntArray) -> float:
    """Share of the targets that stand in their own history, which no list without seen items can hold."""
    own = np.repeat(targets, histories.lengths) == histories.rows
    return len(np.unique(histories.owners[own])) / len(targets)
