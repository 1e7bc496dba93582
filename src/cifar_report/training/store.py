"""The run store: a finished run is taken from it, an unfinished one goes on from its checkpoint, else one begins.

`<store>/<identity>/` holds `checkpoint.safetensors` while a run trains and `finished/` once it has: published by one
rename, so that it is whole or absent. Two processes that want the same run take turns (`lock`). A process may
train further runs, so that its start-up is paid for once (`obtain_sharing`): whoever asks later finds them here.
"""

import csv
import errno
import fcntl
import gc
import hashlib
import importlib
import io
import json
import os
import resource
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save
from threadpoolctl import threadpool_info

from cifar_report import provenance
from cifar_report.config import Settings
from cifar_report.datasets import Dataset
from cifar_report.errors import InputError
from cifar_report.files import atomic, read_json, sha256, to_json, write_text
from cifar_report.training import devices
from cifar_report.training.loop import LARGEST_LOSS, History, Outcome, Split, Trainer, subset, train

# Seconds: runs that take less on average share a process. Start-up, up to 8 s, is then little beside those that do not,
# and nobody waits for longer than this for a run that another job trains on the way.
SHORT_RUN = 60.0
CURVE_COLUMNS = ("step", "samples_seen", "split", "loss", "accuracy")


class Wanted(NamedTuple):
    """A run by what decides it, and its name in the log."""

    settings: Settings
    seed: int
    name: str


def obtain(
    settings: Settings, seed: int, dataset: Dataset, code: str, store: Path, name: str, test: bool = True
) -> Path:
    """The folder of the finished run of these settings and seed, trained here unless it is there already.

    A run that another process trains is waited for.

    Args:
        code: digest of the modules that compute it, from the plan.
        store: folder of all runs.
        name: for the log.
        test: whether to open the test split; a search does not.

    Raises:
        InputError: the batch is larger than the training split, the validation split is asked for and empty, memory is
            used up, or the device failed.
    """
    wanted = Wanted(settings, seed, name)
    splits = partial(training_splits, settings, dataset, test)
    if not _train_unless_there(wanted, dataset, splits, code, store, test, wait=True):
        print(f"{name}: already trained, taken from the store", flush=True)
    return _home(wanted, dataset, code, store, test)[0] / "finished"


def obtain_sharing(
    wanted: Wanted, others: list[Wanted], at_most: int, dataset: Dataset, code: str, store: Path, test: bool = True
) -> Path:
    """The folder of the finished run `wanted`, and on the way some of the others, which share this process.

    Others are trained where this process trains at all, as long as they are short (`SHORT_RUN`), no other process has
    begun them, and this one has trained fewer than `at_most`. Where one fails, it is left to its own job.

    Args:
        others: runs of the same code that open the same splits.
        dataset, code, store, test: as of `obtain`.

    Raises:
        InputError: as `obtain`, of the run `wanted`.
    """
    splits = cache(partial(training_splits, wanted.settings, dataset, test))
    trained: list[Wanted] = []
    begun = time.monotonic()
    for run in dict.fromkeys((wanted, *others)):
        if len(trained) == at_most or (trained and (time.monotonic() - begun) / len(trained) > SHORT_RUN):
            break
        home, _ = _home(run, dataset, code, store, test)
        if (home / "finished" / "run.json").is_file():
            if run == wanted:
                break
            continue
        try:
            if _train_unless_there(run, dataset, splits, code, store, test, wait=False):
                trained.append(run)
        except InputError as error:
            if run == wanted:
                raise
            print(f"{run.name}: left to its own job: {error}", flush=True)
            break
    if wanted in trained:
        return _home(wanted, dataset, code, store, test)[0] / "finished"
    return obtain(wanted.settings, wanted.seed, dataset, code, store, wanted.name, test)


def _home(run: Wanted, dataset: Dataset, code: str, store: Path, test: bool) -> tuple[Path, str]:
    """A run's folder in the store, and its identity."""
    identity = provenance.identity(run.settings, run.seed, dataset.digests(test), code)
    return store / identity, identity


def _train_unless_there(
    run: Wanted,
    dataset: Dataset,
    splits: Callable[[], dict[str, Split]],
    code: str,
    store: Path,
    test: bool,
    wait: bool,
) -> bool:
    """Whether the run was trained here: not where it is there, nor, without `wait`, where another process has it."""
    home, identity = _home(run, dataset, code, store, test)
    with locked(home, wait) as held:
        if not held or (home / "finished" / "run.json").is_file():
            return False
        opened = splits()
        images = len(opened["train"].labels)
        if run.settings.batch_size > images:
            raise InputError(
                f"{run.name}: batch_size: {run.settings.batch_size}, but the training split has {images} images; "
                "choose a smaller batch"
            )
        if run.settings.kind.startswith("torch"):
            devices.take_device(store / ".devices")
        with devices.explained(run.name):
            _train(run, dataset, opened, identity, code, home, dataset.digests(test))
    return True


