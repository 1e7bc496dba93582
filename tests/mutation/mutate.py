"""Runs mutants against the tests: `python tests/mutation/mutate.py equations`, or `sample`.

Every mutant of the equations' code, in docs/mutants.md, or a fixed sample of all others, in docs/mutants-numbers.md.

The tests are collected once. Each mutant is a fork of that process in which one function's code is replaced; it runs
the tests that execute this function, up to the first failure, the quick ones and those that execute little else first.
So a mutant costs about a second, and its killer is a test that is about it. A test that starts another program is left
out, since what it starts is not mutated.
"""

import os

# Before NumPy and PyTorch start threads or find a GPU: neither survives a fork.
os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}

import argparse
import functools
import gc
import importlib
import inspect
import json
import math
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import rooms
import yaml
from mutants import EQUATIONS, PACKAGE, Mutant, functions, generate, noting

from cifar_report.base.files import to_json, write_text
from cifar_report.study import identity

ROOT = Path(__file__).parents[2]
EQUIVALENT = Path(__file__).with_name("equivalent.yaml")
KILLERS = Path(__file__).with_name("killers.json")
TESTS = ("tests/equations", "tests/test_erratum.py")
SLOW = 20  # seconds of the processor, beyond which a test is left out
SECONDS = 30  # beyond ten times what a test takes, after which a mutant counts as killed
# Seconds of the processor for all tests of a mutant: a survivor of what all tests execute would run them all.
BUDGET = 60
MEMORY = 4 << 30  # bytes, beyond what the tests take


class Mutation:
    """A pytest plugin that runs the collected tests once for each mutant instead of once.

    After the session, `killers` holds for each mutant the test that failed, "" for survivors, and `left_out` the tests
    that start another program or take too long, and `broken` those that fail while nothing is mutated.

    Args:
        killers: the tests to run for each mutant, by their names; None for all that execute its function.
    """

    def __init__(self, mutants: list[Mutant], workers: int, killers: list[str] | None = None):
        self.mutants, self.workers, self.expected = mutants, workers, killers
        self.killers: list[str] = [""] * len(mutants)
        self.left_out: list[str] = []
        self.broken: list[str] = []
        self.failed = self.skipped = self.is_watched = False

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Notes a failure."""
        self.failed |= report.failed
        self.skipped |= report.skipped

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """In place of pytest's own loop."""
        sys.addaudithook(self._watch)
        tests: dict[str, list[int]] = {}
        seconds = [0.0] * len(session.items)
        if self.expected is None:
            # In this process, so that what tests import and cache on their way is there for every mutant.
            executed = self._executed(session, seconds)
            for item in sorted(executed, key=lambda i: (round(math.log2(seconds[i] + 0.1)), len(executed[i]), i)):
                for function in executed[item]:
                    tests.setdefault(function, []).append(item)
            chosen = [tests.get(f"{m.module}:{m.function}", []) for m in self.mutants]
        else:
            places = {item.nodeid: i for i, item in enumerate(session.items)}
            chosen = [[places[name]] if name in places else [] for name in self.expected]
        gc.freeze()
        scratch = session.config._tmp_path_factory.getbasetemp()
        jobs = [
            lambda m=m, t=t, i=i: self._run(session, m, t, seconds, scratch / f"mutant-{i}")
            for i, (m, t) in enumerate(zip(self.mutants, chosen, strict=True))
        ]
        for done, (i, killer) in enumerate(forked(jobs, self.workers), start=1):
            self.killers[i] = killer
            shutil.rmtree(scratch / f"mutant-{i}", ignore_errors=True)
            if done % 100 == 0:
                print(f"{done} of {len(jobs)} mutants", file=sys.stderr)
        return True

    def _watch(self, event: str, arguments: tuple) -> None:
        """Skips a test that would start a program, while it is looked at for the first time."""
        if (
            self.is_watched
            and event == "subprocess.Popen"
            and Path(str(arguments[0])).name not in ("git", "nvidia-smi")
        ):
            pytest.skip("starts a program")

    def _executed(self, session: pytest.Session, seconds: list[float]) -> dict[int, set[str]]:
        """For each test the functions that it executes, while nothing is changed yet, and how long it takes."""
        wanted = {(m.module, m.function) for m in self.mutants}
        executed: set[str] = set()
        pytest.executed = executed  # where every function finds it
        before: dict[Any, Any] = {}
        overlook({module for module, _ in wanted})
        for module in {module for module, _ in wanted}:
            for name, function, scope in functions(module):
                if (module, name) in wanted:
                    note = f"import pytest; pytest.executed.add('{module}:{name}')"
                    mutant = noting(module, name, function, scope, note)
                    target = function_of(mutant)
                    before[target], target.__code__ = target.__code__, mutant.code
        found = {}
        for i in range(len(session.items)):
            executed.clear()
            forget()
            start = time.process_time()
            self.skipped, self.is_watched = False, True
            self._test(session, i)
            self.is_watched = False
            seconds[i] = time.process_time() - start
            if self.failed:
                self.broken.append(session.items[i].nodeid)
                self.failed = False
            elif self.skipped or seconds[i] > SLOW:
                self.left_out.append(session.items[i].nodeid)
            elif executed:
                found[i] = set(executed)
        for target, code in before.items():
            target.__code__ = code
        return found

    def _run(
        self, session: pytest.Session, mutant: Mutant, tests: list[int], seconds: list[float], scratch: Path
    ) -> str:
        """The first test that fails when the mutant stands in its function's place; writes below `scratch` alone."""
        scratch.mkdir()
        session.config._tmp_path_factory._basetemp = scratch
        tempfile.tempdir = str(scratch)
        overlook({mutant.module})
        target = function_of(mutant)
        target.__code__ = mutant.code
        if mutant.defaults:
            target.__defaults__, target.__kwdefaults__ = mutant.defaults
        forget()
        begun = time.process_time()
        for i in tests:
            used, allowed = time.process_time(), math.ceil(SECONDS + 10 * seconds[i])
            if used - begun > BUDGET:
                break
            resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(used) + allowed, resource.RLIM_INFINITY))
            signal.alarm(4 * allowed)  # where it waits for what never comes
            self._test(session, i)
            if self.failed:
                return session.items[i].nodeid
        return ""

    @staticmethod
    def _test(session: pytest.Session, i: int) -> None:
        item = session.items[i]
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=None)


