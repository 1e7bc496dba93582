"""Whether what a finished run's files say goes together, where settings, data or other files tell it once more."""

import math
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file
from scipy.stats import hypergeom

from cifar_report.data.datasets import Dataset
from cifar_report.runs.finished import SPLITS, against_labels, read_curve, read_logits, trained
from cifar_report.runs.store import RUN_FILES
from cifar_report.study.settings import Settings
from cifar_report.training.batches import scores
from cifar_report.training.loop import LARGEST_LOSS, build_trainer
from cifar_report.training.splits import Split, splits_of

SHOWN = 256  # images of a split that a network is shown once more, at least
WORK = 50_000_000_000  # operations that it may take to show it more of them: a second or two, all images for an MLP
# What other kernels, another device and bfloat16 may make of the logits and the loss, as a share of the former's spread
# and of the latter, and of the number that are right, as a share of the images.
NEAR, FLIPPED = 0.05, 0.005


def contradiction(folder: Path, run: dict[str, Any], data: Dataset | None, labels: np.ndarray | None) -> str:
    """The first thing that a run's files say otherwise than its settings, its data or each other; or empty.

    Args:
        run: its run.json, with all keys; data: those that it saw, and labels: of the test split, where they are known.
            Without data, nothing is asked of the weights' shapes and of what is counted from the model; without the
            labels, nothing is computed from the weights.

    Raises:
        InputError: curve.csv or test-logits.npy is not what it should be.
    """
    return next(_contradictions(folder, run, data, labels), "")


def _contradictions(
    folder: Path, run: dict[str, Any], data: Dataset | None, labels: np.ndarray | None
) -> Iterator[str]:
    settings, tested = Settings.from_mapping(run["settings"]), "test-images" in run["data"]["digests"]
    files = RUN_FILES if tested else RUN_FILES[:2]
    if set(run["digests"]) != set(files):
        yield f"run.json: digests: expected those of {', '.join(files)}, found those of {', '.join(run['digests'])}"
    whole = (
        _sizes(settings, data.counts, tested) if data else {s: p["of"] for s, p in run["evaluation_subsets"].items()}
    )
    parts = {split: min(settings.evaluation_images, size) for split, size in whole.items()}
    if (
        set(run["final"]) != set(whole)
        or ("test" in whole) != tested
        or not whole.get("train")
        or not all(whole.values())
    ):
        yield f"run.json: final: expected the splits {', '.join(whole)}, found {', '.join(run['final'])}"
    model, counts = _model(settings, data.shape, len(data.class_names)) if data else ({}, {})
    expected = counts | {
        "samples_seen": run["step"] * settings.batch_size,
        "threads": settings.threads,
        "evaluation_subsets": {split: {"images": parts[split], "of": size} for split, size in whole.items()},
    }
    for name, value in expected.items():
        if run[name] != value:
            yield f"run.json: {name}: expected {value} of these settings, found {run[name]}"
    yield from _of_status(run, settings, whole, parts)
    yield from _of_curve(folder / "curve.csv", run, settings, whole, parts)
    yield from _of_weights(folder / "model.safetensors", run["status"], model)
    if tested:
        logits = read_logits(folder / "test-logits.npy")
        size = (whole["test"], len(data.class_names) if data else logits.shape[-1])
        if problem := against_labels(logits, run["final"]["test"], labels, size):
            yield f"test-logits.npy: {problem}"
        if run["status"] == "completed" and not np.isfinite(logits).all():
            yield "test-logits.npy: holds values that are no numbers, but run.json says that the run was completed"
    if run["status"] == "completed" and data and labels is not None:
        yield from _of_answers(folder, run, settings, data, tested)


def _sizes(settings: Settings, counts: dict[str, int], tested: bool) -> dict[str, int]:
    """Images of each split that a run is evaluated on."""
    sizes = {split: counts[split] for split in SPLITS if counts[split] and (tested or split != "test")}
    if settings.train_on == "train+validation":
        sizes["train"] += sizes.pop("validation", 0)
    return sizes


@cache
def _model(
    settings: Settings, shape: tuple[int, int, int], classes: int
) -> tuple[dict[str, tuple[np.dtype, tuple[int, ...]]], dict[str, int]]:
    """Of the model of these settings: dtype and shape of each weight by name, and what training counts."""
    split = Split(np.zeros((2, *shape), np.uint8), np.zeros(2, np.int64))
    with np.errstate(all="ignore"):
        trainer = build_trainer(replace(settings, batch_size=2), split, classes, 0)
    return {name: (array.dtype, array.shape) for name, array in trainer.parameters().items()}, trainer.count()


