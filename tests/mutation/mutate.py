"""Runs every mutant against the tests and writes docs/mutants.md: `python tests/mutation/mutate.py`.

The tests are collected once. Each mutant is a fork of that process in which one function's code is replaced; it runs
the tests that execute this function, up to the first failure, those that execute little else first. So a mutant costs
a fraction of a second, and its killer is a test that is about it.
"""

import os

# Before NumPy and PyTorch start threads or find a GPU: neither survives a fork.
os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}

import argparse
import gc
import importlib
import inspect
import json
import resource
import signal
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from mutants import MODULES, PACKAGE, Mutant, generate

from cifar_report.base.files import write_text

ROOT = Path(__file__).parents[2]
EQUIVALENT = Path(__file__).with_name("equivalent.yaml")
TESTS = ("tests/equations", "tests/test_erratum.py")
SECONDS = 30  # of the processor, after which a mutant counts as killed


class Mutation:
    """A pytest plugin that runs the collected tests once for each mutant instead of once.

    After the session, `killers` holds for each mutant the test that failed, "" for survivors.
    """

    def __init__(self, mutants: list[Mutant], workers: int):
        self.mutants, self.workers = mutants, workers
        self.killers: list[str] = [""] * len(mutants)
        self.failed = False

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Notes a failure."""
        self.failed |= report.failed

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """In place of pytest's own loop."""
        # In this process, so that what tests import and cache on their way is there for every mutant.
        tests: dict[str, list[int]] = {}
        for item, functions in sorted(self._executed(session).items(), key=lambda entry: (len(entry[1]), entry[0])):
            for function in functions:
                tests.setdefault(function, []).append(item)
        gc.freeze()
        jobs = [lambda m=m: self._run(session, m, tests.get(f"{m.module}:{m.function}", [])) for m in self.mutants]
        for i, killer in forked(jobs, self.workers):
            self.killers[i] = killer
        return True

    def _executed(self, session: pytest.Session) -> dict[int, set[str]]:
        """For each test the functions that it executes, while nothing is changed yet."""
        files = {str(PACKAGE / f"{m.replace('.', '/')}.py"): m for m in MODULES}
        found = {}
        for i in range(len(session.items)):
            executed: set[str] = set()

            def note(frame: Any, event: str, _: Any, executed: set[str] = executed) -> None:
                if event == "call" and frame.f_code.co_filename in files:
                    executed.add(f"{files[frame.f_code.co_filename]}:{frame.f_code.co_qualname}")

            sys.setprofile(note)
            self._test(session, i)
            sys.setprofile(None)
            if self.failed:
                raise pytest.UsageError(f"the unchanged code fails {session.items[i].nodeid}")
            found[i] = executed
        return found

    def _run(self, session: pytest.Session, mutant: Mutant, tests: list[int]) -> str:
        """The first test that fails when the mutant stands in its function's place."""
        target: Any = importlib.import_module(f"cifar_report.{mutant.module}")
        for part in mutant.function.split("."):
            target = getattr(target, part)
        target = inspect.unwrap(target)
        target.__code__, target.__defaults__ = mutant.code, mutant.defaults
        for i in tests:
            self._test(session, i)
            if self.failed:
                return session.items[i].nodeid
        return ""

    @staticmethod
    def _test(session: pytest.Session, i: int) -> None:
        item = session.items[i]
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=None)


def forked(jobs: list[Callable[[], Any]], workers: int) -> Iterator[tuple[int, Any]]:
    """Runs each job in a child process, so many at a time; yields its number and its result as it ends.

    A result passes through JSON. Where a signal ends the process, that of the time limit too, it is the signal's name.

    Raises:
        RuntimeError: a job raised an exception.
    """
    waiting = list(enumerate(jobs))[::-1]
    running: dict[int, tuple[int, int]] = {}
    while waiting or running:
        while waiting and len(running) < workers:
            i, job = waiting.pop()
            reading, writing = os.pipe()
            if (child := os.fork()) == 0:
                _work(job, writing)
            os.close(writing)
            running[child] = (i, reading)
        child, status = os.wait()
        i, reading = running.pop(child)
        with os.fdopen(reading) as pipe:
            text = pipe.read()
        if not text and not os.WIFSIGNALED(status):
            raise RuntimeError(f"job {i} of {len(jobs)} could not be run")
        yield i, json.loads(text) if text else f"({signal.Signals(os.WTERMSIG(status)).name})"


