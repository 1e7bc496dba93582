"""Noise along a run and between seeds: against an analysis of variance written out, and the truth of simulated runs."""

import math
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from runs import obtain, requested
from runs import settings as small
from scipy import stats

from cifar_report.analysis.noise import Noise, last_spread, noise, variance_components
from cifar_report.analysis.statistics import Interval
from cifar_report.rendering.tables import noise_table
from cifar_report.runs import store
from cifar_report.runs.finished import Run, load_run
from cifar_report.training.splits import splits_of, subset

VALUES = np.array([[0.50, 0.53, 0.52], [0.44, 0.50, 0.49], [0.47, 0.49, 0.55], [0.52, 0.54, 0.56]])


def test_variance_components_are_those_of_the_analysis_of_variance():
    """The two-way table without interaction: seeds, steps and a rest, each mean square by its sum over all cells."""
    seeds, steps, grand = VALUES.mean(axis=1, keepdims=True), VALUES.mean(axis=0), VALUES.mean()
    of_seeds = 3 * ((seeds - grand) ** 2).sum() / 3
    rest = ((VALUES - seeds - steps + grand) ** 2).sum() / 6
    along, between = variance_components(VALUES)
    assert along.mean**2 == pytest.approx(rest) and between.mean**2 == pytest.approx((of_seeds - rest) / 3)
    for limit, tail in ((along.low, 0.025), (along.high, 0.975)):  # the true one makes this chi squared
        assert stats.chi2.sf(6 * rest / limit**2, 6) == pytest.approx(tail)
    # Where the interval between ends, F = MS(seeds) / MS(rest) is as far as its own tail allows (Williams 1962).
    for limit, tail in ((between.low, 0.975), (between.high, 0.025)):
        excess = of_seeds - rest * stats.f.ppf(tail, 3, 6)
        assert 3 * limit**2 * stats.chi2.ppf(tail, 3) == pytest.approx(max(3 * excess, 0))


def test_no_variance_between_seeds_counts_as_none():
    along, between = variance_components(np.array([[0.5, 0.6], [0.6, 0.5]]))
    assert along.mean == pytest.approx(math.sqrt(0.01)) and between.mean == between.low == 0


def test_the_intervals_hold_the_truth_as_often_as_they_say():
    rng = np.random.default_rng(0)
    held = np.zeros(2)
    for _ in range(1000):
        values = rng.normal(0, 2, (10, 1)) + rng.normal(0, 1, (10, 5)) + np.arange(5)
        along, between = variance_components(values)
        held += along.low < 1 < along.high, between.low < 2 < between.high
    assert (np.abs(held / 1000 - 0.95) < 0.025).all()  # 3.6 standard errors


def run(seed, accuracies, status="completed", schedule="constant"):
    rows = [(step, step, "test", 1.0, value) for step, value in accuracies.items()]
    curve = pd.DataFrame(rows, columns=["step", "samples_seen", "split", "loss", "accuracy"])
    settings = {"steps": 60, "schedule": schedule}
    subsets = {"test": {"images": 50, "of": 90}}
    return Run("a", seed, {"status": status, "settings": settings, "evaluation_subsets": subsets}, curve, None)


def test_noise_is_that_of_the_last_third_without_the_last_step():
    curves = [
        dict(zip((0, 30, 40, 45, 55, 60), (0.1, 0.9 - i, *row, 0.7 * i), strict=True)) for i, row in enumerate(VALUES)
    ]
    runs = [run(seed, curve) for seed, curve in enumerate(curves)]
    found = noise([*runs, run(9, {0: 0.1}, "diverged")])
    assert (found.along, found.between) == variance_components(VALUES)
    assert (found.steps, found.images) == ([40, 45, 55], 50)
    two = noise(runs[:2])
    assert (two.along, two.between) == variance_components(VALUES[:2])
    assert noise(runs[:1]) is None and noise([run(0, {0: 0.1, 60: 1}), run(1, {0: 0.1, 60: 1})]) is None
    assert noise([run(seed, curve, schedule="cosine") for seed, curve in enumerate(curves)]) is None


def test_the_table_shows_points():
    stage = {"variants": [{"name": "a", "label": "A & B"}, {"name": "b", "label": "B"}]}
    found = Noise(Interval(0.0162, 0.0132, 0.021), Interval(0.0055, 0.0, 0.015), [1000, 1400], 5000)
    facts = {"a": SimpleNamespace(noise=found, seeds=10), "b": SimpleNamespace(noise=None, seeds=1)}
    (row,) = [line for line in noise_table(stage, facts).splitlines() if "to" in line and "&" in line]
    assert row == r"A \& B & 10 & 1000 to 1400 & 5000 & 1.62 (1.32 to 2.10) & 0.55 (0.00 to 1.50) \\"
    assert noise_table(stage, {"b": facts["b"]}).startswith("% No variant")


def test_the_last_spread_is_over_the_images_of_the_curve(dataset, tmp_path):
    settings = small(steps=10, evaluate_every=1, evaluation_images=50)
    finished = obtain(settings, 0, dataset, tmp_path / "store")
    store.publish(finished, tmp_path / "seed-0", requested(settings, 0, dataset), "a")
    done = load_run(tmp_path / "seed-0")
    labels = dataset.split("test")[1]
    chosen = subset(splits_of(settings, dataset.arrays())["test"], 50)
    last = np.mean(np.load(tmp_path / "seed-0/test-logits.npy").argmax(axis=1)[chosen] == labels[chosen])
    test = done.curve[done.curve["split"] == "test"].set_index("step")["accuracy"]
    values = [test[8], test[9], last]
    assert last_spread(done, labels) == pytest.approx(max(values) - min(values))
    assert len({*values, test[10]}) > 1
    early = Run("a", 0, done.record, done.curve[done.curve["step"] < 8], done.folder)
    assert math.isnan(last_spread(early, labels))
