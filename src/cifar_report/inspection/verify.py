"""A new run of a study against its reference, variant by variant."""

import math
from pathlib import Path

import numpy as np
from scipy import stats

from cifar_report.inspection.frames import finished_runs
from cifar_report.runs.record import Run

SINGLE_SEED_TOLERANCE = 0.015  # a fraction: 1.5 points of accuracy


def verify(results: Path, reference: Path) -> tuple[list[str], bool]:
    """One line a variant of the reference, and whether all hold.

    Runs of the same identity, versions, processor, kernels and threads must have the same digests. Elsewhere the
    difference of the mean test accuracies must lie in its 95 % prediction interval, t s √(1/n + 1/m), where s is the
    reference's standard deviation over n seeds and m the number of new ones; with one seed of the reference, within
    1.5 points.

    Raises:
        InputError: one of the two has no runs.
    """
    expected, found = finished_runs(reference), finished_runs(results)
    lines, holds = [], True
    for variant, runs in expected.items():
        verdict, good = _compare(runs, found.get(variant, []))
        lines.append(f"{'ok  ' if good else 'FAIL'}  {variant}: {verdict}")
        holds &= good
    return lines, holds


def _compare(expected: list[Run], found: list[Run]) -> tuple[str, bool]:
    if not found:
        return "not in the new results", False
    ours = {run.seed: run for run in found}
    pairs = [(run, ours[run.seed]) for run in expected if run.seed in ours]
    if len(pairs) == len(expected) and all(_environment(a) == _environment(b) for a, b in pairs):
        differ = [a.seed for a, b in pairs if a.record["digests"] != b.record["digests"]]
        if differ:
            return f"same environment, but other digests for seed {', '.join(map(str, differ))}", False
        return f"same environment, identical digests for {len(pairs)} seed(s)", True
    a, b = (np.array([run.final("test", "accuracy") for run in runs if run.completed]) for runs in (expected, found))
    if len(a) == 0 or len(b) == 0:
        return f"{len(a)} and {len(b)} completed runs", len(a) == len(b)
    difference = b.mean() - a.mean()
    if len(a) == 1:
        text = f"one seed of the reference: difference {100 * difference:+.2f} points, 1.50 allowed (a weaker check)"
        return text, bool(abs(difference) <= SINGLE_SEED_TOLERANCE)
    allowed = stats.t.ppf(0.975, len(a) - 1) * a.std(ddof=1) * math.sqrt(1 / len(a) + 1 / len(b))
    text = f"another environment: difference of means {100 * difference:+.2f} points, {100 * allowed:.2f} allowed"
    return text, bool(abs(difference) <= allowed)


def _environment(run: Run) -> tuple:
    record = run.record
    return record["identity"], record["threads"], record["device"], record["versions"]
