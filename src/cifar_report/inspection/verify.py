"""Whether a finished study is what it says: every digest recomputed offline, or its runs against a reference."""

import math
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

from cifar_report.base.errors import InputError
from cifar_report.base.files import DIGESTS, digested, is_altered, read_json, sha256
from cifar_report.data import datasets
from cifar_report.inspection.explain import records
from cifar_report.inspection.frames import finished_runs
from cifar_report.rendering import tables
from cifar_report.runs.finished import Run, against_labels, read_logits
from cifar_report.runs.planned import plan_of, planned_identity, planned_runs
from cifar_report.runs.record import record_digest
from cifar_report.runs.store import RUN_FILES
from cifar_report.study import plan
from cifar_report.study.identity import run_identity
from cifar_report.study.settings import Settings

_ALL_ANEW = "remove it, then call Snakemake with --forceall: runs come from the store, and all else is made again"
_REMAKE = "delete the file and call Snakemake, which makes it again"
SINGLE_SEED_TOLERANCE = 0.015  # a fraction: 1.5 points of accuracy

# --- against a reference ----------------------------------------------------------------------------------------------


def verify(results: Path, reference: Path) -> tuple[list[str], bool]:
    """A new run of a study against its reference: one line a variant of the reference, and whether all hold.

    Runs of the same identity, versions, processor, kernels and threads must have the same digests. Elsewhere the
    difference of the mean test accuracies must lie in its 95 % prediction interval, t s √(1/n + 1/m), where s is the
    reference's standard deviation over n seeds and m the number of new ones; with one seed of the reference, within
    1.5 points.

    Raises:
        InputError: one of the two has no runs.
    """
    expected, new = finished_runs(reference), finished_runs(results)
    lines, holds = [], True
    for variant, runs in expected.items():
        verdict, good = _against_reference(runs, new.get(variant, []))
        lines.append(f"{'ok  ' if good else 'FAIL'}  {variant}: {verdict}")
        holds &= good
    return lines, holds


def _against_reference(expected: list[Run], new: list[Run]) -> tuple[str, bool]:
    if not new:
        return "not in the new results", False
    by_seed = {run.seed: run for run in new}
    pairs = [(run, by_seed[run.seed]) for run in expected if run.seed in by_seed]
    if len(pairs) == len(expected):
        alike = all(_environment(a) == _environment(b) for a, b in pairs)
        differ = [a.seed for a, b in pairs if a.record["digests"] != b.record["digests"]]
        if not differ:
            where = "same environment" if alike else "another environment"
            return f"{where}, identical digests for {len(pairs)} seed(s)", True
        if alike:
            return f"same environment, but other digests for seed {', '.join(map(str, differ))}", False
    a, b = (np.array([run.final("test", "accuracy") for run in runs if run.completed]) for runs in (expected, new))
    if len(a) == 0 or len(b) == 0:
        return f"{len(a)} and {len(b)} completed runs", len(a) == len(b)
    difference = b.mean() - a.mean()
    if len(a) == 1:
        text = f"one seed of the reference: difference {100 * difference:+.2f} points, 1.50 allowed (a weaker check)"
        return text, bool(abs(difference) <= SINGLE_SEED_TOLERANCE)
    allowed = stats.t.ppf(0.975, len(a) - 1) * a.std(ddof=1) * math.sqrt(1 / len(a) + 1 / len(b))
    text = f"another environment: difference of means {100 * difference:+.2f} points, {100 * allowed:.2f} allowed"
    return text, bool(abs(difference) <= allowed)


def _environment(run: Run) -> tuple:
    record = run.record
    return record["identity"], record["threads"], record["device"], record["versions"]


# --- by itself --------------------------------------------------------------------------------------------------------


class Check(NamedTuple):
    """What was recomputed, and how it differs; empty where it does not."""

    what: str
    problem: str


