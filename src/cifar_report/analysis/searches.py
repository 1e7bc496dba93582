"""The trials of all searches, as `search.csv`: made from the runs, and read by whoever shows or tests them."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from cifar_report.analysis.statistics import Estimate, welch_estimate
from cifar_report.base.errors import InputError
from cifar_report.base.files import read_json, unaltered, write_text
from cifar_report.runs.finished import load_run

# The columns of search.csv that are no settings, those after the settings in their order, and what a reader gets.
TYPES: dict[str, type] = {
    "trial": str,
    "validation_accuracy": float,  # a fraction
    "validation_loss": float,  # nats
    "status": str,  # completed or diverged
    "selected": bool,
    "rung": int,  # that it was trained on; 1 in a grid
    "step": int,  # its last
    "curve": str,  # path from the study's folder
    "search": str,
    "seed": int,
}
# By NumPy, which reads the very float that was written; pandas may miss its last bit.
_TYPED: dict[type, Callable[[pd.Series], Any]] = {
    str: lambda column: column,
    int: lambda column: column.to_numpy(dtype=object).astype(np.int64),
    float: lambda column: column.where(column != "", "nan").to_numpy(dtype=object).astype(np.float64),
    bool: lambda column: column == "True",
}


def trials(stage: dict[str, Any], search: Path) -> pd.DataFrame:
    """A row a trial of one search: the columns of TYPES, and each setting that is searched.

    Selected are the trials of the configuration with the best mean validation accuracy over its seeds. One that
    diverged with any of them does not compete: it may again. Of equals the one with the lower mean validation loss
    wins, then the smaller digest. Of a successive halving, those of its longest rung alone compete.

    Args:
        stage: {"grid": {setting: values}, "trials": {digest: seed that it is listed under}}, without "trials" where
            they stand in `trials.json`.
        search: folder of `<trial>/{run.json,curve.csv}` and, where the search has drawn its trials, `trials.json`.
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
                "search": search.name,
                "seed": listed[trial] if listed else run.record["seed"],
            }
        )
    table = pd.DataFrame(rows)
    each = configurations(table)
    finalists = each[(each["diverged"] == 0) & (each["rung"] == each["rung"].max())]
    # Equal means may differ in their last bit, by the order of the seeds.
    ranked = finalists.round({"validation_accuracy": 9}).sort_values(
        ["validation_accuracy", "validation_loss", "trial"], ascending=[False, True, True]
    )
    table["selected"] = _by_configuration(table).ngroup().isin(ranked.index[:1])
    return table


def write(stage: dict[str, Any], search: Path, output: Path) -> None:
    """Writes `search.csv`: the trials of all searches, one search after the other.

    Args:
        stage: {search: {"grid": …, "trials": …}}, as of `trials`.
        search: folder of `<search>/<trial>/` and `<search>/trials.json`.
    """
    # As objects: a whole number stays one beside a search that does not vary it.
    tables = [trials(entry, search / name).astype(object) for name, entry in stage.items()]
    table = pd.concat(tables) if tables else pd.DataFrame(columns=["trial", "search"])
    write_text(output, table.to_csv(index=False, lineterminator="\n"))


def read(path: Path, searches: Iterable[str] = ()) -> pd.DataFrame:
    """`search.csv`, its settings as the text that they are written in, "" for one that a search does not vary.

    Raises:
        InputError: the file is missing or malformed, or one of `searches` has no row in it.
    """
    again = "run the rule `tabulate_search` again"
    try:
        table = pd.read_csv(unaltered(path), dtype=str, keep_default_na=False)
        if missing := [name for name in TYPES if name not in table]:
            raise InputError(f"{path}: the column {missing[0]} is missing; {again}")
        for name, kind in TYPES.items():
            table[name] = _TYPED[kind](table[name])
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: expected a CSV file of trials, found {error}; {again}") from error
    if missing := [name for name in searches if name not in set(table["search"])]:
        raise InputError(f"{path}: no trial of the search {missing[0]}; {again}")
    return table


def settings(table: pd.DataFrame) -> list[str]:
    """The columns of `search.csv`, or of some of its rows, that are settings with a value in one of them."""
    return [name for name in table.columns if name not in TYPES and (table[name] != "").any()]


