"""The original's claims, tested: what `report/claims.yaml` says to compare, as estimates, intervals and verdicts.

Each kind of comparison is a function from the study's runs to a `Measured`: `contrast`, `curve_agreement`,
`setting_effect`, `setting_progress` and `shift_tolerance`. `verdict` judges its interval. Fractions stay fractions here
and in `claims.json`; LaTeX shows them as percentages.
"""

import difflib
import math
import string
import textwrap
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pandas as pd
import yaml
from jaxtyping import Float, Int
from scipy import stats

from cifar_report.analysis.statistics import Interval, t_interval
from cifar_report.base.errors import InputError
from cifar_report.base.files import to_json, write_text
from cifar_report.rendering.latex import escape
from cifar_report.runs.record import Run, load_run, load_runs
from cifar_report.study.config import SETTINGS

VERDICTS = ("supported", "refuted", "inconclusive", "untested")
PLACEHOLDERS = ("part", "interval", "estimate", "low", "high", "smallest", "pairs", "runs", "reason")
RESAMPLES = 1000  # of the test images

_NOTHING = Interval(np.nan, np.nan, np.nan)
_SEARCH_COLUMNS = ["trial", "validation_accuracy", "validation_loss", "status", "selected", "search"]
_NO_SETTINGS = [*_SEARCH_COLUMNS, "rung", "step", "curve"]  # of search.csv
_SHIFT_COLUMNS = ["variant", "seed", "shift", "images", "accuracy"]


@dataclass(frozen=True)
class Evidence:
    """What a study offers to its claims."""

    variants: dict[str, dict[str, Any]]  # the plan's entries by name
    runs: dict[str, list[Run]]
    search: pd.DataFrame | None  # search.csv, all settings as text
    trials: Path | None  # folder of <search>/<trial>/
    shifts: pd.DataFrame | None  # shifts.csv
    labels: Int[np.ndarray, " n"] | None  # of the test split


@dataclass(frozen=True)
class Measured:
    """What a comparison found. `lacks` says why it cannot be judged, and is empty where it can."""

    interval: Interval = _NOTHING
    unit: str = "points"  # points or percent (fractions, shown times 100), ppm (times 1e6), nats
    pairs: int = 0  # values that the interval rests on
    runs: int = 0  # runs or trials that went into them
    lacks: str = ""
    left_out: tuple[str, ...] = ()
    image_level: Interval | None = None


# --- comparisons ----------------------------------------------------------------------------------------------------


def contrast(comparison: dict[str, Any], evidence: Evidence) -> Measured:
    """A weighted sum of variants' whole-split values at the last step: a difference, a main effect or a mean.

    With `paired`, the sum is taken seed by seed, over the seeds that every variant completed, and the interval is
    Student's over these sums. Without, each variant's seeds are a sample of their own, and the interval is Welch's:
    for one variant, Student's again.

    Args:
        comparison: weights {variant: weight}; metric `accuracy` or `loss`; split, or `train-minus-test` for the
            generalisation gap; paired.
    """
    weights, split, metric = comparison["weights"], comparison["split"], comparison["metric"]
    unit = _unit(weights, split, metric)
    if lacks := _not_run(weights, evidence):
        return Measured(unit=unit, lacks=lacks)
    runs = {name: {run.seed: run for run in evidence.runs[name] if run.completed} for name in weights}
    common = sorted(set.intersection(*(set(found) for found in runs.values())))
    used = {name: [found[s] for s in (common if comparison["paired"] else found)] for name, found in runs.items()}
    values = {name: np.array([_final(run, split, metric) for run in found]) for name, found in used.items()}
    for name, found in values.items():
        if np.isnan(found).any():
            return Measured(unit=unit, lacks=f"the runs of {name} have no {metric} on the split {split}")
    pairs = min(len(found) for found in values.values())
    if comparison["paired"]:
        interval = t_interval(sum(weight * values[name] for name, weight in weights.items()))
    else:
        interval = welch_interval([(weight, values[name]) for name, weight in weights.items()])
    images = None
    if (split, metric) == ("test", "accuracy") and pairs and evidence.labels is not None:
        images = image_interval([(weights[name], used[name]) for name in weights], evidence.labels)
    return Measured(
        interval,
        unit,
        pairs,
        sum(len(found) for found in used.values()),
        _too_few(pairs, "completed seed", weights),
        _diverged(weights, evidence),
        images,
    )


