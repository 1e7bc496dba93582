"""Trained networks, measured otherwise than in their runs: on moved or mirrored images, or by a batch's statistics."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from cifar_report.analysis import measurements
from cifar_report.analysis.measurements import BATCH_STATISTICS, FLIPS, SHIFTED, SHIFTS
from cifar_report.base.randomness import Purpose, generator, stratified_indices
from cifar_report.data import datasets
from cifar_report.runs import devices
from cifar_report.runs.finished import Run, load_runs, trained
from cifar_report.study.kinds import KINDS
from cifar_report.training.batches import Images, scores

BATCH = 32  # images, as the original measured its VGG
DIRECTIONS = ((1, 0), (-1, 0), (0, 1), (0, -1))


def measure_shifts(stage: dict[str, Any], runs: Path, dataset: Path, output: Path) -> None:
    """Writes `shifts.csv`, the test accuracy (a fraction) on shifted images: a row a run and number of pixels.

    The accuracy is the mean over the four directions, on the test split or a stratified subset of it. Runs that
    diverged have no row.

    Args:
        stage: {"variants": [{"name", "seeds", …}], "images": size of the subset; without it the whole test split}.
        runs: folder of `<variant>/seed-<n>/`.
        dataset: folder of the arrays.
    """
    data = datasets.load(dataset)
    images, labels = data.split("test")
    if stage.get("images", len(labels)) < len(labels):
        index = stratified_indices(labels, stage["images"], generator(0, Purpose.SHIFT))
        images, labels = images[index], labels[index]

    def measured(run: Run) -> Iterator[tuple]:
        model = _trained(run, data)
        for pixels in SHIFTED:
            moves = {(pixels * down, pixels * right) for down, right in DIRECTIONS}
            accuracy = np.mean([scores(model.logits(shifted(images, *move)), labels)[1] for move in sorted(moves)])
            yield pixels, len(labels), accuracy

    _measure(stage, runs, output, SHIFTS, measured)


def measure_flips(stage: dict[str, Any], runs: Path, dataset: Path, output: Path) -> None:
    """Writes `flips.csv`: a run's loss (nats) and accuracy (a fraction) without and with test-time flips.

    With them, its answer is the mean of those to an image and to its mirror image. All are of the whole test split.
    Those without flips are computed from the run's stored logits, and so are the ones that the run reports. Runs that
    diverged have no row.

    Args:
        stage: {"variants": [{"name", "seeds", …}]}.
        runs: folder of `<variant>/seed-<n>/`.
        dataset: folder of the arrays.
    """
    data = datasets.load(dataset)
    images, labels = data.split("test")
    mirrored = np.ascontiguousarray(images[..., ::-1])

    def measured(run: Run) -> Iterator[tuple]:
        plain = run.test_logits(len(labels))
        both = mean_answer(plain, _trained(run, data).logits(mirrored))
        (loss, accuracy), (loss_flipped, accuracy_flipped) = scores(plain, labels), scores(both, labels)
        yield len(labels), loss, loss_flipped, accuracy, accuracy_flipped

    _measure(stage, runs, output, FLIPS, measured)


def measure_batch_statistics(stage: dict[str, Any], runs: Path, dataset: Path, output: Path) -> None:
    """Writes `batch-statistics.csv`: a run's test accuracy (a fraction) by the statistics of each batch of test images.

    So a network answers that was never put into evaluation mode, as the original's VGG was not: its batch norms take
    mean and variance of the batch that they are shown. The running statistics, which they go on updating, have no part
    in that. Dropout is off. Batches are BATCH images of the test split, in an order that is drawn once and for all
    runs, as a split may be sorted by class; the last one is what is left, and an image that would be left alone, and
    has no variance, joins the batch before. Beside it stands the accuracy in evaluation mode, as the run reports it.
    Runs that diverged, and variants without batch norm, have no row.

    Args:
        stage: {"variants": [{"name", "seeds", …}]}.
        runs: folder of `<variant>/seed-<n>/`.
        dataset: folder of the arrays.
    """
    data = datasets.load(dataset)
    images, labels = data.split("test")
    order = generator(0, Purpose.ORDER).permutation(len(labels))
    images, labels = images[order], labels[order]
    starts = np.arange(BATCH, len(labels) - 1, BATCH)
    batches = np.split(images, starts)

    def measured(run: Run) -> Iterator[tuple]:
        if run.record["settings"]["batch_norm"] != "none":
            model = _trained(run, data)
            keep_batch_statistics(model.model)
            accuracy = scores(np.concatenate([model.logits(batch) for batch in batches]), labels)[1]
            yield len(labels), BATCH, len(batches[-1]), accuracy, run.final("test", "accuracy")

    _measure(stage, runs, output, BATCH_STATISTICS, measured)


def _measure(
    stage: dict[str, Any], runs: Path, output: Path, columns: list[str], measured: Callable[[Run], Iterator[tuple]]
) -> None:
    """Writes what is measured of each completed run, a row a tuple, behind its variant and seed."""
    rows = []
    for run in (run for members in load_runs(runs, stage["variants"]).values() for run in members if run.completed):
        for values in measured(run):
            rows.append((run.variant, run.seed, *values))
            print(", ".join(f"{name} {value}" for name, value in zip(columns, rows[-1], strict=True)), flush=True)
    measurements.write(output, columns, rows)


def _trained(run: Run, data: datasets.Dataset) -> Any:
    if KINDS[run.record["settings"]["kind"]].backend == "torch":
        devices.require_gpu()
    return trained(run.record, run.weights(), data)


def keep_batch_statistics(model: Any) -> None:
    """Leaves the batch norms of a PyTorch model in training mode, whatever mode the model is put into."""
    for module in model.modules():
        if hasattr(module, "running_mean"):  # batch norms, ours and PyTorch's
            module.train()
            module.train = lambda mode=True, module=module: module


def shifted(images: Images, down: int, right: int) -> Images:
    """Images moved by so many pixels; the edge they leave is filled with its own pixels."""
    height, width = images.shape[2:]
    rows = np.clip(np.arange(height) - down, 0, height - 1)
    columns = np.clip(np.arange(width) - right, 0, width - 1)
    return np.ascontiguousarray(images[:, :, rows[:, None], columns])


def mean_answer(
    first: Float[np.ndarray, "n classes"], second: Float[np.ndarray, "n classes"]
) -> Float[np.ndarray, "n classes"]:
    """The logarithm of the mean of two softmaxes, float64; their own logits, as they sum to one."""
    from scipy.special import log_softmax

    return np.logaddexp(*(log_softmax(each.astype(np.float64), axis=1) for each in (first, second))) - np.log(2)