def function_of(mutant: Mutant) -> Any:
    """The function in whose place a mutant is put, beneath its decorators."""
    target: Any = importlib.import_module(f"cifar_report.{mutant.module}")
    for part in mutant.function.split("."):
        target = vars(target)[part]
    for inside in ("fget", "func", "__func__"):  # of a property, a cached one, a method of the class
        target = getattr(target, inside, target)
    return inspect.unwrap(target)


def overlook(modules: set[str], runs_its_source: Callable = identity._runs_its_source) -> None:
    """Has training take these modules for what their files hold, which else it refuses: a mutant is to be trained."""
    names = {f"{PACKAGE.name}.{module}" for module in modules}
    identity._runs_its_source = lambda name, source: name in names or runs_its_source(name, source)


def forget() -> None:
    """Empties the caches of the package's functions, which hold what was computed before."""
    for name, module in list(sys.modules.items()):
        if name.split(".")[0] == PACKAGE.name:
            for value in vars(module).values():
                if isinstance(value, functools._lru_cache_wrapper):
                    value.cache_clear()


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
        if child not in running:  # a test's
            continue
        i, reading = running.pop(child)
        with os.fdopen(reading) as pipe:
            text = pipe.read()
        if not text and not os.WIFSIGNALED(status):
            raise RuntimeError(f"job {i} of {len(jobs)} could not be run")
        yield i, json.loads(text) if text else f"({signal.Signals(os.WTERMSIG(status)).name})"


def _work(job: Callable[[], Any], writing: int) -> None:
    """The child's part: never returns, and prints nothing."""
    gc.disable()
    resource.setrlimit(resource.RLIMIT_AS, (_memory() + MEMORY, resource.RLIM_INFINITY))
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 30, resource.RLIM_INFINITY))
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)
    os.dup2(silence, 2)
    try:
        with os.fdopen(writing, "w") as pipe:
            json.dump(job(), pipe)
    finally:
        os._exit(0)