def curve_agreement(comparison: dict[str, Any], evidence: Evidence) -> Measured:
    """How far two variants' curves part: for each seed the greatest |a - b| / |b| over the points up to a step.

    Args:
        comparison: variants [a, b]; metric; split; until_step, the last step that is compared (step 0 is too).
    """
    first, second = comparison["variants"]
    if lacks := _not_run((first, second), evidence):
        return Measured(unit="ppm", lacks=lacks)
    seeds = _common_seeds((first, second), evidence)
    parted = []
    for pair in seeds:
        a, b = (_points(run, comparison["split"], "step", comparison["metric"]) for run in pair)
        a, b = a.align(b, join="inner")
        early = a.index <= comparison["until_step"]
        if a.index[early].max() > 0:
            parted.append(float((np.abs(a - b) / np.abs(b))[early].max()))
    lacks = _too_few(len(parted), "completed seed", (first, second))
    if seeds and not parted:
        lacks = f"the curves of {first} and {second} have no common point in steps 1 to {comparison['until_step']}"
    left_out = _diverged((first, second), evidence)
    return Measured(t_interval(parted), "ppm", len(parted), 2 * len(parted), lacks, left_out)


def setting_effect(comparison: dict[str, Any], evidence: Evidence) -> Measured:
    """The effect of a searched setting on validation accuracy, minus the largest effect of any other.

    A linear model with one term a value of each setting and no interactions is fitted to all completed trials by least
    squares. The setting's effect is that of its last listed value over its first; another's is that of its best value
    over its worst, chosen after the fact, which favours the others. The interval is Student's for that contrast of the
    model's coefficients, with the residual degrees of freedom.

    Args:
        comparison: variant, the one that takes its settings from the search; setting.
    """
    trials, lacks = _trials(comparison, evidence)
    if lacks:
        return Measured(lacks=lacks)
    left_out = tuple(f"trial {t} (diverged)" for t in trials.loc[trials["status"] != "completed", "trial"])
    levels = {name: list(dict.fromkeys(trials[name])) for name in _varied(trials)}
    trials = trials[trials["status"] == "completed"]
    if len(levels) < 2:
        return Measured(lacks=f"the search varies nothing but {comparison['setting']}", left_out=left_out)
    columns = [(name, value) for name, values in levels.items() for value in values[1:]]
    design = np.column_stack([np.ones(len(trials)), *(trials[name] == value for name, value in columns)])
    accuracy = trials["validation_accuracy"].to_numpy(dtype=np.float64)
    coefficients, _, rank, _ = np.linalg.lstsq(design, accuracy)
    freedom = len(trials) - design.shape[1]
    if rank < design.shape[1] or freedom < 1:
        lacks = f"{len(trials)} completed trials are too few for the effects of {', '.join(levels)} and an error"
        return Measured(runs=len(trials), lacks=lacks, left_out=left_out)

    def effect(name: str, high: str, low: str) -> Float[np.ndarray, " coefficients"]:
        return np.array([0.0] + [(name == n) * ((value == high) - 1.0 * (value == low)) for n, value in columns])

    def strongest(name: str) -> Float[np.ndarray, " coefficients"]:
        pairs = (effect(name, high, low) for high in levels[name] for low in levels[name])
        return max(pairs, key=lambda e: e @ coefficients)

    own = effect(comparison["setting"], levels[comparison["setting"]][-1], levels[comparison["setting"]][0])
    others = (strongest(name) for name in levels if name != comparison["setting"])
    lead = own - max(others, key=lambda e: e @ coefficients)
    variance = np.sum((accuracy - design @ coefficients) ** 2) / freedom
    error = math.sqrt(variance * (lead @ np.linalg.inv(design.T @ design) @ lead))
    interval = _student(float(lead @ coefficients), error, freedom)
    return Measured(interval, "points", len(trials), len(trials), left_out=left_out)


