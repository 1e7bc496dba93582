"""The command line: one subcommand for each rule of the workflow."""

import argparse
import ctypes
import os
import signal
import sys
from pathlib import Path

import yaml

from cifar_report import datasets, plan
from cifar_report.errors import InputError
from cifar_report.files import read_json

RUN_FILES = ("curve.csv", "model.safetensors", "test-logits.npy")


def main(arguments: list[str] | None = None) -> int:
    """Runs one subcommand; returns the exit code, 1 with a message where the input is wrong."""
    parser = _parser()
    options = vars(parser.parse_args(arguments))
    command = options.pop("command")
    try:
        command(**options)
    except InputError as error:
        print(f"cifar-report: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        # A full disk, no permission, a vanished mount: the system's own words, and the file.
        print(f"cifar-report: {error.filename or 'a file'}: {error.strerror or error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("cifar-report: stopped; the same command goes on from the last checkpoint", file=sys.stderr)
        return 130
    return 0


def prepare(stage: Path, output: Path, resources: Path) -> None:
    """Makes the dataset's arrays."""
    settings = read_json(stage)["settings"]
    datasets.prepare(**settings, folder=output, resources=resources)


def train(
    run_plan: Path, dataset: Path, seed: int, store: Path, output: Path, selected: Path | None, trial: bool
) -> None:
    """Trains one seed of a variant, or one trial of a search, unless the store holds that run already."""
    _die_with_parent()
    from cifar_report.training import store as run_store

    document = read_json(run_plan)
    chosen = yaml.safe_load(selected.read_text())["settings"] if selected else None
    settings = plan.settings_of(document, chosen)
    name = document["variant"]
    finished = run_store.obtain(
        settings, seed, datasets.load(dataset), document["code"], store, f"{name} seed {seed}", test=not trial
    )
    run_store.publish(finished, output, name, RUN_FILES[:1] if trial else RUN_FILES)


def _die_with_parent() -> None:
    """Asks Linux to end this process when its parent ends, so that no orphan goes on training."""
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)
        if os.getppid() == 1:
            sys.exit("cifar-report: the process that started this one is gone")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="cifar-report", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="command")

    sub = _command(commands, prepare)
    sub.add_argument("--stage", type=Path, required=True, help="plan/stages/prepare.json")
    sub.add_argument("--output", type=Path, required=True, help="folder of the arrays")
    sub.add_argument("--resources", type=Path, required=True, help="folder of downloads")

    sub = _command(commands, train)
    sub.add_argument("--plan", type=Path, required=True, dest="run_plan", help="plan/<variant>.json")
    sub.add_argument("--dataset", type=Path, required=True, help="folder that `prepare` made")
    sub.add_argument("--seed", type=int, required=True)
    sub.add_argument("--store", type=Path, required=True, help="folder of all runs, finished and not")
    sub.add_argument("--output", type=Path, required=True, help="folder for this run's files")
    sub.add_argument("--selected", type=Path, help="selected.yaml of the search that the variant names")
    sub.add_argument("--trial", action="store_true", help="a trial of a search: opens no test array")
    return parser


def _command(commands: "argparse._SubParsersAction", function) -> argparse.ArgumentParser:
    text = function.__doc__
    sub = commands.add_parser(function.__name__, help=text, description=text)
    sub.set_defaults(command=function)
    return sub


if __name__ == "__main__":
    sys.exit(main())
