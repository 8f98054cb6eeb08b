"""Literals: equal to Python's own printing, and nothing else is accepted."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidrec.data.literals import MAX_DEPTH, parse_literal
from sidrec.errors import DataError

LEAVES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
VALUES = st.recursive(LEAVES, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=12)


@given(VALUES)
@settings(max_examples=300, deadline=None)
def test_reads_what_python_prints(value):
    assert parse_literal(repr(value)) == value


def test_tuples_trailing_commas_and_escapes():
    assert parse_literal(r"('it\'s', 'é\x41\n\101\q', (1,), {},)") == ["it's", "éA\nA\\q", [1], {}]


def test_a_very_long_number_is_read_in_bounded_time():
    assert parse_literal("['x', " + "9" * 5000 + "]")[1] == float("inf")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[1, 2",
        "[1 2]",
        "__import__('os')",
        "[open('x')]",
        "{1}",
        "{'a' 1}",
        "{[1]: 2}",
        "1 + 1",
        "f'x'",
        "'open",
        "]",
    ],
)
def test_everything_else_is_refused(text):
    with pytest.raises(DataError, match="not a Python literal"):
        parse_literal(text)


def test_depth_is_bounded():
    with pytest.raises(DataError, match=f"deeper than {MAX_DEPTH}"):
        parse_literal("[" * 100_000 + "'x'")
