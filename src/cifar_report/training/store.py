"""The run store: a finished run is taken from it, an unfinished one goes on from its checkpoint, else one begins.

`<store>/<identity>/` holds `checkpoint.safetensors` while a run trains and `finished/` once it has: published by one
rename, so that it is whole or absent. Two processes that want the same run take turns (`lock`).
"""

import csv
import fcntl
import importlib
import io
import json
import os
import resource
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from cifar_report import provenance
from cifar_report.config import Settings
from cifar_report.datasets import Dataset
from cifar_report.errors import InputError
from cifar_report.files import atomic, read_json, sha256, to_json, write_text
from cifar_report.training.run import History, Outcome, Split, Trainer, subset, train

CURVE_COLUMNS = ("step", "samples_seen", "split", "loss", "accuracy")


def obtain(
    settings: Settings, seed: int, dataset: Dataset, code: str, store: Path, name: str, test: bool = True
) -> Path:
    """The folder of the finished run of these settings and seed, trained here unless it is there already.

    Args:
        code: digest of the modules that compute it, from the plan.
        store: folder of all runs.
        name: for the log.
        test: whether to open the test split; a search does not.

    Raises:
        InputError: the batch is larger than the training split, or the validation split is asked for and empty.
    """
    splits = training_splits(settings, dataset, test)
    if settings.batch_size > len(splits["train"].labels):
        raise InputError(
            f"{name}: batch_size: {settings.batch_size}, but the training split has {len(splits['train'].labels)} "
            "images; choose a smaller batch"
        )
    data = dataset.digests(test)
    identity = provenance.identity(settings, seed, data, code)
    home = store / identity
    finished = home / "finished"
    with _locked(home):
        if not (finished / "run.json").is_file():
            _train(settings, seed, dataset, splits, identity, home, name, data)
        else:
            print(f"{name}: already trained, taken from the store ({identity[:12]})", flush=True)
    return finished


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
    settings: Settings,
    seed: int,
    dataset: Dataset,
    splits: dict[str, Split],
    identity: str,
    home: Path,
    name: str,
    data: dict[str, str],
) -> None:
    commit = provenance.commit()  # that of the code now in memory, whatever is checked out by the end
    trainer = build_trainer(settings, splits["train"], len(dataset.class_names), seed)
    print(f"{name}: {settings.steps} steps of {settings.batch_size} on {trainer.device}", flush=True)
    history = History()
    saved = home / "checkpoint.safetensors"
    if saved.is_file():
        _restore(saved, trainer, history)
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
            f"{name}: diverged: the loss is no number at step {outcome.step}; "
            "a smaller learning_rate, a warm-up or batch_norm may help",
            flush=True,
        )
    partial = home / f"finished.{os.getpid()}.tmp"
    try:
        _write(partial, trainer, settings, seed, dataset, splits, identity, history, outcome, data, commit)
        shutil.rmtree(home / "finished", ignore_errors=True)
        partial.rename(home / "finished")
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    saved.unlink(missing_ok=True)


def build_trainer(settings: Settings, split: Split, classes: int, seed: int) -> Trainer:
    """The trainer of a kind of model; imports what this kind needs and nothing else."""
    loop, model = (importlib.import_module(module) for module in provenance.KINDS[settings.kind])
    return loop.Trainer(model.build, settings, split.images, split.labels, classes, seed)


def _write(
    folder: Path,
    trainer: Trainer,
    settings: Settings,
    seed: int,
    dataset: Dataset,
    splits: dict[str, Split],
    identity: str,
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
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
    subsets = {split: subset(part, settings.evaluation_images) for split, part in splits.items()}
    device = {"type": trainer.device, "cpu": provenance.cpu_name()}
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
        "settings": settings.full(),
        "final": outcome.final,
        "samples_seen": outcome.step * settings.batch_size,
        **trainer.count(),
        "seconds": round(history.training_seconds, 3),
        "evaluation_seconds": round(history.evaluation_seconds, 3),
        "peak_memory_mb": round(trainer.peak_memory_mb() or peak, 1),
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


def _write_curve(path: Path, rows: list[dict[str, Any]]) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, CURVE_COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())


def _save(path: Path, trainer: Trainer, history: History) -> None:
    metadata = {"step": str(trainer.step), "history": json.dumps(vars(history))}
    with atomic(path) as file:
        file.write(save({k: np.ascontiguousarray(v) for k, v in trainer.state().items()}, metadata))


def _restore(path: Path, trainer: Trainer, history: History) -> None:
    try:
        with safe_open(path, "numpy") as file:
            metadata = file.metadata()
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise InputError(f"{path}: expected a checkpoint, found a damaged file ({error}); delete it") from error
    trainer.restore(state, int(metadata["step"]))
    vars(history).update(json.loads(metadata["history"]))


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


@contextmanager
def _locked(home: Path) -> Iterator[None]:
    home.mkdir(parents=True, exist_ok=True)
    with (home / "lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
