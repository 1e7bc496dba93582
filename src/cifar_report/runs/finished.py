"""The runs of a study, as the analysis reads them: exactly those of the plan, never what happens to lie there."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float, Int
from safetensors.numpy import load_file

from cifar_report.base.errors import InputError
from cifar_report.base.files import read_table, sha256
from cifar_report.data.datasets import Dataset
from cifar_report.runs.record import read_record, record_digest
from cifar_report.study.settings import Settings
from cifar_report.training.batches import scores
from cifar_report.training.loop import LARGEST_LOSS, Trainer, build_trainer, place
from cifar_report.training.splits import splits_of

COLUMNS = {"step": "int64", "samples_seen": "int64", "split": str, "loss": "float64", "accuracy": "float64"}
SPLITS = ("train", "validation", "test")
_AGAIN = "delete it, it is made again"


class _Record(dict):
    """A part of a run.json, which tells where a key is missing."""

    def __init__(self, content: dict[str, Any], path: Path):
        super().__init__(content)
        self.path = path

    def __missing__(self, key: str) -> Any:
        raise InputError(f"{self.path}: the key '{key}' is missing; train it again")

    def __ror__(self, defaults: dict[str, Any]) -> "_Record":  # type: ignore[override]
        """On top of defaults it still tells what is missing."""
        return _Record({**defaults, **self}, self.path)


@dataclass(frozen=True)
class Run:
    """One finished run: its `run.json` and `curve.csv`, and the files beside them on request, as they were trained."""

    variant: str
    seed: int
    record: dict[str, Any]
    curve: pd.DataFrame
    folder: Path

    @property
    def completed(self) -> bool:
        """Whether it reached its last step with finite losses."""
        return self.record["status"] == "completed"

    def source(self, file: str) -> str:
        """One of its files, named from the study's folder."""
        return f"runs/{self.variant}/seed-{self.seed}/{file}"

    def final(self, split: str, metric: str) -> float:
        """Loss (nats) or accuracy (a fraction) of a whole split at the last step; NaN where the run has none."""
        value = self.record["final"].get(split, {}).get(metric)
        return float("nan") if value is None else value

    def test_logits(self, images: int | None = None) -> Float[np.ndarray, "n classes"]:
        """Logits of the whole test split, float32.

        Raises:
            InputError: they are missing, were altered, or are not those of so many images.
        """
        logits = read_logits(self._unaltered("test-logits.npy"))
        if images not in (None, len(logits)):
            raise InputError(
                f"{self.folder / 'test-logits.npy'}: expected a row for each of the {images} test images, found "
                f"{len(logits)}; run the rule `train_variant` again"
            )
        return logits

    def weights(self) -> dict[str, np.ndarray]:
        """The trained weights by name.

        Raises:
            InputError: they are missing or were altered.
        """
        return load_file(self._unaltered("model.safetensors"))

    def _unaltered(self, name: str) -> Path:
        path = self.folder / name
        if not path.is_file():
            raise InputError(f"{path}: expected a file of the run, found none; call Snakemake again, it is made again")
        if self.record.get("digests", {}).get(name) not in (None, sha256(path)):
            raise InputError(
                f"{path}: was altered since the run was trained, as its SHA-256 is not the one in run.json; {_AGAIN}"
            )
        return path


def read_logits(path: Path) -> Float[np.ndarray, "n classes"]:
    """A test-logits.npy, mapped into memory; nothing in it is run.

    Raises:
        InputError: it is missing or no such file.
    """
    try:
        return np.asarray(np.lib.format.open_memmap(path, mode="c"))
    except Exception as error:  # NumPy's reader of headers raises errors of many kinds, such as TokenError
        raise InputError(
            f"{path}: expected a file of logits, found a damaged one or none ({error}); {_AGAIN}"
        ) from error


