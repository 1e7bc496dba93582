"""What stands for several: the trial that a search selects, and the variants that are shown in detail.

No choice looks at the test split.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from cifar_report.analysis.searches import trials
from cifar_report.analysis.summary import facts
from cifar_report.base.errors import InputError
from cifar_report.base.files import write_text
from cifar_report.runs.finished import Run, load_run
from cifar_report.study.kinds import KINDS


def select(stage: dict[str, Any], search: Path, output: Path) -> None:
    """Writes the settings of the configuration that a search selected, as `selected.yaml`.

    Args:
        stage: {"grid": {setting: values}, "trials": {digest: seed}}, as of `searches.trials`.
        search: folder of `<trial>/{run.json,curve.csv}` and, where the search has drawn its trials, `trials.json`.

    Raises:
        InputError: each configuration diverged with one of its seeds.
    """
    table = trials(stage, search)
    best = table.loc[table["selected"]]
    if best.empty:
        raise InputError(
            f"{search}: each configuration diverged with one of its seeds; lower the learning rates of the search"
        )
    settings = load_run(search / best.iloc[0]["trial"]).record["settings"]
    selection = {
        "trials": list(best["trial"]),
        "settings": {name: settings[name] for name in stage["grid"]},
    }
    write_text(output, yaml.safe_dump(selection, sort_keys=False))


def main_models(named: Iterable[str], runs: dict[str, list[Run]]) -> list[str]:
    """One variant for each family of models: what is shown of trained networks in detail is theirs.

    It is the one that is `named` for the family; where that has no completed run, the family's `representative`.
    """
    families: dict[str, dict[str, list[Run]]] = {}
    for name, members in runs.items():
        families.setdefault(family(members), {})[name] = members
    models = []
    for related in families.values():
        wanted = {name: related[name] for name in named if name in related}
        models.append(representative(wanted) or representative(related))
    return [name for name in models if name]


def representative(runs: dict[str, list[Run]]) -> str | None:
    """The variant that stands for several where one model is shown.

    Of the variants with a completed run: the one with the highest mean validation accuracy, where all of them have
    one (of equals the first); else the first VGG of the study, or its last variant where it has no VGG. None where
    every run diverged.
    """
    completed = {name: each for name, each in facts(runs).items() if each.seeds}
    if not completed:
        return None
    means = {name: each.accuracy["validation"].mean for name, each in completed.items()}
    if np.isfinite(list(means.values())).all():
        return max(means, key=means.__getitem__)
    vggs = [name for name in completed if family(runs[name]) == "vgg"]
    return vggs[0] if vggs else list(completed)[-1]


def family(runs: list[Run]) -> str:
    """The family of a variant's kind of model: mlp or vgg, whatever it is written in."""
    return KINDS[runs[0].record["settings"]["kind"]].family
