"""What changed between two studies: accuracies, claims, and the differences that explain it, as tables of text.

`compare_page` shows them in a terminal and as a page, with the curves.
"""

import io
import math
import subprocess
import tarfile
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from cifar_report.analysis.statistics import Interval, t_interval, welch_estimate
from cifar_report.base.errors import InputError
from cifar_report.base.files import read_yaml
from cifar_report.inspection.frames import load_study
from cifar_report.runs.finished import Run
from cifar_report.study.settings import NEUTRAL

NONE = "–"  # stands where a study has nothing
_SCALES = {"points": (100, "points"), "percent": (100, "%"), "ppm": (1e6, "ppm"), "nats": (1, "nats"), "share": (1, "")}
_OTHER_NUMBERS = {  # of summary.csv, besides the test accuracy: name, factor, digits
    "train_accuracy_mean": ("training accuracy (%)", 100, 2),
    "validation_accuracy_mean": ("validation accuracy (%)", 100, 2),
    "parameters": ("parameters", 1, 0),
    "steps": ("steps", 1, 0),
    "batch_size": ("batch size", 1, 0),
    "diverged": ("runs that diverged", 1, 0),
}
_COSTS = {"train_seconds_median": 1, "peak_memory_mb": 0}  # of costs.csv: digits


@dataclass(frozen=True)
class Side:
    """One of the two studies, read."""

    name: str  # as the caller named it
    about: str  # of a commit: its date and subject
    runs: dict[str, list[Run]]
    summary: pd.DataFrame  # with the costs, by variant
    claims: pd.DataFrame  # by id
    config: dict[str, Any] | None  # after all overlays, where the study brings it


class Row(NamedTuple):
    """A row of a table. `tone` is `up`, `down`, `flip`, `quiet` or empty: a colour for what the words say already."""

    cells: list[str]
    tone: str = ""


class Table(NamedTuple):
    """A table, with a sentence below its title."""

    title: str
    note: str
    columns: list[str]
    rows: list[Row]


@dataclass(frozen=True)
class Comparison:
    """What changed from A to B, for a reader."""

    a: Side
    b: Side
    lead: list[str]
    tables: list[Table]
    drawn: list[str]  # the variants whose curves differ, or are of one study alone


# --- the two studies ------------------------------------------------------------------------------------------------


def read(name: str) -> Side:
    """A study, from its folder or from a commit, `<git revision>:<folder>`.

    Raises:
        InputError: it is neither, or one of its files is not what it should be.
    """
    if Path(name).is_dir():
        return _read(name, "", Path(name))
    revision, colon, _ = name.partition(":")
    if not colon:
        raise InputError(
            f"{name}: expected a study's folder, or that of a commit, as HEAD~3:reference/cifar10-jpeg; found neither"
        )
    tree = _git("rev-parse", "--verify", "--quiet", "--end-of-options", name, name=name).strip()
    about = _git("log", "-1", "--format=%cs %s", "--end-of-options", revision, name=name).strip()
    with tempfile.TemporaryDirectory() as scratch:
        with tarfile.open(fileobj=io.BytesIO(_git("archive", tree.decode(), name=name))) as archive:
            # Python before 3.11.4 has no filters, and takes no argument for one.
            archive.extraction_filter = getattr(tarfile, "data_filter", None)
            archive.extractall(scratch)
        try:
            return _read(name, about.decode(), Path(scratch))
        except InputError as error:
            raise InputError(str(error).replace(scratch, name)) from None


def _read(name: str, about: str, folder: Path) -> Side:
    study = load_study(folder)
    config = folder / "plan/config.yaml"
    summary = study.summary.set_index("variant").join(study.costs.set_index("variant").drop(columns="threads"))
    if missing := [variant for variant in summary.index if variant not in study.by_variant]:
        raise InputError(
            f"{folder / 'runs' / missing[0]}: expected the runs of this row of summary.csv, found none; run the study"
        )
    return Side(
        name,
        about,
        study.by_variant,
        summary,
        study.claims.set_index("id"),
        read_yaml(config) if config.is_file() else None,
    )