def setting_progress(comparison: dict[str, Any], evidence: Evidence) -> Measured:
    """How the loss with a setting's greatest value compares along the way with that of its smallest.

    For each pair of trials that are alike but for the setting: the geometric mean of the losses' ratio over the points
    that their curves share, minus one. Points where only one of them was evaluated on the whole split are left out, as
    is the start. The interval is Student's over the pairs.

    Args:
        comparison: variant, the one that takes its settings from the search; setting; against `step` or `samples_seen`,
            what the two are compared after as much of; metric; split.
    """
    trials, lacks = _trials(comparison, evidence)
    if lacks:
        return Measured(unit="percent", lacks=lacks)
    values = pd.to_numeric(trials[comparison["setting"]])
    others = [name for name in _varied(trials) if name != comparison["setting"]]
    ratios, left_out = [], []
    for alike in trials.groupby(others).groups.values() if others else [trials.index]:
        chosen = [trials.loc[values[alike].idxmax()], trials.loc[values[alike].idxmin()]]
        large, small = (load_run(evidence.trials / trial["search"] / trial["trial"]) for trial in chosen)
        if diverged := [run.variant for run in (large, small) if not run.completed]:
            left_out += [f"trial {name} (diverged)" for name in diverged]
            continue
        split, against, metric = comparison["split"], comparison["against"], comparison["metric"]
        a, b = _points(large, split, against, metric), _points(small, split, against, metric)
        a_ends, b_ends = a.index[-1], b.index[-1]
        a, b = a.align(b, join="inner")
        fair = (a.index > 0) & ((a.index == a_ends) == (a.index == b_ends))
        if fair.any():
            ratios.append(float(np.exp(np.mean(np.log(a[fair] / b[fair])))) - 1)
    lacks = _too_few(len(ratios), "pair", [f"trials that differ in {comparison['setting']} alone"])
    return Measured(t_interval(ratios), "percent", len(ratios), 2 * len(ratios), lacks, tuple(left_out))


def shift_tolerance(comparison: dict[str, Any], evidence: Evidence) -> Measured:
    """How much less of its test accuracy the first variant loses on shifted images than the second, paired by seed.

    What a run loses is a share, 1 - accuracy(shifted) / accuracy(unmoved), on the same images.

    Args:
        comparison: variants [first, second]; pixels.
    """
    names = comparison["variants"]
    if lacks := _not_run(names, evidence):
        return Measured(lacks=lacks)
    if evidence.shifts is None:
        return Measured(lacks="the accuracy on shifted images was not measured")
    table = evidence.shifts.pivot_table(index=["variant", "seed"], columns="shift", values="accuracy")
    if missing := sorted(set(names) - set(table.index.get_level_values("variant"))):
        return Measured(lacks=f"the accuracy on shifted images was not measured for {_listed(missing)}")
    lost = 1 - table[comparison["pixels"]] / table[0]
    seeds = [pair[0].seed for pair in _common_seeds(names, evidence)]
    first, second = (lost[name].reindex(seeds) for name in names)
    values = (second - first).dropna().to_numpy()
    lacks = _too_few(len(values), "completed seed", names)
    return Measured(t_interval(values), "points", len(values), 2 * len(values), lacks, _diverged(names, evidence))


COMPARISONS: dict[str, Callable[[dict[str, Any], Evidence], Measured]] = {
    "contrast": contrast,
    "curve-agreement": curve_agreement,
    "setting-effect": setting_effect,
    "setting-progress": setting_progress,
    "shift-tolerance": shift_tolerance,
}


def welch_interval(samples: list[tuple[float, Float[np.ndarray, " n"]]]) -> Interval:
    """Welch's 95 % interval of a weighted sum of independent samples' means (Welch 1947)."""
    mean = (
        float(sum(weight * values.mean() for weight, values in samples)) if all(len(v) for _, v in samples) else np.nan
    )
    if min(len(values) for _, values in samples) < 2:
        return Interval(mean, np.nan, np.nan)
    variances = [(weight**2 * values.var(ddof=1) / len(values), len(values) - 1) for weight, values in samples]
    total = sum(variance for variance, _ in variances)
    freedom = total**2 / sum(variance**2 / n for variance, n in variances) if total else 1.0
    return _student(mean, math.sqrt(total), freedom)


def image_interval(samples: list[tuple[float, list[Run]]], labels: Int[np.ndarray, " n"]) -> Interval:
    """The percentile bootstrap's 95 % interval of a weighted sum of test accuracies over the test images.

    An image's value is the weighted sum of the shares of seeds that classify it correctly, so the seeds are held fixed
    and only the images vary. The resamples are the same every time.
    """
    value = sum(weight * np.mean([_correct(run, labels) for run in runs], axis=0) for weight, runs in samples)
    found = stats.bootstrap(
        (value,), np.mean, n_resamples=RESAMPLES, batch=100, method="percentile", rng=np.random.default_rng(0)
    )
    return Interval(float(value.mean()), *map(float, found.confidence_interval))


# --- verdicts -------------------------------------------------------------------------------------------------------


