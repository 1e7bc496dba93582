"""The run store: a finished run is taken from it, an unfinished one goes on from its checkpoint, else one begins.

`<store>/<identity>/` holds `checkpoint.safetensors` while a run trains and `finished/` once it has: published by one
rename, so that it is whole or absent. Both say whose they are, and are believed only where that is what was asked for.
Two processes that want the same run take turns (`lock`). A process may train further runs, so that its start-up is paid
for once (`Store.share`): whoever asks later finds them here.
"""

import csv
import io
import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors.numpy import save

from cifar_report.base.errors import InputError
from cifar_report.base.files import atomic, read_json, sha256, take_lock, to_json, write_text
from cifar_report.data.datasets import Dataset
from cifar_report.runs import checkpoints, devices, machine
from cifar_report.runs.record import read_record, record_digest, write_record
from cifar_report.study.config import check_data
from cifar_report.study.identity import check_code, run_identity
from cifar_report.study.kinds import KINDS
from cifar_report.study.settings import NEUTRAL, Settings

if TYPE_CHECKING:
    from cifar_report.training.loop import Checkpoint, Outcome

# Seconds: runs that take less on average share a process. Start-up, up to 8 s, is then little beside those that do not,
# and nobody waits for longer than this for a run that another job trains on the way.
SHORT_RUN = 60.0
IDENTITY = re.compile(r"[0-9a-f]{64}")
RUN_FILES = ("curve.csv", "model.safetensors", "test-logits.npy")  # besides run.json
CURVE_COLUMNS = ("step", "samples_seen", "split", "loss", "accuracy")


@dataclass(frozen=True)
class Request:
    """A run that is asked for: all that decides its numbers, and what it is called in the log."""

    settings: Settings
    seed: int
    dataset: Dataset = field(compare=False)
    code: str  # digest of what computes it, from the plan
    name: str
    test: bool = True  # whether it opens the test split; a search does not

    @cached_property
    def digests(self) -> dict[str, str]:
        """SHA-256 of each array that it opens."""
        return self.dataset.digests(self.test)

    @property
    def files(self) -> tuple[str, ...]:
        """Those that it makes besides run.json; without the test split, it has no logits of it."""
        return RUN_FILES if self.test else RUN_FILES[:2]

    @cached_property
    def identity(self) -> str:
        """By which the store knows it."""
        return run_identity(self.settings, self.seed, self.digests, self.code)


@dataclass(frozen=True)
class Store:
    """The folder of all runs, finished and not."""

    folder: Path

    def home(self, request: Request) -> Path:
        """The folder of a run."""
        return self.folder / request.identity

    def obtain(self, request: Request) -> Path:
        """The folder of the finished run, trained here unless it is there, or by another process, which is waited for.

        Raises:
            InputError: what lies there is another run or was altered; the code is not that of the plan; the data is too
                small; memory is used up, or the device failed.
        """
        if not self._train_unless_there(request, wait=True):
            print(f"{request.name}: already trained, taken from the store", flush=True)
        return _believed(self.home(request) / "finished", request)

    def share(self, request: Request, others: list[Request], at_most: int) -> Path:
        """The folder of the finished run, and on the way some of the others, which share this process.

        Others are trained where this process trains at all, as long as they are short (`SHORT_RUN`), no other process
        has begun them, and this one has trained fewer than `at_most`. Where one fails, it is left to its own job.

        Args:
            others: runs of the same code that open the same splits.

        Raises:
            InputError: as `obtain`, of the run that is asked for.
        """
        trained: list[Request] = []
        begun = time.monotonic()
        for run in dict.fromkeys((request, *others)):
            if len(trained) == at_most or (trained and (time.monotonic() - begun) / len(trained) > SHORT_RUN):
                break
            if (self.home(run) / "finished" / "run.json").is_file():
                if run == request:
                    break
                continue
            try:
                if self._train_unless_there(run, wait=False):
                    trained.append(run)
            except InputError as error:
                if run == request:
                    raise
                print(f"{run.name}: left to its own job: {error}", flush=True)
                break
        if request in trained:
            return _believed(self.home(request) / "finished", request)
        return self.obtain(request)

    def _train_unless_there(self, request: Request, wait: bool) -> bool:
        """Whether it was trained here: not where it is there, nor, without `wait`, where another process has it."""
        home, settings = self.home(request), request.settings
        if (home / "finished" / "run.json").is_file():  # published by one rename: no lock is needed to read it
            return False
        with locked(home, wait) as held:
            if not held or (home / "finished" / "run.json").is_file():
                return False
            check_data(settings.full(), request.dataset.counts, request.dataset.shape, request.name)
            if KINDS[settings.kind].backend == "torch":
                devices.take_device(self.folder / ".devices")
                devices.require_gpu()
            with devices.explained(request.name):
                _train(request, home)
        return True


