import numpy as np
import polars as pl
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.decoding.oracle import mask_of, random_lists

from sidrec.config import RunSettings
from sidrec.data.catalog import Catalog
from sidrec.data.dataset import Dataset, Examples, Split
from sidrec.data.sequences import Histories, Sequences
from sidrec.decoding.recommendations import Request
from sidrec.recommenders import scored
from sidrec.recommenders.scored import rank_scores

RUN = RunSettings(device="cpu")


def slow(scores, histories, request):
    """A loop over users: sort by (-score, row), drop what is excluded."""
    lists = []
    for user, row in enumerate(scores):
        seen = set(histories[user].tolist()) if request.exclude_seen else set()
        items = [item for item in range(len(row)) if item not in seen]
        allowed, denied = mask_of(request.allowed, user), mask_of(request.denied, user)
        items = [item for item in items if (allowed is None or allowed[item]) and (denied is None or not denied[item])]
        best = sorted(items, key=lambda item: (-row[item], item))[: request.k]
        lists.append(best + [-1] * (request.k - len(best)))
    return lists


@settings(deadline=None)
@given(
    seed=st.integers(0, 10**6),
    levels=st.sampled_from([1, 2, 4, 1000]),
    k=st.integers(1, 9),
    exclude=st.booleans(),
)
def test_equals_a_slow_loop_with_ties(seed, levels, k, exclude):
    draw = np.random.default_rng(seed)
    scores = draw.integers(levels, size=(6, 7)).astype(np.float32)
    histories = Histories.of(draw.integers(7, size=length) for length in draw.integers(0, 5, size=6))
    allowed, denied = random_lists(draw, 7, 6)
    request = Request(k=k, exclude_seen=exclude, allowed=allowed, denied=denied)
    place = {tuple(histories[user].tolist()): user for user in range(6)}
    rows = np.stack([scores[place[tuple(histories[user].tolist())]] for user in range(6)])

    def score(batch):
        users = [place[tuple(batch[user].tolist())] for user in range(len(batch))]
        return torch.from_numpy(scores[users])

    found = rank_scores(score, 7, histories, request, RUN)
    assert found.rows.tolist() == slow(rows, histories, request)
    for user in range(6):
        listed = found.rows[user] >= 0
        assert (found.scores[user][listed] == rows[user][found.rows[user][listed]]).all()
    assert found.exact.all()


def test_scores_are_asked_for_in_batches_of_similar_length(monkeypatch):
    monkeypatch.setattr(scored, "SCORES_AT_ONCE", 20)
    sizes = []

    def score(batch):
        sizes.append(batch.lengths.tolist())
        return torch.zeros(len(batch), 10)

    rank_scores(score, 10, Histories.of([[1] * length for length in (3, 0, 2, 9, 1)]), Request(k=2), RUN)
    assert sizes == [[0, 1], [2, 3], [9]]


def dataset(lists, users, train):
    rows = Histories.of(lists)
    num_items = int(rows.rows.max()) + 1
    catalog = Catalog(pl.DataFrame({"item_id": [f"i{row}" for row in range(num_items)]}))
    lines, cuts = np.array(train, dtype=np.int32).T
    none = Examples(np.empty(0, np.int32), np.empty(0, np.int32))
    return Dataset(catalog, Sequences(rows.rows, rows.offsets, users), Split("hand", Examples(lines, cuts), none, none))