def verdict(measured: Measured, smallest: float, direction: str) -> str:
    """What an interval says of the smallest effect that matters.

    Args:
        direction: where the interval must lie to support: `above` or `below` the smallest effect, or `within` its
            negative and itself.
    """
    if measured.lacks:
        return "untested"
    _, low, high = measured.interval
    if direction == "below":
        low, high, smallest = -high, -low, -smallest
    if direction == "within":
        supported, refuted = -smallest < low and high < smallest, low > smallest or high < -smallest
    else:
        supported, refuted = low > smallest, high < smallest
    return "supported" if supported else "refuted" if refuted else "inconclusive"


def joint_verdict(verdicts: Iterable[str]) -> str:
    """The verdict of a claim of several parts: one refuted part refutes it, and all must be supported to support it."""
    found = list(verdicts)
    return next((v for v in ("refuted", "untested", "inconclusive") if v in found), "supported")


def evaluate(
    claims_file: Path,
    schema: Path,
    stage: dict[str, Any],
    runs: Path,
    search: Path | None,
    shifts: Path | None,
    labels: Path | None = None,
) -> list[dict[str, Any]]:
    """Each claim with its verdict and what it rests on, in the order of the file.

    Estimate, interval, runs and reason of a claim are those of the part that decided: the first with the claim's
    verdict. Limits and estimates that do not exist are None.

    Args:
        claims_file: claims.yaml.
        schema: of claims.yaml, as YAML.
        stage: {"variants": the study's entries, "catalogue": names of all variants that exist}; without a catalogue,
            every name is taken for one of it.
        runs: folder of `<variant>/seed-<n>/`.
        search: search.csv; the trials lie beside it, in `search/<search>/<trial>/`.
        shifts: shifts.csv.
        labels: test-labels.npy; without it, nothing is said of the uncertainty from the test images.

    Raises:
        InputError: claims.yaml is wrong (the message names the claim, the key, the value and the line), or a file of
            the study is.
    """
    claims = load(claims_file, schema, stage.get("catalogue"))
    evidence = Evidence(
        variants={variant["name"]: variant for variant in stage["variants"]},
        runs=load_runs(runs, stage["variants"]),
        search=_read_table(search, _SEARCH_COLUMNS, str),
        trials=search.with_suffix("") if search else None,
        shifts=_read_table(shifts, _SHIFT_COLUMNS),
        labels=np.load(labels) if labels else None,
    )
    return [_tested(claim, evidence) for claim in claims]


def write(stage: dict[str, Any], results: Path, claims: Path, schema: Path) -> None:
    """Writes `claims.json`, `tables/claims.tex` and `tables/claims-text.tex` below a study's folder.

    Args:
        stage: as for `evaluate`.
        results: folder of the study.
        claims: claims.yaml.
        schema: its schema.
    """
    search, shifts = results / "search.csv", results / "shifts.csv"
    found = evaluate(
        claims,
        schema,
        stage,
        results / "runs",
        search if search.is_file() else None,
        shifts if shifts.is_file() else None,
        results / "dataset" / "test-labels.npy",
    )
    write_text(results / "claims.json", to_json(found))
    write_latex(found, results / "tables")


def _tested(claim: dict[str, Any], evidence: Evidence) -> dict[str, Any]:
    parts = [_part(part, evidence) for part in (claim, *claim.get("also", ()))]
    found = joint_verdict(part["verdict"] for part in parts if part["verdict"])
    judged = [part for part in parts if part["verdict"]]
    deciding = next(part for part in judged if part["verdict"] == found)
    reason = deciding["reason"] if len(judged) == 1 else f"{deciding['label']}: {deciding['reason']}"
    return {
        "id": claim["id"],
        "statement": claim["statement"],
        "verdict": found,
        **{key: deciding[key] for key in ("estimate", "ci95_low", "ci95_high", "runs")},
        "reason": reason,
        **{key: deciding[key] for key in ("smallest_effect", "direction", "unit", "pairs", "why", "image_level")},
        "title": claim["title"],
        "part": deciding["label"],
        "sentence": _fill(claim["sentences"][found], deciding, latex=False),
        "template": claim["sentences"][found],
        "parts": parts,
    }


def _part(part: dict[str, Any], evidence: Evidence) -> dict[str, Any]:
    measured = COMPARISONS[part["comparison"]["kind"]](part["comparison"], evidence)
    smallest, direction = part.get("smallest_effect"), part.get("direction", "above")
    found = {
        "label": part["label"],
        "verdict": None if smallest is None else verdict(measured, smallest, direction),
        **_limits(measured.interval),
        "runs": measured.runs,
        "reason": "",
        "smallest_effect": smallest,
        "direction": None if smallest is None else direction,
        "unit": measured.unit,
        "pairs": measured.pairs,
        "why": part.get("why"),
        "image_level": measured.image_level and _limits(measured.image_level),
        "left_out": list(measured.left_out),
    }
    left_out = f"left out: {', '.join(measured.left_out)}" if measured.left_out else ""
    return found | {"reason": "; ".join(filter(None, (measured.lacks or _grounds(found), left_out)))}