def against_labels(
    logits: np.ndarray, final: dict[str, Any], labels: Int[np.ndarray, " n"] | None, size: tuple[int, int]
) -> str:
    """How logits, which are rounded to float32, differ from the test loss and accuracy that a run tells; or empty.

    Args:
        labels: of the test split; without them only the form is looked at.
        size: how many test images and classes there are.
    """
    if logits.shape != size or logits.dtype != np.float32:
        return (
            f"expected float32 logits, a row for each of {size[0]} test images and a column for each of {size[1]} "
            f"classes, found {logits.dtype} of shape {logits.shape}"
        )
    if labels is None:
        return ""
    loss, accuracy = scores(logits, labels)
    same = round(accuracy * len(labels)) == round(final["accuracy"] * len(labels))
    if final["loss"] is None or not math.isfinite(loss):  # of a run that diverged; rounding alone may overflow
        same &= not math.isfinite(loss) and (final["loss"] or math.inf) > LARGEST_LOSS
    else:
        same &= math.isclose(loss, final["loss"], rel_tol=1e-5, abs_tol=1e-6)
    return "" if same else f"its logits give the test loss {loss:.6g} and accuracy {accuracy:.4f}, run.json has others"


def trained(record: dict[str, Any], weights: dict[str, np.ndarray], data: Dataset) -> Trainer:
    """A run's trainer, with its trained weights in place of the initial ones; its `logits` takes uint8 images.

    Args:
        record: its run.json; weights: by name, as in its model.safetensors; data: those that it was trained on.
    """
    # What a run with an average leaves are the averaged weights.
    settings = Settings.from_mapping(record["settings"] | {"average_decay": 0.0})
    split = splits_of(settings, data.arrays(test=False))["train"]
    trainer = build_trainer(settings, split, len(data.class_names), record["seed"])
    place(trainer, weights, record["step"])
    return trainer


def load_run(folder: Path) -> Run:
    """The run in a folder.

    Raises:
        InputError: a file is missing or is not what it should be.
    """
    path = folder / "run.json"
    record, curve = read_record(path), read_curve(folder / "curve.csv")
    if "variant" not in record:
        raise InputError(f"{path}: the key 'variant' is missing; train it again")
    # Runs of earlier versions say less.
    if record.get("sha256") not in (None, record_digest(record)):
        raise InputError(f"{path}: was altered since the run was trained, as its own digest tells; {_AGAIN}")
    parts = {key: _Record(part, path) if isinstance(part, dict) else part for key, part in record.items()}
    run = Run(record["variant"], record["seed"], _Record(parts, path), curve, folder)
    run._unaltered("curve.csv")
    return run


def read_curve(path: Path) -> pd.DataFrame:
    """A curve.csv.

    Raises:
        InputError: it is missing or not what it should be.
    """
    curve = read_table(path)
    if list(curve.columns) != list(COLUMNS):
        found = ",".join(map(str, curve.columns))
        raise InputError(f"{path}: expected the columns {','.join(COLUMNS)}, found {found}; {_AGAIN}")
    try:
        curve = curve.astype(COLUMNS)
    except (ValueError, TypeError, OverflowError) as error:
        raise InputError(f"{path}: expected a CSV file of the curve, found {error}; {_AGAIN}") from error
    sound = (
        isinstance(curve.index, pd.RangeIndex)
        and curve["split"].isin(SPLITS).all()
        and curve["step"].min() >= 0  # not where there is none
        and curve["step"].is_monotonic_increasing
        and curve["samples_seen"].is_monotonic_increasing
        and not curve.duplicated(["step", "split"]).any()
        and curve["accuracy"].between(0, 1).all()
        and not (curve["loss"] < 0).any()  # that of a diverged run may be no number
    )
    if not sound:
        raise InputError(
            f"{path}: expected a row a step and split, in order, accuracies of 0 to 1 and no loss below 0, "
            f"found others; {_AGAIN}"
        )
    return curve


def load_runs(runs: Path, variants: list[dict[str, Any]]) -> dict[str, list[Run]]:
    """The runs of each variant, by its name, in the order of its seeds.

    Args:
        runs: folder of `<variant>/seed-<n>/`.
        variants: the plan's entries, each with `name` and `seeds`.

    Raises:
        InputError: a file is missing, is not what it should be, or is that of another run.
    """
    return {v["name"]: [_run_of(runs, v["name"], seed) for seed in v["seeds"]] for v in variants}


def _run_of(runs: Path, variant: str, seed: int) -> Run:
    run = load_run(runs / variant / f"seed-{seed}")
    if (run.variant, run.seed) != (variant, seed) or not {"train", "test"} <= set(run.record["final"]):
        raise InputError(
            f"{run.folder / 'run.json'}: expected seed {seed} of {variant}, with values of the training and test "
            f"splits, found seed {run.seed} of {run.variant} with {', '.join(run.record['final']) or 'none'}; "
            "train it again"
        )
    return run
