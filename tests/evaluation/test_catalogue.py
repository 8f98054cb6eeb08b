import numpy as np
import pytest

from sidrec.evaluation.catalogue import catalogue_figures, list_defects, self_information


def test_figures_by_hand():
    # Items 0, 1, 2 are listed 2, 1 and 1 times among the first two places, item 3 never.
    rows = np.array([[0, 1, 3], [0, 2, 3]])
    found = catalogue_figures(rows, np.array([5, 1, 1, 1]), 2)
    assert found["coverage@2"] == 3 / 4
    # Gini of (0, 1, 1, 2): mean absolute difference over all 16 pairs / (2 · mean) = (14/16) / 2… by pairs:
    times = [0, 1, 1, 2]
    mean_difference = np.mean([abs(a - b) for a in times for b in times])
    assert found["gini@2"] == pytest.approx(mean_difference / (2 * np.mean(times)))
    # p = (count + 1) / (8 + 4): item 0 has 1/2 (1 bit), items 1 and 2 have 1/6.
    assert found["novelty@2"] == pytest.approx((1 + np.log2(6) + 1 + np.log2(6)) / 4)


def test_novelty_of_an_unseen_item_is_finite():
    assert self_information(np.array([3, 0]))[1] == pytest.approx(np.log2(5))


def test_defects_by_hand():
    rows = np.array([[1, 1, 1, 2], [3, -1, -1, -1]])
    found = list_defects(rows, 3)
    assert found == {"invalid@3": 2 / 6, "duplicate@3": 2 / 6}


def test_lists_shorter_than_k_lack_places():
    assert list_defects(np.array([[1, 2]]), 4)["invalid@4"] == 0.5


def test_empty_places_do_not_count_as_items():
    found = catalogue_figures(np.array([[-1, -1]]), np.array([1, 1]), 2)
    assert found["coverage@2"] == 0
    assert np.isnan(found["novelty@2"])
