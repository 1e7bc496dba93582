"""Every digest of a finished study recomputed, without a network: arrays, runs, the run store, numbers and tables."""

import math
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cifar_report.base.errors import InputError
from cifar_report.base.files import read_json, sha256
from cifar_report.data import datasets
from cifar_report.inspection.explain import Study, origins, plan_of, run_settings
from cifar_report.rendering import tables
from cifar_report.study.config import Settings
from cifar_report.study.identity import run_identity
from cifar_report.training.batches import scores


class Check(NamedTuple):
    """What was recomputed, and how it differs; empty where it does not."""

    what: str
    problem: str


def audit(results: Path, store: Path) -> list[Check]:
    """Recomputes the digests of a study's results.

    Args:
        results: the study's folder, with its plan; store: folder of all runs, or one that is not there.

    Raises:
        InputError: the folder holds no study.
    """
    study = Study(results, origins(results / "plan"), {})
    return [*_arrays(study), *_runs(study, store), *_stored(store), *_written(study)]


def _arrays(study: Study) -> Iterator[Check]:
    """The arrays against dataset.json."""
    for split in datasets.SPLITS:
        try:
            datasets.load(study.folder / "dataset").split(split)
            yield Check(f"dataset/{split}", "")
        except InputError as error:
            yield Check(f"dataset/{split}", str(error))


def _runs(study: Study, store: Path) -> Iterator[Check]:
    """Each run of the plan: its files against run.json; that against its own words, plan, data, logits and store."""
    made: dict[str, list[str]] = {}
    for file, origin in study.origins.items():
        if origin.rule in ("train_variant", "train_trial"):
            folder, _, name = file.rpartition("/")
            made.setdefault(folder, []).append(name)
    drawn = [path for path in study.folder.glob("search/*/trials.json") if path.is_file()]
    for path in drawn:  # trials that are no files of the plan
        for run in path.parent.glob("*/run.json"):
            made[run.parent.relative_to(study.folder).as_posix()] = ["run.json", "curve.csv"]
    for folder, names in made.items():
        yield from _run(study.folder / folder, folder, names)
        if (study.folder / plan_of(folder)).is_file():
            yield Check(f"{folder}: plan", _guarded(_against_plan, folder, study))
        yield Check(f"{folder}: store", _guarded(_against_store, study.folder / folder, store))
        if "test-logits.npy" in names:
            yield Check(f"{folder}: accuracy", _guarded(_against_logits, study.folder / folder, study))


def _run(path: Path, name: str, files: list[str]) -> Iterator[Check]:
    """A folder's files against its run.json, and its identity against its own settings, seed, data and code."""
    if missing := [file for file in files if not (path / file).is_file()]:
        yield from (Check(f"{name}/{file}", "is missing; make it again") for file in missing)
        return
    yield Check(f"{name}: identity", _guarded(_against_itself, path))
    for file in files:
        if file != "run.json":
            yield Check(f"{name}/{file}", _guarded(_against_record, path, file))


def _against_record(path: Path, file: str) -> str:
    expected, found = read_json(path / "run.json")["digests"].get(file), sha256(path / file)
    return "" if found == expected else f"its SHA-256 is {found}, but run.json says {expected}"


def _against_itself(path: Path) -> str:
    """Whether a run's identity is that of the settings, seed, data and code that it names."""
    run = read_json(path / "run.json")
    if "code" not in run:  # a run of an earlier version, which names no code: the plan's is compared
        return ""
    found = run_identity(Settings.from_mapping(run["settings"]), run["seed"], run["data"]["digests"], run["code"])
    return "" if found == run["identity"] else f"its settings, seed, data and code give {found}, not {run['identity']}"


def _against_plan(folder: str, study: Study) -> str:
    run, document = read_json(study.folder / folder / "run.json"), read_json(study.folder / plan_of(folder))
    known = read_json(study.folder / "dataset/dataset.json")["sha256"]
    data = {name: known[name] for name in run["data"]["digests"]}
    expected = run_identity(run_settings(document, study), run["seed"], data, document["code"])
    own = f"seed-{run['seed']}" if folder.startswith("runs/") else Path(folder).name
    if own != Path(folder).name:
        return f"it is the run of seed {run['seed']}"
    return "" if expected == run["identity"] else f"the plan and the data give {expected}, not {run['identity']}"


def _against_store(path: Path, store: Path) -> str:
    """Whether a run.json is the store's, where that has the run."""
    run = read_json(path / "run.json")
    kept = store / run["identity"] / "finished" / "run.json"
    differ = kept.is_file() and {"variant": run["variant"]} | read_json(kept) != run
    return f"run.json is another than that of {kept.parent}" if differ else ""


def _against_logits(path: Path, study: Study) -> str:
    """Whether the test loss and accuracy are those of the stored logits, which are rounded to float32."""
    told = read_json(path / "run.json")["final"]["test"]
    labels = np.load(study.folder / "dataset/test-labels.npy")
    loss, accuracy = scores(np.load(path / "test-logits.npy"), labels)
    same = abs(accuracy - told["accuracy"]) < 1.5 / len(labels)
    if told["loss"] is not None:  # of a run that diverged
        same &= math.isclose(loss, told["loss"], rel_tol=1e-4)
    return "" if same else f"its logits give the test loss {loss:.6g} and accuracy {accuracy:.4f}, run.json has others"


def _stored(store: Path) -> Iterator[Check]:
    """The finished runs of the store, each under its own identity."""
    for path in sorted(store.glob("*/finished")):
        name = f"{store.name}/{path.parent.name[:12]}"
        files = sorted(file.name for file in path.iterdir() if file.is_file())
        yield from _run(path, name, files if "run.json" in files else [*files, "run.json"])
        yield Check(f"{name}: name", _guarded(_against_name, path))


def _against_name(path: Path) -> str:
    run = read_json(path / "run.json")
    if lost := sorted(set(run["digests"]) - {file.name for file in path.iterdir()}):
        return f"{', '.join(lost)} missing"
    return "" if run["identity"] == path.parent.name else f"it holds the run {run['identity']}"


def _written(study: Study) -> Iterator[Check]:
    """Numbers and tables, computed once more from the files that they are made from, byte by byte."""
    made = [file for file, origin in study.origins.items() if origin.rule == "write_tables"]
    with tempfile.TemporaryDirectory() as folder:
        again = Path(folder)
        for path in study.folder.resolve().iterdir():
            if path.name not in {Path(file).parts[0] for file in made}:
                (again / path.name).symlink_to(path)
        stage = read_json(study.folder / "plan/stages/tables.json")["settings"]
        if problem := _guarded(tables.write, stage, again):
            yield Check("numbers.json", f"cannot be computed again: {problem}")
            return
        for file in made:
            there = study.folder / file
            same = there.is_file() and there.read_bytes() == (again / file).read_bytes()
            yield Check(file, "" if same else "is not what its inputs give; run the study again, or see who changed it")


def _guarded(check: Any, *arguments: Any) -> str:
    """What a check says; a damaged file is a finding, not the end of the others."""
    try:
        return check(*arguments) or ""
    except InputError as error:
        return str(error)
    except (KeyError, TypeError, AttributeError, ValueError, OSError) as error:
        return f"holds something else than it should ({type(error).__name__}: {error})"
