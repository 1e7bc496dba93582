"""Test accuracy on shifted images: what a trained network makes of an object that stands a few pixels off."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cifar_report.analysis.trained import trained
from cifar_report.base.files import write_text
from cifar_report.base.randomness import Purpose, generator, stratified_indices
from cifar_report.data import datasets
from cifar_report.runs.record import load_runs
from cifar_report.training.batches import Images, scores

PIXELS = range(5)
DIRECTIONS = ((1, 0), (-1, 0), (0, 1), (0, -1))


def write(stage: dict[str, Any], runs: Path, dataset: Path, output: Path) -> None:
    """Writes `shifts.csv`: variant, seed, shift (pixels), images, accuracy (mean over the four directions).

    Args:
        stage: {"variants": [{"name", "seeds", …}], "images": size of the stratified test subset}.
    """
    data = datasets.load(dataset)
    images, labels = data.split("test")
    index = stratified_indices(labels, min(stage["images"], len(labels)), generator(0, Purpose.SHIFT))
    images, labels = images[index], labels[index]
    rows = []
    for name, found in load_runs(runs, stage["variants"]).items():
        for run in found:
            model = trained(run, data)
            for pixels in PIXELS:
                moves = {(pixels * down, pixels * right) for down, right in DIRECTIONS}
                accuracy = np.mean([scores(model.logits(shifted(images, *move)), labels)[1] for move in sorted(moves)])
                rows.append((name, run.seed, pixels, len(labels), accuracy))
            print(
                f"{name} seed {run.seed}: {rows[-5][-1]:.3f} unmoved, {rows[-1][-1]:.3f} moved by {pixels}", flush=True
            )
    table = pd.DataFrame(rows, columns=["variant", "seed", "shift", "images", "accuracy"])
    write_text(output, table.to_csv(index=False, lineterminator="\n"))


def shifted(images: Images, down: int, right: int) -> Images:
    """Images moved by so many pixels; the edge they leave is filled with its own pixels."""
    height, width = images.shape[2:]
    rows = np.clip(np.arange(height) - down, 0, height - 1)
    columns = np.clip(np.arange(width) - right, 0, width - 1)
    return np.ascontiguousarray(images[:, :, rows[:, None], columns])