def levels(table: pd.DataFrame) -> dict[str, list[str]]:
    """The values of each setting of a search that has two or more in these rows, in the order of the configuration."""
    values = {name: list(dict.fromkeys(table[name])) for name in settings(table)}
    return {name: listed for name, listed in values.items() if len(listed) > 1}


def configurations(table: pd.DataFrame) -> pd.DataFrame:
    """A row a configuration and rung of one search, in the order of its trials.

    The columns are those of the settings, `rung`, `step`, `selected`, `trial` (its first), `trials` and `diverged` (how
    many), `validation_accuracy` and `validation_loss`, means over the seeds that completed, and `spread`, the standard
    deviation of their accuracies (NaN for fewer than two).
    """
    scores = ["validation_accuracy", "validation_loss"]
    done = table["status"] == "completed"
    own = _by_configuration(table.assign(**{name: table[name].where(done) for name in scores}))
    means = own[scores].mean().assign(spread=own["validation_accuracy"].std())
    groups = _by_configuration(table)
    counts = groups["status"].agg(trials="size", diverged=lambda status: (status == "diverged").sum())
    return means.join(counts).join(groups.agg({"trial": "min", "step": "max", "selected": "first"})).reset_index()


def main_effects(table: pd.DataFrame, weights: dict[str, float]) -> Estimate:
    """A weighted sum of settings' main effects in a full grid on validation accuracy.

    A setting's main effect is the mean over all configurations with its last listed value minus that over all with its
    first. The error is the pure one, from the trials of each configuration, with a variance for each: Welch's, of
    the weighted sum of the configurations' means. These are independent, since no two trials of a grid share draws.

    Args:
        table: the trials of a full grid.
        weights: by the setting's name.

    Returns:
        In fractions; no error where a configuration has fewer than two completed trials, no mean where one has none.
    """
    varied = levels(table)
    each = configurations(table)
    weight = np.zeros(len(each))
    for name, sign in weights.items():
        for value, side in ((varied[name][-1], sign), (varied[name][0], -sign)):
            at = (each[name] == value).to_numpy()
            weight += side * at / at.sum()
    own = _by_configuration(table).ngroup()[table["status"] == "completed"]
    accuracy = table["validation_accuracy"]
    samples = [(float(w), accuracy[own.index[own == i]].to_numpy(np.float64)) for i, w in enumerate(weight) if w]
    return welch_estimate(samples)


def by_seed(table: pd.DataFrame) -> pd.DataFrame:
    """Validation accuracies: a row a configuration, in the order of `configurations`, and a column a seed.

    NaN where the trial diverged.
    """
    done = table["validation_accuracy"].where(table["status"] == "completed")
    numbered = table.assign(configuration=_by_configuration(table).ngroup(), accuracy=done)
    return numbered.pivot(index="configuration", columns="seed", values="accuracy")


class SelectionBias(NamedTuple):
    """How much better than itself the best configuration of a search looks by what it was chosen by; fractions."""

    mean: float
    low: float  # the smallest and the largest of the seeds that chose
    high: float


def selection_bias(table: pd.DataFrame) -> SelectionBias | None:
    """The bias of the best of a grid, by its trials alone.

    Each seed chooses by its own trials; the bias is the accuracy of what it chose minus the mean of that
    configuration's other seeds. Their images are the same, so that this is the seeds' part of it; what the choice owes
    to the images comes on top. The seeds choose from the same trials in turn and are no sample: there is no interval.

    Args:
        table: the trials of a grid.

    Returns:
        None where there is one seed, or where a trial diverged with some seed in each configuration.
    """
    each = configurations(table)
    whole = np.flatnonzero(each["diverged"] == 0)
    if table["seed"].nunique() < 2 or not len(whole):
        return None
    accuracy = by_seed(table).loc[whole]
    chosen = {seed: accuracy.loc[own.idxmax()] for seed, own in accuracy.items()}
    biases = [float(row[seed] - row.drop(seed).mean()) for seed, row in chosen.items()]
    return SelectionBias(float(np.mean(biases)), min(biases), max(biases))


def _by_configuration(table: pd.DataFrame) -> Any:
    """The rows of a search in groups of one configuration on one rung."""
    return table.groupby([*settings(table), "rung"], sort=False, dropna=False)


def _cell(value: Any) -> Any:
    return "-".join(map(str, value)) if isinstance(value, list) else value
