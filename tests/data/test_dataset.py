"""What a dataset refuses, what training may see, and that saving loses nothing."""

import numpy as np
import polars as pl
import pytest

from sidrec.artifact import create
from sidrec.data.catalog import Catalog
from sidrec.data.dataset import Dataset, Examples, Split
from sidrec.data.sequences import Histories, Sequences
from sidrec.errors import DataError
from sidrec.testing.toy import cycle_dataset

NONE = Examples(np.empty(0, np.int32), np.empty(0, np.int32))


def pairs(*examples):
    lines, cuts = np.array(examples, dtype=np.int32).T
    return Examples(lines, cuts)


def dataset(lists, users, train, valid=NONE, test=NONE, num_items=None):
    rows = Histories.of(lists)
    num_items = num_items or int(rows.rows.max()) + 1
    catalog = Catalog(pl.DataFrame({"item_id": [f"i{row}" for row in range(num_items)]}))
    return Dataset(catalog, Sequences(rows.rows, rows.offsets, users), Split("hand", train, valid, test))


def seen_in_training(data):
    events = data.training_events()
    return [events[user].tolist() for user in range(len(events))]


def test_training_events_stop_at_the_last_training_target():
    data = dataset([[0, 1, 2, 3], [4, 5, 6], [7, 8]], ["a", "b", "c"], pairs((0, 1), (1, 1)))
    assert seen_in_training(data) == [[0, 1], [4, 5]]
    assert data.training_counts().tolist() == [1, 1, 0, 0, 1, 1, 0, 0, 0]


def test_events_between_two_training_targets_are_seen():
    data = dataset([[0, 1, 2, 3, 4, 5]], ["u"], pairs((0, 1), (0, 4)))
    assert seen_in_training(data) == [[0, 1, 2, 3, 4]]
    assert data.training_counts().tolist() == [1, 1, 1, 1, 1, 0]


def test_training_events_of_overlapping_lines_count_once():
    data = dataset([[0, 1], [2, 3], [0, 1, 4]], ["a", "b", "a"], pairs((0, 1), (1, 1), (2, 2)))
    assert seen_in_training(data) == [[0, 1, 4], [2, 3]]


def test_a_dataset_without_training_examples_has_no_training_events():
    data = dataset([[0, 1]], ["u"], NONE, test=pairs((0, 1)))
    assert seen_in_training(data) == []
    assert data.training_counts().tolist() == [0, 0]


def test_training_counts_are_the_events_before_validation():
    data = cycle_dataset(num_items=7, num_users=5, length=6)
    expected = np.bincount(data.sequences.rows.reshape(5, 6)[:, :-2].ravel(), minlength=7)
    assert data.training_counts().tolist() == expected.tolist()
    with pytest.raises(ValueError, match="read-only"):
        data.training_counts()[0] = 9


def test_saving_loses_nothing(tmp_path):
    data = cycle_dataset()
    with create(tmp_path / "dataset", kind="dataset", config={}) as writer:
        data.save(writer.path)
    loaded = Dataset.load(tmp_path / "dataset")
    assert loaded.catalog.items.equals(data.catalog.items)
    assert loaded.sequences.users == data.sequences.users
    for part in ("train", "valid", "test"):
        assert [items.tolist() for items in loaded.histories(part)] == [
            items.tolist() for items in data.histories(part)
        ]
        assert loaded.targets(part).tolist() == data.targets(part).tolist()


@pytest.mark.parametrize(("rows", "named"), [([0, -2, 1], -2), ([0, 5, 1], 5), ([7, -1], -1)])
def test_the_row_at_fault_is_named(rows, named):
    with pytest.raises(DataError, match=rf"names item row {named}(.|\n)*expected: 0 to 2"):
        dataset([rows], ["u"], NONE, num_items=3)


def test_a_target_outside_its_sequence_names_user_and_position():
    with pytest.raises(DataError, match=r"1 train targets are outside(.|\n)*position 2 of user 'b', who has 2 events"):
        dataset([[0, 1, 2], [3, 4]], ["a", "b"], pairs((0, 1), (1, 2)))
    with pytest.raises(DataError, match="position 0 of user 'a'"):
        dataset([[0, 1]], ["a"], pairs((0, 0)))
    with pytest.raises(DataError, match="a train example names sequence 9"):
        dataset([[0, 1]], ["a"], pairs((9, 1)))


def test_a_later_parts_target_comes_later():
    with pytest.raises(DataError, match=r"1 train targets are not before(.|\n)*position 2 of user 'a'"):
        dataset([[0, 1, 2]], ["a"], pairs((0, 1), (0, 2)), valid=pairs((0, 2)))
