"""Random datasets with held-out targets, and what their pairs must never hold."""

from dataclasses import replace

import numpy as np
import polars as pl

from sidrec.data.catalog import Catalog
from sidrec.data.dataset import Dataset, Examples, Split
from sidrec.data.sequences import Sequences

NUM_ITEMS = 40


def random_dataset(seed, num_items=NUM_ITEMS, num_users=30, repeated_users=False):
    """Leave-one-out over sequences of 2 to 9 items; those of 2 and 3 have no or one training target."""
    draw = np.random.default_rng(seed)
    lengths = draw.integers(2, 10, size=num_users)
    rows = draw.integers(num_items, size=lengths.sum()).astype(np.int32)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    names = [f"u{user // 2 if repeated_users else user}" for user in range(num_users)]
    pairs = {"train": [], "valid": [], "test": []}
    for user, length in enumerate(lengths):
        pairs["test"].append((user, length - 1))
        if length > 2:
            pairs["valid"].append((user, length - 2))
        pairs["train"] += [(user, cut) for cut in range(1, length - 2)]
    parts = {part: Examples(*np.array(found, np.int32).T) for part, found in pairs.items()}
    items = pl.DataFrame({"item_id": [f"i{row}" for row in range(num_items)]})
    return Dataset(Catalog(items), Sequences(rows, offsets, names), Split("leave-one-out", **parts))


def with_other_future(dataset, seed):
    """The same dataset with other validation and test targets."""
    rows = dataset.sequences.rows.copy()
    draw = np.random.default_rng(seed)
    for part in ("valid", "test"):
        examples = dataset.examples(part)
        places = dataset.sequences.offsets[examples.users] + examples.cuts
        rows[places] = draw.integers(len(dataset.catalog), size=len(places))
    return replace(dataset, sequences=replace(dataset.sequences, rows=rows))


def events_of(dataset, user):
    """Set of items in all lines of a user, and of those up to each line's last training target."""
    sequences, train = dataset.sequences, dataset.split.train
    everything, seen = set(), set()
    for line, name in enumerate(sequences.users):
        if name != user:
            continue
        events = sequences.rows[sequences.offsets[line] : sequences.offsets[line + 1]].tolist()
        everything |= set(events)
        seen |= set(events[: max(train.cuts[train.users == line], default=-1) + 1])
    return everything, seen


def check_pairs(dataset, pairs, targets, spared):
    """Chosen items are training targets, of each user the last or all of them; rejected ones are not the user's own."""
    train, sequences = dataset.split.train, dataset.sequences
    places = sequences.offsets[train.users] + train.cuts
    chosen = pairs.starts + pairs.lengths
    assert set(chosen) <= set(places)
    lines = np.searchsorted(sequences.offsets, chosen, side="right") - 1
    assert (pairs.starts == sequences.offsets[lines]).all()
    names = [sequences.users[line] for line in lines]
    with_targets = {sequences.users[line] for line in train.users}
    if targets == "all":
        assert len(pairs) + pairs.num_dropped == len(train)
    else:
        assert len(pairs) + pairs.num_dropped == len(with_targets)
        assert len(set(names)) == len(names)
        for name, place in zip(names, chosen, strict=True):
            mine = [at for at, line in zip(places, train.users, strict=True) if sequences.users[line] == name]
            assert place == max(mine)
    for position, name in enumerate(names):
        everything, seen = events_of(dataset, name)
        rejected = pairs.rejected_PM[position]
        present = rejected[rejected >= 0].tolist()
        assert len(present) >= 1
        assert (rejected[: len(present)] >= 0).all()
        assert len(set(present)) == len(present)
        assert not set(present) & (everything if spared else seen)
        history = sequences.rows[pairs.starts[position] : chosen[position]]
        assert pairs.histories(np.array([position])).rows.tolist() == history.tolist()


def check_codes(dataset, pairs, codes, negatives):
    """No rejected item has the codes of the chosen one, none is missing for it, and what is kept out is counted."""
    chosen, rejected = codes[pairs.chosen_P], codes[pairs.rejected_PM]
    assert pairs.rejected_PM.shape[1] == negatives
    assert (pairs.rejected_PM >= 0).all()
    assert not (rejected == chosen[:, None]).all(-1).any()
    assert not pairs.num_dropped
    alike = [(codes == code).all(1).sum() - 1 for code in chosen]
    assert pairs.num_same_codes == sum(alike) > 0
