"""`make bench`: measures every row, writes benchmarks/results.json, benchmarks/info.json and docs/bench.svg.

Each part is a process of its own, so that none finds the threads, modules or memory of another.
"""

import argparse
import contextlib
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import chart
import pyperf
from timing import ROOT, told

from cifar_report.data import datasets
from cifar_report.runs import machine

HERE = Path(__file__).parent
PARTS = ("numpy", "torch", "vgg", "memory", "demo", "dry", "study", "starts", "setup")


def main() -> int:
    """Runs the parts; exit code 1 where one failed. A goal that is not met is told, and no error."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dataset", type=Path, default=ROOT / "results/cifar10-jpeg/dataset", help="a prepared one")
    parser.add_argument("--study", type=Path, default=ROOT / "results/cifar10-jpeg", help="a finished study")
    parser.add_argument("--wall", type=float, default=0.0, help="the study's wall seconds, where its timings span more")
    parser.add_argument("--cores", type=int, default=os.cpu_count(), help="that the study had")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS[:-1], help="all but setup by default")
    parser.add_argument("--quick", action="store_true", help="few repetitions, small studies: does it run at all?")
    parser.add_argument("--output", type=Path, default=HERE, help="folder for results.json and info.json")
    options = parser.parse_args()

    results, info = [], measured_on()
    with contextlib.ExitStack() as stack:
        folder = options.dataset
        if not (folder / "dataset.json").is_file():
            print(f"{folder}: no prepared dataset there, so the demo's digits stand in for CIFAR-10")
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            datasets.prepare("digits", {"source": "digits"}, 200, folder, folder)
        info.append(told("Data", datasets.load(folder).name))
        rounds = 3 if options.quick else 15
        study = [options.study, options.cores, options.wall]
        commands = {
            "numpy": ["mlp.py", "numpy", folder, rounds],
            "torch": ["mlp.py", "torch", folder, rounds],
            "vgg": ["vgg.py", folder, *((2, 1, 100) if options.quick else (8, 3, 1000))],
            "memory": ["memory.py", "all", folder],
            "demo": ["workflow.py", "demo", 1 if options.quick else 3],
            "dry": ["workflow.py", "dry", *((1, 50, 100) if options.quick else (2, 1000, 10_000))],
            "study": ["workflow.py", "study", *study],
            "starts": ["workflow.py", "starts"],
            "setup": ["workflow.py", "setup"],
        }
        failed = []
        for part in options.only:
            start = time.perf_counter()
            command = [sys.executable, HERE / commands[part][0], *map(str, commands[part][1:])]
            # One thread unless a part asks for more.
            environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
            done = subprocess.run(command, cwd=HERE, env=environment, capture_output=True, text=True, check=False)
            if done.returncode:
                failed.append(part)
                print(f"{part}: failed\n{done.stderr[-3000:]}", file=sys.stderr)
                continue
            found = json.loads(done.stdout.splitlines()[-1])
            results += found["results"]
            info += found["info"]
            print(f"{part}: {time.perf_counter() - start:.0f} s", flush=True)
            for entry in found["results"]:
                print(f"  {line(entry)}", flush=True)
    info.append(told("Load when the suite ended, processes", os.getloadavg()[0]))
    options.output.mkdir(parents=True, exist_ok=True)
    for name, entries in (("results", results), ("info", info)):
        path = options.output / f"{name}.json"
        path.write_text(json.dumps(entries, indent=2, ensure_ascii=False) + "\n")
    if options.output == HERE:
        chart.draw(results, ROOT / "docs/bench.svg")
    return 1 if failed else 0


def line(entry: dict) -> str:
    """An entry in one line."""
    if entry["met"] is None:
        return f"{entry['name']}: not measured"
    verdict = "met" if entry["met"] else "NOT MET"
    ratio = entry["ratio"]
    return (
        f"{entry['name']}: {entry['goal']}: {ratio['median']} "
        f"(minimum {ratio['minimum']}, spread {ratio['spread']}), {verdict}; "
        f"{entry['value']} {entry['unit']}, peer {entry['peer']}, limit {entry['limit']}"
    )


def measured_on() -> list[dict]:
    """What it was measured on."""
    versions = machine.versions("numpy", "torch", "scikit-learn", "snakemake")
    return [
        told("Processor", machine.cpu_name()),
        told("Cores", os.cpu_count()),
        told("System", platform.platform()),
        told("Versions", versions | {"pyperf": pyperf.__version__}),
        told("Commit", machine.commit()),
        told("Load when the suite began, processes", os.getloadavg()[0]),
        told("Time", time.strftime("%Y-%m-%d %H:%M")),
    ]


if __name__ == "__main__":
    sys.exit(main())
