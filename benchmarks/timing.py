"""Interleaved timing, and the entries of records: results and info."""

import re
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyperf
import yaml

from cifar_report.data import datasets
from cifar_report.study import config
from cifar_report.training.loop import Split

ROOT = Path(__file__).resolve().parent.parent
GOAL = re.compile(r"(\w+)(?: / (\w+))? (<=|>=) ([\d.]+)")


def interleaved(timed: dict[str, tuple[Callable[[int], None], int]], rounds: int) -> dict[str, list[float]]:
    """Seconds a step of each function in each round; one call before the first round is not counted.

    pyperf's runner times one benchmark after the other, each in processes of its own. Here a ratio is asked, on
    machines whose speed wanders by the minute: each round times all functions, every other one in reverse order. Only
    the clock is pyperf's.

    Args:
        timed: by name, a function that takes a number of steps, and how many it takes a round.
    """
    for function, steps in timed.values():
        function(steps)
    seconds: dict[str, list[float]] = {name: [] for name in timed}
    for i in range(rounds):
        for name in list(timed)[:: -1 if i % 2 else 1]:
            function, steps = timed[name]
            start = pyperf.perf_counter()
            function(steps)
            seconds[name].append((pyperf.perf_counter() - start) / steps)
    return seconds


def judged(
    name: str,
    unit: str,
    goal: str,
    value: Sequence[float],
    peer: Sequence[float] = (),
    limit: Sequence[float] = (),
    **more: Any,
) -> dict[str, Any]:
    """An entry of results: medians, and the goal's ratio round by round; all None where nothing was measured.

    Args:
        goal: such as `value / limit <= 1.25`, `peer / value >= 1.35` or `value <= 0.7`.
        value, peer, limit: of each round, in `unit`: ours, another's, and what the hardware does at best.
    """
    over, under, relation, bound = GOAL.fullmatch(goal).groups()
    series = {"value": value, "peer": peer, "limit": limit}
    ratios = [a / b for a, b in zip(series[over], series[under], strict=True)] if under else list(value)
    told = spread(ratios)
    met = None
    if told:
        met = told["median"] <= float(bound) if relation == "<=" else told["median"] >= float(bound)
    medians = {key: rounded(statistics.median(values)) if values else None for key, values in series.items()}
    return {"name": name, **medians, "goal": goal, "met": met, "unit": unit, "ratio": told, **more}


def spread(values: Sequence[float]) -> dict[str, float] | None:
    """Minimum, median and the distance of the quartiles (0 for a single measurement); None for none."""
    if not values:
        return None
    quartiles = statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else [values[0]] * 3
    return {
        "minimum": rounded(min(values)),
        "median": rounded(statistics.median(values)),
        "spread": rounded(quartiles[2] - quartiles[0]),
        "rounds": len(values),
    }


def rounded(value: float) -> float:
    """To four significant digits."""
    return float(f"{value:.4g}")


def told(name: str, value: Any, unit: str = "") -> dict[str, Any]:
    """An entry of info."""
    return {"name": name, "value": rounded(value) if isinstance(value, float) else value, "unit": unit}


def scaled(values: Sequence[float], factor: float) -> list[float]:
    """Each of them times a factor."""
    return [factor * value for value in values]


def inverse(values: Sequence[float], factor: float) -> list[float]:
    """A factor divided by each of them: seconds a step to images a second."""
    return [factor / value for value in values]


def settings(variant: str) -> config.Settings:
    """Those of a variant of config.yaml."""
    document = yaml.safe_load((ROOT / "config.yaml").read_text())
    return config.load(document).variants[variant].resolved()


def training_split(folder: Path) -> tuple[Split, int]:
    """The training images of a prepared dataset, mapped, and how many classes there are."""
    dataset = datasets.load(folder)
    return Split(*dataset.split("train")), len(dataset.class_names)
