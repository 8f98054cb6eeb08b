"""What a beam of W misses, how often a list is certified, and what exact lists cost, on trained recommenders.

    python benchmarks/exactness.py RUN/dataset RUN/recommenders/NAME [NAME …]

For every user of the test split: recall of the exact top 10 in the lists of a beam search of width W, the share of
users whose list is certified to be exact, and users per CPU second, for several W; then the same for `exact=True`,
whose lists are checked against the score of every item. One thread, batches of 32 users, seen items allowed as in
the papers. Wrong certificates are counted; there must be none.
"""

import argparse
from pathlib import Path

import numpy as np
import torch

from harness import Benchmark, measure
from sidrec.config import RunSettings
from sidrec.data.dataset import Dataset
from sidrec.data.sequences import Histories
from sidrec.decoding.exhaustive import exhaustive_ranking
from sidrec.decoding.recommendations import Recommendations, Request
from sidrec.recommenders.base import Recommender
from sidrec.recommenders.generative import GenerativeRecommender

K, WIDTHS, PLAIN = 10, (10, 20, 50, 100, 200), 20
RUN = RunSettings(device="cpu")
TOLERANCE = 1e-4
"""Nats by which equal scores may differ that were computed in batches of other shapes."""


def hits(found: Recommendations, truth: Recommendations) -> np.ndarray:
    """Share of each user's true items that were found; an item of the last true score counts for another."""
    floor = truth.scores[:, -1:] - TOLERANCE
    return (found.scores >= floor).sum(axis=1) / K


def is_wrong(found: Recommendations, truth: Recommendations) -> np.ndarray:
    """bool[U], lists that are not the best k up to items of (nearly) equal score."""
    return (np.abs(found.scores - truth.scores) > TOLERANCE).any(axis=1)


def figures(benchmark: Benchmark, name: str, recommender: GenerativeRecommender, histories: Histories) -> None:
    """All figures of one recommender."""
    search = recommender.config.search
    request = Request(K, exclude_seen=False)
    with recommender.evaluating(RUN):
        scorer = recommender.scorer(search.normalize)
        truth = exhaustive_ranking(scorer, recommender.trie, histories, request, search, RUN)
    users, case = len(histories), f"{name}, {len(histories):,} users, {len(recommender.catalog):,} items"
    found: dict[str, Recommendations] = {}
    seconds: dict[str, float] = {}

    def run(label: str, beams: int, *, exact: bool) -> None:
        asked = Request(K, exclude_seen=False, exact=exact, search=search.model_copy(update={"beams": beams}))
        found[label] = recommender.rank(histories, asked, RUN)

    for label, beams, exact in [*((f"beam {width}", width, False) for width in WIDTHS), ("exact", PLAIN, True)]:
        seconds[label] = measure(lambda label=label, b=beams, e=exact: run(label, b, exact=e), repeats=1).cpu_s
        certified, wrong = found[label].exact, is_wrong(found[label], truth)
        cost = seconds[label] / seconds.get(f"beam {PLAIN}", seconds[label])
        plain = f"beam {PLAIN}" if f"beam {PLAIN}" in seconds else ""
        benchmark.row(case, label, plain, users / seconds[label], "users per CPU second", 1 / cost if plain else None)
        benchmark.row(case, label, value=100 * hits(found[label], truth).mean(), unit=f"% of the exact top {K} found")
        benchmark.row(case, label, value=100 * certified.mean(), unit="% certified")
        benchmark.row(case, label, value=100 * (~wrong).mean(), unit="% of lists exact")
        benchmark.row(case, label, value=int((certified & wrong).sum()), unit="wrong certificates")


def main() -> None:
    """Measure every recommender and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("recommenders", type=Path, nargs="+")
    parser.add_argument("--name", default="exactness")
    parser.add_argument("--users", type=int, default=0, help="of the test split, the first so many; 0 takes all")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    dataset = Dataset.load(arguments.dataset)
    test = dataset.split.test
    users, cuts = test.users, test.cuts
    if arguments.users:
        users, cuts = users[: arguments.users], cuts[: arguments.users]
    histories = dataset.sequences.before(users, cuts)
    benchmark = Benchmark(arguments.name)
    for path in arguments.recommenders:
        recommender = Recommender.load(path)
        if not isinstance(recommender, GenerativeRecommender):
            raise SystemExit(f"{path} writes no semantic IDs: it searches nothing")
        figures(benchmark, f"{recommender.config.kind} on {arguments.dataset.parent.name}", recommender, histories)
    benchmark.save()


if __name__ == "__main__":
    main()