def _work(job: Callable[[], Any], writing: int) -> None:
    """The child's part: never returns, and prints nothing."""
    gc.disable()
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)
    os.dup2(silence, 2)
    try:
        with os.fdopen(writing, "w") as pipe:
            json.dump(job(), pipe)
    finally:
        os._exit(0)


def run(mutants: list[Mutant], workers: int, tests: list[str]) -> dict[Mutant, str]:
    """The test that kills each mutant, "" where none of those in these files does."""
    plugin = Mutation(mutants, workers)
    options = ["-o", "addopts=", "-p", "no:cacheprovider", "--strict-markers", "--assert=plain", "--tb=native", "-qq"]
    code = pytest.main([*options, "-s", "--rootdir", str(ROOT), *(str(ROOT / t) for t in tests)], plugins=[plugin])
    if code != pytest.ExitCode.OK:
        raise SystemExit(f"the tests could not be run, pytest's exit code is {code}")
    return dict(zip(mutants, plugin.killers, strict=True))


def equivalents() -> dict[str, str]:
    """Why a mutant computes the same, by its name."""
    return {entry["mutant"]: " ".join(entry["reason"].split()) for entry in yaml.safe_load(EQUIVALENT.read_text())}


def report(killers: dict[Mutant, str], reasons: dict[str, str]) -> str:
    """The Markdown of docs/mutants.md."""
    survivors = [m for m, killer in killers.items() if not killer]
    rules = Counter(m.rule for m in killers)
    lines = [
        "# Mutants of the hand-written mathematics",
        "",
        "Written by `make mutants`. Each row is a small change of one function's syntax tree, and the first test that",
        "fails because of it. A mutant that computes the same thing has its reason instead.",
        "",
        f"{len(killers)} mutants: {len(killers) - len(survivors)} killed, "
        f"{sum(m.name in reasons for m in survivors)} equivalent, "
        f"{sum(m.name not in reasons for m in survivors)} survived.",
        "",
        "| rule | mutants |",
        "|---|---|",
        *(f"| {rule} | {count} |" for rule, count in sorted(rules.items(), key=lambda kv: (-kv[1], kv[0]))),
    ]
    place = None
    for mutant, killer in killers.items():
        if (mutant.module, mutant.function) != place:
            place = (mutant.module, mutant.function)
            count = sum((m.module, m.function) == place for m in killers)
            lines += ["", f"## {mutant.module}: {mutant.function}", "", f"{count} mutants.", ""]
            lines += ["| was | becomes | killed by |", "|---|---|---|"]
        fate = killer.removeprefix("tests/") if killer else f"equivalent: {reasons.get(mutant.name, '**survived**')}"
        lines.append(f"| {_code(mutant.old)} | {_code(mutant.new)} | {_cell(fate)} |")
    return "\n".join(lines) + "\n"


def _code(source: str) -> str:
    return f"`{_cell(source)}`"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def main() -> None:
    """Writes the report; ends with an error where a mutant survives, or where a justification is out of date."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--every", type=int, default=1, metavar="N", help="only every Nth mutant; nothing is written")
    parser.add_argument(
        "--function", default="", help="only where the function's name contains this; nothing is written"
    )
    parser.add_argument("--tests", nargs="+", default=TESTS, metavar="PATH", help="instead of all")
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    args = parser.parse_args()

    every = [mutant for module in MODULES for mutant in generate(module)]
    chosen = [mutant for mutant in every if args.function in mutant.function][:: args.every]
    reasons = equivalents()
    killers = run(chosen, args.workers, args.tests)
    wrong = [f"survived: {m.name}" for m, killer in killers.items() if not killer and m.name not in reasons]
    wrong += [
        f"killed, yet called equivalent: {m.name}" for m, killer in killers.items() if killer and m.name in reasons
    ]
    wrong += [f"{EQUIVALENT.name} names no mutant: {name}" for name in sorted(reasons.keys() - {m.name for m in every})]
    if len(chosen) == len(every):
        write_text(ROOT / "docs" / "mutants.md", report(killers, reasons))
    print(f"\n{len(chosen)} mutants, {sum(map(bool, killers.values()))} killed")
    if wrong:
        raise SystemExit("\n".join(wrong))


if __name__ == "__main__":
    main()
