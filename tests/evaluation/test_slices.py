import numpy as np
import polars as pl

from sidrec.data.catalog import Catalog
from sidrec.data.dataset import Dataset, Examples, Split
from sidrec.data.sequences import Sequences
from sidrec.evaluation.protocol import SliceConfig
from sidrec.evaluation.slices import history_slices, popularity_slices, training_counts
from sidrec.testing.toy import cycle_dataset


def test_training_counts_are_the_events_before_validation():
    dataset = cycle_dataset(num_items=7, num_users=5, length=6)
    expected = np.bincount(dataset.sequences.rows.reshape(5, 6)[:, :-2].ravel(), minlength=7)
    assert training_counts(dataset).tolist() == expected.tolist()


def test_a_user_on_several_lines_is_counted_once():
    # The history 0 1 2 3 told as three lines, each with the target at its end.
    sequences = Sequences(np.array([0, 1, 0, 1, 2, 0, 1, 2, 3], np.int32), np.array([0, 2, 5, 9]), ["u", "u", "u"])
    nothing = Examples(np.empty(0, np.int32), np.empty(0, np.int32))
    train = Examples(np.array([0, 1, 2], np.int32), np.array([1, 2, 3], np.int32))
    catalog = Catalog(pl.DataFrame({"item_id": list("abcde")}))
    dataset = Dataset(catalog, sequences, Split("given", train, nothing, nothing))
    assert training_counts(dataset).tolist() == [1, 1, 1, 1, 0]


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
