"""What the workflow costs: against one process, against a bare Snakemake, and in a finished study.

`python workflow.py demo|dry|study|starts|tests|setup …` prints {"results": …, "info": …} as its last line.
"""

import contextlib
import csv
import io
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml
from records import COSTS
from timing import ROOT, interleaved, judged, rounded, told

from cifar_report.runs import machine

PARTS = ("Snakefile", "config.yaml", "config", "workflow", "profiles", "report", "tests/equations", "environment.yml")
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()

# A Snakemake with as many jobs, inputs and outputs as a study of {runs} runs, and nothing in it.
BARE = """
RUNS = range({runs})
STAGES = [2, 3, 4, 2, 0, 0]

def files(wildcards):
    return [f"bare/runs/{{n}}/{{i}}" for n in RUNS for i in range(STAGES[int(wildcards.stage)])] + DATA

DATA = [f"bare/data/{{i}}" for i in range(8)]

rule all:
    input: [f"bare/stages/{{i}}" for i in range(len(STAGES))]

rule prepare:
    output: DATA
    shell: "touch {{output}}"

rule train:
    input: DATA
    output: [f"bare/runs/{{{{n}}}}/{{i}}" for i in range(4)]
    shell: "touch {{output}}"

rule stage:
    input: files
    output: "bare/stages/{{stage}}"
    shell: "touch {{output}}"
"""


def checkout(folder: Path) -> Path:
    """The parts of this tree that a study needs, in a folder without results."""
    for part in PARTS:
        source = ROOT / part
        (folder / part).parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(source, folder / part)
    return folder


