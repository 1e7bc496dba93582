"""A study's results as tidy pandas frames, for notebooks: `cifar_report.load_study(path)`.

Runs are read by `runs.finished`, the tables as the workflow wrote them. Accuracies are fractions, losses nats.
"""

from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from cifar_report.base.errors import InputError
from cifar_report.base.files import read_json, read_table
from cifar_report.data import datasets
from cifar_report.runs.finished import COLUMNS, SPLITS, Run, load_run
from cifar_report.study import plan

_COSTS = ("samples_seen", "seconds", "evaluation_seconds", "peak_memory_mb", "parameters", "forward_flops", "threads")
CLAIM_COLUMNS = [
    *("id", "title", "statement", "verdict", "estimate", "ci95_low", "ci95_high", "unit"),
    *("smallest_effect", "direction", "pairs", "runs", "reason"),
]


def load_study(path: str | Path) -> "LoadedStudy":
    """The results of a study, finished or not.

    Args:
        path: folder of the study: `results/<study>`, or `reference/<study>`, which has no weights, logits and dataset.

    Raises:
        InputError: the folder has no finished run, or one of its files is not what it should be.
    """
    return LoadedStudy(Path(path))


class LoadedStudy:
    """A study's results. The runs are read at once, each table when it is asked for first.

    A table that the study has not written yet raises an `InputError` that names the file.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.by_variant = finished_runs(folder)  # the runs of each variant, as the analysis sees them

    def __repr__(self) -> str:
        return f"load_study({str(self.folder)!r}): {len(self.runs)} runs of {len(self.by_variant)} variants"

    @cached_property
    def runs(self) -> pd.DataFrame:
        """A row a run: variant, seed, status, last step, settings, final metrics, what it cost, and what it ran on.

        `test_accuracy` and the like are of whole splits at the last step. `seconds` are of training alone. Hidden units
        stand as `500-500`. What a run has not recorded is missing.
        """
        return pd.DataFrame([_row(run) for runs in self.by_variant.values() for run in runs])

    @cached_property
    def curves(self) -> pd.DataFrame:
        """A row an evaluation: variant, seed, step, samples_seen, split, loss and accuracy, of fixed subsets.

        The last step of a run is of whole splits.
        """
        curves = [run.curve.assign(variant=v, seed=run.seed) for v, runs in self.by_variant.items() for run in runs]
        return pd.concat(curves, ignore_index=True)[["variant", "seed", *COLUMNS]]

    @cached_property
    def summary(self) -> pd.DataFrame:
        """summary.csv: a row a variant, mean accuracies over its seeds with 95 % intervals."""
        return read_table(_present(self.folder / "summary.csv"))

    @cached_property
    def costs(self) -> pd.DataFrame:
        """costs.csv: a row a variant, median training time (seconds), images a second, peak memory (MB)."""
        return read_table(_present(self.folder / "costs.csv"))

    @cached_property
    def search(self) -> pd.DataFrame:
        """search.csv: a row a trial of every search, its settings and validation accuracy."""
        return read_table(_present(self.folder / "search.csv"))

    @cached_property
    def flips(self) -> pd.DataFrame:
        """flips.csv: variant, seed, and test loss and accuracy without and with test-time flips."""
        return read_table(_present(self.folder / "flips.csv"))

    @cached_property
    def shifts(self) -> pd.DataFrame:
        """shifts.csv: variant, seed, shift (pixels), images, and the test accuracy on shifted images."""
        return read_table(_present(self.folder / "shifts.csv"))

    @cached_property
    def batch_statistics(self) -> pd.DataFrame:
        """batch-statistics.csv: variant, seed, and test accuracy by the statistics of each batch of test images."""
        return read_table(_present(self.folder / "batch-statistics.csv"))

    @cached_property
    def agreement(self) -> pd.DataFrame:
        """agreement.csv: a row a pair of implementations and step, and by how much losses and gradients differ."""
        return read_table(_present(self.folder / "agreement.csv"))

    @cached_property
    def claims(self) -> pd.DataFrame:
        """claims.json: a row a claim, with its verdict, estimate and 95 % interval.

        Points and per cent stand as fractions: `unit` is what the report shows them in.
        """
        path = self.folder / "claims.json"
        claims = read_json(path)
        try:
            table = pd.DataFrame([{name: claim.get(name) for name in CLAIM_COLUMNS} for claim in claims])
            return table.astype(dict.fromkeys(("estimate", "ci95_low", "ci95_high", "smallest_effect"), "float64"))
        except (AttributeError, TypeError, ValueError, KeyError):
            message = f"{path}: expected a list of claims, found something else; delete it and run again"
            raise InputError(message) from None

    def logits(self, variant: str, seed: int) -> Float[np.ndarray, "n classes"]:
        """A run's logits of the whole test split, float32.

        Raises:
            InputError: the study has no such run, or its logits are not there, as in `reference/`.
        """
        for run in self.by_variant.get(variant, ()):
            if run.seed == seed:
                _present(run.folder / "test-logits.npy")
                return run.test_logits()
        raise InputError(
            f"{self.folder / 'runs' / variant / f'seed-{seed}'}: expected a finished run, found none; `runs` lists them"
        )

    @cached_property
    def labels(self) -> Int[np.ndarray, " n"]:
        """The true classes of the test split, int64."""
        return datasets.load(self.folder / "dataset").split("test")[1]


def finished_runs(folder: Path) -> dict[str, list[Run]]:
    """The finished runs of each variant, by its name: those of the study's plan, or all where it brings no plan.

    Raises:
        InputError: there are none, or a file is not what it should be.
    """
    stage = folder / "plan/stages/summarise.json"
    if stage.is_file():
        listed = plan.stage(stage)["variants"]
        paths = [folder / "runs" / v["name"] / f"seed-{seed}" / "run.json" for v in listed for seed in v["seeds"]]
    else:
        paths = sorted(folder.glob("runs/*/seed-*/run.json"))
    runs: dict[str, list[Run]] = {}
    for path in filter(Path.is_file, paths):
        runs.setdefault(path.parent.parent.name, []).append(load_run(path.parent))
    if not runs:
        raise InputError(f"{folder / 'runs'}: expected finished runs, found none; run the study first")
    return {variant: sorted(seeds, key=lambda run: run.seed) for variant, seeds in runs.items()}


def _row(run: Run) -> dict[str, object]:
    record = run.record
    settings = {
        name: "-".join(map(str, value)) if isinstance(value, list) else value
        for name, value in record["settings"].items()
    }
    return {
        "variant": run.variant,
        "seed": run.seed,
        "status": record["status"],
        "step": record.get("step"),
        **{f"{split}_{metric}": run.final(split, metric) for split in SPLITS for metric in ("loss", "accuracy")},
        **settings,
        **{name: record.get(name) for name in _COSTS},
        "device": record["device"].get("gpu", record["device"]["cpu"]),
        **record["versions"],
        "commit": record["commit"]["hash"],
        "code": record.get("code"),
        "identity": record["identity"],
    }


def _present(path: Path) -> Path:
    if not path.is_file():
        raise InputError(f"{path}: expected a file of the study, found none; run the study, or take one that has it")
    return path
