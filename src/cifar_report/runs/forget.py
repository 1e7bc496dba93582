"""Runs that are taken out of a study and the store on purpose, so that they are trained anew."""

import shutil
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from cifar_report.base.errors import InputError
from cifar_report.base.files import read_json
from cifar_report.runs.store import identity_of, locked
from cifar_report.study import plan
from cifar_report.study.identity import run_identity


def forget(results: Path, store: Path, variant: str) -> int:
    """Removes a variant's runs: those of the study's folder, and from the store also what no study has published yet.

    The study's summary goes too: Snakemake makes a missing run again if something that it is asked for is missing.

    Returns:
        How many runs there were.

    Raises:
        InputError: there are none, one is being trained, or a run.json names no run; nothing was removed.
    """
    published = sorted((results / "runs" / variant).glob("seed-*/run.json"))
    identities = {identity_of(path) for path in published} | _planned(results, variant)
    homes = [store / identity for identity in sorted(identities) if (store / identity).is_dir()]
    if not published and not homes:
        raise InputError(
            f"{results / 'runs' / variant}: expected runs to forget, found none; name a variant that has run"
        )
    with ExitStack() as locks:
        for home in homes:
            if not locks.enter_context(locked(home, wait=False)):
                raise InputError(
                    f"{variant}: a run is being trained now ({home}), so nothing was forgotten; wait until it ends, or "
                    "stop Snakemake, then call again"
                )
        for folder in (*homes, *(path.parent for path in published)):
            shutil.rmtree(folder)
    for name in ("summary.csv", "costs.csv"):
        (results / name).unlink(missing_ok=True)
    return len(identities)


def _planned(results: Path, variant: str) -> set[str]:
    """The identities that the plan's seeds of a variant have, as far as its data and its search's choice are known."""
    needed = [
        results / f"plan/{variant}.json",
        results / "plan/stages/summarise.json",
        results / "dataset/dataset.json",
    ]
    if not all(path.is_file() for path in needed):
        return set()
    document, summarised, dataset = read_json(needed[0]), plan.stage(needed[1]), read_json(needed[2])
    selected: dict[str, Any] = {}
    if document["search"]:
        choice = results / f"search/{document['search']}/selected.yaml"
        if not choice.is_file():
            return set()
        selected = plan.selected_settings(choice)
    settings = plan.settings_of(document, selected)
    seeds = [seed for entry in summarised["variants"] if entry["name"] == variant for seed in entry["seeds"]]
    return {run_identity(settings, seed, dataset["sha256"], document["code"]) for seed in seeds}
