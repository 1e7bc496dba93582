"""The tables of what was measured on networks beside their runs: the columns of each, written and read."""

import math
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from cifar_report.base.errors import InputError
from cifar_report.base.files import read_table, write_text

SHIFTS = ["variant", "seed", "shift", "images", "accuracy"]
FLIPS = ["variant", "seed", "images", "loss", "loss_flipped", "accuracy", "accuracy_flipped"]
BATCH_STATISTICS = ["variant", "seed", "images", "batch_size", "last_batch", "accuracy", "accuracy_evaluated"]
AGREEMENT = [
    *("first", "second", "seed", "step", "loss_first", "loss_second", "loss_difference"),
    *("gradient_difference", "tensor", "tensors", "skipped", "sign_changes", "pre_activations"),
]
_NAMES = ("variant", "first", "second", "tensor")  # text
SHIFTED = range(5)  # pixels that images are moved by


def write(path: Path, columns: list[str], rows: Iterable[tuple]) -> None:
    """Writes a table; it has its columns without a row, too."""
    write_text(path, pd.DataFrame(rows, columns=columns).to_csv(index=False, lineterminator="\n"))


def read(path: Path, columns: list[str]) -> pd.DataFrame:
    """A table, checked: all but names are numbers, none below 0, accuracies up to 1; a missing one is NaN.

    Args:
        columns: one of the lists above.

    Raises:
        InputError: the file is missing, is no CSV, lacks a column, or has another value in it.
    """
    table = read_table(path)
    if missing := [name for name in columns if name not in table.columns]:
        raise InputError(
            f"{path}: expected the columns {', '.join(columns)}, but {missing[0]} is missing; delete it and run again"
        )
    for name in (name for name in columns if name not in _NAMES):
        numbers = pd.to_numeric(table[name], errors="coerce")
        most = 1 if name.startswith("accuracy") else math.inf
        wrong = table[name].notna() & ~numbers.between(0, most)
        if wrong.any():
            limits = "0 to 1" if most == 1 else "0 or more"
            raise InputError(
                f"{path}: {name}: expected a number, {limits}, found '{table[name][wrong].iloc[0]}'; "
                "delete the file and run again"
            )
        table[name] = numbers
    return table


def lost(shifts: pd.DataFrame, share: bool = False) -> pd.DataFrame:
    """The test accuracy that each run loses by a shift: a row a variant and seed, a column a shift in pixels.

    Args:
        shifts: shifts.csv; what is lost is the accuracy on the unmoved images minus that on the same images moved.
        share: as a share of the accuracy on the unmoved images, instead of absolutely.
    """
    accuracy = shifts.pivot_table(index=["variant", "seed"], columns="shift", values="accuracy").reindex(
        columns=SHIFTED
    )
    points = accuracy.rsub(accuracy[0], axis=0)
    return points.div(accuracy[0], axis=0) if share else points