def snakemake(folder: Path, *arguments: str | Path) -> None:
    """Runs Snakemake in a folder.

    Raises:
        RuntimeError: it failed; with the end of what it said.
    """
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {k: v for k, v in os.environ.items() if k != "OMP_NUM_THREADS"} | {"PATH": path}
    done = subprocess.run(
        [sys.executable, "-m", "snakemake", "--cores", str(CORES), *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"snakemake {shlex.join(map(str, arguments))}: {done.stderr[-2000:]}")


def overlay(folder: Path, study: str, variants: int, seeds: int, **settings: Any) -> Path:
    """A configuration of so many variants with so many seeds each, on the digits, without a search."""
    names = [f"variant-{i}" for i in range(variants)]
    entries = {name: {"like": "mlp-numpy", "label": name, "seeds": list(range(seeds))} | settings for name in names}
    path = folder / f"{study}.yaml"
    path.write_text(yaml.safe_dump({"study": study, "run": names, "variants": entries}))
    return path


def bare(folder: Path, runs: int) -> Path:
    """The Snakefile of a bare workflow."""
    path = folder / f"bare-{runs}.smk"
    path.write_text(BARE.format(runs=runs))
    return path


def demo(rounds: int) -> dict[str, Any]:
    """The demo in an empty folder, the same commands in one process, and a second call with nothing to do."""
    with tempfile.TemporaryDirectory() as scratch:
        ours = checkout(Path(scratch, "ours"))
        options = ("--configfile", "config/demo.yaml", "--", "all")
        start = time.perf_counter()
        snakemake(ours, *options)
        wall = time.perf_counter() - start

        single = checkout(Path(scratch, "single"))
        shutil.copytree(ours / "results/demo/plan", single / "results/demo/plan")
        commands = executed(ours)
        start = time.perf_counter()
        subprocess.run(
            [sys.executable, __file__, "single"],
            cwd=single,
            input=json.dumps(commands),
            text=True,
            check=True,
            stdout=subprocess.DEVNULL,
            env=os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"},
        )
        alone = time.perf_counter() - start

        runs = sum("cifar-report train" in command for command in commands)
        empty = Path(scratch, "empty")
        empty.mkdir()
        snakefile = bare(empty, runs)
        snakemake(empty, "--snakefile", snakefile)
        seconds = interleaved(
            {
                "value": (lambda n: [snakemake(ours, *options) for _ in range(n)], 1),
                "peer": (lambda n: [snakemake(empty, "--snakefile", snakefile) for _ in range(n)], 1),
            },
            rounds,
        )
        with contextlib.suppress(ValueError):  # a row that was not measured
            timings = {p.stem: float(row["s"]) for p, row in timed(ours / "results/demo")}
    longest = sorted(timings.items(), key=lambda item: -item[1])[:5]
    return {
        "results": [
            judged(f"Demo on {CORES} cores", "s", "value <= 150", [wall]),
            judged(f"Demo on {CORES} cores: in one process", "s", "value / limit <= 1.6", [wall], limit=[alone]),
            judged("snakemake all, nothing to do: bare Snakemake", "s", "value / peer <= 1.5", **seconds),
        ],
        "info": [
            told("The demo's jobs, summed", sum(timings.values()), "core s"),
            told("The demo's longest jobs", dict(longest), "s"),
        ],
    }


def executed(folder: Path) -> list[str]:
    """The shell commands of all jobs that Snakemake ran here, in the order in which they ended."""
    records = [json.loads(p.read_text()) for p in (folder / ".snakemake/metadata").rglob("*") if p.is_file()]
    ended = {record["shellcmd"]: record["endtime"] for record in records if record.get("shellcmd")}
    return sorted(ended, key=ended.get)


def single() -> None:
    """Runs shell commands (a JSON list on stdin) in this process wherever they call Python."""
    import pytest

    from cifar_report import cli

    commands = [part for command in json.load(sys.stdin) for part in programs(command)]
    for program, *arguments in commands:
        if program == "cifar-report":
            code = cli.main(arguments)
        elif program == "pytest":
            code = pytest.main(arguments)
        else:
            code = subprocess.run([program, *arguments], check=False, stdout=subprocess.DEVNULL).returncode
        if code:
            sys.exit(f"{shlex.join([program, *arguments])}: exit code {int(code)}")


def programs(command: str) -> list[list[str]]:
    """What a job's shell line runs, one after the other: no redirections, `exec`, shell in between, or grep."""
    found = []
    for part in re.split(r";|&&", re.sub(r"\d?>>?\s*&?[^\s';]+", "", command)):
        words = [word for word in shlex.split(part) if word not in ("exec", "(", ")")]
        if words[:2] == ["workflow/scripts/bash", "-c"]:
            words = [word for word in shlex.split(words[2]) if word != "exec"]
        if words and words[0] != "grep":
            found.append(words)
    return found


def dry(rounds: int, *sizes: int) -> dict[str, Any]:
    """`snakemake -n` for studies of so many runs, each with ten variants, against a bare Snakemake."""
    results, info, medians = [], [], {}
    with tempfile.TemporaryDirectory() as scratch:
        folder = checkout(Path(scratch, "ours"))
        for i, runs in enumerate(sizes):
            path, snakefile = overlay(folder, f"dry-{runs}", 10, runs // 10), bare(folder, runs)
            options = ("--configfile", "config/demo.yaml", path, "--", "all")
            seconds = interleaved(
                {
                    "value": (lambda n, o=options: snakemake(folder, "-n", *o) if n else None, 1),
                    "peer": (lambda n, s=snakefile: snakemake(folder, "-n", "--snakefile", s) if n else None, 1),
                },
                rounds if i == 0 else 1,
            )
            results.append(
                judged(f"snakemake -n, {runs:,} runs: bare Snakemake", "s", "value / peer <= 1.5", **seconds)
            )
            medians[runs] = min(seconds["value"])
    few, many = min(sizes), max(sizes)
    growth = [medians[many] / medians[few]]
    results.append(
        judged(f"snakemake -n, from {few:,} to {many:,} runs", "times as long", f"value <= {many / few:g}", growth)
    )
    info.append(told("snakemake -n, a further run", (medians[many] - medians[few]) / (many - few) * 1e3, "ms"))
    return {"results": results, "info": info}


def study(folder: Path, cores: int, wall: float | None) -> dict[str, Any]:
    """The overhead of a finished study: 1 - seconds in training loops / (wall × cores)."""
    name = f"Overhead of the pipeline on the study {folder.name}"
    goal = "value <= 0.1"
    unique: dict[str, float] = {}
    cost: dict[str, list[float]] = {}
    for path in (*sorted(folder.glob("runs/*/*/run.json")), *sorted(folder.glob("search/*/*/run.json"))):
        run = json.loads(path.read_text())
        device, seconds = run["device"], run["seconds"] + run["evaluation_seconds"]
        ours = device["type"] == "cpu" and device["cpu"] == machine.cpu_name()
        # Those of another processor cost what they cost there; earlier records tell no model.
        if run["identity"] not in unique and ours and device.get("model", machine.cpu_model()) == machine.cpu_model():
            entry = cost.setdefault(path.parts[-3], [0, 0.0])
            entry[0] += 1
            entry[1] += seconds * run["threads"] / 60
        unique[run["identity"]] = seconds
    costs = [told(COSTS, {part: [runs, rounded(minutes)] for part, (runs, minutes) in cost.items()})]
    rows = list(timed(folder))
    if not rows or not unique:
        return {"results": [judged(name, "share", goal, [])], "info": [*costs, told(name, "no timings were found")]}
    training = [float(row["s"]) for path, row in rows if path.parent.name.startswith("train")]
    inside, jobs = sum(unique.values()), sum(float(row["s"]) for _, row in rows)
    if sum(training) < 0.9 * inside:
        why = (
            f"its training jobs took {sum(training):.0f} s, the training loops of its runs {inside:.0f} s: runs were "
            "taken from the store, so that no wall time belongs to them"
        )
        return {"results": [judged(name, "share", goal, [])], "info": [*costs, told(name, why)]}
    ends = [(path.stat().st_mtime, float(row["s"])) for path, row in rows]
    wall = wall or max(end for end, _ in ends) - min(end - seconds for end, seconds in ends)
    return {
        "results": [judged(name, "share", goal, [1 - inside / (wall * cores)])],
        "info": [
            *costs,
            told("Study: wall time", wall, "s"),
            told("Study: seconds in training loops, summed", inside, "s"),
            told("Study: seconds of all jobs, summed", jobs, "s"),
            told("Study: overhead against the cores that jobs kept busy", 1 - inside / jobs, "share"),
        ],
    }


def timed(folder: Path):
    """Each benchmark file of a study, and its first row."""
    for path in sorted(folder.glob("timings/**/*.tsv")):
        with io.StringIO(path.read_text()) as file:
            yield path, next(csv.DictReader(file, delimiter="\t"))


def starts() -> dict[str, Any]:
    """What each kind of job imports, in CPU seconds; and the environment's size."""
    info = []
    for name, module in (
        ("Snakemake", "snakemake.cli"),
        ("the NumPy training loop", "cifar_report.training.numpy_trainer, cifar_report.runs.store"),
        ("the PyTorch training loop", "cifar_report.training.torch_trainer, cifar_report.runs.store"),
    ):
        code = f"import {module}, time; print(time.process_time())"
        command = [sys.executable, "-c", code]
        best = min(float(subprocess.run(command, capture_output=True, text=True, check=True).stdout) for _ in range(2))
        info.append(told(f"Importing {name}", best, "CPU s"))
    packages = Path(sys.prefix)
    sizes = subprocess.run(["du", "-sk", packages], capture_output=True, text=True, check=False).stdout.split()
    if sizes:
        info.append(told("Size of the environment", int(sizes[0]) * 1024 / 1e9, "GB"))
    compiled = any(Path(yaml.__file__).parent.glob("__pycache__/*.pyc"))
    info.append(told("Installed packages are compiled to bytecode", compiled))
    return {"results": [], "info": info}


def tests() -> dict[str, Any]:
    """`make test`, set up."""
    environment = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
    start = time.perf_counter()
    subprocess.run(["make", "test", f"CORES={CORES}"], cwd=ROOT, env=environment, check=True, stdout=sys.stderr)
    wall = time.perf_counter() - start
    return {"results": [judged(f"All tests on {CORES} cores", "s", "value <= 480", [wall])], "info": []}


def setup() -> dict[str, Any]:
    """An environment from the lock file and an empty cache, in a scratch folder: minutes, and gigabytes downloaded."""
    with tempfile.TemporaryDirectory() as scratch:
        uv = Path(sys.prefix, "bin/uv")
        start = time.perf_counter()
        subprocess.run([uv, "--quiet", "venv", f"{scratch}/venv"], check=True)
        subprocess.run(
            [uv, "--quiet", "pip", "sync", "--no-cache", "--require-hashes", ROOT / "requirements.lock"],
            env=os.environ | {"VIRTUAL_ENV": f"{scratch}/venv"},
            check=True,
        )
        return {"results": [], "info": [told("Set-up from an empty cache", time.perf_counter() - start, "s")]}


if __name__ == "__main__":
    part, *arguments = sys.argv[1:]
    if part == "single":
        single()
        sys.exit()
    if part == "study":
        folder, cores, wall = arguments
        found = study(Path(folder), int(cores), float(wall) or None)
    else:
        found = {"demo": demo, "dry": dry, "starts": starts, "tests": tests, "setup": setup}[part](*map(int, arguments))
    print(json.dumps(found))
