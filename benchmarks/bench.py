"""`make bench`: measures every row on this processor, and puts it into its record (records.py).

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
from typing import Any

import records
from timing import ROOT

from cifar_report.data import datasets
from cifar_report.runs import machine

HERE = Path(__file__).parent
PARTS = ("numpy", "torch", "vgg", "memory", "demo", "dry", "study", "starts", "tests", "setup")
BY_DEFAULT = PARTS[:-2]


def main() -> int:
    """Runs the parts; exit code 1 where one failed. A goal that is not met is told, and no error."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dataset", type=Path, default=ROOT / "results/cifar10-jpeg/dataset", help="a prepared one")
    parser.add_argument("--study", type=Path, default=ROOT / "results/cifar10-jpeg", help="a finished study")
    parser.add_argument("--wall", type=float, default=0.0, help="the study's wall seconds, where its timings span more")
    parser.add_argument("--cores", type=int, default=os.cpu_count(), help="that the study had")
    parser.add_argument(
        "--only", nargs="+", choices=PARTS, default=BY_DEFAULT, help="all but tests and setup by default"
    )
    parser.add_argument("--quick", action="store_true", help="few repetitions: does it run at all? Nothing is recorded")
    options = parser.parse_args()

    failed = []
    with contextlib.ExitStack() as stack:
        folder = options.dataset
        if not (folder / "dataset.json").is_file():
            print(f"{folder}: no prepared dataset there, so the demo's digits stand in for CIFAR-10")
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            datasets.prepare("digits", {"source": "digits"}, 200, folder, folder)
        data = datasets.load(folder).name
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
            **{name: ["workflow.py", name] for name in ("starts", "tests", "setup")},
        }
        commit = machine.commit()  # before the first part's record changes the tree
        for part in options.only:
            measured = {"commit": commit} | measured_with(data)
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
            print(f"{part}: {time.perf_counter() - start:.0f} s", flush=True)
            for entry in found["results"]:
                print(f"  {line(entry)}", flush=True)
            for entry in found["info"]:
                print(f"  {entry['name']}: {shown(entry['value'])} {entry['unit']}".rstrip(), flush=True)
            if not options.quick:
                records.update(records.RECORDS, part, measured | {"load after": os.getloadavg()[0]} | found)
    if not options.quick:
        records.publish()
        print("\n".join(records.lines(records.goals(records.read()))))
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


def shown(value: Any) -> str:
    """A value that is only told; lists, row by row."""
    return "".join(f"\n    {row}" for row in value) if isinstance(value, list) else str(value)


def measured_with(data: str) -> dict[str, Any]:
    """What a part is measured with."""
    return {
        "time": time.strftime("%Y-%m-%d %H:%M"),
        "system": platform.platform(),
        "versions": machine.versions("numpy", "torch", "scikit-learn", "snakemake", "pyperf"),
        "data": data,
        "load before": os.getloadavg()[0],
    }


if __name__ == "__main__":
    sys.exit(main())