def publish(finished: Path, output: Path, request: Request, variant: str) -> None:
    """Copies a finished run to where a study wants it, under the study's own name for it; `run.json` comes last.

    Of a trial nobody reads the weights: they stay in the store.

    Raises:
        InputError: it is not the run that was asked for, or the folder is that of another seed.
    """
    _believed(finished, request)
    if output.name.startswith("seed-") and output.name != f"seed-{request.seed}":
        raise InputError(f"{output}: expected the run of that seed, found seed {request.seed}")
    for name in request.files if request.test else RUN_FILES[:1]:
        with (finished / name).open("rb") as source, atomic(output / name) as target:
            shutil.copyfileobj(source, target)
    named = {"variant": variant}  # stands first, and wins over what the record says
    write_text(output / "run.json", to_json(named | read_record(finished / "run.json") | named))


def _train(request: Request, home: Path) -> None:
    machine.forget_peaks()
    commit = machine.commit()  # that of the code now in memory, whatever is checked out by the end
    settings, name, saved = request.settings, request.name, home / "checkpoint.safetensors"
    from cifar_report.training.loop import LARGEST_LOSS, train

    check_code(settings.kind, request.code, loaded=True)
    arrays = request.dataset.arrays(request.test)
    environment = machine.environment(settings.kind)
    _remove_leftovers(home)
    checkpoint = checkpoints.read(saved, request.identity, environment) if saved.is_file() else None
    begun = checkpoint.step if checkpoint else 0
    print(f"{name}: {settings.steps} steps of {settings.batch_size} on {environment['device']['type']}", flush=True)
    if checkpoint:
        print(f"{name}: goes on from step {begun}", flush=True)

    def keep(checkpoint: "Checkpoint") -> None:
        _progress(request, checkpoint.step, checkpoint.history)
        if checkpoint.step > begun:
            checkpoints.save(saved, request.identity, environment, checkpoint)

    outcome = train(settings, request.seed, arrays, checkpoint, keep)
    _progress(request, outcome.step, outcome.history)
    if outcome.status == "diverged":
        print(
            f"{name}: diverged: at step {outcome.step} the loss is no number or beyond {LARGEST_LOSS:g}; "
            "a smaller learning_rate, a warm-up or batch_norm may help",
            flush=True,
        )
    partial = home / f"finished.{os.getpid()}.tmp"
    try:
        _write(partial, request, outcome, environment, commit)
        shutil.rmtree(home / "finished", ignore_errors=True)
        partial.rename(home / "finished")
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    saved.unlink(missing_ok=True)


def _write(
    folder: Path, request: Request, outcome: "Outcome", environment: dict[str, Any], commit: dict[str, Any]
) -> None:
    """The files of a finished run, which tell what was trained, not what was asked for."""
    asked = {"settings": request.settings.full(), "seed": request.seed, "data": request.digests}
    trained = {"settings": outcome.settings.full(), "seed": outcome.seed, "data": outcome.digests}
    if what := [name for name in asked if asked[name] != trained[name]]:
        raise InputError(
            f"{request.name}: expected to train what was asked for, found other {' and '.join(what)}; it is not filed; "
            "what hands a run its settings, seed and arrays (store, datasets) was changed"
        )
    folder.mkdir(parents=True)
    _write_curve(folder / "curve.csv", outcome.history.rows)
    with atomic(folder / "model.safetensors") as file:
        file.write(save({k: np.asarray(v, order="C") for k, v in outcome.parameters.items()}))
    if outcome.test_logits is not None:
        with atomic(folder / "test-logits.npy") as file:
            np.save(file, outcome.test_logits.astype(np.float32))
    run: dict[str, Any] = {
        "seed": outcome.seed,
        "status": outcome.status,
        "step": outcome.step,
        "identity": request.identity,
        "code": request.code,
        "settings": outcome.settings.full(),
        "final": outcome.final,
        "samples_seen": outcome.step * outcome.settings.batch_size,
        **outcome.counts,
        "seconds": round(outcome.history.training_seconds, 3),
        "evaluation_seconds": round(outcome.history.evaluation_seconds, 3),
        "peak_memory_mb": round(outcome.device_memory_mb or machine.peak_memory_mb(), 1),
        "device": environment["device"],
        "threads": outcome.settings.threads,
        "versions": environment["versions"],
        "commit": commit,
        "data": {"name": request.dataset.name, "source": request.dataset.source, "digests": outcome.digests},
        "evaluation_subsets": {split: {"images": n, "of": whole} for split, (n, whole) in outcome.images.items()},
        "digests": {file.name: sha256(file) for file in sorted(folder.iterdir())},
    }
    write_record(folder / "run.json", run)


