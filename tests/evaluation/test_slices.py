import numpy as np

from sidrec.evaluation.protocol import SliceConfig
from sidrec.evaluation.slices import history_slices, popularity_slices


def test_history_slices_by_quartiles_cover_everyone():
    lengths = np.array([3, 3, 3, 4, 5, 6, 7, 100])
    groups, names = history_slices(lengths, SliceConfig())
    assert len(groups) == 8
    assert names[groups[0]] == "history 3"
    assert names[groups[-1]] == "history 7-100"
    assert (np.diff(groups) >= 0).all()


def test_equal_lengths_are_one_slice():
    assert history_slices(np.array([4, 4]), SliceConfig())[1] == ["history 4"]


def test_popularity_slices_by_hand():
    counts = np.array([0, 9, 8, 3, 3, 2, 2, 1, 1, 1, 1])  # ten items seen: 2 head, 3 mid, 5 tail
    groups, names = popularity_slices(np.arange(11), counts, SliceConfig())
    labels = [names[group].removeprefix("target ") for group in groups]
    assert labels == ["cold", "head", "head", "mid", "mid", "mid"] + ["tail"] * 5
