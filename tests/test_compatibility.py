"""Printed values of one run against SciPy's pooled t test of one value and a sample, and against simulated power."""

import numpy as np
import pytest
from scipy import stats

from cifar_report.analysis.compatibility import compatibility, detectable, joint_confidence

VALUES = np.array([0.462, 0.461, 0.454, 0.436, 0.470])


@pytest.mark.parametrize(("original", "compatible"), [(0.466, True), (0.50, False), (0.41, False)])
def test_a_printed_value_is_a_second_sample_of_one(original, compatible):
    found = compatibility(original, VALUES)
    pooled = stats.ttest_ind_from_stats(original, 0, 1, VALUES.mean(), VALUES.std(ddof=1), len(VALUES))
    assert found.p == pytest.approx(pooled.pvalue)
    one_sided = pooled.pvalue / 2 if original > VALUES.mean() else 1 - pooled.pvalue / 2
    assert found.next_reaches == pytest.approx(one_sided)
    margin = pooled.statistic / (original - VALUES.mean())  # one over the error
    half = stats.t.ppf(0.975, 4) / margin
    assert (found.prediction.low, found.prediction.high) == pytest.approx((0.4566 - half, 0.4566 + half))
    assert found.compatible == compatible == (pooled.pvalue > 0.05)


def test_counts_and_what_is_too_few_or_was_not_printed():
    assert (compatibility(0.461, VALUES).reached, compatibility(0.461, VALUES).seeds) == (3, 5)
    assert compatibility(None, VALUES) is None
    assert compatibility(0.4, VALUES[:2]) is None


def test_runs_that_are_all_alike_are_compatible_with_themselves_alone():
    same, other = (compatibility(original, np.full(3, 0.5)) for original in (0.5, 0.51))
    assert same.compatible and not other.compatible
    assert (other.p, other.next_reaches, same.p) == (0, 0, 1)


@pytest.mark.parametrize(("seeds", "expected"), [(3, 6.5), (5, 4.1), (10, 3.3)])
def test_the_detectable_difference_is_found_in_four_of_five_studies(seeds, expected):
    assert round(detectable(seeds), 1) == expected
    rng = np.random.default_rng(1)
    ours, original = rng.normal(size=(40_000, seeds)), rng.normal(detectable(seeds), size=40_000)
    distance = (original - ours.mean(axis=1)) / (ours.std(axis=1, ddof=1) * np.sqrt(1 + 1 / seeds))
    assert np.mean(np.abs(distance) > stats.t.ppf(0.975, seeds - 1)) == pytest.approx(0.8, abs=0.01)


def test_four_intervals_hold_with_81_per_cent():
    assert joint_confidence(4) == pytest.approx(0.81, abs=0.005)