def _of_status(run: dict[str, Any], settings: Settings, whole: dict[str, int], parts: dict[str, int]) -> Iterator[str]:
    """A run ends at its last step, or where the loss of a part of a split explodes, which bounds that of the whole."""
    step, last = run["step"], run["step"] == settings.steps
    exploded = any(
        final["loss"] is None or final["loss"] * (1 if last else whole[split] / parts[split]) > LARGEST_LOSS
        for split, final in run["final"].items()
    )
    told = f"run.json: status {run['status']}, but step {step} of {settings.steps}"
    if step > settings.steps or not (last or (run["status"] == "diverged" and step % settings.evaluate_every == 0)):
        yield told
    if run["status"] != ("diverged" if exploded else "completed"):
        yield f"{told}, and final losses {[final['loss'] for final in run['final'].values()]}"


def _of_curve(
    path: Path, run: dict[str, Any], settings: Settings, whole: dict[str, int], parts: dict[str, int]
) -> Iterator[str]:
    """A row an evaluation and split: of their parts, with none exploded, and at last of the whole ones, as in final."""
    curve, step, every = read_curve(path), run["step"], settings.evaluate_every
    rows = (-(-step // every) + 1) * len(whole)
    steps = [*range(0, step, every), step] if rows == len(curve) else []
    found = list(curve[["step", "samples_seen", "split"]].itertuples(index=False, name=None))
    if found != [(at, at * settings.batch_size, split) for at in steps for split in whole]:
        yield f"curve.csv: expected a row each {every} steps, at step {step} and a split, of its samples; found others"
        return
    before, last = curve[: -len(whole)], curve[-len(whole) :]
    final = {row.split: (row.loss if math.isfinite(row.loss) else None, row.accuracy) for row in last.itertuples()}
    if final != {split: (told["loss"], told["accuracy"]) for split, told in run["final"].items()}:
        yield f"curve.csv: its last step is not that of run.json's step {step} and final"
    if not (before["loss"] <= LARGEST_LOSS).all():
        yield f"curve.csv: goes on after the loss had exploded, before step {step}"
    for rows_of, sizes in ((before, parts), (last, whole)):
        right = rows_of["accuracy"] * rows_of["split"].map(sizes)
        if not np.allclose(right, right.round(), rtol=0, atol=1e-6):
            yield "curve.csv: holds an accuracy that is no whole number of images"


def _of_weights(path: Path, status: str, model: dict[str, tuple[np.dtype, tuple[int, ...]]]) -> Iterator[str]:
    try:
        weights = load_file(path)
    except (SafetensorError, ValueError, OSError, KeyError) as error:
        yield f"{path.name}: cannot be read ({error})"
        return
    found = {name: (array.dtype, array.shape) for name, array in weights.items()}
    for name in sorted(model.keys() | found) if model else ():
        if found.get(name) != model.get(name):
            told, other = _told(model.get(name)), _told(found.get(name))
            yield f"{path.name}: {name}: expected {told} of these settings, found {other}"
    if not weights or (status == "completed" and not all(np.isfinite(array).all() for array in weights.values())):
        yield f"{path.name}: holds none, or values that are no numbers, but run.json says that the run was {status}"


def _of_answers(folder: Path, run: dict[str, Any], settings: Settings, data: Dataset, tested: bool) -> Iterator[str]:
    """What its weights answer once more, to whole splits or to images drawn anew each time, so that none is foreseen.

    Of a test split the logits are compared; of another one, how many are right: of a draw, within what 999,999,999
    in a billion draws from a split of the told accuracy have.
    """
    network = trained(run, load_file(folder / "model.safetensors"), data)
    for name, (images, labels) in splits_of(settings, data.arrays(tested)).items():
        whole, told = len(labels), run["final"][name]
        size = min(max(SHOWN, WORK // max(run["forward_flops"], 1)), whole)
        shown = np.sort(np.random.default_rng().permutation(whole)[:size])
        answers, of = network.logits(images[shown]), f"{size} of {whole} {name} images"
        if name == "test":
            stored = read_logits(folder / "test-logits.npy")[shown]
            if np.sqrt(np.mean((answers - stored) ** 2)) > NEAR * stored.std():
                yield f"test-logits.npy: its weights give other logits of {of}"
            continue
        loss, accuracy = scores(answers, labels[shown])
        low, high = hypergeom.ppf([5e-10, 1 - 5e-10], whole, round(told["accuracy"] * whole), size)
        if not low - FLIPPED * size - 1 <= accuracy * size <= high + FLIPPED * size + 1:
            yield f"run.json: final: {name}: accuracy {told['accuracy']:.4f}, its weights have {accuracy:.4f} of {of}"
        if size == whole and not math.isclose(loss, told["loss"], rel_tol=NEAR, abs_tol=0.01):
            yield f"run.json: final: {name}: loss {told['loss']:.4g}, its weights have {loss:.4g} of {of}"


def _told(array: tuple[np.dtype, tuple[int, ...]] | None) -> str:
    return f"{array[0]} of shape {array[1]}" if array else "none"