def recompute(results: Path, store: Path) -> list[Check]:
    """Every digest of a study's results, recomputed without a network, and its numbers and tables, made once more.

    Digests are kept of all files that a rule made and of the plan, by the study; of a run's files in run.json, of the
    store's too; of the arrays in dataset.json.

    Args:
        results: the study's folder, with its plan; store: folder of all runs, or one that is not there.

    Raises:
        InputError: the folder holds no study.
    """
    if not (results / "plan/config.yaml").is_file():
        raise InputError(
            f"{results}: expected the folder of a study, with its plan/config.yaml, found none; run it first"
        )
    found: dict[str, Check] = {}
    for parts in (_kept(results), _arrays(results), _runs(results, store), _stored(store), _written(results)):
        for check in _until_damaged(parts):
            if not (check.what in found and found[check.what].problem):
                found[check.what] = check
    return list(found.values())


def _until_damaged(checks: Iterator[Check]) -> Iterator[Check]:
    """Checks, and as the last one that a file was damaged which says what there is to check."""
    try:
        yield from checks
    except (InputError, KeyError, TypeError, AttributeError) as error:
        yield Check(
            f"what is to be checked ({error})", "is not known, because a file of the plan or of a search is damaged"
        )


def unknown(results: Path) -> list[str]:
    """The files of a study, besides logs and timings, whose digest it does not keep."""
    known = {*digested(results), *(path for path in results.rglob("*") if path.name.startswith("."))}
    aside = {results / name for name in (DIGESTS, "logs", "timings")}
    return [
        path.relative_to(results).as_posix()
        for path in sorted(results.rglob("*"))
        if path.is_file() and path not in known and not aside & set(path.parents)
    ]


def _kept(results: Path) -> Iterator[Check]:
    """Each file against the digest that was kept when it was written; where a rule made it, it is there and has one."""
    place, kept, made = results / DIGESTS, digested(results), records(results)
    if place.exists() and not place.is_dir():
        yield Check(DIGESTS, f"expected the folder of the digests that were kept, found something else; {_ALL_ANEW}")
    for path in (*kept, *(results / name for name in sorted(made) if not (results / name).exists())):
        yield _check(path.relative_to(results).as_posix(), _as_written, path)
    if any(results / "plan" not in path.parents for path in kept):  # else an earlier version made the study
        for name in sorted(made.keys() & set(unknown(results))):
            yield Check(name, f"no digest is kept: it was removed, or an earlier version made the file; {_REMAKE}")


def _as_written(path: Path) -> str:
    if not path.exists():
        return "is missing; call Snakemake again, which makes it again where the study asks for it"
    return f"was altered since it was made; {_REMAKE}" if is_altered(path) else ""


def _arrays(results: Path) -> Iterator[Check]:
    """The arrays against dataset.json."""
    for split in datasets.SPLITS:
        yield _check(f"dataset/{split}", _against_description, results / "dataset", split)


def _against_description(folder: Path, split: str) -> str:
    datasets.load(folder).split(split)
    return ""


def _runs(results: Path, store: Path) -> Iterator[Check]:
    """Each run of the plan: its files against run.json; that against its own words, plan, data, logits and store."""
    for folder in planned_runs(results):
        path, of_study = results / folder, folder.startswith("runs/")
        yield from _files(path, folder, RUN_FILES if of_study else RUN_FILES[:1])
        if of_study or (results / plan_of(folder)).is_file():  # which a trial that was drawn has not
            yield _check(f"{folder}: plan", _against_plan, folder, results)
        yield _check(f"{folder}: store", _against_store, path, store)
        if of_study:
            yield _check(f"{folder}: accuracy", _against_logits, path, results)


def _files(path: Path, name: str, files: tuple[str, ...]) -> Iterator[Check]:
    """A folder's files against its run.json, and that against itself; where one is missing, that alone is told."""
    if missing := [file for file in ("run.json", *files) if not (path / file).is_file()]:
        yield from (Check(f"{name}/{file}", "is missing; make it again") for file in missing)
        return
    yield _check(f"{name}: identity", _against_itself, path)
    for file in files:
        yield _check(f"{name}/{file}", _against_record, path, file)