def publish(finished: Path, output: Path, variant: str, files: tuple[str, ...]) -> None:
    """Copies a finished run to where a study wants it, under the study's own name for it; `run.json` comes last."""
    for name in files:
        with (finished / name).open("rb") as source, atomic(output / name) as target:
            shutil.copyfileobj(source, target)
    run = {"variant": variant} | read_json(finished / "run.json")
    write_text(output / "run.json", to_json(run))


def training_splits(settings: Settings, dataset: Dataset, test: bool) -> dict[str, Split]:
    """The splits that a run trains and is evaluated on, `train` first.

    Trained on train and validation together, a run has no validation split.
    """
    splits = {"train": Split(*dataset.split("train"))}
    if settings.train_on == "train+validation":
        both = zip(splits["train"], dataset.split("validation"), strict=True)
        splits = {"train": Split(*(np.concatenate(pair) if len(pair[1]) else pair[0] for pair in both))}
    elif dataset.counts["validation"]:
        splits["validation"] = Split(*dataset.split("validation"))
    if test:
        splits["test"] = Split(*dataset.split("test"))
    return splits


def _train(
    run: Wanted,
    dataset: Dataset,
    splits: dict[str, Split],
    identity: str,
    code: str,
    home: Path,
    data: dict[str, str],
) -> None:
    settings, seed, name = run
    _forget_peaks()
    commit = provenance.commit()  # that of the code now in memory, whatever is checked out by the end
    trainer = build_trainer(settings, splits["train"], len(dataset.class_names), seed)
    print(f"{name}: {settings.steps} steps of {settings.batch_size} on {trainer.device}", flush=True)
    history = History()
    saved = home / "checkpoint.safetensors"
    _remove_leftovers(home)
    if saved.is_file() and _restore(saved, trainer, history):
        print(f"{name}: goes on from step {trainer.step}", flush=True)
    begun = trainer.step

    def checkpoint(history: History) -> None:
        _progress(name, trainer, settings, history, begun)
        if trainer.step > begun:
            _save(saved, trainer, history)

    outcome = train(trainer, settings, splits, history, checkpoint)
    _progress(name, trainer, settings, history, begun)
    if outcome.status == "diverged":
        print(
            f"{name}: diverged: at step {outcome.step} the loss is no number or beyond {LARGEST_LOSS:g}; "
            "a smaller learning_rate, a warm-up or batch_norm may help",
            flush=True,
        )
    partial = home / f"finished.{os.getpid()}.tmp"
    try:
        _write(partial, trainer, settings, seed, dataset, splits, identity, code, history, outcome, data, commit)
        shutil.rmtree(home / "finished", ignore_errors=True)
        partial.rename(home / "finished")
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    saved.unlink(missing_ok=True)


def build_trainer(settings: Settings, split: Split, classes: int, seed: int) -> Trainer:
    """The trainer of a kind of model; imports what this kind needs and nothing else.

    Raises:
        InputError: there is a GPU for it that PyTorch cannot use, or the model takes no images of this size.
    """
    if settings.kind.startswith("torch"):
        devices.require_gpu()
    loop, model = (importlib.import_module(module) for module in provenance.KINDS[settings.kind])
    try:
        return loop.Trainer(model.build, settings, split.images, split.labels, classes, seed)
    except ValueError as error:
        raise InputError(
            f"a {settings.kind} cannot be built for this data set: {error}; leave it out of 'run'"
        ) from error


def _write(
    folder: Path,
    trainer: Trainer,
    settings: Settings,
    seed: int,
    dataset: Dataset,
    splits: dict[str, Split],
    identity: str,
    code: str,
    history: History,
    outcome: Outcome,
    data: dict[str, str],
    commit: dict[str, Any],
) -> None:
    folder.mkdir(parents=True)
    _write_curve(folder / "curve.csv", history.rows)
    with atomic(folder / "model.safetensors") as file:
        file.write(save({k: np.ascontiguousarray(v) for k, v in trainer.parameters().items()}))
    if outcome.test_logits is not None:
        with atomic(folder / "test-logits.npy") as file:
            np.save(file, outcome.test_logits.astype(np.float32))
    subsets = {split: subset(part, settings.evaluation_images) for split, part in splits.items()}
    device = {"type": trainer.device, "cpu": provenance.cpu_name(), "kernels": _kernels()}
    packages = ["numpy"]
    if "torch" in sys.modules:
        import torch

        packages.append("torch")
        if trainer.device == "cuda":
            device["gpu"] = torch.cuda.get_device_name()
    run: dict[str, Any] = {
        "seed": seed,
        "status": outcome.status,
        "step": outcome.step,
        "identity": identity,
        "code": code,
        "settings": settings.full(),
        "final": outcome.final,
        "samples_seen": outcome.step * settings.batch_size,
        **trainer.count(),
        "seconds": round(history.training_seconds, 3),
        "evaluation_seconds": round(history.evaluation_seconds, 3),
        "peak_memory_mb": round(trainer.peak_memory_mb() or _peak_memory_mb(), 1),
        "device": device,
        "threads": settings.threads,
        "versions": provenance.versions(*packages),
        "commit": commit,
        "data": {"name": dataset.name, "source": dataset.source, "digests": data},
        "evaluation_subsets": {
            split: {"images": len(index), "of": len(splits[split].labels)} for split, index in subsets.items()
        },
        "digests": {file.name: sha256(file) for file in sorted(folder.iterdir())},
    }
    write_text(folder / "run.json", to_json(run))


