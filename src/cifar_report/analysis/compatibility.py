"""Whether an accuracy that somebody printed of one run is compatible with ours.

One run is one draw: it is held against the prediction interval for a single new run (Patil, Peng and Leek 2016; Spence
and Stanley 2016). To lie inside only fails to reject, and few seeds make that easy, so what would have been found is
told beside it. Only seeds are covered: the test images are the same, and what differs in data or evaluation is fixed.
"""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from cifar_report.analysis.statistics import Interval, next_value

FEWEST = 3  # seeds; of fewer there is no interval
CONFIDENCE = 0.95
POWER = 0.8


class Compatibility(NamedTuple):
    """A printed value beside a sample of ours, all as fractions."""

    original: float
    seeds: int
    std: float  # of one run
    prediction: Interval  # for one new run, with the mean
    detectable: float  # the difference that would have been found with 80 % power, if s is the standard deviation
    p: float  # two-sided, of a draw as far from the mean
    next_reaches: float  # probability that one new run reaches the original
    reached: int  # how many of our runs did

    @property
    def compatible(self) -> bool:
        """Whether the interval holds the original."""
        return self.prediction.low <= self.original <= self.prediction.high


def compatibility(original: float | None, values: Float[np.ndarray, " seeds"]) -> Compatibility | None:
    """The printed value of one run beside ours; None where none was printed, or of fewer than three seeds."""
    if original is None or len(values) < FEWEST:
        return None
    from scipy import stats

    new = next_value(values)
    standardised = (original - new.mean) / max(new.error, np.finfo(np.float64).tiny)  # runs may all be alike
    std = float(np.std(values, ddof=1))
    return Compatibility(
        original,
        len(values),
        std,
        new.interval(CONFIDENCE),
        detectable(len(values)) * std,
        2 * float(stats.t.sf(abs(standardised), new.freedom)),
        float(stats.t.sf(standardised, new.freedom)),
        int(np.sum(values >= original)),
    )


def detectable(seeds: int) -> float:
    """The true difference, in standard deviations, of which one draw is found incompatible with 80 % probability.

    The draw's distance from the mean of `seeds` others, over its standard error s sqrt(1 + 1/n), is noncentral t.
    """
    from scipy import optimize, stats

    freedom, scale = seeds - 1, math.sqrt(1 + 1 / seeds)
    critical = stats.t.ppf((1 + CONFIDENCE) / 2, freedom)

    def lacking(shift: float) -> float:  # to be found on the wrong side is too rare to count
        return float(POWER - stats.nct.sf(critical, freedom, shift))

    return float(optimize.brentq(lacking, 1.0, 10.0)) * scale


def joint_confidence(intervals: int) -> float:
    """The probability that so many independent intervals all hold the value that they are for."""
    return CONFIDENCE**intervals