def _limits(interval: Interval) -> dict[str, float | None]:
    keys = ("estimate", "ci95_low", "ci95_high")
    return {key: float(x) if math.isfinite(x) else None for key, x in zip(keys, interval, strict=True)}


def _grounds(part: dict[str, Any]) -> str:
    """Why a part has its verdict, in words."""
    interval = f"the interval {_number(part, 'ci95_low')} to {_quantity(part, 'ci95_high')}"
    if part["verdict"] is None:
        return f"{interval}, not judged"
    bound = _bound(part, latex=False)
    return {
        "supported": f"{interval} lies wholly {bound}",
        "refuted": f"{interval} lies wholly outside of what supports it, {bound}",
        "inconclusive": f"{interval} lies neither wholly inside nor wholly outside of what supports it, {bound}",
    }[part["verdict"]]


# --- what the comparisons share ---------------------------------------------------------------------------------------


def _student(mean: float, error: float, freedom: float) -> Interval:
    half = float(stats.t.ppf(0.975, freedom)) * error
    return Interval(mean, mean - half, mean + half)


def _unit(weights: dict[str, float], split: str, metric: str) -> str:
    """Of a contrast: a difference of accuracies is in percentage points, one accuracy in per cent."""
    if metric == "loss":
        return "nats"
    is_difference = split == "train-minus-test" or math.isclose(sum(weights.values()), 0, abs_tol=1e-9)
    return "points" if is_difference else "percent"


def _final(run: Run, split: str, metric: str) -> float:
    if split == "train-minus-test":
        return run.final("train", metric) - run.final("test", metric)
    return run.final(split, metric)


def _points(run: Run, split: str, against: str, metric: str) -> pd.Series:
    curve = run.curve[run.curve["split"] == split]
    return pd.Series(curve[metric].to_numpy(), index=curve[against].to_numpy())


