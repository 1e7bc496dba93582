"""The runs of a study, as the analysis reads them: exactly those of the plan, never what happens to lie there."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float
from safetensors.numpy import load_file

from cifar_report.errors import InputError
from cifar_report.files import read_json

COLUMNS = ["step", "samples_seen", "split", "loss", "accuracy"]


@dataclass(frozen=True)
class Run:
    """One finished run: its `run.json` and `curve.csv`, and the files beside them on request."""

    variant: str
    seed: int
    record: dict[str, Any]
    curve: pd.DataFrame
    folder: Path

    @property
    def completed(self) -> bool:
        """Whether it reached its last step with finite losses."""
        return self.record["status"] == "completed"

    def final(self, split: str, metric: str) -> float:
        """Loss (nats) or accuracy (a fraction) of a whole split at the last step; NaN where the run has none."""
        value = self.record["final"].get(split, {}).get(metric)
        return float("nan") if value is None else value

    def test_logits(self) -> Float[np.ndarray, "n classes"]:
        """Logits of the whole test split, float32."""
        return np.load(self.folder / "test-logits.npy")

    def weights(self) -> dict[str, np.ndarray]:
        """The trained weights by name."""
        return load_file(self.folder / "model.safetensors")


def load_run(folder: Path) -> Run:
    """The run in a folder.

    Raises:
        InputError: a file is missing or is not what it should be.
    """
    record = read_json(folder / "run.json")
    path = folder / "curve.csv"
    try:
        curve = pd.read_csv(path)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: expected a CSV file of the curve, found {error}; train it again") from error
    if list(curve.columns) != COLUMNS:
        raise InputError(f"{path}: expected the columns {','.join(COLUMNS)}, found {','.join(curve.columns)}")
    try:
        return Run(record["variant"], record["seed"], record, curve, folder)
    except (KeyError, TypeError) as error:
        raise InputError(f"{folder / 'run.json'}: the key {error} is missing; train it again") from error


def load_runs(runs: Path, variants: list[dict[str, Any]]) -> dict[str, list[Run]]:
    """The runs of each variant, by its name, in the order of its seeds.

    Args:
        runs: folder of `<variant>/seed-<n>/`.
        variants: the plan's entries, each with `name` and `seeds`.
    """
    return {v["name"]: [load_run(runs / v["name"] / f"seed-{seed}") for seed in v["seeds"]] for v in variants}