def _against_record(path: Path, file: str) -> str:
    expected, digest = read_json(path / "run.json")["digests"].get(file), sha256(path / file)
    return "" if digest == expected else f"its SHA-256 is {digest}, but run.json says {expected}"


def _against_itself(path: Path) -> str:
    """Whether a run's identity is that of the settings, seed, data and code that it names."""
    run = read_json(path / "run.json")
    if run.get("sha256") not in (None, record_digest(run)):
        return "run.json's own SHA-256 is another one, so it was altered"
    if "code" not in run:  # a run of an earlier version, which names no code: the plan's is compared
        return ""
    identity = run_identity(Settings.from_mapping(run["settings"]), run["seed"], run["data"]["digests"], run["code"])
    if identity != run["identity"]:
        return f"its settings, seed, data and code give {identity}, not {run['identity']}"
    return ""


def _against_plan(folder: str, results: Path) -> str:
    run = read_json(results / folder / "run.json")
    if folder.startswith("runs/") and Path(folder).name != f"seed-{run['seed']}":
        return f"it is the run of seed {run['seed']}"
    expected = planned_identity(folder, run, results)
    return "" if expected == run["identity"] else f"the plan and the data give {expected}, not {run['identity']}"


def _against_store(path: Path, store: Path) -> str:
    """Whether a run.json is the store's, where that has the run."""
    run = read_json(path / "run.json")
    kept = store / run["identity"] / "finished" / "run.json"
    differ = kept.is_file() and {"variant": run["variant"]} | read_json(kept) != run
    return f"run.json is another than that of {kept.parent}" if differ else ""


def _against_logits(path: Path, results: Path) -> str:
    """Whether the test loss and accuracy are those of the stored logits."""
    data, final = datasets.load(results / "dataset"), read_json(path / "run.json")["final"]["test"]
    labels, size = np.load(results / "dataset/test-labels.npy"), (data.counts["test"], len(data.class_names))
    return against_labels(read_logits(path / "test-logits.npy"), final, labels, size)


def _stored(store: Path) -> Iterator[Check]:
    """The finished runs of the store, each under its own identity."""
    for path in sorted(store.glob("*/finished")):
        name = f"{store.name}/{path.parent.name[:12]}"
        yield from _files(path, name, tuple(file for file in RUN_FILES if (path / file).is_file()))
        yield _check(f"{name}: name", _against_name, path)


def _against_name(path: Path) -> str:
    run = read_json(path / "run.json")
    if lost := sorted(set(run["digests"]) - {file.name for file in path.iterdir()}):
        return f"{', '.join(lost)} missing"
    return "" if run["identity"] == path.parent.name else f"it holds the run {run['identity']}"


def _written(results: Path) -> Iterator[Check]:
    """Numbers and tables, computed once more from the files that they are made from, byte by byte."""
    made = ("numbers.tex", "numbers.json", "tables", DIGESTS)
    stage = plan.stage(results / "plan/stages/tables.json")
    with tempfile.TemporaryDirectory() as folder:
        again = Path(folder)
        for path in results.resolve().iterdir():
            if path.name not in made:
                (again / path.name).symlink_to(path)
        if problem := _check("", tables.write, stage, again).problem:
            yield Check("numbers.json", f"cannot be computed again: {problem}")
            return
        for new in (again / "numbers.tex", again / "numbers.json", *sorted((again / "tables").iterdir())):
            there = results / new.relative_to(again)
            same = there.is_file() and there.read_bytes() == new.read_bytes()
            problem = "" if same else "is not what its inputs give; run the study again, or see who changed it"
            yield Check(new.relative_to(again).as_posix(), problem)


def _check(what: str, problem: Callable[..., str | None], *arguments: Any) -> Check:
    """What a check tells; a damaged file is a finding, not the end of the others."""
    try:
        return Check(what, problem(*arguments) or "")
    except InputError as error:
        return Check(what, str(error))
    except (KeyError, TypeError, AttributeError, ValueError, OSError) as error:
        return Check(what, f"holds something else than it should ({type(error).__name__}: {error})")
