"""Held-out items by hand: what is taken out, what is asked, and the yardsticks."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidrec.config import RunSettings
from sidrec.data.catalog import Catalog
from sidrec.data.dataset import Dataset, Examples, Split
from sidrec.data.sequences import Histories, Sequences
from sidrec.data.split import LeaveOneOut
from sidrec.errors import DataError
from sidrec.evaluation.cold_start import chance, content_neighbours, draw_new_items, hold_out, share_of_new
from sidrec.evaluation.cold_start_report import as_markdown, cells, remarks
from sidrec.evaluation.protocol import Protocol

RUN = RunSettings()


def dataset_of(lists: list[list[int]], num_items: int, split: Split | None = None) -> Dataset:
    sequences = Sequences(
        np.concatenate([np.array(items, np.int32) for items in lists]),
        np.cumsum([0, *map(len, lists)]),
        [f"u{number}" for number in range(len(lists))],
        np.arange(sum(map(len, lists))),
    )
    catalog = Catalog(pl.DataFrame({"item_id": [f"i{row}" for row in range(num_items)]}))
    return Dataset(catalog, sequences, split or LeaveOneOut().split(sequences), np.arange(num_items)[:, None])


def pairs(dataset: Dataset, part: str) -> list[tuple[str, list[str], str]]:
    """(user, history, target) of every example, by id."""
    examples = dataset.examples(part)
    histories, targets = dataset.histories(part), dataset.targets(part)
    users = [dataset.sequences.users[line] for line in examples.users]
    return [
        (user, dataset.catalog.ids_of(histories[place]), dataset.catalog.ids[targets[place]])
        for place, user in enumerate(users)
    ]


def test_by_hand():
    """Items 1 and 4 are new. u0 tests an old item, u1 a new one, u2 a new one without history, u3 is all new."""
    lists = [[0, 1, 2, 3, 0], [2, 0, 4, 3, 1], [4, 1, 4], [1, 4, 1]]
    whole = dataset_of(lists, 6)
    held = hold_out(whole, np.isin(np.arange(6), [1, 4]))
    assert held.warm.catalog.ids == ["i0", "i2", "i3", "i5"]
    assert held.grown.catalog.ids == ["i0", "i2", "i3", "i5", "i1", "i4"]
    assert held.warm.sequences.users == ["u0", "u1"]
    assert pairs(held.warm, "train") == [("u0", ["i0"], "i2"), ("u1", ["i2"], "i0")]
    assert pairs(held.warm, "valid") == [("u0", ["i0", "i2"], "i3"), ("u1", ["i2", "i0"], "i3")]
    assert pairs(held.warm, "test") == [("u0", ["i0", "i2", "i3"], "i0")]
    assert pairs(held.grown, "test") == [("u0", ["i0", "i2", "i3"], "i0"), ("u1", ["i2", "i0", "i3"], "i1")]
    assert (held.warm_examples.tolist(), held.new_examples.tolist()) == ([0], [1])
    assert held.is_new.tolist() == [False] * 4 + [True] * 2
    assert pairs(held.grown, "train") == pairs(held.warm, "train")
    assert held.grown.training_counts().tolist() == [*held.warm.training_counts().tolist(), 0, 0]
    assert held.warm.given_codes.ravel().tolist() == [0, 2, 3, 5]
    assert held.warm.sequences.times.tolist() == [0, 2, 3, 4, 5, 6, 8]
    assert held.figures == {
        "items": 6,
        "new_items": 2,
        "events_held_out": 9,
        "events": 16,
        "users_lost_for_training": 0,
        "train_examples_lost": 2,
        "test_examples_without_history": 2,
    }


def test_a_user_with_several_new_test_targets_has_an_example_for_each_and_none_sees_the_other():
    lists = [[0, 2, 1, 0, 3]]
    whole = dataset_of(lists, 4)
    users = np.zeros(3, np.int32)
    split = Split(
        "temporal",
        Examples(users[:1], np.array([1], np.int32)),
        Examples(users[:0], users[:0]),
        Examples(users, np.array([2, 3, 4], np.int32)),
    )
    held = hold_out(replace(whole, split=split), np.array([False, True, False, True]))
    assert pairs(held.grown, "test") == [
        ("u0", ["i0", "i2"], "i0"),
        ("u0", ["i0", "i2"], "i1"),
        ("u0", ["i0", "i2", "i0"], "i3"),
    ]


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), share=st.floats(0.05, 0.5))
def test_nothing_new_is_seen_and_no_old_example_is_lost(seed: int, share: float):
    draw = np.random.default_rng(seed)
    lists = [draw.integers(12, size=draw.integers(1, 9)).tolist() for _ in range(20)]
    whole = dataset_of(lists, 14)
    counts = np.bincount(whole.sequences.rows, minlength=14)
    is_new = draw_new_items(counts, share, seed)
    assert is_new.sum() == max(1, round(share * (counts > 0).sum()))
    assert not is_new[counts == 0].any()
    try:
        held = hold_out(whole, is_new)
    except DataError:
        return
    new = {f"i{row}" for row in np.flatnonzero(is_new)}
    for part in ("train", "valid", "test"):
        kept = [
            (user, [item for item in history if item not in new], target)
            for user, history, target in pairs(whole, part)
        ]
        kept = [example for example in kept if example[1]]
        assert pairs(held.warm, part) == [example for example in kept if example[2] not in new]
        if part == "test":
            asked = [example for example in kept if example[2] in new]
            assert pairs(held.grown, part) == pairs(held.warm, part) + asked


def test_items_are_drawn_evenly_over_popularity():
    counts = np.arange(1000, 0, -1)
    drawn = np.flatnonzero(draw_new_items(counts, 0.1, seed=3))
    assert (drawn // 10).tolist() == list(range(100)), "one of every ten"
    assert drawn.tolist() == np.flatnonzero(draw_new_items(counts, 0.1, seed=3)).tolist()
    assert drawn.tolist() != np.flatnonzero(draw_new_items(counts, 0.1, seed=4)).tolist()


def test_nothing_to_ask_or_to_learn_is_an_error():
    with pytest.raises(DataError, match="no test target"):
        hold_out(dataset_of([[0, 1, 2, 0]], 4), np.array([False, True, False, False]))
    with pytest.raises(DataError, match="no training example"):
        hold_out(dataset_of([[0, 1, 2, 1]], 3), np.array([False, True, False]))


def test_chance_is_the_mean_over_random_orders():
    histories, draw = Histories.of([[0, 0, 1], [5]]), np.random.default_rng(0)
    protocol = Protocol(k=(2,), primary="ndcg@2")
    found = chance(histories, 6, protocol)
    ranks = [np.argsort(draw.random((20000, count)), axis=1)[:, 0] for count in (4, 5)]
    assert found["hit@2"] == pytest.approx((2 / 4 + 2 / 5) / 2)
    by_hand = np.mean([(np.where(rank < 2, 1 / np.log2(2 + rank), 0)).mean() for rank in ranks])
    assert found["ndcg@2"] == pytest.approx(by_hand, abs=0.01)
    only = np.arange(6) >= 4
    assert chance(histories, 6, protocol, only)["hit@2"] == 1.0
    assert chance(histories, 6, Protocol(k=(2,), primary="hit@2", exclude_seen=False))["hit@2"] == pytest.approx(1 / 3)


def test_content_neighbours_by_hand():
    """Newest two of [3, 0, 1] point between 0 and 1, where 2 lies; lengths of vectors do not matter."""
    vectors = np.array([[1, 0], [0, 9], [2, 2], [-1, -1], [1, -1]], np.float32)
    protocol = Protocol(k=(1, 2), primary="hit@1")
    histories = Histories.of([[3, 0, 1], [3, 0, 1]])
    asked = {"newest": 2}
    table = content_neighbours(vectors, histories, np.array([2, 4]), protocol, RUN, **asked)
    assert table.values["hit@1"].tolist() == [1, 0]
    assert table.values["hit@2"].tolist() == [1, 1]
    only = np.array([False, False, False, True, True])
    table = content_neighbours(vectors, histories, np.array([4, 4]), protocol, RUN, allowed=only, **asked)
    assert table.values["hit@1"].tolist() == [1, 1]


def test_equal_texts_share_their_places():
    vectors = np.array([[1, 0], [1, 0.1], [1, 0.1], [1, 0.1], [0, 1]], np.float32)
    protocol = Protocol(k=(1,), primary="hit@1")
    table = content_neighbours(vectors, Histories.of([[0]]), np.array([2]), protocol, RUN, newest=5)
    assert table.values["hit@1"].tolist() == pytest.approx([1 / 3])


def test_share_of_new_without_lists():
    assert share_of_new(np.full((2, 3), -1), 4, 2) == 0


def test_the_report_in_words():
    line = {
        "name": "new targets",
        "users": 2,
        "examples": 1200,
        "items": 10,
        "metrics": {"hit@5": 0.5, "ndcg@5": 0.25},
        "interval": [0.2, 0.3],
        "content": None,
        "chance": {"hit@5": 0.1, "ndcg@5": 0.05},
        "share_of_new": {"5": 0.125},
        "certified": 0.75,
    }
    report = {
        "recommender": "mine",
        "protocol": "the rules",
        "primary": "ndcg@5",
        "held_out": {
            "items": 20,
            "new_items": 1,
            "events_held_out": 7,
            "events": 70,
            "users_lost_for_training": 2,
            "train_examples_lost": 3,
            "test_examples_without_history": 4,
        },
        "growth_costs": {"mean": -0.001, "low": -0.002, "high": 0.0},
        "lines": [line, line | {"name": "other", "content": {"hit@5": 0.3, "ndcg@5": 0.2}}],
    }
    titles, first, second = cells(report)
    found = dict(zip(titles, first, strict=True))
    assert (found["examples"], found["hit@5"], found["ndcg@5"]) == ("1,200", "0.5000", "0.2500")
    assert (found["content hit@5"], found["chance hit@5"], found["new in lists@5 (%)"]) == ("–", "0.1000", "12.5")
    assert "0.3000" in second
    text = " ".join(remarks(report))
    assert "1 of 20 items (5.0 %) with 7 of 70 events; 2 users" in text
    assert "by -0.0010 (-0.0020 to +0.0000)" in text
    assert "New items take 12.5 %" in text
    assert "75.0 % of the lists are certified" in text
    assert "| targets | examples |" in as_markdown(report)
    hit = dict(report, primary="hit@5")
    assert cells(hit)[0].count("hit@5") == 1
