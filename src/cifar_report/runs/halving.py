"""Successive halving (Jamieson and Talwalkar 2016): many configurations train briefly, the best of them for longer.

Optuna draws the configurations for the first rung in batches of a fixed size: a batch is drawn as a whole, trained,
and told to Optuna as a whole before the next is drawn. So neither times nor the number of processes decide anything.
Of each rung, one configuration in `reduction` is trained anew on the next, for `reduction` times as many steps: a
schedule depends on the number of steps, and so no run can simply go on. Every trial is a run of the run store. A search
that was killed makes the same draws again, finds there what had finished, and goes on.
"""

import math
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import optuna

from cifar_report.base.files import read_json, to_json, write_text
from cifar_report.base.processes import die_with_parent
from cifar_report.data import datasets
from cifar_report.runs.machine import versions
from cifar_report.runs.store import Request, Store, publish
from cifar_report.study.config import trial_name
from cifar_report.study.identity import check_code
from cifar_report.study.settings import TYPES, Settings, digest

DIGITS = 3  # significant ones of a number that is drawn: what a table shows is what was trained


class Score(NamedTuple):
    """What a trial is judged by: accuracy (a fraction) and loss (nats) of the whole validation split."""

    accuracy: float
    loss: float
    completed: bool


Train = Callable[[list[Settings]], list[Score]]


def write(plan: dict[str, Any], dataset: Path, run_store: Path, output: Path) -> None:
    """Runs a search; writes `<trial>/{run.json,curve.csv}` for each of its trials and last their list, `trials.json`.

    Args:
        plan: {"search", "seed", "settings", "grid", "rung_steps", "halving", "code"}.
        dataset: folder that `prepare` made; its test arrays are not opened.
        run_store: folder of all runs.
    """
    finished: dict[Settings, Path] = {}
    obtain = partial(_obtain, plan=plan, dataset=dataset, run_store=run_store)
    with _processes(plan) as each:

        def train(trials: list[Settings]) -> list[Score]:
            finished.update(zip(trials, each(obtain, trials), strict=True))
            return [_score(finished[settings]) for settings in trials]

        rungs = search(plan, train)
    listed = []
    for rung, trials in enumerate(rungs, start=1):
        for settings in trials:
            name, folder = trial_name(settings, plan["seed"]), finished[settings]
            request = _request(settings, plan, dataset)
            publish(folder, output / name, request, _label(plan, settings))
            listed.append({"trial": name, "rung": rung, "steps": settings.steps, "identity": request.identity})
    write_text(output / "trials.json", to_json({"versions": versions("optuna"), "trials": listed}))


def search(plan: dict[str, Any], train: Train) -> list[list[Settings]]:
    """The trials of each rung.

    A configuration that is drawn twice is one trial. A trial that diverged counts as an accuracy of 0 to Optuna, and
    reaches no further rung.

    Args:
        plan: as of `write`.
        train: trains trials of a rung, and returns their scores in the same order.
    """
    halving, steps = plan["halving"], plan["rung_steps"]
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    sampler = optuna.samplers.TPESampler(seed=plan["seed"], n_startup_trials=halving["batch"], constant_liar=True)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    scores: dict[Settings, Score] = {}
    for start in range(0, halving["trials"], halving["batch"]):
        asked = [study.ask() for _ in range(min(halving["batch"], halving["trials"] - start))]
        drawn = [_settings(plan, draw(trial, plan["grid"]), steps[0]) for trial in asked]
        new = [settings for settings in dict.fromkeys(drawn) if settings not in scores]
        scores |= dict(zip(new, train(new), strict=True))
        for trial, settings in zip(asked, drawn, strict=True):
            study.tell(trial, scores[settings].accuracy if scores[settings].completed else 0.0)
    rungs = [list(scores)]
    for longer in steps[1:]:
        best = promoted(scores, halving["reduction"])
        trials = [_settings(plan, {name: getattr(s, name) for name in plan["grid"]}, longer) for s in best]
        scores = dict(zip(trials, train(trials), strict=True))
        rungs.append(trials)
    return rungs


def draw(trial: optuna.Trial, grid: dict[str, Any]) -> dict[str, Any]:
    """A value for each setting; a number from a range of floats has `DIGITS` digits."""
    values = {}
    for name, axis in grid.items():
        if isinstance(axis, list):
            values[name] = axis[trial.suggest_categorical(name, range(len(axis)))]
        elif TYPES[name] is int:
            values[name] = trial.suggest_int(name, axis["low"], axis["high"], log=axis["log"])
        else:
            drawn = float(f"{trial.suggest_float(name, axis['low'], axis['high'], log=axis['log']):.{DIGITS}g}")
            values[name] = min(max(drawn, axis["low"]), axis["high"])
    return values


def promoted(scores: dict[Settings, Score], reduction: int) -> list[Settings]:
    """The best of a rung, one in `reduction` and at least one: by accuracy, of equals the lower loss, then the digest.

    Those that diverged are counted, but not promoted.
    """
    completed = [settings for settings, score in scores.items() if score.completed]
    ranked = sorted(completed, key=lambda s: (-scores[s].accuracy, scores[s].loss, digest(s.canonical())))
    return ranked[: max(len(scores) // reduction, 1)]


def _settings(plan: dict[str, Any], values: dict[str, Any], steps: int) -> Settings:
    return Settings.from_mapping(plan["settings"] | values | {"steps": steps})


def _obtain(settings: Settings, plan: dict[str, Any], dataset: Path, run_store: Path) -> Path:
    return Store(run_store).obtain(_request(settings, plan, dataset))


def _request(settings: Settings, plan: dict[str, Any], dataset: Path) -> Request:
    return Request(settings, plan["seed"], datasets.load(dataset), plan["code"], _label(plan, settings), test=False)


def _label(plan: dict[str, Any], settings: Settings) -> str:
    return f"{plan['search']}-{trial_name(settings, plan['seed'])[:6]}"


def _score(finished: Path) -> Score:
    run = read_json(finished / "run.json")
    final = run["final"]["validation"]
    loss = math.nan if final["loss"] is None else final["loss"]
    return Score(final["accuracy"], loss, run["status"] == "completed")


@contextmanager
def _processes(plan: dict[str, Any]) -> Iterator[Callable]:
    """A `map` over as many processes as the search has workers, or in this one."""
    workers = plan["halving"]["workers"]
    if workers == 1:
        yield map
        return
    begin = (plan["settings"]["kind"], plan["code"])
    with ProcessPoolExecutor(workers, get_context("spawn"), initializer=_begin, initargs=begin) as pool:
        yield pool.map


def _begin(kind: str, code: str) -> None:
    die_with_parent()
    check_code(kind, code)
