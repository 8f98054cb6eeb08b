"""Splits: positions by hand, and no leak on random data."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from sidrec.config import parse
from sidrec.data.dataset import PARTS
from sidrec.data.sequences import Sequences
from sidrec.data.split import Auto, Given, LeaveOneOut, TemporalCut, TimeRatio
from sidrec.errors import ConfigError, DataError


def sequences(times=None, lengths=None):
    """Lines whose events are numbered 0, 1, … through all lines."""
    lengths = [len(line) for line in times] if lengths is None else lengths
    offsets = np.cumsum([0, *lengths])
    flat = None if times is None else np.array([t for line in times for t in line])
    return Sequences(np.arange(offsets[-1], dtype=np.int32), offsets, [f"u{n}" for n in range(len(lengths))], flat)


def pairs(examples):
    return list(zip(examples.users.tolist(), examples.cuts.tolist(), strict=True))


def test_leave_one_out_positions():
    split = LeaveOneOut().split(sequences(lengths=[5, 3, 2, 1]))
    # n=5: train 1..2, valid 3, test 4; n=3: valid 1, test 2; n=2: train only; n=1: nothing.
    assert pairs(split.train) == [(0, 1), (0, 2), (2, 1)]
    assert pairs(split.valid) == [(0, 3), (1, 1)]
    assert pairs(split.test) == [(0, 4), (1, 2)]


def test_temporal_cut_puts_an_event_at_the_cut_into_the_later_part():
    split = TemporalCut(valid_from=10, test_from=20).split(sequences([[1, 9, 10, 19, 20], [30, 31]]))
    assert pairs(split.train) == [(0, 1)]
    assert pairs(split.valid) == [(0, 2), (0, 3)]
    assert pairs(split.test) == [(0, 4), (1, 1)]


def test_time_ratio_cuts_at_quantiles():
    split = TimeRatio(train=0.5, valid=0.25).split(sequences([[0, 1, 2, 3, 4, 5, 6, 7]]))
    assert [len(getattr(split, part)) for part in PARTS] == [3, 2, 2]  # The first of the four is no target.


LINES = st.lists(st.lists(st.integers(0, 30), min_size=1, max_size=12).map(sorted), min_size=1, max_size=8)


@given(LINES, st.sampled_from(["loo", "ratio", "cut"]))
@settings(max_examples=200, deadline=None)
def test_no_split_leaks(lines, kind):
    data = sequences(lines)
    splitter = {
        "loo": LeaveOneOut(),
        "ratio": TimeRatio(train=0.6, valid=0.2),
        "cut": TemporalCut(valid_from=10, test_from=20),
    }
    try:
        split = splitter[kind].split(data)
    except DataError:
        assume(False)
        return
    split.check(data)
    targets = [set(pairs(getattr(split, part))) for part in PARTS]
    assert sum(len(part) for part in targets) == len(set.union(*targets))
    if kind == "loo":
        assert all(len(line) >= 3 for n, line in enumerate(lines) if any(user == n for user, _ in targets[2]))
        return
    # Every event but the first of a line is a target once, and no part reaches into a later one's time.
    assert len(set.union(*targets)) == sum(len(line) - 1 for line in lines)
    times = [[lines[user][cut] for user, cut in part] for part in targets]
    assert max(times[0]) < min(times[1])
    assert max(times[1]) < min(times[2])


@given(st.lists(st.integers(1, 9), min_size=1, max_size=10))
@settings(max_examples=60, deadline=None)
def test_leave_one_out_equals_a_slow_loop(lengths):
    expected = {part: [] for part in PARTS}
    for user, n in enumerate(lengths):
        if n < 3:
            expected["train"] += [(user, cut) for cut in range(1, n)]
            continue
        expected["train"] += [(user, cut) for cut in range(1, n - 2)]
        expected["valid"].append((user, n - 2))
        expected["test"].append((user, n - 1))
    split = LeaveOneOut().split(sequences(lengths=lengths))
    assert {part: pairs(getattr(split, part)) for part in PARTS} == expected


def test_time_split_without_times():
    with pytest.raises(DataError, match="needs timestamps"):
        TimeRatio().split(sequences(lengths=[3]))


def test_cut_outside_the_data_names_the_range():
    with pytest.raises(DataError, match="test part is empty") as error:
        TemporalCut(valid_from=2, test_from=99).split(sequences([[1, 1, 2, 3]]))
    assert "1 to 3" in str(error.value)


def test_all_times_equal():
    with pytest.raises(DataError, match="both cuts fall on"):
        TimeRatio().split(sequences([[5] * 20]))


def test_settings_that_make_no_sense():
    with pytest.raises(ConfigError, match="nothing for test"):
        parse(TimeRatio.Config, {"train": 0.9, "valid": 0.1})
    with pytest.raises(ConfigError, match="not before"):
        parse(TemporalCut.Config, {"valid_from": 3, "test_from": 3})


def test_given_needs_a_split():
    with pytest.raises(DataError, match="no split of their own"):
        Given().split(sequences(lengths=[3]))


def test_auto_prefers_what_is_given():
    data = sequences(lengths=[4])
    own = LeaveOneOut().split(data)
    assert Auto().split(data, own) is own
    assert pairs(Auto().split(data).test) == [(0, 3)]
