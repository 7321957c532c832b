"""Is one method better than another? Means, spreads and t-tests over seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats


class TTest(NamedTuple):
    """Two-tailed p values of equal means; NaN where there are fewer than two values, or no spread, on either side."""

    student: float  # both sides have the same variance: the paper's (SSL 2022, section 4.3)
    welch: float  # each has its own


def t_test(first: Sequence[float], second: Sequence[float]) -> TTest:
    """Student's and Welch's two-sample t-tests, two-tailed."""
    sides = [np.asarray(values, dtype=float) for values in (first, second)]
    if min(map(len, sides)) < 2 or max(values.std() for values in sides) < 1e-12:
        return TTest(math.nan, math.nan)
    told = [number for values in sides for number in (values.mean(), values.std(ddof=1), len(values))]
    return TTest(*(float(stats.ttest_ind_from_stats(*told, equal_var=equal).pvalue) for equal in (True, False)))


def p_values(first: Sequence[float], second: Sequence[float]) -> str:
    """`0.0012, 0.0009`: p of Welch's and of Student's test; "" where there is nothing to test."""
    test = t_test(first, second)
    return "" if math.isnan(test.welch) else f"{test.welch:.2g}, {test.student:.2g}"


def mean_and_spread(values: Sequence[float]) -> str:
    """`0.912 ± 0.004`: mean and standard deviation (n - 1); of one value `0.912`; of none `-`."""
    if not len(values):
        return "-"
    mean = f"{np.mean(values):.3f}"
    return f"{mean} ± {np.std(values, ddof=1):.3f}" if len(values) > 1 else mean
