"""What each ingredient of a recipe is worth: the whole recipe against the same with one ingredient taken out."""

import math
from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float

from cifar_report.analysis.searches import by_seed
from cifar_report.analysis.statistics import Interval

_NODES = 100  # of each integral of Dunnett's distribution


class Ablation(NamedTuple):
    """A recipe with one ingredient taken out, or the whole one; accuracies are fractions of the validation split."""

    name: str
    accuracy: float  # mean over the seeds; NaN where one diverged
    worth: Interval  # what the whole recipe has more, with its simultaneous limits; NaN of the whole recipe itself
    diverged: int  # of its seeds


def worths(trials: pd.DataFrame, names: list[str]) -> list[Ablation]:
    """What the ingredients are worth, with limits that hold for all of them together with 95 % confidence.

    The seeds are blocks: they share initial draws and the order of the images. The accuracies are taken as the sum of a
    configuration's mean, a seed's and an error, so that the error is pooled over configurations, and Dunnett's critical
    value for comparisons with one control gives the limits (Dunnett 1955). A configuration with a seed that diverged is
    left out of that.

    Args:
        trials: of a search by a list of configurations, the whole recipe first.
        names: of the configurations.
    """
    accuracy = by_seed(trials)
    complete = accuracy.notna().all(axis=1).to_numpy()
    values = accuracy.to_numpy(dtype=np.float64)
    error, freedom = _pooled(values[complete])
    compared = int(complete.sum()) - 1
    half = math.nan
    if complete[0] and compared and freedom:
        half = dunnett_critical(compared, freedom) * error * math.sqrt(2 / values.shape[1])
    worth = values[0].mean() - values.mean(axis=1)
    return [
        Ablation(
            name,
            float(row.mean()),
            Interval(math.nan, math.nan, math.nan) if place == 0 else Interval(each, each - half, each + half),
            int(np.isnan(row).sum()),
        )
        for place, (name, row, each) in enumerate(zip(names, values, map(float, worth), strict=True))
    ]


def _pooled(values: Float[np.ndarray, "configurations seeds"]) -> tuple[float, int]:
    """The standard deviation of what configurations and seeds leave unexplained, and its degrees of freedom."""
    rows, columns = values.shape
    freedom = (rows - 1) * (columns - 1)
    if freedom < 1:
        return math.nan, 0
    residuals = values - values.mean(axis=1, keepdims=True) - values.mean(axis=0) + values.mean()
    return math.sqrt((residuals**2).sum() / freedom), freedom


def dunnett_critical(comparisons: int, freedom: int, confidence: float = 0.95) -> float:
    """Dunnett's two-sided critical value for comparisons with one control of as many values as each.

    The largest of so many |t| stays below it with that probability. They share the control's mean, which gives any two
    a correlation of one half, and the error's estimate.
    """
    from scipy import optimize, stats

    # Over the control's deviation, and over the error's estimate divided by the error, by its quantiles.
    control, weight = np.polynomial.hermite_e.hermegauss(_NODES)
    share, part = np.polynomial.legendre.leggauss(_NODES)
    ratio = stats.chi(freedom, scale=1 / math.sqrt(freedom)).ppf((1 + share[:, None]) / 2)
    weights = part[:, None] / 2 * weight / math.sqrt(2 * math.pi)

    def below(limit: float) -> float:
        inside = stats.norm.cdf(control + math.sqrt(2) * limit * ratio) - stats.norm.cdf(
            control - math.sqrt(2) * limit * ratio
        )
        return float((weights * inside**comparisons).sum())

    return float(optimize.brentq(lambda limit: below(limit) - confidence, 0.1, 1000, xtol=1e-6))
