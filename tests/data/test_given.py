"""Joining ready-made examples: every example keeps its target and its history as the newest items before it."""

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidrec.data.dataset import PARTS
from sidrec.data.given import join_examples
from sidrec.data.sequences import Sequences
from sidrec.errors import DataError


def table(rows):
    """Rows (user, history, target, part), items as one letter each."""
    return pl.DataFrame(
        [(user, list(history), target, part) for user, history, target, part in rows],
        schema={"user_id": pl.String, "history": pl.List(pl.String), "target": pl.String, "part": pl.String},
        orient="row",
    )


def shown(joined):
    """For each part the list of (line's user, items before the cut, target)."""
    names = joined.item_ids
    out = {}
    for part in PARTS:
        examples = getattr(joined.split, part)
        rows = []
        for line, cut in zip(examples.users, examples.cuts, strict=True):
            items = "".join(names[code] for code in joined.items[joined.offsets[line] :][: cut + 1])
            rows.append((joined.users[line], items[:-1], items[-1]))
        out[part] = sorted(rows)
    return out


def test_prefixes_become_one_line_whatever_their_order():
    rows = [
        ("u", "abc", "d", "train"),
        ("u", "ab", "c", "train"),
        ("u", "a", "b", "train"),
        ("u", "abcd", "e", "valid"),
    ]
    joined = join_examples(table([*rows, ("u", "abcde", "f", "test")]), "here")
    assert joined.users == ["u"]
    assert [joined.item_ids[code] for code in joined.items] == list("abcdef")
    assert shown(joined)["valid"] == [("u", "abcd", "e")]
    assert shown(joined)["train"] == [("u", "a", "b"), ("u", "ab", "c"), ("u", "abc", "d")]


def test_windows_cut_to_a_length_are_shifted_together():
    joined = join_examples(
        table([("u", "abc", "d", "train"), ("u", "cde", "f", "test"), ("u", "bcd", "e", "valid")]), ""
    )
    assert joined.users == ["u"]
    assert shown(joined)["test"] == [("u", "abcde", "f")]


def test_contradicting_windows_stay_apart():
    joined = join_examples(table([("u", "abc", "d", "train"), ("u", "axc", "e", "test")]), "")
    assert joined.users == ["u", "u"]
    assert shown(joined)["test"] == [("u", "axc", "e")]


def test_short_windows_with_another_beginning_stay_apart():
    # "b" before "c" is not "ab" cut to one item: other windows are longer.
    joined = join_examples(table([("u", "a", "b", "train"), ("u", "b", "c", "train"), ("v", "abc", "d", "train")]), "")
    assert joined.users == ["u", "u", "v"]


def test_the_same_window_in_two_parts_is_a_conflict():
    joined = join_examples(table([("u", "ab", "c", "train"), ("u", "ab", "c", "test")]), "")
    assert joined.users == ["u", "u"]
    assert len(joined.split.train) == len(joined.split.test) == 1


def test_earlier_part_never_follows_a_later_one():
    joined = join_examples(table([("u", "a", "b", "test"), ("u", "ab", "c", "train")]), "")
    assert joined.users == ["u", "u"]


def test_empty_history_is_counted_and_no_example():
    joined = join_examples(table([("u", "", "a", "train"), ("u", "a", "b", "train")]), "")
    assert joined.empty_histories == 1
    assert shown(joined)["train"] == [("u", "a", "b")]


EXAMPLES = st.lists(
    st.tuples(
        st.sampled_from("uv"),
        st.text("abc", min_size=1, max_size=4),
        st.sampled_from("abc"),
        st.sampled_from(PARTS),
    ),
    min_size=1,
    max_size=12,
)


@given(EXAMPLES)
@settings(max_examples=300, deadline=None)
def test_nothing_is_lost_and_nothing_leaks(rows):
    joined = join_examples(table(rows), "")
    joined.split.check(Sequences(joined.items, joined.offsets, joined.users))
    longest = max(len(history) for _, history, _, _ in rows)
    for part in PARTS:
        wanted = sorted((user, history, target) for user, history, target, own in rows if own == part)
        found = shown(joined)[part]
        assert len(found) == len(wanted)
        # The joined history ends with the given one, and is longer only where the given one was cut.
        cut = sorted((user, items[-longest:], target) for user, items, target in found)
        assert cut == wanted


@given(st.lists(st.sampled_from("abcdefghij"), min_size=2, max_size=14), st.integers(1, 5), st.randoms())
@settings(max_examples=200, deadline=None)
def test_a_sequence_cut_into_windows_keeps_every_history(items, width, random):
    rows = [("u", "".join(items[max(0, n - width) : n]), items[n], "train") for n in range(1, len(items))]
    random.shuffle(rows)
    joined = join_examples(table(rows), "")
    found = [(items[-width:], target) for _, items, target in shown(joined)["train"]]
    assert sorted(found) == sorted((history, target) for _, history, target, _ in rows)
    if len(set(items)) == len(items):
        assert joined.users == ["u"]
        assert [joined.item_ids[code] for code in joined.items] == items


def test_unknown_part_and_missing_target():
    with pytest.raises(DataError, match="part 'dev'"):
        join_examples(table([("u", "a", "b", "dev")]), "here")
    with pytest.raises(DataError, match="'target' is empty"):
        join_examples(table([("u", "a", None, "test")]), "here")