def _correct(run: Run, labels: Int[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    logits = run.test_logits()
    if len(logits) != len(labels):
        raise InputError(
            f"{run.folder / 'test-logits.npy'}: expected logits of {len(labels)} test images, found {len(logits)}; "
            "train it again"
        )
    return (logits.argmax(axis=1) == labels).astype(np.float64)


def _common_seeds(names: Iterable[str], evidence: Evidence) -> list[tuple[Run, ...]]:
    """The runs of the seeds that each of the variants completed, seed by seed."""
    runs = [{run.seed: run for run in evidence.runs[name] if run.completed} for name in names]
    return [tuple(found[seed] for found in runs) for seed in sorted(set.intersection(*map(set, runs)))]


def _not_run(names: Iterable[str], evidence: Evidence) -> str:
    missing = [name for name in names if name not in evidence.variants]
    return f"this study does not run {_listed(missing)}" if missing else ""


def _too_few(count: int, what: str, of: Iterable[str]) -> str:
    if count > 1:
        return ""
    return f"there is {'one' if count else 'no'} {what} of {_listed(of)}, and an interval takes at least two"


def _diverged(names: Iterable[str], evidence: Evidence) -> tuple[str, ...]:
    runs = (run for name in names for run in evidence.runs[name])
    return tuple(f"{run.variant} seed {run.seed} (diverged)" for run in runs if not run.completed)


def _listed(names: Iterable[str]) -> str:
    *most, last = names
    return f"{', '.join(most)} and {last}" if most else last


def _trials(comparison: dict[str, Any], evidence: Evidence) -> tuple[pd.DataFrame, str]:
    """The trials of the search that a variant takes its settings from, or what is missing."""
    name, setting = comparison["variant"], comparison["setting"]
    if lacks := _not_run([name], evidence):
        return pd.DataFrame(), lacks
    search = evidence.variants[name].get("search")
    if search is None or evidence.search is None:
        return pd.DataFrame(), f"this study runs no search for {name}"
    trials = evidence.search[evidence.search["search"] == search].reset_index(drop=True)
    if setting not in _varied(trials):
        return pd.DataFrame(), f"the search {search} does not vary {setting}"
    if math.prod(trials[name].nunique() for name in _varied(trials)) != len(trials):
        return pd.DataFrame(), f"the search {search} is no full grid"
    return trials, ""


def _varied(trials: pd.DataFrame) -> list[str]:
    return [name for name in trials.columns if name not in _NO_SETTINGS and trials[name].nunique() > 1]


def _read_table(path: Path | None, columns: list[str], dtype: type | None = None) -> pd.DataFrame | None:
    if path is None:
        return None
    try:
        table = pd.read_csv(path, dtype=dtype)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: expected a CSV file, found {error}; delete it and run again") from error
    if missing := [name for name in columns if name not in table.columns] if len(table) else []:
        raise InputError(f"{path}: expected the columns {', '.join(columns)}, but {missing[0]} is missing")
    return table


# --- claims.yaml ------------------------------------------------------------------------------------------------------


def load(path: Path, schema: Path, catalogue: Iterable[str] | None = None) -> list[dict[str, Any]]:
    """The claims of a file, validated.

    Args:
        path: claims.yaml.
        schema: its schema, as YAML.
        catalogue: names of all variants that exist; None: every name is taken for one of them.

    Raises:
        InputError: names the line, the claim, the key and the value, what was expected and what to do.
    """
    try:
        text = path.read_text()
        node, claims = yaml.compose(text), yaml.safe_load(text)
    except OSError as error:
        raise InputError(f"{path}: expected the claims, found {error.strerror}") from error
    except yaml.YAMLError as error:
        raise InputError(f"{path}: expected YAML, found {' '.join(str(error).split())}") from error

    def refuse(where: tuple, message: str) -> InputError:
        claim = claims[where[0]] if where and isinstance(claims, list) else None
        name = f"claim '{claim.get('id', where[0] + 1)}': " if isinstance(claim, dict) else ""
        key = ".".join(map(str, where[1:]))
        return InputError(f"{path}:{_line(node, where)}: {name}{f'{key}: ' if key else ''}{message}")

    validator = jsonschema.Draft202012Validator(yaml.safe_load(schema.read_text()))
    if (violation := jsonschema.exceptions.best_match(validator.iter_errors(claims))) is not None:
        raise refuse(*_explained(violation))
    catalogue = None if catalogue is None else list(catalogue)
    seen: dict[str, int] = {}
    for i, claim in enumerate(claims):
        if claim["id"] in seen:
            raise refuse((i, "id"), f"'{claim['id']}' is the id of the claim in line {seen[claim['id']]} too")
        seen[claim["id"]] = _line(node, (i, "id"))
        for where, name in _names(claim):
            if catalogue is not None and name not in catalogue:
                raise refuse((i, *where), f"'{name}' is not among the variants; {_hint(name, catalogue)}")
        labels = set()
        for where, part in _parts(claim):
            if part["label"] in labels:
                raise refuse((i, *where, "label"), f"{part['label']!r} is the label of another part of the claim too")
            labels.add(part["label"])
            setting = part["comparison"].get("setting")
            if setting is not None and setting not in SETTINGS:
                message = f"'{setting}' is not among the settings; {_hint(setting, SETTINGS)}"
                raise refuse((i, *where, "comparison", "setting"), message)
        for key, template in claim["sentences"].items():
            if message := _wrong_placeholder(template):
                raise refuse((i, "sentences", key), message)
    return claims


def _parts(claim: dict[str, Any]) -> list[tuple[tuple, dict[str, Any]]]:
    """The comparisons of a claim, each with where it stands in it."""
    return [((), claim), *((("also", j), part) for j, part in enumerate(claim.get("also", ())))]


def _names(claim: dict[str, Any]) -> Iterator[tuple[tuple, str]]:
    """Each variant that a claim names, and where."""
    for where, part in _parts(claim):
        comparison = part["comparison"]
        for name in comparison.get("weights", ()):
            yield (*where, "comparison", "weights", name), name
        for k, name in enumerate(comparison.get("variants", ())):
            yield (*where, "comparison", "variants", k), name
        if "variant" in comparison:
            yield (*where, "comparison", "variant"), comparison["variant"]


def _explained(error: jsonschema.ValidationError) -> tuple[tuple, str]:
    """Where a violation of the schema is, and what to do about it."""
    where, message = tuple(error.absolute_path), textwrap.shorten(error.message, 200)
    if error.validator == "additionalProperties":
        known = list(error.schema.get("properties", {}))
        unknown = sorted(set(error.instance) - set(known))[0]
        where, message = (
            (*where, unknown),
            f"unknown key, with the value {error.instance[unknown]!r}; {_hint(unknown, known)}",
        )
    elif error.validator == "enum":
        allowed = error.validator_value
        message = f"expected one of {', '.join(allowed)}, found {error.instance!r}; {_hint(error.instance, allowed)}"
    elif error.validator == "pattern":
        message = f"expected {error.schema['description']}, found {error.instance!r}"
    return where, message


def _hint(found: Any, known: Iterable[str]) -> str:
    known = list(known)
    near = difflib.get_close_matches(str(found), known, n=1)
    return f"did you mean '{near[0]}'?" if near else f"there are {', '.join(known)}"


def _wrong_placeholder(template: str) -> str:
    try:
        used = [name for _, name, _, _ in string.Formatter().parse(template) if name is not None]
    except ValueError as error:
        return f"expected a sentence with placeholders such as {{estimate}}, found {template!r}: {error}"
    wrong = [name for name in used if name not in PLACEHOLDERS]
    return f"unknown placeholder {{{wrong[0]}}}; {_hint(wrong[0], PLACEHOLDERS)}" if wrong else ""


def _line(node: yaml.Node | None, where: tuple) -> int:
    """The line of a value, that of its key where it has one; of the nearest thing around it where it is missing."""
    line = node.start_mark.line + 1 if node else 1
    for step in where:
        if isinstance(node, yaml.MappingNode):
            found = [(key, value) for key, value in node.value if key.value == str(step)]
        elif isinstance(node, yaml.SequenceNode):
            found = [(value, value) for value in node.value[step : step + 1]]
        else:
            found = []
        if not found:
            break
        mark, node = found[0]
        line = mark.start_mark.line + 1
    return line


# --- LaTeX ------------------------------------------------------------------------------------------------------------

_SCALES = {"points": 100, "percent": 100, "ppm": 1e6, "nats": 1}
_WORDS = {"points": " percentage points", "percent": " %", "ppm": " parts per million", "nats": " nats"}
_SHORT = {"points": "", "percent": r"\,\%", "ppm": r"\,ppm", "nats": r"\,nats"}
_SYMBOLS = {"supported": r"$\checkmark$", "refuted": r"$\times$", "inconclusive": r"$\sim$", "untested": "--"}
_CAPTION = (
    "The claims, the original's first, and what the runs of this study say of them: estimate with its "
    r"\qty{95}{\percent} interval, the bound that the interval must keep to for the claim to be supported, the runs or "
    "trials behind it, and the verdict. Without a unit, values are percentage points; ppm is parts per "
    "million. Rows without a bound are shown beside the others and not judged."
)


def write_latex(claims: list[dict[str, Any]], output: Path) -> None:
    """Writes `claims.tex`, the table of all claims and their parts, and `claims-text.tex`, a paragraph for each.

    Args:
        claims: what `evaluate` returns.
        output: folder to write to.
    """
    write_text(output / "claims.tex", table(claims))
    write_text(output / "claims-text.tex", "\n".join(map(paragraph, claims)))


def table(claims: list[dict[str, Any]]) -> str:
    r"""A `table` environment labelled `tab:claims`: a row a claim with its verdict, and below it its parts."""
    rows = []
    for claim in claims:
        single = sum(part["verdict"] is not None for part in claim["parts"]) == 1
        rows.append(rf"\multicolumn{{5}}{{@{{}}l}}{{\textbf{{{escape(claim['title'])}}}}} & {_verdict(claim)} \\*")
        rows += [_row(part, with_verdict=not single) for part in claim["parts"]]
        rows.append(r"\addlinespace")
    return "\n".join(
        [
            r"\begin{table}[p]",
            r"  \centering\footnotesize\setlength{\tabcolsep}{4pt}\renewcommand{\arraystretch}{0.9}",
            rf"  \caption{{{_CAPTION}}}",
            r"  \label{tab:claims}",
            r"  \begin{tabularx}{\textwidth}{@{} >{\raggedright\arraybackslash}X r@{\;}l l r l @{}}",
            r"    \toprule",
            r"    Claim & \multicolumn{2}{l}{Estimate, interval} & Bound & Runs & Verdict \\",
            r"    \midrule",
            *(f"    {row}" for row in rows[:-1]),
            r"    \bottomrule",
            r"  \end{tabularx}",
            r"\end{table}",
            "",
        ]
    )


def paragraph(claim: dict[str, Any]) -> str:
    r"""A claim as a `\paragraph`: the statement, the sentence that the verdict chose, and what the bound means."""
    deciding = next(part for part in claim["parts"] if part["label"] == claim["part"])
    sentences = [
        rf"\paragraph{{{escape(claim['title'])}: {claim['verdict']}.}}",
        rf"\emph{{{escape(claim['statement'])}}}",
        _fill(claim["template"], deciding, latex=True),
    ]
    if (images := claim["image_level"]) is not None:
        shown = deciding | images
        low, high = _number(shown, "ci95_low", latex=True), _quantity(shown, "ci95_high", latex=True)
        one = rf"So far {escape(claim['part'])} is {_quantity(shown, 'estimate', latex=True)}, and resampling"
        opening = one if claim["verdict"] == "untested" else "Resampling"
        sentences.append(f"{opening} the test images instead of the seeds gives {low} to {high}.")
    if deciding["left_out"] and claim["verdict"] != "untested":
        sentences.append(f"Left out: {escape(', '.join(deciding['left_out']))}.")
    if claim["verdict"] != "untested":
        sentences.append(escape(claim["why"]))
    return "\n".join(sentences) + "\n"


def _row(part: dict[str, Any], with_verdict: bool) -> str:
    estimate, interval = "--", ""
    if part["estimate"] is not None:
        estimate, interval = _number(part, "estimate", latex=True), _SHORT[part["unit"]]
    if part["ci95_low"] is not None:
        low, high = _number(part, "ci95_low", latex=True), _number(part, "ci95_high", latex=True)
        interval = f"[{low}, {high}]{_SHORT[part['unit']]}"
    bound = "--" if part["smallest_effect"] is None else _bound(part, latex=True)
    found = _verdict(part) if with_verdict and part["verdict"] else ""
    label = rf"\hangindent=2em\hspace*{{1em}}{escape(part['label'])}"
    return " & ".join([label, estimate, interval, bound, rf"\num{{{part['runs']}}}", found]) + r" \\"


def _verdict(found: dict[str, Any]) -> str:
    return f"{_SYMBOLS[found['verdict']]} {found['verdict']}"


def _fill(template: str, part: dict[str, Any], latex: bool) -> str:
    """A sentence with what was found in place of its placeholders."""
    estimate = _quantity(part, "estimate", latex)
    interval = estimate
    if part["ci95_low"] is not None:
        level = r"\qty{95}{\percent}" if latex else "95 %"
        low, high = _number(part, "ci95_low", latex), _number(part, "ci95_high", latex)
        interval = f"{estimate} ({level} interval {low} to {high})"
    values = {
        "part": escape(part["label"]) if latex else part["label"],
        "interval": interval,
        "estimate": estimate,
        "low": _quantity(part, "ci95_low", latex),
        "high": _quantity(part, "ci95_high", latex),
        "smallest": _quantity(part, "smallest_effect", latex),
        "pairs": rf"\num{{{part['pairs']}}}" if latex else str(part["pairs"]),
        "runs": rf"\num{{{part['runs']}}}" if latex else str(part["runs"]),
        "reason": escape(part["reason"]) if latex else part["reason"],
    }
    pieces = string.Formatter().parse(template)
    return "".join((escape(text) if latex else text) + (values[name] if name else "") for text, name, _, _ in pieces)


def _number(part: dict[str, Any], key: str, latex: bool = False) -> str:
    """One of a part's values in its unit, with two digits of the interval's half width; the bound as it was written."""
    if part[key] is None:
        return "none"
    value = _SCALES[part["unit"]] * part[key]
    text = f"{value:.6g}" if key == "smallest_effect" else f"{value:.{_decimals(part)}f}"
    return rf"\num{{{text}}}" if latex else text


def _quantity(part: dict[str, Any], key: str, latex: bool = False) -> str:
    number = _number(part, key, latex)
    if latex and part["unit"] == "percent" and part[key] is not None:
        return number.replace(r"\num", r"\qty") + r"{\percent}"
    words = _WORDS[part["unit"]]
    return number + (words.removesuffix("s") if number in ("1", r"\num{1}") else words)


def _decimals(part: dict[str, Any]) -> int:
    if part["ci95_low"] is None or part["ci95_low"] == part["ci95_high"]:
        return 2
    half = _SCALES[part["unit"]] * (part["ci95_high"] - part["ci95_low"]) / 2
    return min(max(1 - math.floor(math.log10(half)), 0), 4)


def _bound(part: dict[str, Any], latex: bool) -> str:
    number = _number(part, "smallest_effect", latex)
    if latex:
        sign = {"above": ">", "below": "<", "within": r"\pm"}[part["direction"]]
        return rf"${sign}$\,{number}"
    words = {"above": "above", "below": "below", "within": "within plus or minus"}[part["direction"]]
    return f"{words} {number}"
