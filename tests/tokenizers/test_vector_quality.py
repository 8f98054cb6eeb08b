"""Vectors in blocks of rows against all of them at once."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidrec.tokenizers import vector_quality
from sidrec.tokenizers.quality import relative_error
from sidrec.tokenizers.vector_quality import duplicate_vectors, reconstruction_error


def slow_duplicates(vectors: np.ndarray, ids: list[str]) -> dict:
    groups: list[list[int]] = []
    for row, vector in enumerate(vectors):
        for group in groups:
            if (vectors[group[0]] == vector).all():
                group.append(row)
                break
        else:
            groups.append([row])
    shared = [group for group in groups if len(group) > 1]
    return {
        "groups": len(shared),
        "items": sum(map(len, shared)),
        "largest_group": max(map(len, groups)),
        "examples": [[ids[row] for row in group[:5]] for group in shared[:5]],
    }


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vector_quality, "BLOCK", 7)


def test_error_in_blocks_is_the_error() -> None:
    draw = np.random.default_rng(0)
    vectors = (draw.normal(size=(50, 3)) + 7).astype(np.float32)
    codes = draw.integers(4, size=(50, 2))
    books = draw.normal(size=(2, 4, 3))
    rebuilt = books[0][codes[:, 0]] + books[1][codes[:, 1]]
    expected = np.square(2 * vectors - rebuilt).sum() / np.square(2 * (vectors - vectors.mean(0))).sum()
    found = reconstruction_error(
        vectors,
        codes,
        lambda some: books[0][some[:, 0]] + books[1][some[:, 1]],
        lambda some: 2 * some,
    )
    assert found == pytest.approx(expected, rel=1e-6)
    assert found == relative_error(2 * vectors, rebuilt)


@given(
    st.lists(st.tuples(st.sampled_from([0.0, -0.0, 1.0, 2.0]), st.sampled_from([0.0, 3.0])), min_size=1, max_size=40)
)
def test_duplicates_against_a_slow_loop(rows: list[tuple[float, float]]) -> None:
    vectors = np.array(rows)
    ids = [f"i{row}" for row in range(len(rows))]
    assert duplicate_vectors(vectors, ids) == slow_duplicates(vectors, ids)


def test_different_vectors_with_equal_hashes_are_told_apart() -> None:
    # Hashes are of single precision, where all five are equal.
    vectors = np.array([[1.0], [1.0 + 1e-12], [1.0], [1.0 + 2e-12], [1.0 + 1e-12]])
    found = duplicate_vectors(vectors, list("abcde"))
    assert (found["groups"], found["items"]) == (2, 4)
    assert found["examples"] == [["a", "c"], ["b", "e"]]
