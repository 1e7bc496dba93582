"""How much a variant's test accuracy varies along a run, and how much between seeds."""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from cifar_report.analysis.statistics import Interval
from cifar_report.base.randomness import Purpose, generator, stratified_indices
from cifar_report.runs.finished import Run


class Noise(NamedTuple):
    """Standard deviations of the test accuracy, fractions, with 95 % intervals."""

    along: Interval  # from one evaluation of a run to another
    between: Interval  # of the level that a seed's evaluations scatter around
    steps: list[int]  # of the evaluations
    images: int  # the same at each of them


def noise(runs: list[Run]) -> Noise | None:
    """Over the evaluations from two thirds of the steps on, but for the last, which is of the whole test split.

    What all seeds gain from step to step is taken away. None with fewer than two completed runs or evaluations, and
    where the learning rate falls, so that the noise does too.
    """
    runs = [run for run in runs if run.completed]
    if len(runs) < 2 or runs[0].record["settings"]["schedule"] != "constant":
        return None
    last = runs[0].record["settings"]["steps"]
    curves = [_test_accuracy(run) for run in runs]
    steps = [step for step in curves[0] if 2 * last <= 3 * step < 3 * last]
    if len(steps) < 2:
        return None
    along, between = variance_components(np.array([[curve[step] for step in steps] for curve in curves]))
    return Noise(along, between, steps, runs[0].record["evaluation_subsets"]["test"]["images"])


def variance_components(values: Float[np.ndarray, "groups repeats"]) -> tuple[Interval, Interval]:
    """Standard deviations within and between groups: one-way random effects, once each column's mean is taken away.

    The estimates are those of the analysis of variance, a negative variance counting as 0. The interval within is exact
    for normal deviations (chi squared); the one between is Williams's, which covers 95 % nearly (Williams 1962; Searle,
    Casella and McCulloch 1992, section 3.6). Deviations within a group are taken for independent.
    """
    from scipy import stats

    groups, repeats = values.shape
    rest = values - values.mean(axis=0)
    means = rest.mean(axis=1)
    freedom, freedom_within = groups - 1, (groups - 1) * (repeats - 1)
    square = repeats * np.sum(means**2) / freedom
    square_within = np.sum((rest - means[:, None]) ** 2) / freedom_within
    tails = np.array([0.975, 0.025])
    within = square_within * freedom_within / stats.chi2.ppf(tails, freedom_within)
    excess = square - square_within * stats.f.ppf(tails, freedom, freedom_within)
    between = excess * freedom / (repeats * stats.chi2.ppf(tails, freedom))

    def deviation(variance: float, limits: Float[np.ndarray, " 2"]) -> Interval:
        return Interval(*(math.sqrt(max(float(each), 0.0)) for each in (variance, *limits)))

    return deviation(square_within, within), deviation((square - square_within) / repeats, between)


def last_spread(run: Run, labels: Int[np.ndarray, " n"]) -> float:
    """The largest minus the smallest test accuracy in the last fifth of a completed run's steps; NaN for one value.

    All are of the images that the curve is evaluated on: for the last step, they are picked from the whole test split.

    Args:
        labels: of the test split.
    """
    last = run.record["settings"]["steps"]
    # As `training.splits.subset` draws them.
    size = min(run.record["settings"]["evaluation_images"], len(labels))
    index = stratified_indices(labels, size, generator(0, Purpose.SUBSET))
    values = [accuracy for step, accuracy in _test_accuracy(run).items() if 4 * last <= 5 * step < 5 * last]
    values.append(float(np.mean(run.test_logits(len(labels))[index].argmax(axis=1) == labels[index])))
    return max(values) - min(values) if len(values) > 1 else math.nan


def _test_accuracy(run: Run) -> dict[int, float]:
    """By step."""
    curve = run.curve[run.curve["split"] == "test"]
    return dict(zip(curve["step"].tolist(), curve["accuracy"].tolist(), strict=True))
