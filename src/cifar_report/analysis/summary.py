"""A variant's quantities, each computed in this one place: the claims, numbers, tables and figures take them from here.

`summary.csv` and `costs.csv` are a part of them, a row a variant.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from cifar_report.analysis.compatibility import FEWEST, Compatibility, compatibility
from cifar_report.analysis.noise import Noise, last_spread, noise
from cifar_report.analysis.statistics import (
    Interval,
    binomial_error,
    confusion_counts,
    next_value,
    reliability,
    t_interval,
)
from cifar_report.base.files import write_text
from cifar_report.runs.finished import SPLITS, Run, load_runs
from cifar_report.study.kinds import KINDS

Metric = Literal["accuracy", "loss"]

# What the quantities of `Facts` are computed from, where it is not the run.json of each completed run.
_OF_ALL_RUNS = ("seeds", "diverged", "seconds", "images_per_second", "peak_memory_mb", "threads", "devices")
_OF_THE_FIRST_RUN = ("settings", "parameters", "images_seen", "forward_flops", "training_flops")
_OF_LOGITS = ("calibration_error", "class_accuracy", "last_spreads")
_OF_FLIPS = ("flipped_accuracy", "flip_gain")
_OF_BATCH_STATISTICS = (
    *("measured_by_batch_statistics", "batch_statistics_accuracy", "batch_statistics_prediction"),
    "batch_statistics_difference",
)
_OF_CURVES = ("first_loss", "noise", "last_spreads")


@dataclass(frozen=True)
class Facts:
    """What a variant's runs say together: accuracies and errors as fractions, losses in nats.

    Means and intervals are over the completed seeds, NaN where there is none. A quantity is computed when it is first
    asked for, so that logits are read by those alone who need them.
    """

    runs: list[Run]  # of all seeds of the plan, at least one
    labels: Int[np.ndarray, " n"] | None = None  # of the test split; calibration, classes and binomial error need them
    flips: pd.DataFrame | None = None  # the variant's rows of flips.csv
    by_batch_statistics: pd.DataFrame | None = None  # the variant's rows of batch-statistics.csv

    def sources(self, quantity: str) -> list[str]:
        """The files that one of the quantities below was computed from, named from the study's folder."""
        if not hasattr(type(self), quantity):
            raise AttributeError(f"a variant has no quantity {quantity}")
        if quantity in _OF_FLIPS:
            return ["flips.csv"]
        if quantity in _OF_BATCH_STATISTICS:
            return ["batch-statistics.csv"]
        runs = self.completed
        if quantity in _OF_ALL_RUNS:
            runs = self.runs
        elif quantity in _OF_THE_FIRST_RUN:
            runs = self.runs[:1]
        files = ["test-logits.npy" if quantity in _OF_LOGITS else "run.json"]
        if quantity in _OF_CURVES:
            files.append("curve.csv")
        return [run.source(file) for run in runs for file in files]

    @cached_property
    def completed(self) -> list[Run]:
        """The runs that reached their last step with finite losses."""
        return [run for run in self.runs if run.completed]

    @cached_property
    def by_seed(self) -> dict[int, Run]:
        """The completed runs."""
        return {run.seed: run for run in self.completed}

    def values(self, split: str, metric: Metric, seeds: Iterable[int] | None = None) -> Float[np.ndarray, " seeds"]:
        """A whole split's accuracy or loss at the last step, of each completed seed or of some of them.

        Args:
            split: one of SPLITS (NaN where a run has no such split), or `train-minus-test` for the generalisation gap.
        """
        if split == "train-minus-test":
            return self.values("train", metric, seeds) - self.values("test", metric, seeds)
        runs = self.completed if seeds is None else [self.by_seed[seed] for seed in seeds]
        return np.array([run.final(split, metric) for run in runs], dtype=np.float64)

    @property
    def seeds(self) -> int:
        """How many seeds completed."""
        return len(self.completed)

    @property
    def diverged(self) -> int:
        """How many seeds did not."""
        return len(self.runs) - len(self.completed)

    @cached_property
    def accuracy(self) -> dict[str, Interval]:
        """Of each whole split at the last step, by its name."""
        return {split: t_interval(self.values(split, "accuracy")) for split in SPLITS}

    @cached_property
    def loss(self) -> dict[str, Interval]:
        """Mean cross entropy of each whole split at the last step, by its name."""
        return {split: t_interval(self.values(split, "loss")) for split in SPLITS}

    @cached_property
    def first_loss(self) -> Interval:
        """Of the test images before the first step, on the curve's subset of them."""
        curves = [run.curve.query("split == 'test' and step == 0") for run in self.completed]
        return t_interval([loss for curve in curves for loss in curve["loss"]])

    @cached_property
    def gap(self) -> Interval:
        """The generalisation gap: training minus test accuracy."""
        return t_interval(self.values("train-minus-test", "accuracy"))

    @cached_property
    def test_accuracy_std(self) -> float:
        """The standard deviation of one run's test accuracy over the seeds; NaN for fewer than two."""
        return float(self.values("test", "accuracy").std(ddof=1)) if self.seeds > 1 else np.nan

    def compatibility(self, original: float | None, evaluated: bool = False) -> Compatibility | None:
        """What a test accuracy that was printed of one run is beside ours; None without one, or below three seeds.

        Where ours was measured as the original measured its own, by batch statistics, that is what stands beside it.

        Args:
            original: a fraction.
            evaluated: take the accuracy in evaluation mode all the same.
        """
        if self.is_measured_as_the_original and not evaluated:
            return compatibility(original, self.measured_by_batch_statistics["accuracy"].to_numpy())
        return compatibility(original, self.values("test", "accuracy"))

    @property
    def is_measured_as_the_original(self) -> bool:
        """Whether test accuracies by batch statistics are there."""
        return self.by_batch_statistics is not None and not self.by_batch_statistics.empty

    @cached_property
    def test_accuracy_binomial(self) -> float:
        """The standard error of the mean test accuracy that stems from the test images."""
        return binomial_error(self.accuracy["test"].mean, len(self._labels()))

    @cached_property
    def calibration_error(self) -> Interval:
        """The expected calibration error on the test split (Guo et al. 2017)."""
        logits = (run.test_logits(len(self._labels())) for run in self.completed)
        return t_interval([reliability(each, self._labels()).expected_calibration_error() for each in logits])

    @cached_property
    def class_accuracy(self) -> Float[np.ndarray, " classes"]:
        """The accuracy within each class of the test split, mean over the seeds; NaN for a class without an image."""
        counts = [confusion_counts(run.test_logits(len(self._labels())), self._labels()) for run in self.completed]
        with np.errstate(invalid="ignore"):
            return np.mean([np.diag(count) / count.sum(axis=1) for count in counts], axis=0)

    @cached_property
    def flipped_accuracy(self) -> Interval:
        """Test accuracy with test-time flips."""
        return t_interval(self._flips()["accuracy_flipped"])

    @cached_property
    def flip_gain(self) -> Interval:
        """What test-time flips add to the test accuracy, paired by seed."""
        return t_interval(self._flips()["accuracy_flipped"] - self._flips()["accuracy"])

    @property
    def measured_by_batch_statistics(self) -> pd.DataFrame:
        """The variant's rows of batch-statistics.csv, a completed run each."""
        if self.by_batch_statistics is None:
            raise ValueError("these facts were made without batch-statistics.csv")
        return self.by_batch_statistics

    @cached_property
    def batch_statistics_accuracy(self) -> Interval:
        """Test accuracy by the statistics of each batch of test images, as the original measured its VGG."""
        return t_interval(self.measured_by_batch_statistics["accuracy"])

    @cached_property
    def batch_statistics_prediction(self) -> Interval:
        """The prediction interval of that for one new run; NaN for fewer seeds than one takes."""
        accuracies = self.measured_by_batch_statistics["accuracy"]
        new = next_value(accuracies).interval()
        return new if len(accuracies) >= FEWEST else Interval(new.mean, math.nan, math.nan)

    @cached_property
    def batch_statistics_difference(self) -> Interval:
        """That minus the accuracy in evaluation mode, paired by seed."""
        table = self.measured_by_batch_statistics
        return t_interval(table["accuracy"] - table["accuracy_evaluated"])

    @cached_property
    def noise(self) -> Noise | None:
        """Of the test accuracy, along a run and between seeds."""
        return noise(self.runs)

    @cached_property
    def last_spreads(self) -> Float[np.ndarray, " seeds"]:
        """By how much each completed run's test accuracy varies in its last fifth, see `noise.last_spread`."""
        return np.array([last_spread(run, self._labels()) for run in self.completed])

    @property
    def settings(self) -> dict[str, Any]:
        """All settings, as run.json has them."""
        return self.runs[0].record["settings"]

    @property
    def parameters(self) -> int:
        """Trained numbers of the model."""
        return self.runs[0].record["parameters"]

    @property
    def images_seen(self) -> int:
        """Training images that a run takes in, each as often as it comes."""
        return self.settings["steps"] * self.settings["batch_size"]

    @property
    def forward_flops(self) -> int:
        """Floating-point operations of a forward pass, an image."""
        return self.runs[0].record["forward_flops"]

    @property
    def training_flops(self) -> int:
        """Of a whole run: three forward passes' worth a step, as the backward pass costs two."""
        return 3 * self.forward_flops * self.images_seen

    @cached_property
    def seconds(self) -> float:
        """Wall time of training a run, median over all runs."""
        return float(np.median([run.record["seconds"] for run in self.runs]))

    @cached_property
    def images_per_second(self) -> float:
        """Training images a second of wall time, median over all runs; NaN where none took any time."""
        records = [run.record for run in self.runs if run.record["seconds"]]
        return float(np.median([r["samples_seen"] / r["seconds"] for r in records])) if records else np.nan

    @cached_property
    def peak_memory_mb(self) -> float:
        """The most memory, MB, that the process of a run took."""
        return max(run.record["peak_memory_mb"] for run in self.runs)

    @property
    def threads(self) -> list[int]:
        """Of each run, without repetition."""
        return sorted({run.record["threads"] for run in self.runs})

    @property
    def devices(self) -> list[str]:
        """The GPU of each run, or its processor, without repetition."""
        return sorted({run.record["device"].get("gpu", run.record["device"]["cpu"]) for run in self.runs})

    def _labels(self) -> Int[np.ndarray, " n"]:
        if self.labels is None:
            raise ValueError("these facts were made without the labels of the test split")
        return self.labels

    def _flips(self) -> pd.DataFrame:
        if self.flips is None:
            raise ValueError("these facts were made without flips.csv")
        return self.flips


