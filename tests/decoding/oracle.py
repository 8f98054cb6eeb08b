"""Random small search problems, and the slow answer: every item's log-probabilities, added up."""

import math
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch

from sidrec.data.sequences import Histories
from sidrec.decoding.filters import Filters
from sidrec.decoding.recommendations import BeamConfig, Request
from sidrec.decoding.trie import ItemTrie
from sidrec.testing.scorers import TableScorer


@dataclass
class Problem:
    codes: np.ndarray
    scorer: TableScorer
    histories: Histories
    request: Request
    config: BeamConfig

    @property
    def trie(self) -> ItemTrie:
        return ItemTrie.build(self.codes, self.scorer.level_sizes)

    def keep_users(self, users: np.ndarray) -> None:
        """Go on with some of the users, in the given order, each with the lists that were theirs."""
        self.histories = self.histories.take(users)
        lists = {"allowed": self.request.allowed, "denied": self.request.denied}
        moved = {name: Filters(of.masks, of.of_user[users]) for name, of in lists.items() if isinstance(of, Filters)}
        self.request = replace(self.request, **moved)

    def wanted(self, user: int) -> list[int]:
        """Rows that the user may get."""
        seen = set(self.histories[user].tolist()) if self.request.exclude_seen else set()
        allowed, denied = (mask_of(items, user) for items in (self.request.allowed, self.request.denied))
        rows = [row for row in range(len(self.codes)) if row not in seen]
        rows = [row for row in rows if allowed is None or allowed[row]]
        return [row for row in rows if denied is None or not denied[row]]


def mask_of(items: np.ndarray | Filters | None, user: int) -> np.ndarray | None:
    return items.masks[items.of_user[user]] if isinstance(items, Filters) else items


def random_problem(seed: int, normalize: Literal["vocabulary", "level", "children"], beams: int) -> Problem:
    draw = np.random.default_rng(seed)
    levels = int(draw.integers(1, 5))
    sizes = tuple(int(size) for size in draw.integers(2, 7, size=levels))
    num_items = int(draw.integers(1, 41))
    codes = np.stack([draw.integers(size, size=num_items) for size in sizes], axis=1).astype(np.int32)
    scorer = TableScorer(
        sizes,
        has_end=bool(draw.random() < 0.4),
        seed=seed % 10_007,
        sharpness=float(draw.choice([0.0, 0.3, 1.0, 3.0, 10.0])),
        ties=bool(draw.random() < 0.3),
        impossible=float(draw.choice([0.0, 0.0, 0.3, 0.9])),
        over="vocabulary" if normalize == "vocabulary" else "level",
    )
    longest = int(draw.choice([1, num_items // 2 + 1, 3 * num_items]))
    lists = [draw.integers(num_items, size=draw.integers(0, longest + 1)) for _ in range(int(draw.integers(1, 4)))]
    k, exclude_seen = int(draw.integers(1, 9)), bool(draw.random() < 0.7)
    allowed, denied = random_lists(draw, num_items, len(lists))
    request = Request(k=k, exclude_seen=exclude_seen, allowed=allowed, denied=denied)
    config = BeamConfig(beams=beams, normalize=normalize, users_per_batch=int(draw.integers(1, 4)))
    return Problem(codes, scorer, Histories.of(lists), request, config)


def random_lists(draw: np.random.Generator, num_items: int, num_users: int) -> list[np.ndarray | Filters | None]:
    """An allow- and a deny-list: none, one for all, or several of which each user has one; an item is always left."""
    kept, lists = int(draw.integers(num_items)), []
    for sign in (True, False):
        share = draw.choice([0.1, 0.5, 0.9])
        masks = draw.random((int(draw.integers(1, 4)), num_items)) < share
        masks[:, kept] = sign
        of_users = Filters(masks, draw.integers(len(masks), size=num_users))
        lists.append([None, None, masks[0], of_users][draw.integers(4)])
    return lists


def item_scores(problem: Problem, user: int) -> dict[int, float]:
    """Score of every item that the user may get and that the scorer holds possible."""
    wanted = problem.wanted(user)
    if not wanted:
        return {}
    codes = problem.codes[wanted]
    state = problem.scorer.start(problem.histories.take(np.array([user])))
    totals = [0.0] * len(wanted)
    for level in range(codes.shape[1]):
        # One beam an item, shared prefixes or not; at level 0 there is only the root.
        previous = torch.from_numpy(codes[None, :, level - 1].astype(np.int64))
        parents = _nodes_before(level, len(wanted))
        logps = problem.scorer.step(state, level, parents if level else None, previous if level else None)[0].tolist()
        for place, path in enumerate(codes.tolist()):
            here = logps[place if level else 0]
            logp = here[path[level]]
            if problem.config.normalize == "children" and logp > -math.inf:
                children = {other[level] for other in codes.tolist() if other[:level] == path[:level]}
                logp -= math.log(sum(math.exp(here[child]) for child in children))
            totals[place] += logp
    if problem.scorer.has_end:
        parents = _nodes_before(codes.shape[1], len(wanted))
        last = torch.from_numpy(codes[None, :, -1].astype(np.int64))
        ends = problem.scorer.step(state, codes.shape[1], parents, last)[0, :, 0].tolist()
        totals = [total + end for total, end in zip(totals, ends, strict=True)]
    return {row: total for row, total in zip(wanted, totals, strict=True) if total > -math.inf}


def _nodes_before(level: int, num_items: int) -> torch.Tensor:
    """int64[1, items], the scorer's node of each item's path without its last code."""
    first = 1 + (level - 2) * num_items
    return torch.zeros(1, num_items, dtype=torch.long) if level < 2 else torch.arange(first, first + num_items)[None]