def _memory() -> int:
    """Bytes of this process's address space."""
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def run(mutants: list[Mutant], workers: int, tests: list[str], killers: list[str] | None = None) -> dict[Mutant, str]:
    """The test that kills each mutant, "" where none of those in these files does.

    Args:
        killers: as of `Mutation`.
    """
    plugin = Mutation(mutants, workers, killers)
    options = ["-o", "addopts=", "-p", "no:cacheprovider", "--strict-markers", "--assert=plain", "--tb=native", "-qq"]
    options += ["-s", "--rootdir", str(ROOT), "-c", str(ROOT / "pyproject.toml")]
    with tempfile.TemporaryDirectory() as scratch:
        here = Path(scratch, "here")  # where a mutant may write what it likes
        here.mkdir()
        for path in ROOT.iterdir():
            (here / path.name).symlink_to(path)
        os.chdir(here)
        options += ["--basetemp", f"{scratch}/tests", "-o", "tmp_path_retention_policy=none"]
        code = pytest.main([*options, *(str(ROOT / test) for test in tests)], plugins=[plugin])
        os.chdir(ROOT)
    if plugin.left_out:
        print(f"{len(plugin.left_out)} tests start another program, or take more than {SLOW} seconds: left out")
    for test in plugin.broken:
        print(f"left out, since it fails here while nothing is mutated: {test}")
    if code not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):  # which were told and left out
        raise SystemExit(f"the tests could not be run, pytest's exit code is {code}")
    return dict(zip(mutants, plugin.killers, strict=True))


def equivalents(of_equations: bool) -> dict[str, str]:
    """Why a mutant of the equations, or of what else there is, changes nothing, by its name."""
    entries = yaml.safe_load(EQUIVALENT.read_text())
    reasons = {name: " ".join(entry["reason"].split()) for entry in entries for name in entry["mutants"]}
    return {name: why for name, why in reasons.items() if (name.split(":")[0] in EQUATIONS) == of_equations}


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


