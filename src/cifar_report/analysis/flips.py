"""Test-time flips: what the mean of a network's answers to an image and to its mirror image is worth."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from cifar_report.analysis.trained import trained
from cifar_report.base.files import write_text
from cifar_report.data import datasets
from cifar_report.runs.record import load_runs
from cifar_report.training.batches import scores

COLUMNS = ["variant", "seed", "images", "loss", "loss_flipped", "accuracy", "accuracy_flipped"]


def write(stage: dict[str, Any], runs: Path, dataset: Path, output: Path) -> None:
    """Writes `flips.csv`: variant, seed, images, and loss (nats) and accuracy without and with test-time flips.

    Both are of the whole test split. Those without flips are computed from the run's stored logits, and so are the
    ones that the run reports. Runs that diverged have no row.

    Args:
        stage: {"variants": [{"name", "seeds", …}]}.
    """
    data = datasets.load(dataset)
    images, labels = data.split("test")
    mirrored = np.ascontiguousarray(images[..., ::-1])
    rows = []
    for name, found in load_runs(runs, stage["variants"]).items():
        for run in (run for run in found if run.completed):
            plain = run.test_logits(len(labels))
            both = mean_answer(plain, trained(run, data).logits(mirrored))
            (loss, accuracy), (loss_flipped, accuracy_flipped) = scores(plain, labels), scores(both, labels)
            rows.append((name, run.seed, len(labels), loss, loss_flipped, accuracy, accuracy_flipped))
            print(f"{name} seed {run.seed}: {accuracy:.4f}, with flips {accuracy_flipped:.4f}", flush=True)
    table = pd.DataFrame(rows, columns=COLUMNS)
    write_text(output, table.to_csv(index=False, lineterminator="\n"))


def mean_answer(
    first: Float[np.ndarray, "n classes"], second: Float[np.ndarray, "n classes"]
) -> Float[np.ndarray, "n classes"]:
    """The logarithm of the mean of two softmaxes, float64; their own logits, as they sum to one."""
    return np.logaddexp(_log_softmax(first), _log_softmax(second)) - np.log(2)


def _log_softmax(logits: Float[np.ndarray, "n classes"]) -> Float[np.ndarray, "n classes"]:
    x = logits.astype(np.float64)
    x -= x.max(axis=1, keepdims=True)
    return x - np.log(np.exp(x).sum(axis=1, keepdims=True))
