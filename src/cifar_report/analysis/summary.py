"""From runs to rows: one a variant, one a trial; and the choice of a search's best trial."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from cifar_report.analysis.statistics import t_interval
from cifar_report.base.errors import InputError
from cifar_report.base.files import read_json, write_text
from cifar_report.runs.record import Run, load_run, load_runs


def select(stage: dict[str, Any], search: Path, output: Path) -> None:
    """Writes the settings of the trial with the best validation accuracy, as `selected.yaml`.

    Trials that diverged rank last; of equals the one with the lower validation loss wins, then the smaller digest. Of a
    successive halving, those of its longest rung alone compete.

    Args:
        stage: {"grid": {setting: values}, "trials": [digest, …]}, without "trials" where they stand in `trials.json`.
        search: folder of `<trial>/{run.json,curve.csv}` and, where the search has drawn its trials, `trials.json`.

    Raises:
        InputError: every trial diverged.
    """
    table = trials(stage, search)
    best = table.loc[table["selected"]]
    if best.empty:
        raise InputError(f"{search}: every trial diverged; lower the learning rates of the search")
    trial = best.iloc[0]["trial"]
    settings = load_run(search / trial).record["settings"]
    chosen = {
        "trial": trial,
        "validation_accuracy": float(best.iloc[0]["validation_accuracy"]),
        "settings": {name: settings[name] for name in stage["grid"]},
    }
    write_text(output, yaml.safe_dump(chosen, sort_keys=False))


def trials(stage: dict[str, Any], search: Path) -> pd.DataFrame:
    """A row a trial: its digest, each searched setting, validation accuracy and loss, status, whether selected.

    Then the rung that it was trained on (1 in a grid), its last step and the path of its curve from the study's folder.
    """
    listed = stage.get("trials")
    if listed is None:
        rungs = {entry["trial"]: entry["rung"] for entry in read_json(search / "trials.json")["trials"]}
    else:
        rungs = dict.fromkeys(listed, 1)
    rows = []
    for trial, rung in rungs.items():
        run = load_run(search / trial)
        rows.append(
            {"trial": trial}
            | {name: _cell(run.record["settings"][name]) for name in stage["grid"]}
            | {
                "validation_accuracy": run.final("validation", "accuracy"),
                "validation_loss": run.final("validation", "loss"),
                "status": run.record["status"],
                "selected": False,
                "rung": rung,
                "step": int(run.curve["step"].iloc[-1]),
                "curve": f"search/{search.name}/{trial}/curve.csv",
            }
        )
    table = pd.DataFrame(rows)
    ranked = table[table["status"] == "completed"].sort_values(
        ["rung", "validation_accuracy", "validation_loss", "trial"], ascending=[False, False, True, True]
    )
    table["selected"] = table.index.isin(ranked.index[:1])
    return table


def write_search(stage: dict[str, Any], search: Path, output: Path) -> None:
    """Writes `search.csv`: the trials of all searches, the name of the search in the last column.

    Args:
        stage: {search: {"grid": …, "trials": …}}, as of `select`.
        search: folder of `<search>/<trial>/` and `<search>/trials.json`.
    """
    tables = [trials(entry, search / name).assign(search=name) for name, entry in stage.items()]
    table = pd.concat(tables) if tables else pd.DataFrame(columns=["trial", "search"])
    write_text(output, table.to_csv(index=False, lineterminator="\n"))


def summarise(stage: dict[str, Any], runs: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The summary and the costs: a row a variant. Only completed runs enter the means; the others are counted."""
    found = load_runs(runs, stage["variants"])
    summary = [_summary_row(variant, found[variant["name"]]) for variant in stage["variants"]]
    costs = [_costs_row(variant["name"], found[variant["name"]]) for variant in stage["variants"]]
    return pd.DataFrame(summary), pd.DataFrame(costs)


def write_summary(stage: dict[str, Any], runs: Path, summary: Path, costs: Path) -> None:
    """Writes `summary.csv` and `costs.csv`."""
    for table, path in zip(summarise(stage, runs), (summary, costs), strict=True):
        write_text(path, table.to_csv(index=False, lineterminator="\n"))


def _summary_row(variant: dict[str, Any], runs: list[Run]) -> dict[str, Any]:
    completed = [run for run in runs if run.completed]
    record = runs[0].record
    accuracy = np.array([run.final("test", "accuracy") for run in completed])
    interval = t_interval(accuracy)
    return {
        "variant": variant["name"],
        "backend": "numpy" if record["settings"]["kind"].startswith("numpy") else "torch",
        "parameters": record["parameters"],
        "steps": record["settings"]["steps"],
        "batch_size": record["settings"]["batch_size"],
        "seeds": len(completed),
        "test_accuracy_mean": interval.mean,
        "test_accuracy_std": accuracy.std(ddof=1) if len(accuracy) > 1 else np.nan,
        "test_accuracy_ci95_low": interval.low,
        "test_accuracy_ci95_high": interval.high,
        "train_accuracy_mean": _mean(completed, "train"),
        "validation_accuracy_mean": _mean(completed, "validation"),
        "original_test_accuracy": variant["original_test_accuracy"],
        "diverged": len(runs) - len(completed),
    }


def _costs_row(name: str, runs: list[Run]) -> dict[str, Any]:
    seconds = [run.record["seconds"] for run in runs]
    speeds = [run.record["samples_seen"] / run.record["seconds"] for run in runs if run.record["seconds"]]
    devices = {run.record["device"].get("gpu", run.record["device"]["cpu"]) for run in runs}
    return {
        "variant": name,
        "train_seconds_median": float(np.median(seconds)),
        "images_per_second": float(np.median(speeds)) if speeds else np.nan,
        "peak_memory_mb": max(run.record["peak_memory_mb"] for run in runs),
        "threads": runs[0].record["threads"],
        "device": "; ".join(sorted(devices)),
    }


def _mean(runs: list[Run], split: str) -> float:
    return float(np.mean([run.final(split, "accuracy") for run in runs])) if runs else np.nan


def _cell(value: Any) -> Any:
    return "-".join(map(str, value)) if isinstance(value, list) else value
