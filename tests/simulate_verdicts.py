"""How often a verdict is wrong: simulated studies whose truth lies at a bound, judged by the code that judges claims.

`python tests/simulate_verdicts.py` (`make simulation`) is the long form and writes benchmarks/verdicts.json;
test_verdict_rates.py the short one.
"""

import argparse
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np

from cifar_report.analysis.claims.comparisons import Measured
from cifar_report.analysis.claims.verdicts import Judged, decide, judge
from cifar_report.analysis.statistics import Estimate, mean_estimate, next_value, welch_estimate
from cifar_report.base.files import to_json, write_text

STUDIES = 10_000
# Wrong decisions above these fail: 5 and 2.5 per cent, and what 10,000 studies leave to chance.
TWO_SIDED, ONE_SIDED = 0.055, 0.029
BOUND = 1.0  # the smallest effect; within: plus and minus
SPREAD = 0.1  # of one run
# Where the truth of a part lies, by direction.
TRUTH = {
    "above": {"inside": 3.0, "bound": BOUND, "outside": -1.0},
    "below": {"inside": -1.0, "bound": BOUND, "outside": 3.0},
    "within": {"inside": 0.0, "bound": BOUND, "other bound": -BOUND, "outside": 3.0},
}
Noise = Callable[..., np.ndarray]
Seeds = list[tuple[int, float]]


