"""Intervals over seeds and over test images."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy import stats


class Interval(NamedTuple):
    """A mean and its 95 % confidence limits; the limits are NaN for fewer than two values."""

    mean: float
    low: float
    high: float


def t_interval(values: Float[np.ndarray, " n"], confidence: float = 0.95) -> Interval:
    """Student's t interval of the mean; for paired comparisons, of the differences (Student 1908).

    Values that are all alike give an interval of no width; no values give NaN.
    """
    values = np.asarray(values, dtype=np.float64)
    if len(values) == 0:
        return Interval(np.nan, np.nan, np.nan)
    mean = float(values.mean())
    if len(values) == 1:
        return Interval(mean, np.nan, np.nan)
    half = float(stats.t.ppf((1 + confidence) / 2, len(values) - 1) * stats.sem(values))
    return Interval(mean, mean - half, mean + half)
