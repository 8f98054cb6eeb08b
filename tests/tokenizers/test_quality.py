"""Small cases counted by hand."""

from pathlib import Path

import numpy as np
import pytest

from sidrec.tokenizers.plots import draw_quality
from sidrec.tokenizers.quality import code_quality, level_usage, relative_error
from sidrec.tokenizers.vector_quality import duplicate_vectors

CODES = np.array([[0, 0], [0, 0], [0, 0], [0, 1], [1, 0], [1, 0], [2, 1], [3, 1]])


def test_collisions_by_hand() -> None:
    report = code_quality(CODES, (4, 3))
    assert report["items"] == 8
    assert report["distinct_codes"] == 5
    assert report["collision_rate"] == 3 / 8
    assert report["colliding_groups"] == 2
    assert report["items_sharing"] == 5
    assert report["largest_group"] == 3
    assert report["items_per_code"] == {"1": 3, "2": 1, "3": 1}


def test_levels_by_hand() -> None:
    first, second = code_quality(CODES, (4, 3))["levels"]
    # Level 1: 4, 2, 1, 1 of 8 items: entropy 1/2 + 1/2 + 3/8 + 3/8 bits.
    assert first["entropy_bits"] == pytest.approx(1.75)
    assert first["perplexity"] == pytest.approx(2**1.75)
    # Ordered 1, 1, 2, 4: Gini = (-3·1 - 1·1 + 1·2 + 3·4) / (4·8).
    assert first["gini"] == pytest.approx(10 / 32)
    assert (second["used"], second["dead"], second["size"]) == (2, 1, 3)


def test_even_use_is_the_ideal() -> None:
    usage = level_usage(np.arange(64) % 16, 16)
    assert usage["perplexity"] == pytest.approx(16)
    assert (usage["gini"], usage["dead"]) == (0, 0)


def test_one_code_for_all() -> None:
    assert level_usage(np.zeros(5, int), 1) == {
        "size": 1, "used": 1, "dead": 0, "entropy_bits": 0.0, "perplexity": 1.0, "gini": 0.0,
    }  # fmt: skip


def test_relative_error_of_the_mean_is_one() -> None:
    vectors = np.random.default_rng(0).normal(size=(50, 3)) + 7
    assert relative_error(vectors, np.broadcast_to(vectors.mean(0), vectors.shape)) == pytest.approx(1)
    assert relative_error(vectors, vectors) == 0
    assert relative_error(np.ones((3, 2)), np.ones((3, 2))) == 0


def test_duplicate_vectors_are_named() -> None:
    found = duplicate_vectors(np.array([[0.0, 1], [2, 3], [-0.0, 1], [2, 3], [0, 1], [9, 9]]), list("abcdef"))
    assert found == {"groups": 2, "items": 5, "largest_group": 3, "examples": [["a", "c", "e"], ["b", "d"]]}
    assert duplicate_vectors(np.eye(2), ["a", "b"])["items"] == 0


def test_picture_is_written_and_the_same_each_time(tmp_path: Path) -> None:
    report = code_quality(CODES, (4, 3))
    files = [tmp_path / "one.png", tmp_path / "two.png"]
    for file in files:
        draw_quality(file, CODES, (4, 3), {"before": report, "after": report})
    assert files[0].read_bytes().startswith(b"\x89PNG")
    assert files[0].read_bytes() == files[1].read_bytes()
