"""Figures by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidrec.data.statistics import gini


def test_gini_ends() -> None:
    assert gini(np.array([7, 7, 7])) == pytest.approx(0)
    assert gini(np.array([0] * 99 + [5])) == pytest.approx(0.99)
    assert gini(np.zeros(3, int)) == 0


@given(st.lists(st.integers(0, 9), min_size=1, max_size=8).filter(any))
def test_gini_is_half_the_mean_difference_over_the_mean(counts: list[int]) -> None:
    difference = np.mean([abs(one - other) for one in counts for other in counts])
    assert gini(np.array(counts)) == pytest.approx(difference / (2 * np.mean(counts)))