def normal(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return rng.normal(size=shape)


def skewed(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Mean 0, variance 1, skewness 1."""
    return (rng.gamma(4, size=shape) - 4) / 2


@dataclass(frozen=True)
class Case:
    """A claim whose truth is known, and the verdicts that would be wrong of it."""

    name: str
    rule: str
    direction: str
    truths: tuple[str, ...]  # of each deciding part
    wrong: tuple[str, ...]
    together: float  # the correlation of the parts
    limit: float = ONE_SIDED
    premise: str = ""


def cases() -> Iterator[Case]:
    """One part at its bound or all of them, alone or beside others that lie far inside or far outside."""
    for direction, (parts, together) in product(TRUTH, ((1, 0.0), (2, 0.0), (4, 0.0), (4, 0.7))):
        told = f"{direction}, {parts} part{'s' * (parts > 1)}{' that vary together' if together else ''}"
        rest = parts - 1
        for rule in ("all", "each") if rest else ("all",):
            wrong = {
                "supported": ("supported, one at its bound", ("bound", *["inside"] * rest), ONE_SIDED),
                "refuted": ("refuted, all at their bounds", ("bound",) * parts, ONE_SIDED),
            }
            if rule == "each":
                wrong["mixed"] = (
                    "mixed, one far inside, the others at their bounds",
                    ("inside", *["bound"] * rest),
                    ONE_SIDED,
                )
            for verdict, (what, truths, limit) in wrong.items():
                yield Case(f"{rule}, {told}: {what}", rule, direction, truths, (verdict,), together, limit)
        if not rest:
            for bound in (name for name in TRUTH[direction] if "bound" in name):
                at = "" if bound == "bound" else f" at its {bound}"
                name, both = f"all, {told}: supported or refuted{at}", ("supported", "refuted")
                yield Case(name, "all", direction, (bound,), both, together, TWO_SIDED)
    name = "all, above, 1 part and a premise: supported, the premise at its bound"
    yield Case(name, "all", "above", ("inside",), ("supported", "refuted"), 0.0, premise="bound")


def rate(case: Case, noise: Noise, seeds: Seeds, studies: int) -> float:
    """The share of simulated studies with a wrong verdict.

    Args:
        seeds: (how many, spread) of one sample, whose mean is judged, or of two, whose difference is.
    """
    rng = np.random.default_rng(0)  # the same draws for every case
    shared = [noise(rng, (studies, count)) for count, _ in seeds]
    truths = [*case.truths, *([case.premise] if case.premise else [])]
    parts = []
    for place, truth in enumerate(truths):
        samples = []
        for common, (_, spread) in zip(shared, seeds, strict=True):
            values = np.sqrt(case.together) * common + np.sqrt(1 - case.together) * noise(rng, common.shape)
            samples.append(SPREAD * spread * values)
        samples[0] += TRUTH[case.direction][truth]
        if len(samples) == 1:
            estimates = [mean_estimate(row) for row in samples[0]]
        else:
            estimates = [welch_estimate([(1, a), (-1, b)]) for a, b in zip(*samples, strict=True)]
        of = len(case.truths) if place < len(case.truths) else 1
        judged = judge(Measured(Estimate(*np.array(estimates).T)), BOUND, case.direction, of)
        parts.append([Judged(*map(bool, each)) for each in zip(*judged[:4], strict=True)])
    count = len(case.truths)
    found = [decide(case.rule, list(study[:count]), study[count:]) for study in zip(*parts, strict=True)]
    return float(np.mean([verdict in case.wrong for verdict in found]))


def of_a_printed_run(seeds: int, noise: Noise, studies: int) -> Iterator[tuple[str, float, float]]:
    """Wrong answers about a value that was drawn as ours were: name, share, limit."""
    rng = np.random.default_rng(0)
    ours, original = noise(rng, (studies, seeds)), noise(rng, (studies,))
    estimates, following = (Estimate(*np.array(list(map(each, ours))).T) for each in (mean_estimate, next_value))
    measured = Measured(estimates, next_run=following)
    yield "a printed run, drawn as ours: refuted", float(judge(measured, original, "above").refutes.mean()), ONE_SIDED
    yield "a printed value, the true mean: supported", float(judge(measured, 0.0, "above").supports.mean()), ONE_SIDED
    _, low, high = following.interval()
    outside = float(np.mean((original < low) | (original > high)))
    yield "a printed run, drawn as ours: incompatible", outside, TWO_SIDED
    _, low, high = estimates.interval()
    yield "the mean: outside of its interval", float(np.mean((low > 0) | (high < 0))), TWO_SIDED


def simulate(studies: int) -> list[dict]:
    """A row a case: the share of wrong verdicts, its limit and whether it is met.

    Without a limit are what t intervals do not promise to hold: skewed noise, and two samples of unequal spread.
    """
    rows = []

    def add(told: str, name: str, value: float, limit: float | None) -> None:
        met = None if limit is None else value <= limit
        rows.append({"name": f"{told}: {name}", "value": value, "limit": limit, "met": met})

    for count, noise in product((3, 5, 10), (normal, skewed)):
        told, is_normal = f"{count} seeds, {noise.__name__}", noise is normal
        for case in cases():
            if is_normal or len(case.truths) == 1:
                value = rate(case, noise, [(count, 1.0)], studies)
                add(told, case.name, value, case.limit if is_normal else None)
        for name, value, limit in of_a_printed_run(count, noise, studies):
            add(told, name, value, limit if is_normal else None)
    for (one, other), spread in product(((5, 3), (5, 10)), (0.5, 1.0, 2.0)):
        for case in cases():
            if len(case.truths) == 1:
                value = rate(case, normal, [(one, 1.0), (other, spread)], studies)
                told = f"{one} seeds against {other} of {spread:g} times the spread"
                add(told, case.name, value, case.limit if spread == 1 else None)
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--studies", type=int, default=STUDIES)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent.parent / "benchmarks/verdicts.json")
    arguments = parser.parse_args()
    rows = simulate(arguments.studies)
    write_text(arguments.output, to_json(rows))
    failed = [row for row in rows if row["met"] is False]
    for row in failed:
        print(f"{row['name']}: {row['value']:.4f}, limit {row['limit']}")
    worst = max(row["value"] for row in rows if row["limit"] is not None)
    print(
        f"{len(rows)} cases of {arguments.studies} studies, {len(failed)} above their limits, at most {worst:.4f} wrong"
    )
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