def _believed(finished: Path, request: Request) -> Path:
    """A finished run's folder, once it is known to hold the run that is asked for, as it was trained.

    Raises:
        InputError: it holds another run, or a file was altered since.
    """
    try:
        run = read_record(finished / "run.json")
        found = {"settings": run["settings"], "seed": run["seed"], "data": run["data"]["digests"], "code": run["code"]}
        files = {name: run["digests"].get(name) for name in request.files}
        altered = [name for name, expected in files.items() if sha256(finished / name) != expected]
        altered += ["run.json"] if run["sha256"] != record_digest(run) else []
    except (InputError, KeyError, TypeError, ValueError, AttributeError, OSError) as error:
        raise InputError(f"{finished}: expected a finished run, found a damaged one ({error}); {_ANEW}") from error
    asked = {"settings": request.settings.full(), "seed": request.seed, "data": request.digests, "code": request.code}
    # A setting that came to be after the run was trained is neutral in it.
    found["settings"] = NEUTRAL_SETTINGS | found["settings"]
    if run["identity"] != request.identity or asked != found:
        raise InputError(
            f"{finished}: expected the run {request.identity[:12]} ({request.name}), found that of seed {run['seed']} "
            f"known as {str(run['identity'])[:12]}; {_ANEW}"
        )
    if altered:
        raise InputError(f"{finished / altered[0]}: was altered since the run was trained; {_ANEW}")
    return finished


def identity_of(path: Path) -> str:
    """By what a run.json says that the store knows it: the name of a folder, and so nothing else than that.

    Raises:
        InputError: it is no identity.
    """
    run = read_json(path)
    found = run.get("identity") if isinstance(run, dict) else None
    if not isinstance(found, str) or not IDENTITY.fullmatch(found):
        raise InputError(
            f"{path}: identity: expected 64 hexadecimal digits, found {found!r}; remove the run's folder, it is remade"
        )
    return found


NEUTRAL_SETTINGS = {name: list(value) if isinstance(value, tuple) else value for name, value in NEUTRAL.items()}
_ANEW = "remove this folder, and the run is trained anew"


def _write_curve(path: Path, rows: list[dict[str, Any]]) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, CURVE_COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())


def _remove_leftovers(home: Path) -> None:
    """Removes what killed processes were writing; the caller holds the run's lock, so nobody writes it now."""
    for path in home.glob("*.tmp"):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def _progress(request: Request, step: int, history: Any) -> None:
    """One line: step, loss and accuracy, images a second, time left."""
    settings = request.settings
    last = {row["split"]: row for row in history.rows if row["step"] == step}
    told = "  ".join(f"{split} {row['loss'] or float('nan'):.3f} {row['accuracy']:.3f}" for split, row in last.items())
    spent = history.training_seconds + history.evaluation_seconds
    speed = step * settings.batch_size / history.training_seconds if history.training_seconds else 0.0
    left = (settings.steps - step) * spent / step if step else float("nan")
    stamp = time.strftime("%H:%M:%S")
    print(
        f"{stamp} {request.name}  step {step}/{settings.steps}  {told}  {speed:.0f} images/s  {left:.0f} s left",
        flush=True,
    )


@contextmanager
def locked(home: Path, wait: bool = True) -> Iterator[bool]:
    """Holds the lock of a run's folder; yields whether it does, which without `wait` it may not."""
    file = take_lock(home / "lock", wait)
    with file or nullcontext():
        yield file is not None
