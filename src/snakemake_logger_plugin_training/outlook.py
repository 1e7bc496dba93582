"""How long the jobs of a call of Snakemake will take, by `cifar_report.inspection.forecast`."""

import argparse
import os
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from logging import LogRecord
from pathlib import Path

from cifar_report.base.errors import InputError
from cifar_report.inspection import forecast

REFERENCE = Path("reference")  # finished studies that the repository ships
MANY = 10_000  # jobs: beyond, a forecast takes seconds, and nobody who only asked for a dry run waits for it


class Outlook:
    """The jobs that Snakemake has told of, and what they will take."""

    def __init__(self) -> None:
        self.results: Path | None = None  # folder of the study, as the jobs name their files
        self.names: set[str] = set()  # of jobs, as forecast names them
        self.known: list[forecast.EarlierRun] | None = None

    def add(self, record: LogRecord) -> str:
        """Takes note of a job; its name, as forecast has it, empty for one without a log."""
        logs = [Path(log) for log in getattr(record, "log", ())]
        if not logs or "logs" not in logs[0].parts:
            return ""
        place = logs[0].parts.index("logs")
        name = Path(*logs[0].parts[place + 1 :]).with_suffix("").as_posix()
        self.results = Path(*logs[0].parts[:place])
        self.names.add(name)
        return name

    def tasks(self, fresh: bool = False) -> list[forecast.Task]:
        """All jobs of the study that train.

        Args:
            fresh: look for earlier runs again; those of this study count too.
        """
        if self.results is None:
            return []
        store = self.results.parent / ".store"
        if fresh or self.known is None:
            self.known = forecast.earlier_runs(store, REFERENCE)
        return forecast.tasks(self.results, store, self.known)

    def sentence(self) -> str:
        """The forecast of a dry run; empty where no earlier run tells anything."""
        if len(self.names) > MANY:
            return ""
        cores = asked_cores()
        try:
            tasks = to_come(self.tasks(), Counter(map(rule_of, self.names)), self.names, {})
        except InputError:
            return ""
        work = forecast.total(task.seconds for task in tasks)
        if not work.likely:
            return ""
        wall = forecast.in_words(forecast.wall(tasks, cores))
        return (
            f"Forecast: {wall} on {cores} core{'s' * (cores != 1)}, from earlier runs; by variant: "
            f"cifar-report forecast --results {self.results} --cores {cores}"
        )


def to_come(
    tasks: Iterable[forecast.Task],
    left: Mapping[str, int],
    first: Iterable[str],
    seconds: Mapping[str, forecast.Seconds],
) -> list[forecast.Task]:
    """The jobs that are still to end: of each rule so many as are left, `first` those whose names are known.

    A run that is in the store already costs its job alone.

    Args:
        seconds: what is left of running jobs and of runs, by their names.
    """
    known, chosen, counts = set(first), [], Counter[str]()
    for task in sorted(tasks, key=lambda task: (task.name not in known, task.finished)):
        rule = rule_of(task.name)
        if counts[rule] == left.get(rule, 0):
            continue
        counts[rule] += 1
        if task.finished:
            task = replace(task, finished=False, seconds=forecast.Seconds(*3 * (forecast.JOB,)))
        running = seconds.get(task.run, seconds.get(task.name))
        chosen.append(replace(task, seconds=running) if running else task)
    return chosen


def rule_of(name: str) -> str:
    """The rule of a job."""
    return name.partition("/")[0]


def asked_cores() -> int:
    """The cores that the command line names, else all: a dry run does not tell."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("-c", "--cores", nargs="?", default="all")
    cores = parser.parse_known_args()[0].cores
    return int(cores) if str(cores).isdigit() and int(cores) > 0 else os.cpu_count() or 1