def facts(
    runs: dict[str, list[Run]],
    labels: Int[np.ndarray, " n"] | None = None,
    flips: pd.DataFrame | None = None,
    by_batch_statistics: pd.DataFrame | None = None,
) -> dict[str, Facts]:
    """The facts of each variant, by its name.

    Args:
        runs: as `load_runs` returns them.
        labels: of the test split.
        flips: flips.csv; by_batch_statistics: batch-statistics.csv.
    """

    def rows(table: pd.DataFrame | None, name: str) -> pd.DataFrame | None:
        return None if table is None else table[table["variant"] == name]

    return {
        name: Facts(members, labels, rows(flips, name), rows(by_batch_statistics, name))
        for name, members in runs.items()
    }


def paired_differences(facts: Facts, base: Facts) -> Float[np.ndarray, " pairs"]:
    """Test accuracy minus that of another variant, a fraction, of each seed that both completed."""
    seeds = sorted(facts.by_seed.keys() & base.by_seed.keys())
    return facts.values("test", "accuracy", seeds) - base.values("test", "accuracy", seeds)


def summarise(stage: dict[str, Any], runs: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The summary and the costs: a row a variant. Only completed runs enter the means; the others are counted.

    Args:
        stage: {"variants": [{"name", "seeds", "original_test_accuracy"}]}.
        runs: folder of `<variant>/seed-<n>/`.
    """
    of_variants = facts(load_runs(runs, stage["variants"]))
    summary = [_summary_row(variant, of_variants[variant["name"]]) for variant in stage["variants"]]
    costs = [_costs_row(name, each) for name, each in of_variants.items()]
    return pd.DataFrame(summary), pd.DataFrame(costs)


def write_summary(stage: dict[str, Any], runs: Path, summary: Path, costs: Path) -> None:
    """Writes `summary.csv` and `costs.csv`."""
    for table, path in zip(summarise(stage, runs), (summary, costs), strict=True):
        write_text(path, table.to_csv(index=False, lineterminator="\n"))


def _summary_row(variant: dict[str, Any], facts: Facts) -> dict[str, Any]:
    test = facts.accuracy["test"]
    return {
        "variant": variant["name"],
        "backend": KINDS[facts.settings["kind"]].backend,
        "parameters": facts.parameters,
        "steps": facts.settings["steps"],
        "batch_size": facts.settings["batch_size"],
        "seeds": facts.seeds,
        "test_accuracy_mean": test.mean,
        "test_accuracy_std": facts.test_accuracy_std,
        "test_accuracy_ci95_low": test.low,
        "test_accuracy_ci95_high": test.high,
        "train_accuracy_mean": facts.accuracy["train"].mean,
        "validation_accuracy_mean": facts.accuracy["validation"].mean,
        "original_test_accuracy": variant["original_test_accuracy"],
        "diverged": facts.diverged,
    }


def _costs_row(name: str, facts: Facts) -> dict[str, Any]:
    return {
        "variant": name,
        "train_seconds_median": facts.seconds,
        "images_per_second": facts.images_per_second,
        "peak_memory_mb": facts.peak_memory_mb,
        "threads": facts.runs[0].record["threads"],
        "device": "; ".join(facts.devices),
    }
