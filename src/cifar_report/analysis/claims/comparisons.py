"""What the claims compare, measured on a study's runs: each comparison of `file` as an estimate with its interval.

Accuracies are fractions, losses nats, and differences of them too.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from cifar_report.analysis import measurements, searches
from cifar_report.analysis.claims.file import (
    Comparison,
    Contrast,
    FormerPart,
    GradientAgreement,
    NextRun,
    SettingEffect,
    SettingProgress,
    ShiftTolerance,
)
from cifar_report.analysis.statistics import Estimate, Interval, LogEstimate, mean_estimate, next_value, welch_estimate
from cifar_report.analysis.summary import Facts, facts
from cifar_report.base.files import unaltered
from cifar_report.runs.finished import Run, load_run, load_runs

RESAMPLES = 1000  # of the test images
FEWEST = 3  # seeds, or pairs of trials, that a verdict rests on

_NOTHING = Estimate(np.nan, np.nan, np.nan)


@dataclass(frozen=True)
class Evidence:
    """What a study offers to its claims."""

    variants: dict[str, dict[str, Any]]  # the plan's entries by name
    facts: dict[str, Facts]  # by variant
    search: pd.DataFrame | None  # search.csv, all settings as text
    trials: Path  # folder of <search>/<trial>/
    shifts: pd.DataFrame | None  # shifts.csv
    agreement: pd.DataFrame | None  # agreement.csv
    labels: Int[np.ndarray, " n"] | None  # of the test split

    @classmethod
    def of(cls, stage: dict[str, Any], results: Path) -> "Evidence":
        """That of a study's folder; search.csv, shifts.csv, agreement.csv and the labels where they are there.

        Args:
            stage: {"variants": the study's entries}.
            results: folder of the study.
        """
        search, shifts, labels = results / "search.csv", results / "shifts.csv", results / "dataset/test-labels.npy"
        agreement = results / "agreement.csv"
        return cls(
            variants={variant["name"]: variant for variant in stage["variants"]},
            facts=facts(load_runs(results / "runs", stage["variants"])),
            search=searches.read(search) if search.is_file() else None,
            trials=results / "search",
            shifts=measurements.read(shifts, measurements.SHIFTS) if shifts.is_file() else None,
            agreement=measurements.read(agreement, measurements.AGREEMENT) if agreement.is_file() else None,
            labels=np.load(unaltered(labels)) if labels.is_file() else None,
        )


@dataclass(frozen=True)
class Measured:
    """What a comparison gives; `lacks` says why it cannot be judged, and is empty where it can."""

    estimate: Estimate = _NOTHING
    unit: str = "points"  # points or percent (fractions, shown times 100), nats, share (relative)
    pairs: int = 0  # values that the estimate rests on
    runs: int = 0  # runs or trials that went into them
    lacks: str = ""
    left_out: tuple[str, ...] = ()  # what diverged
    image_level: Interval | None = None  # the same estimate with the uncertainty from the test images
    next_run: Estimate | None = None  # of one more run: what refutes, where it is not the mean
    known: "Measured | None" = None  # the same over the seeds that were known before the rule was, which do not decide


def measure(comparison: Comparison, evidence: Evidence) -> Measured:
    """What the comparison gives on this study."""
    return _MEASURES[type(comparison)](comparison, evidence)


def contrast(comparison: Contrast, evidence: Evidence) -> Measured:
    """A weighted sum of variants' whole-split values at the last step: a difference, a main effect or a mean.

    Paired, the sum is taken seed by seed, over the seeds that every variant completed, and the interval is Student's
    over these sums. Else each variant's seeds are a sample of their own, and the interval is Welch's: for one variant,
    Student's again. Where the comparison names fresh seeds, they alone enter, and all of them must be run; the others
    are measured beside them.
    """
    if comparison.fresh_seeds is None or _not_run(comparison.weights, evidence):
        return _contrast(comparison, evidence, lambda seed: True)
    fresh, old = frozenset(comparison.fresh_seeds), frozenset(comparison.known_seeds)
    measured = _contrast(comparison, evidence, fresh.__contains__)
    planned = set.intersection(*(set(evidence.variants[name]["seeds"]) for name in comparison.weights))
    known = _contrast(comparison, evidence, old.__contains__) if old and old <= planned else None
    lacks = _not_fresh(fresh, planned) or measured.lacks
    if measured.left_out and not lacks:  # what is left of them would be chosen by its results
        lacks = f"all of its fresh seeds decide it, but of these {_listed(measured.left_out)}"
    return replace(measured, lacks=lacks, known=known)


def decided_by(comparison: Comparison, evidence: Evidence) -> list[Run]:
    """The runs and trials of a comparison's fresh seeds, as far as the study has them; none where it names none."""
    match comparison:
        case Contrast(weights=weights, fresh_seeds=fresh) if fresh:
            runs = [run for name in weights if name in evidence.variants for run in evidence.facts[name].runs]
            return [run for run in runs if run.seed in fresh]
        case SettingEffect(fresh_seeds=fresh) | SettingProgress(fresh_seeds=fresh) if fresh:
            trials, _ = _trials(comparison, evidence)
            return [load_run(evidence.trials / row["search"] / row["trial"]) for _, row in trials.iterrows()]
    return []


def _contrast(comparison: Contrast, evidence: Evidence, enters: Callable[[int], bool]) -> Measured:
    """The same over the seeds that enter."""
    weights, split, metric = comparison.weights, comparison.split, comparison.metric
    is_difference = split == "train-minus-test" or math.isclose(sum(weights.values()), 0, abs_tol=1e-9)
    unit = "nats" if metric == "loss" else "points" if is_difference else "percent"
    if lacks := _not_run(weights, evidence):
        return Measured(unit=unit, lacks=lacks)
    common = _common_seeds(weights, evidence)
    seeds = {name: common if comparison.paired else list(evidence.facts[name].by_seed) for name in weights}
    seeds = {name: [seed for seed in members if enters(seed)] for name, members in seeds.items()}
    values = {name: evidence.facts[name].values(split, metric, seeds[name]) for name in weights}
    for name in weights:
        if np.isnan(values[name]).any():
            return Measured(unit=unit, lacks=f"the runs of {name} have no {metric} on the split {split}")
    pairs = min(map(len, values.values()))
    if comparison.paired:
        estimate = mean_estimate(np.sum([weight * values[name] for name, weight in weights.items()], axis=0))
    else:
        estimate = welch_estimate([(weight, values[name]) for name, weight in weights.items()])
    images = None
    if split in ("test", "train-minus-test") and metric == "accuracy" and pairs and evidence.labels is not None:
        sign = 1 if split == "test" else -1
        samples = [
            (sign * weight, [evidence.facts[name].by_seed[seed] for seed in seeds[name]])
            for name, weight in weights.items()
        ]
        images = image_interval(samples, evidence.labels)
        # The training images stay as they are, and so do the accuracies on them.
        images = Interval(*(estimate.mean + (limit - images.mean) for limit in images))
    return Measured(
        estimate,
        unit,
        pairs,
        sum(map(len, values.values())),
        _too_few({_listed(weights): pairs} if comparison.paired else {name: len(values[name]) for name in weights}),
        _diverged(weights, evidence, enters),
        images,
    )


def former(part: FormerPart, evidence: Evidence) -> Measured | None:
    """A part of a former rule, over the seeds that were known when it was changed; None where these are not run."""
    for name in part.comparison.weights:
        if not set(part.seeds) <= set(evidence.variants.get(name, {"seeds": []})["seeds"]):
            return None
        of_runs = [run.record["settings"] for run in evidence.facts[name].runs if part.settings]
        if any(settings[key] != value for settings in of_runs for key, value in part.settings.items()):
            return None
    return _contrast(part.comparison, evidence, frozenset(part.seeds).__contains__)


def next_run(comparison: NextRun, evidence: Evidence) -> Measured:
    """A variant's mean over the seeds, and beside it what one more run is expected to give.

    A value that somebody printed of one run is one draw: it is out of reach only if it lies above the prediction
    interval for a single new run, and surely reached if the interval of the mean lies above it.
    """
    name = comparison.variant
    alone = Contrast(
        kind="contrast", weights={name: 1.0}, metric=comparison.metric, split=comparison.split, paired=False
    )
    measured = contrast(alone, evidence)
    if measured.lacks:
        return measured
    return replace(measured, next_run=next_value(evidence.facts[name].values(comparison.split, comparison.metric)))


def gradient_agreement(comparison: GradientAgreement, evidence: Evidence) -> Measured:
    """The largest relative difference of two implementations: of the losses and of any gradient, at any step.

    Nothing in it is left to chance, so that its interval has no width. What is no number counts as infinite.
    """
    first, second = comparison.variants
    if lacks := _not_run(comparison.variants, evidence):
        return Measured(unit="share", lacks=lacks)
    table = evidence.agreement
    rows = table if table is None else table[(table["first"] == first) & (table["second"] == second)]
    if rows is None or not len(rows):
        lacks = f"{first} and {second} were not compared step by step; the key agreement lists such pairs"
        return Measured(unit="share", lacks=lacks)
    if (rows["tensors"] == 0).any():
        return Measured(unit="share", lacks=f"the gradients of {first} and {second} are all zero at some step")
    largest = rows[["loss_difference", "gradient_difference"]].fillna(np.inf).to_numpy().max()
    return Measured(Estimate(float(largest), 0.0, np.inf), "share", len(rows), 2)


def setting_effect(comparison: SettingEffect, evidence: Evidence) -> Measured:
    """A weighted sum of the main effects of a grid's settings on validation accuracy, see `searches.main_effects`."""
    trials, not_fresh = _trials(comparison, evidence)
    if trials.empty:
        return Measured(lacks=not_fresh)
    left_out = tuple(f"trial {t} (diverged)" for t in trials.loc[trials["status"] != "completed", "trial"])
    estimate = searches.main_effects(trials, comparison.weights)
    each = searches.configurations(trials)
    replicates = int((each["trials"] - each["diverged"]).min())
    lacks = not_fresh or _too_few({"a configuration": replicates}, "completed trial")
    return Measured(estimate, "points", replicates, len(trials) - len(left_out), lacks, left_out)


def setting_progress(comparison: SettingProgress, evidence: Evidence) -> Measured:
    """How the loss with a setting's greatest value compares along the way with that of its smallest.

    For each pair of configurations that are alike but for the setting, and each seed that both completed: the mean
    difference of the losses' logarithms at common points. These are the points of the curve that has fewer; the other's
    logarithm is interpolated there, between points that were evaluated on the same images. So a last point, which is of
    the whole split, is compared with a last point alone; the start is left out. The seeds of a pair are averaged. The
    interval is Student's over the pairs, of the logarithm; given is the ratio of the losses that it means, minus one.
    """
    trials, not_fresh = _trials(comparison, evidence)
    if trials.empty:
        return Measured(unit="percent", lacks=not_fresh)
    size = pd.to_numeric(trials[comparison.setting])
    sides = [trials[size == extreme] for extreme in (size.max(), size.min())]
    others = [name for name in searches.levels(trials) if name != comparison.setting]
    pairs = sides[0].merge(sides[1], on=[*others, "seed", "search"], suffixes=("_large", "_small"))
    logs: dict[tuple[str, ...], list[float]] = {}
    left_out, runs = [], 0
    for _, pair in pairs.iterrows():
        both = [load_run(evidence.trials / pair["search"] / pair[f"trial_{side}"]) for side in ("large", "small")]
        if diverged := [run.variant for run in both if not run.completed]:
            left_out += [f"trial {name} (diverged)" for name in diverged]
            continue
        large, small = (np.log(_points(run, comparison.split, comparison.against, comparison.metric)) for run in both)
        if len(differences := _along(large, small)):
            logs.setdefault(tuple(pair[others]), []).append(float(np.mean(differences)))
            runs += 2
    lacks = not_fresh or _too_few({f"configurations that differ in {comparison.setting} alone": len(logs)}, "pair")
    lacks = lacks or _too_few({"a pair of configurations": min(map(len, logs.values()), default=0)})
    estimate = LogEstimate(*mean_estimate([float(np.mean(seeds)) for seeds in logs.values()]))
    return Measured(estimate, "percent", len(logs), runs, lacks, tuple(left_out))


def _along(one: pd.Series, other: pd.Series) -> list[float]:
    """How far one curve lies above another on the way: differences at the inner points of the one with fewer of them.

    The last points too, where both curves end at the same place. The start is left out.
    """
    fewer, more = sorted((one, other), key=len)
    reach = more.index[-2] if len(more) > 1 else 0
    inner = fewer.index[(fewer.index > 0) & (fewer.index < fewer.index[-1]) & (fewer.index <= reach)]
    sign = 1 if fewer is one else -1
    differences = sign * (fewer[inner].to_numpy() - np.interp(inner, more.index[:-1], more.to_numpy()[:-1]))
    ends = [float(one.iloc[-1] - other.iloc[-1])] if one.index[-1] == other.index[-1] else []
    return [*differences.tolist(), *ends]


def shift_tolerance(comparison: ShiftTolerance, evidence: Evidence) -> Measured:
    """How much less test accuracy the first variant loses on shifted images than the second; the interval is Welch's.

    What a run loses is accuracy(unmoved) - accuracy(shifted), on the same images, or that as a share of the first.
    """
    names, unit = comparison.variants, {"points": "points", "share": "percent"}[comparison.lost]
    if lacks := _not_run(names, evidence):
        return Measured(unit=unit, lacks=lacks)
    if evidence.shifts is None:
        return Measured(unit=unit, lacks="the accuracy on shifted images was not measured")
    loss = measurements.lost(evidence.shifts, share=comparison.lost == "share")[comparison.pixels].dropna()
    if missing := sorted(set(names) - set(loss.index.get_level_values("variant"))):
        return Measured(unit=unit, lacks=f"the accuracy on shifted images was not measured for {_listed(missing)}")
    first, second = (loss[name].to_numpy() for name in names)
    estimate, count = welch_estimate([(1, second), (-1, first)]), min(len(first), len(second))
    lacks = _too_few(dict(zip(names, map(len, (first, second)), strict=True)))
    return Measured(estimate, unit, count, len(first) + len(second), lacks, _diverged(names, evidence))


_MEASURES: dict[type, Callable[[Any, Evidence], Measured]] = {
    Contrast: contrast,
    NextRun: next_run,
    GradientAgreement: gradient_agreement,
    SettingEffect: setting_effect,
    SettingProgress: setting_progress,
    ShiftTolerance: shift_tolerance,
}


def image_interval(samples: list[tuple[float, list[Run]]], labels: Int[np.ndarray, " n"]) -> Interval:
    """The percentile bootstrap's 95 % interval of a weighted sum of test accuracies over the test images.

    An image's value is the weighted sum of the shares of seeds that classify it correctly, so the seeds are held fixed
    and only the images vary. The resamples are the same every time.

    Args:
        samples: (weight, runs) of each variant.
        labels: of the test split.
    """
    from scipy import stats

    def correct(run: Run) -> Float[np.ndarray, " n"]:
        return (run.test_logits(len(labels)).argmax(axis=1) == labels).astype(np.float64)

    value = sum(weight * np.mean([correct(run) for run in runs], axis=0) for weight, runs in samples)
    resampled = stats.bootstrap(
        (value,), np.mean, n_resamples=RESAMPLES, batch=100, method="percentile", rng=np.random.default_rng(0)
    )
    return Interval(float(value.mean()), *map(float, resampled.confidence_interval))


# --- what the comparisons share ---------------------------------------------------------------------------------------


def _points(run: Run, split: str, against: str, metric: str) -> pd.Series:
    """A curve of one split: the metric by step or by samples seen."""
    curve = run.curve[run.curve["split"] == split]
    return pd.Series(curve[metric].to_numpy(), index=curve[against].to_numpy())


def _common_seeds(names: Iterable[str], evidence: Evidence) -> list[int]:
    """The seeds that each of the variants completed."""
    return sorted(set.intersection(*(set(evidence.facts[name].by_seed) for name in names)))


def _not_run(names: Iterable[str], evidence: Evidence) -> str:
    missing = [name for name in names if name not in evidence.variants]
    return f"this study does not run {_listed(missing)}" if missing else ""


def _not_fresh(fresh: Iterable[int], planned: Iterable[int]) -> str:
    """That some of the seeds that decide are not run."""
    listed, missing = sorted(fresh), set(fresh) - set(planned)
    whole = f"{listed[0]} to {listed[-1]}" if listed[-1] - listed[0] == len(listed) - 1 else _listed(map(str, listed))
    return f"seeds {whole} decide it, and this study does not run {len(missing)} of them" if missing else ""


def _too_few(counts: Mapping[str, int], what: str = "completed seed") -> str:
    """That some samples are too small for a verdict, each with its size."""
    few = {of: count for of, count in counts.items() if count < FEWEST}
    if not few:
        return ""
    told = _listed(f"{('no', 'one', 'two')[n]} {what}{'s' * (n > 1)} of {of}" for of, n in few.items())
    unknown = ", so that what other seeds would change is unknown" if min(few.values()) else ""
    return (
        f"there {'are' if next(iter(few.values())) > 1 else 'is'} {told}, and a verdict takes at least three{unknown}"
    )


def _diverged(
    names: Iterable[str], evidence: Evidence, enters: Callable[[int], bool] = lambda seed: True
) -> tuple[str, ...]:
    runs = (run for name in names for run in evidence.facts[name].runs)
    return tuple(f"{run.variant} seed {run.seed} (diverged)" for run in runs if enters(run.seed) and not run.completed)


def _listed(names: Iterable[str]) -> str:
    *most, last = names
    return f"{', '.join(most)} and {last}" if most else last


def _trials(comparison: SettingEffect | SettingProgress, evidence: Evidence) -> tuple[pd.DataFrame, str]:
    """The trials of the search that a variant takes its settings from, and what is missing; none that tell nothing."""
    name = comparison.variant
    wanted = comparison.weights if isinstance(comparison, SettingEffect) else [comparison.setting]
    if lacks := _not_run([name], evidence):
        return pd.DataFrame(), lacks
    search = evidence.variants[name].get("search")
    if search is None or evidence.search is None:
        return pd.DataFrame(), f"this study runs no search for {name}"
    trials = evidence.search[evidence.search["search"] == search].reset_index(drop=True)
    if comparison.fresh_seeds is not None:
        lacks = _not_fresh(comparison.fresh_seeds, trials["seed"])
        trials = trials[trials["seed"].isin(comparison.fresh_seeds)].reset_index(drop=True)
    varied = searches.levels(trials)
    if missing := [setting for setting in wanted if setting not in varied]:
        return pd.DataFrame(), lacks or f"the search {search} does not vary {_listed(missing)}"
    if math.prod(map(len, varied.values())) != len(searches.configurations(trials)):
        return pd.DataFrame(), lacks or f"the search {search} is no full grid"
    return trials, lacks