def sample_report(killers: dict[Mutant, str], reasons: dict[str, str], took: str) -> str:
    """The Markdown of docs/mutants-numbers.md."""
    survivors = [m for m, killer in killers.items() if not killer]
    lines = [
        "# Mutants of what computes and prints numbers",
        "",
        "Written by `make mutants`. Each mutant is a small change of one function's syntax tree, in any module but",
        "those of [the equations](mutants.md), of which all are run, and those [left out](#left-out). Of the others",
        "a fixed sample is run, of each room its share: the mutants whose names have the smallest SHA-256, so that a",
        "change of one function moves no mutant of another. A mutant is killed where a test that executes its",
        f"function fails, or takes ten times as long and {SECONDS} seconds more; the quick ones are run first, and",
        f"after {BUDGET} seconds a mutant counts as one that survives.",
        "",
        "No mutants are made of the text of an error, of what is logged, of how paths are joined, of how a figure",
        "looks, and of what stands outside of functions. A test that starts another program is not run, since what",
        f"it starts is not mutated, nor is one of more than {SLOW} seconds.",
        "",
        f"The sample below has {len(killers)} mutants and took {took}. `make mutants`",
        f"runs {rooms.SAMPLE}, which begin with the same in each room; `make test` runs {rooms.SHORT} of them again,",
        "each with the test that killed it.",
        "",
        "| room | mutants | run | killed | by the limit | equivalent | survived | killed of those not equivalent |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for room, of_room in rooms.every().items():
        mine = {m: killer for m, killer in killers.items() if rooms.room(m.module) == room}
        dead, limits = sum(map(bool, mine.values())), sum(killer.startswith("(") for killer in mine.values())
        same = sum(not killer and m.name in reasons for m, killer in mine.items())
        share = f"{100 * dead / max(len(mine) - same, 1):.1f} %"
        row = (room, len(of_room), len(mine), dead, limits, same, len(mine) - dead - same, share)
        lines.append(f"| {' | '.join(map(str, row))} |")
    for title, is_wanted in (("Survived", False), ("Equivalent", True)):
        lines += ["", f"## {title}", "", "| function | was | becomes | why |", "|---|---|---|---|"]
        for m in survivors:
            if (m.name in reasons) == is_wanted:
                was, becomes = map(_code, shortened(m.old, m.new))
                lines.append(f"| {m.module}: {m.function} | {was} | {becomes} | {_cell(reasons.get(m.name, ''))} |")
    lines += ["", "## Left out", "", "| module or room | what it does |", "|---|---|"]
    lines += [f"| {name} | {reason} |" for name, reason in rooms.LEFT_OUT.items()]
    return "\n".join(lines) + "\n"


def shortened(old: str, new: str, around: int = 30) -> tuple[str, str]:
    """Where two texts differ, with so many characters on both sides."""
    same = [a == b for a, b in zip(old, new, strict=False)]
    start = [*same, False].index(False)
    back = zip(old[start:][::-1], new[start:][::-1], strict=False)
    end = [*(a == b for a, b in back), False].index(False)

    def part(text: str) -> str:
        first, last = max(start - around, 0), min(len(text) - end + around, len(text))
        return ("…" if first else "") + text[first:last] + ("…" if last < len(text) else "")

    return part(old), part(new)


def main() -> None:
    """Writes the report; ends with an error where a mutant survives, or where a justification is out of date."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", choices=["equations", "sample", "short"], help="short: those of killers.json alone")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="only every Nth mutant; nothing is written")
    parser.add_argument("--function", default="", metavar="TEXT", help="only where module:function contains it")
    parser.add_argument("--size", type=int, default=rooms.SAMPLE, metavar="N", help="of the sample")
    parser.add_argument("--tests", nargs="+", metavar="PATH", help="instead of all")
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    args = parser.parse_args()

    reasons, expected = equivalents(args.part == "equations"), None
    if args.part == "equations":
        every = [mutant for module in EQUATIONS for mutant in generate(module)]
        tests = args.tests or TESTS
    elif args.part == "sample":
        every = rooms.sample(args.size)
        tests = args.tests or sorted(str(p.relative_to(ROOT)) for p in [*ROOT.glob("tests/test_*.py"), ROOT / TESTS[0]])
    else:
        known = json.loads(KILLERS.read_text())
        every = [m for module in dict.fromkeys(name.split(":")[0] for name in known) for m in generate(module)]
        every = [mutant for mutant in every if mutant.name in known]
        expected = [known[mutant.name] for mutant in every]
        tests = sorted({test.split("::")[0] for test in expected})
    chosen = [m for m in every if args.function in f"{m.module}:{m.function}"][:: args.every]
    killers = run(chosen, args.workers, tests, expected)
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    minutes = sum(each.ru_utime + each.ru_stime for each in used) / 60
    wrong = [f"survived: {m.name}" for m, killer in killers.items() if not killer and m.name not in reasons]
    wrong += [
        f"killed, yet called equivalent: {m.name}" for m, killer in killers.items() if killer and m.name in reasons
    ]
    if args.part == "equations" or (args.part == "sample" and args.size >= rooms.SAMPLE):
        names = {mutant.name for mutant in every}
        wrong += [f"{EQUIVALENT.name} names no mutant: {name}" for name in sorted(reasons.keys() - names)]
    if args.part == "equations" and len(chosen) == len(every):
        write_text(ROOT / "docs" / "mutants.md", report(killers, reasons))
    if args.part == "sample" and chosen == every:
        page = sample_report(killers, reasons, f"{minutes:.0f} minutes of a processor")
        write_text(ROOT / "docs" / "mutants-numbers.md", page)
        write_text(KILLERS, to_json({m.name: killers[m] for m in rooms.sample(rooms.SHORT) if "::" in killers[m]}))
    print(
        f"\n{len(chosen)} mutants, {sum(map(bool, killers.values()))} killed, in {minutes:.1f} minutes of a processor"
    )
    if wrong:
        raise SystemExit("\n".join(wrong))


if __name__ == "__main__":
    main()
