"""What ingredients are worth: differences, pooled error and Dunnett's limits, against SciPy and by hand."""

import re

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from cifar_report.analysis.ablations import dunnett_critical, worths
from cifar_report.rendering.tables import ablations_table, recipes_table, search_table

NAMES = ["whole", "momentum", "schedule"]


def trials(accuracy, diverged=()):
    """Of three configurations, which differ in their momentum; three seeds each."""
    return pd.DataFrame(
        {
            "trial": f"{place}-{seed}",
            "momentum": f"0.{place}",
            "validation_accuracy": accuracy[place, seed],
            "validation_loss": 1.0,
            "status": "diverged" if (place, seed) in diverged else "completed",
            "selected": False,
            "rung": 1,
            "step": 10,
            "curve": "",
            "search": "s",
            "seed": seed,
        }
        for place in range(accuracy.shape[0])
        for seed in range(accuracy.shape[1])
    )


@pytest.mark.parametrize(
    ("comparisons", "freedom", "table"), [(1, 10, 2.23), (2, 10, 2.57), (3, 10, 2.76), (4, 20, 2.65), (6, 12, 2.98)]
)
def test_dunnetts_critical_value_is_that_of_his_table(comparisons, freedom, table):
    """Dunnett (1964), two-sided, 5 %; for one comparison it is Student's."""
    assert dunnett_critical(comparisons, freedom) == pytest.approx(table, abs=0.006)


def test_without_effects_of_seeds_the_limits_are_scipys():
    """SciPy knows no blocks: its error is pooled within groups, so limits are compared in standard errors."""
    random = np.random.default_rng(3)
    groups = random.normal(size=(3, 6))
    found = stats.dunnett(*groups[1:], control=groups[0], rng=np.random.default_rng(0)).confidence_interval(0.95)
    error = np.sqrt(groups.var(axis=1, ddof=1).mean() * 2 / 6)
    half = (found.high - found.low) / 2 / error
    assert half == pytest.approx([dunnett_critical(2, 3 * 5)] * 2, abs=0.01)


def test_worths_are_differences_and_their_error_is_what_configurations_and_seeds_leave():
    accuracy = np.array([[0.60, 0.63, 0.61], [0.55, 0.59, 0.55], [0.58, 0.60, 0.60]])
    whole, momentum, schedule = worths(trials(accuracy), NAMES)
    assert (whole.name, whole.accuracy) == ("whole", pytest.approx(0.61333333)) and np.isnan(whole.worth.mean)
    # Two-way analysis of variance by hand: the total sum of squares less that of the rows and of the columns.
    total = ((accuracy - accuracy.mean()) ** 2).sum()
    rows = 3 * ((accuracy.mean(axis=1) - accuracy.mean()) ** 2).sum()
    columns = 3 * ((accuracy.mean(axis=0) - accuracy.mean()) ** 2).sum()
    error = np.sqrt((total - rows - columns) / 4 * 2 / 3)
    for found, place in ((momentum, 1), (schedule, 2)):
        difference = accuracy[0].mean() - accuracy[place].mean()
        half = 3.31 * error  # Dunnett's table: two comparisons, 4 degrees of freedom
        assert tuple(found.worth) == pytest.approx((difference, difference - half, difference + half), abs=2e-4)


def test_two_seeds_of_two_configurations_leave_one_degree_of_freedom():
    accuracy = np.array([[0.60, 0.63], [0.55, 0.59]])
    differences = accuracy[0] - accuracy[1]
    low, high = stats.ttest_1samp(differences, 0).confidence_interval(0.95)
    assert tuple(worths(trials(accuracy), NAMES[:2])[1].worth) == pytest.approx(
        (differences.mean(), low, high), abs=1e-3
    )
    assert np.isnan(worths(trials(accuracy[:, :1]), NAMES[:2])[1].worth.low)  # one seed leaves none


def test_what_diverged_has_no_worth_and_does_not_enter_the_error():
    accuracy = np.array([[0.60, 0.63, 0.61], [0.55, 0.59, 0.55], [0.1, 0.60, 0.60]])
    _, momentum, schedule = worths(trials(accuracy, {(2, 0)}), NAMES)
    assert schedule.diverged == 1 and np.isnan(schedule.worth.mean) and np.isnan(schedule.accuracy)
    differences = accuracy[0] - accuracy[1]
    expected = stats.ttest_1samp(differences, 0).confidence_interval(0.95)  # one comparison left: paired
    assert tuple(momentum.worth) == pytest.approx((differences.mean(), *expected), abs=1e-4)
    assert all(np.isnan(each.worth.low) for each in worths(trials(accuracy, {(0, 0)}), NAMES))
    assert all(np.isnan(each.worth.low) for each in worths(trials(accuracy[:, :1]), NAMES))


def test_the_tables_say_what_was_shortened_what_diverged_and_what_was_tried():
    accuracy = np.array([[0.60, 0.63, 0.61], [0.55, 0.59, 0.55], [0.1, 0.60, 0.60]])
    search = trials(accuracy, {(2, 0)})
    entry = {"label": "MLP, best", "configurations": NAMES, "steps": 300, "steps_of_variant": 1200}
    lines = ablations_table({"s": entry}, search).splitlines()
    assert r"shortened, \num{300} steps instead of \num{1200}" in lines[0] and r"seeds: \num{3}" in lines[0]
    whole, momentum, schedule = (
        next(line for line in lines if line.startswith(name)) for name in ("nothing", *NAMES[1:])
    )
    assert [cell.strip() for cell in whole.split("&")[:3]] == ["nothing", "61.33", "{--}"]
    assert [cell.strip() for cell in momentum.split("&")[1:3]] == ["56.33", "5.00"]
    low, high = map(float, re.findall(r"num\{(-?[\d.]+)\}", momentum.split("&")[3]))
    assert low < 5 < high and low + high == pytest.approx(10, abs=0.011)
    assert "{diverged: 1}" in schedule
    others = ablations_table({"s": entry}, search.assign(seed=search["seed"] + 5))
    assert r"seeds: \num{3}" in others.splitlines()[0]
    twice = ablations_table({"s": entry}, trials(accuracy, {(2, 0), (2, 2)}))
    assert "{diverged: 2}" in twice
    log = recipes_table({"s": entry | {"steps_of_variant": 300}}, search)
    rows = [
        [cell.strip() for cell in line.rstrip("\\ ").split("&")] for line in log.splitlines() if line.count("&") == 3
    ]
    assert rows[1:] == [
        ["whole", "", "61.33", "0"],
        ["momentum", "momentum 0.1", "56.33", "0"],
        ["schedule", "momentum 0.2", "60.00", "1"],
    ]
    assert "shortened" not in log
    assert "no search" in search_table(search, ["s"]) and "0.1" in search_table(search)
