"""t-tests against their formulas, and numbers in words."""

import math

import numpy as np
import pytest
from scipy import stats

from aitom_ssl.evaluation.statistics import mean_and_spread, p_values, t_test


def test_students_and_welchs_are_their_formulas():
    a, b = [0.71, 0.74, 0.69, 0.78, 0.73], [0.66, 0.70, 0.55]
    n, m, va, vb = 5, 3, np.var(a, ddof=1), np.var(b, ddof=1)
    difference = np.mean(a) - np.mean(b)
    pooled = ((n - 1) * va + (m - 1) * vb) / (n + m - 2)
    student = 2 * stats.t.sf(difference / math.sqrt(pooled * (1 / n + 1 / m)), n + m - 2)
    square = va / n + vb / m
    freedom = square**2 / ((va / n) ** 2 / (n - 1) + (vb / m) ** 2 / (m - 1))
    welch = 2 * stats.t.sf(difference / math.sqrt(square), freedom)
    assert t_test(a, b) == pytest.approx((student, welch))
    assert t_test(b, a) == pytest.approx((student, welch))
    assert student < welch


@pytest.mark.parametrize(("first", "second"), [([0.5], [0.4, 0.5]), ([], [0.4, 0.5]), ([0.5, 0.5], [0.4, 0.4])])
def test_without_a_spread_there_is_no_test(first, second):
    assert all(map(math.isnan, t_test(first, second)))


def test_mean_and_spread_in_words():
    assert mean_and_spread([0.5, 0.6, 0.7]) == "0.600 ± 0.100"
    assert mean_and_spread([0.5]) == "0.500" and mean_and_spread([]) == "-"


def test_p_values_in_words():
    a, b = [0.6, 0.62, 0.67], [0.5, 0.52, 0.54]
    test = t_test(a, b)
    assert p_values(a, b) == f"{test.welch:.2g}, {test.student:.2g}"
    assert p_values(a, [0.5]) == ""