def _git(*arguments: str, name: str) -> bytes:
    try:
        return subprocess.run(("git", *arguments), capture_output=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        reason = getattr(error, "stderr", b"").decode().strip() or "git knows no such folder in that commit"
        raise InputError(
            f"{name}: expected a study's folder, or <git revision>:<folder> in a checkout; found neither ({reason})"
        ) from None


# --- what changed ---------------------------------------------------------------------------------------------------


def compare(a: Side, b: Side) -> Comparison:
    """What changed from `a` to `b`."""
    names = list(dict.fromkeys([*b.summary.index, *a.summary.index]))
    both = [name for name in names if name in a.summary.index and name in b.summary.index]
    fates = {name: _fate(a, b, name) for name in both}
    settings = {name: _settings(*_pairs(a.runs[name], b.runs[name])[0]) for name in both}
    claims, flipped = _claims(a, b)
    tables = [
        _accuracies(a, b, names, fates),
        claims,
        Table(
            "Settings that differ",
            "Of the variants that both studies run, after all overlays and with what a search selected.",
            ["variant", "setting", "A", "B"],
            [Row([name, key, *values]) for name, changed in settings.items() for key, values in changed.items()],
        ),
        _configuration(a, b),
        Table(
            "Other numbers that differ",
            "Means over the seeds.",
            ["variant", "number", "A", "B"],
            [
                Row([name, *cells])
                for name in both
                for cells in _other_numbers(a.summary.loc[name], b.summary.loc[name])
            ],
        ),
        Table(
            "Costs",
            "Median training time of a run and its largest memory, as measured: the same run may cost something else.",
            ["variant", "seconds, A", "B", "B / A", "MB, A", "B"],
            [
                Row([name, *cells])
                for name in both
                if fates[name].word != "same runs" and (cells := _costs(a.summary.loc[name], b.summary.loc[name]))
            ],
        ),
        _surroundings(a, b),
    ]
    counts = Counter(fate.word for fate in fates.values())
    readings = ", ".join(f"{word} ({count})" for word, count in counts.most_common())
    lead = [
        f"{len(both)} variants are in both studies{': ' if readings else ''}{readings}.",
        _listed("New in B", [name for name in names if name not in both and name in b.summary.index]),
        _listed("No longer in B", [name for name in names if name not in both and name in a.summary.index]),
        _listed("Claims that flipped", flipped) or "No claim that both studies test has flipped.",
    ]
    drawn = [name for name in names if name not in fates or fates[name].word != "same runs"]
    return Comparison(a, b, [text for text in lead if text], [table for table in tables if table.rows], drawn)


class _Fate(NamedTuple):
    """What became of a variant: in a word, the difference of its accuracy, how that was taken, and why."""

    word: str
    difference: Interval
    how: str
    causes: list[str]


def _fate(a: Side, b: Side, name: str) -> _Fate:
    old, new = a.runs[name], b.runs[name]
    pairs = _pairs(old, new)
    shared = pairs[0][0].seed == pairs[0][1].seed
    accuracies = [np.array([run.final("test", "accuracy") for run in runs if run.completed]) for runs in (old, new)]
    causes = [
        _listed("seeds added", sorted({run.seed for run in new} - {run.seed for run in old}), ""),
        _listed("seeds dropped", sorted({run.seed for run in old} - {run.seed for run in new}), ""),
    ]
    changed = [pair for pair in pairs if not shared or pair[0].record["digests"] != pair[1].record["digests"]]
    means = b.summary.loc[name, "test_accuracy_mean"] - a.summary.loc[name, "test_accuracy_mean"]
    if not changed:
        word = "other seeds" if any(causes) else "same runs"
        return _Fate(
            word,
            Interval(means, np.nan, np.nan),
            f"the shared {len(pairs)} bit by bit" if any(causes) else "bit by bit",
            list(filter(None, causes)),
        )
    causes += _causes(*changed[0])
    completed = [pair for pair in pairs if shared and pair[0].completed and pair[1].completed]
    if len(completed) > 1:
        values = [second.final("test", "accuracy") - first.final("test", "accuracy") for first, second in completed]
        difference, how = t_interval(np.array(values)), f"paired, {len(values)} seeds"
    else:
        difference = welch_estimate([(1, accuracies[1]), (-1, accuracies[0])]).interval()
        how = "seeds of their own" if min(map(len, accuracies)) > 1 else "no interval of less than two completed seeds"
    word = "no difference shown"
    if difference.low > 0 or difference.high < 0:
        word = "higher" if difference.mean > 0 else "lower"
    return _Fate(word, difference, how, list(filter(None, causes)))


def _pairs(old: list[Run], new: list[Run]) -> list[tuple[Run, Run]]:
    """The runs of the same seed; where no seed is shared, the first of each."""
    by_seed = {run.seed: run for run in new}
    return [(run, by_seed[run.seed]) for run in old if run.seed in by_seed] or [(old[0], new[0])]


def _causes(old: Run, new: Run) -> list[str]:
    """Why a run differs: what its identity is made of, or else what it ran on."""
    first, second = old.record, new.record
    causes = [f"{name} {a} → {b}" for name, (a, b) in _settings(old, new).items()]
    if first["data"]["digests"] != second["data"]["digests"]:
        causes.append("other data")
    codes = first.get("code"), second.get("code")
    if codes[0] != codes[1] if all(codes) else first["identity"] != second["identity"] and not causes:
        causes.append("other code")
    causes += _differing(first["versions"], second["versions"])
    causes += _differing({"device": _device(old)}, {"device": _device(new)})
    if all("kernels" in run.record["device"] for run in (old, new)):
        causes += _differing({"kernels": _kernels(old)}, {"kernels": _kernels(new)})
    return causes or ["nothing that is recorded"]


def _settings(old: Run, new: Run) -> dict[str, tuple[str, str]]:
    """The settings that differ; one that a run of an earlier version does not have is neutral."""
    first, second = (NEUTRAL | run.record["settings"] for run in (old, new))
    return {
        name: (_shown(first.get(name)), _shown(second.get(name)))
        for name in dict.fromkeys([*first, *second])
        if _shown(first.get(name)) != _shown(second.get(name))
    }


def _accuracies(a: Side, b: Side, names: list[str], fates: dict[str, _Fate]) -> Table:
    rows = []
    for name in names:
        cells = [_accuracy(side.summary.loc[name]) if name in side.summary.index else NONE for side in (a, b)]
        if name not in fates:
            rows.append(Row([name, *cells, "", "new" if cells[0] == NONE else "gone", ""], "quiet"))
            continue
        fate = fates[name]
        tone = {"higher": "up", "lower": "down", "same runs": "quiet"}.get(fate.word, "")
        overlap = _overlap(a.summary.loc[name], b.summary.loc[name]) if "bit by bit" not in fate.how else ""
        reading = f"{fate.word} ({'; '.join(filter(None, (fate.how, overlap)))})"
        mean = fate.difference.mean
        difference = "" if math.isnan(mean) else f"{100 * mean:+.2f}{_half(fate.difference)}"
        rows.append(Row([name, *cells, difference.replace("-", "−"), reading, "; ".join(fate.causes)], tone))
    return Table(
        "Test accuracy",
        "Per cent of the whole test split at the last step: mean and 95 % interval over the seeds, and their number. "
        "The difference is taken seed by seed where the studies share seeds.",
        ["variant", "A", "B", "B − A", "reading", "because"],
        rows,
    )


def _claims(a: Side, b: Side) -> tuple[Table, list[str]]:
    """The claims that flipped, then those of one study alone; and the titles of the former."""
    both = [claim for claim in b.claims.index if claim in a.claims.index]
    flipped = [claim for claim in both if a.claims.loc[claim, "verdict"] != b.claims.loc[claim, "verdict"]]
    moved = [
        claim
        for claim in both
        if claim not in flipped and _estimate(a.claims.loc[claim]) != _estimate(b.claims.loc[claim])
    ]
    alone = [
        *b.claims.index.difference(a.claims.index, sort=False),
        *a.claims.index.difference(b.claims.index, sort=False),
    ]
    rows = []
    for claim in [*flipped, *moved, *alone]:
        sides = [side.claims.loc[claim] if claim in side.claims.index else None for side in (a, b)]
        last = (b if claim in b.claims.index else a).claims.loc[claim]
        verdicts = [NONE if side is None else f"{side['verdict']}: {_estimate(side)}" for side in sides]
        change = "" if claim in both else "new: " if sides[0] is None else "gone: "
        tone = "flip" if claim in flipped else "" if claim in moved else "quiet"
        rows.append(Row([_title(last), *verdicts, change + str(last["reason"])], tone))
    note = (
        f"{len(flipped)} flipped; {len(both) - len(flipped)} keep their verdict, {len(moved)} of them with another "
        "estimate. Intervals are of 95 %."
    )
    return Table("Claims", note, ["claim", "A", "B", "because"], rows), [
        _title(b.claims.loc[claim]) for claim in flipped
    ]


def _configuration(a: Side, b: Side) -> Table:
    """The keys of both configurations that differ; a part that one of them lacks is one row."""
    rows: list[Row] = []

    def walk(first: Any, second: Any, where: str) -> None:
        if isinstance(first, dict) and isinstance(second, dict):
            for key in dict.fromkeys([*first, *second]):
                walk(first.get(key, NONE), second.get(key, NONE), f"{where}.{key}".lstrip("."))
        elif first != second:
            rows.append(Row([where, _shown(first), _shown(second)]))

    if a.config is not None and b.config is not None:
        walk(a.config, b.config, "")
    return Table("Configuration", "config.yaml after all overlays.", ["key", "A", "B"], rows)


def _other_numbers(old: pd.Series, new: pd.Series) -> Iterator[list[str]]:
    for key, (name, factor, digits) in _OTHER_NUMBERS.items():
        values = [
            f"{factor * row[key]:,.{digits}f}" if key in row and pd.notna(row[key]) else NONE for row in (old, new)
        ]
        if values[0] != values[1]:
            yield [name, *values]


def _costs(old: pd.Series, new: pd.Series) -> list[str]:
    (a, b), (c, d) = ([f"{row[key]:,.{digits}f}" for row in (old, new)] for key, digits in _COSTS.items())
    return [a, b, f"{new['train_seconds_median'] / old['train_seconds_median']:.2f}", c, d]


def _surroundings(a: Side, b: Side) -> Table:
    """Who made the two: commits, code, data, machines, versions."""
    sides = []
    for side in (a, b):
        runs = [run for seeds in side.runs.values() for run in seeds]
        records = [run.record for run in runs]
        parts: dict[str, Iterable[str]] = {
            "commit": (f"{str(record['commit']['hash'])[:10]}" for record in records),
            "data": (
                f"{record['data']['name']} {record['data']['digests'].get('test-images', '')[:10]}"
                for record in records
            ),
            "device": map(_device, runs),
            "kernels": map(_kernels, runs),
        }
        for kind in dict.fromkeys(record["settings"]["kind"] for record in records):
            of_kind = [record for record in records if record["settings"]["kind"] == kind]
            if any("code" in record for record in of_kind):
                parts[f"code of {kind}"] = [record.get("code", "not recorded")[:12] for record in of_kind]
        for name in ("python", "numpy", "torch"):
            parts[name] = [record["versions"][name] for record in records if name in record["versions"]]
        parts["training time, all runs (min)"] = [f"{sum(record['seconds'] for record in records) / 60:.0f}"]
        sides.append({name: _counted(values) for name, values in parts.items()})
    rows = [
        Row([name, *values], "quiet" if values[0] == values[1] else "")
        for name in dict.fromkeys([*sides[0], *sides[1]])
        if (values := [side.get(name, NONE) for side in sides])
    ]
    note = "Of all runs; where they differ, with the number of runs of each."
    return Table("What made them", note, ["", "A", "B"], rows)


# --- words ----------------------------------------------------------------------------------------------------------


def _accuracy(row: pd.Series) -> str:
    interval = Interval(row["test_accuracy_mean"], row["test_accuracy_ci95_low"], row["test_accuracy_ci95_high"])
    mean = "all diverged" if math.isnan(interval.mean) else f"{100 * interval.mean:.2f}"
    return f"{mean}{_half(interval)} ({row['seeds']})"


def _half(interval: Interval) -> str:
    return "" if math.isnan(interval.half) else f" ± {100 * interval.half:.2f}"


def _overlap(old: pd.Series, new: pd.Series) -> str:
    low, high = "test_accuracy_ci95_low", "test_accuracy_ci95_high"
    if pd.isna([old[low], new[low]]).any():
        return ""
    return "intervals overlap" if max(old[low], new[low]) <= min(old[high], new[high]) else "intervals apart"


def _title(claim: pd.Series) -> str:
    return str(claim["title"] if pd.notna(claim["title"]) else claim["statement"])


def _estimate(claim: pd.Series) -> str:
    if pd.isna(claim["estimate"]):
        return "no estimate"
    factor, unit = _SCALES[claim["unit"]]
    values = [_plain(factor * claim[key]) for key in ("estimate", "ci95_low", "ci95_high")]
    limits = "" if pd.isna(claim["ci95_low"]) else f" [{values[1]}, {values[2]}]"
    return f"{values[0]}{limits} {unit}"


def _plain(value: float) -> str:
    """Three digits at least, a true minus, no exponent where it can be helped."""
    return (f"{value:,.0f}" if abs(value) >= 1000 else f"{value:#.3g}".rstrip(".")).replace("-", "−")


def _kernels(run: Run) -> str:
    return run.record["device"].get("kernels", "not recorded")


def _device(run: Run) -> str:
    return run.record["device"].get("gpu", run.record["device"]["cpu"])


def _differing(first: dict[str, str], second: dict[str, str]) -> list[str]:
    return [f"{name} {first[name]} → {second[name]}" for name in first if first[name] != second.get(name, first[name])]


def _counted(values: Iterable[str]) -> str:
    counts = Counter(values)
    return ", ".join(value if len(counts) == 1 else f"{value} ({n})" for value, n in counts.most_common()) or NONE


def _listed(what: str, values: Iterable[Any], end: str = ".") -> str:
    texts = ", ".join(map(str, values))
    return f"{what}{': ' if end else ' '}{texts}{end}" if texts else ""


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return f"{{{', '.join(map(str, value))}}}"
    if isinstance(value, list | tuple):
        return ", ".join(map(_shown, value)) or "none"
    if value is None or isinstance(value, bool):
        return str(value).lower()
    return f"{value:.10g}" if isinstance(value, float) else str(value)
