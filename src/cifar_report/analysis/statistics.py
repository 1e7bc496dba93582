"""Intervals over seeds, the uncertainty from the test images, and calibration."""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

CALIBRATION_BINS = 15


class Interval(NamedTuple):
    """A mean and its 95 % confidence limits; the limits are NaN for fewer than two values."""

    mean: float
    low: float
    high: float

    @property
    def half(self) -> float:
        """Half of the interval's width."""
        return (self.high - self.low) / 2


class Estimate(NamedTuple):
    """A mean, its standard error and the degrees of freedom that the error has; error and freedom NaN where unknown.

    An error of 0 says that nothing is left to chance: the interval has no width.
    """

    mean: float
    error: float
    freedom: float

    @property
    def is_exact(self) -> bool:
        """Whether it is no sample's: its error is 0, of infinitely many degrees of freedom."""
        return self.error == 0 and math.isinf(self.freedom)

    def interval(self, confidence: float = 0.95) -> Interval:
        """Student's interval."""
        from scipy import stats  # reading the workflow needs this module's floor, and not SciPy

        half = stats.t.ppf((1 + confidence) / 2, self.freedom) * self.error
        return Interval(self.mean, self.mean - half, self.mean + half)


class LogEstimate(Estimate):
    """An estimate of a ratio's logarithm; its interval is that of the ratio minus one."""

    __slots__ = ()

    def interval(self, confidence: float = 0.95) -> Interval:
        """Student's interval of the logarithm, told as what it means for the ratio: no longer symmetric."""
        return Interval(*map(float, np.expm1(super().interval(confidence))))


def mean_estimate(values: Float[np.ndarray, " n"] | list[float]) -> Estimate:
    """The mean of a sample; for paired comparisons, of the differences (Student 1908). Of no values: NaN."""
    values = np.asarray(values, dtype=np.float64)
    if len(values) < 2:
        return Estimate(float(values[0]) if len(values) else np.nan, np.nan, np.nan)
    return Estimate(float(values.mean()), float(values.std(ddof=1) / math.sqrt(len(values))), len(values) - 1)


def t_interval(values: Float[np.ndarray, " n"] | list[float], confidence: float = 0.95) -> Interval:
    """Student's t interval of the mean. Values that are all alike give no width, fewer than two no limits (NaN)."""
    return mean_estimate(values).interval(confidence)


def welch_estimate(samples: list[tuple[float, Float[np.ndarray, " n"]]]) -> Estimate:
    """A weighted sum of independent samples' means, of unequal variances (Welch 1947).

    Args:
        samples: (weight, values); no error where one of them has fewer than two values, no mean where one has none.
    """
    if not all(len(values) for _, values in samples):
        return Estimate(np.nan, np.nan, np.nan)
    mean = float(sum(weight * values.mean() for weight, values in samples))
    if min(len(values) for _, values in samples) < 2:
        return Estimate(mean, np.nan, np.nan)
    variances = [(weight**2 * values.var(ddof=1) / len(values), len(values) - 1) for weight, values in samples]
    total = sum(variance for variance, _ in variances)
    freedom = total**2 / sum(variance**2 / n for variance, n in variances) if total else 1.0
    return Estimate(mean, math.sqrt(total), freedom)


def next_value(values: Float[np.ndarray, " n"] | list[float]) -> Estimate:
    """One more draw of what the sample was drawn from: its interval is the prediction interval for a single new run.

    Mean ± t(n - 1) · s · sqrt(1 + 1/n), for draws of a normal distribution (Patil, Peng and Leek 2016; Spence and
    Stanley 2016).
    """
    mean, error, freedom = mean_estimate(values)
    return Estimate(mean, error * math.sqrt(freedom + 2), freedom)  # s sqrt(1 + 1/n) = s / sqrt(n) · sqrt(n + 1)


def binomial_error(share: float, images: int) -> float:
    """The standard error of a share of so many images that are a sample: sqrt(p (1 - p) / n)."""
    return math.sqrt(share * (1 - share) / images)


class Reliability(NamedTuple):
    """Confidence bins: mean confidence and accuracy (fractions, NaN in an empty bin), and number of images."""

    confidence: Float[np.ndarray, " bins"]
    accuracy: Float[np.ndarray, " bins"]
    count: Int[np.ndarray, " bins"]  # type: ignore[assignment]  # hides tuple.count

    def expected_calibration_error(self) -> float:
        """The mean gap between accuracy and confidence, bins weighted by their images (Guo et al. 2017, equation 3)."""
        filled = self.count > 0
        gap = np.abs(self.accuracy - self.confidence)[filled]
        return float((gap * self.count[filled]).sum() / self.count.sum())


def reliability(
    logits: Float[np.ndarray, "n classes"], targets: Int[np.ndarray, " n"], bins: int = CALIBRATION_BINS
) -> Reliability:
    """Images in bins of equal width of confidence, each open below and closed above (Guo et al. 2017, section 2)."""
    confidence, predicted = confidences(logits)
    place = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
    count = np.bincount(place, minlength=bins)
    with np.errstate(invalid="ignore"):
        mean = np.bincount(place, weights=confidence, minlength=bins) / count
        accuracy = np.bincount(place, weights=predicted == targets, minlength=bins) / count
    return Reliability(mean, accuracy, count)


def confidences(logits: Float[np.ndarray, "n classes"]) -> tuple[Float[np.ndarray, " n"], Int[np.ndarray, " n"]]:
    """The softmax of the largest logit, float64, and which one it is."""
    shifted = logits.astype(np.float64)
    shifted -= shifted.max(axis=1, keepdims=True)
    return 1 / np.exp(shifted).sum(axis=1), logits.argmax(axis=1)


def confusion_counts(
    logits: Float[np.ndarray, "n classes"], targets: Int[np.ndarray, " n"]
) -> Int[np.ndarray, "classes classes"]:
    """How many images of each true class (row) are taken for each class (column)."""
    classes = logits.shape[1]
    return np.bincount(targets * classes + logits.argmax(axis=1), minlength=classes**2).reshape(classes, classes)