def _kernels() -> str:
    """For which processor the libraries chose their arithmetic; the environment may overrule its name."""
    if "torch" in sys.modules:
        import torch

        return torch.backends.cpu.get_cpu_capability()
    found = {info["architecture"] for info in threadpool_info() if "architecture" in info}
    return ", ".join(sorted(found)) or "unknown"


def _write_curve(path: Path, rows: list[dict[str, Any]]) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, CURVE_COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())


def _save(path: Path, trainer: Trainer, history: History) -> None:
    state = {k: np.ascontiguousarray(v) for k, v in trainer.state().items()}
    metadata = {"step": str(trainer.step), "history": json.dumps(vars(history))}
    with atomic(path) as file:
        file.write(save(state, metadata | {"sha256": _digest(state, metadata)}))


def _restore(path: Path, trainer: Trainer, history: History) -> bool:
    """Whether the run goes on from its checkpoint: not from a damaged one, since beginning anew gives the same run."""
    try:
        with safe_open(path, "numpy") as file:
            metadata = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        print(f"{path}: the checkpoint is damaged ({error}); the run begins anew", flush=True)
        return False
    recorded = metadata.pop("sha256", None)
    if recorded != _digest(state, metadata):
        print(f"{path}: the checkpoint differs from its SHA-256; the run begins anew", flush=True)
        return False
    trainer.restore(state, int(metadata["step"]))
    vars(history).update(json.loads(metadata["history"]))
    return True


def _digest(state: dict[str, np.ndarray], metadata: dict[str, str]) -> str:
    digest = hashlib.sha256(json.dumps(metadata, sort_keys=True).encode())
    for name in sorted(state):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(state[name]).tobytes())
    return digest.hexdigest()


def _remove_leftovers(home: Path) -> None:
    """Removes what killed processes were writing; the caller holds the run's lock, so nobody writes it now."""
    for path in home.glob("*.tmp"):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def _progress(name: str, trainer: Trainer, settings: Settings, history: History, begun: int) -> None:
    """One line: step, loss and accuracy, images a second, time left."""
    last = {row["split"]: row for row in history.rows if row["step"] == trainer.step}
    told = "  ".join(f"{split} {row['loss'] or float('nan'):.3f} {row['accuracy']:.3f}" for split, row in last.items())
    spent = history.training_seconds + history.evaluation_seconds
    speed = trainer.step * settings.batch_size / history.training_seconds if history.training_seconds else 0.0
    left = (settings.steps - trainer.step) * spent / trainer.step if trainer.step else float("nan")
    stamp = time.strftime("%H:%M:%S")
    print(
        f"{stamp} {name}  step {trainer.step}/{settings.steps}  {told}  {speed:.0f} images/s  {left:.0f} s left",
        flush=True,
    )


def _forget_peaks() -> None:
    """Frees what an earlier run of this process held, and has the peaks of memory counted anew."""
    gc.collect()
    with suppress(OSError):  # not on every system, nor for every user
        Path("/proc/self/clear_refs").write_text("5")
    if "torch" in sys.modules:
        import torch

        if torch.cuda.is_initialized():
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()


def _peak_memory_mb() -> float:
    """The most main memory that this process held since `_forget_peaks`, in MB of 10⁶ bytes."""
    with suppress(OSError, StopIteration):
        lines = Path("/proc/self/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) * 1024 / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


@contextmanager
def locked(home: Path, wait: bool = True) -> Iterator[bool]:
    """Holds the lock of a run's folder; yields whether it does, which without `wait` it may not."""
    home.mkdir(parents=True, exist_ok=True)
    with (home / "lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
            return
        except OSError as error:
            if error.errno not in (errno.ENOTSUP, errno.ENOLCK, errno.ENOSYS):
                raise
            raise InputError(
                f"{home}: expected a file system with locks (flock), found '{error.strerror}'; "
                "keep results/ on a local disk"
            ) from error
        yield True
