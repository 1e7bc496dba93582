"""Runs that are taken out of a study and the store on purpose, so that they are trained anew."""

import os
import shutil
from contextlib import ExitStack
from pathlib import Path

from cifar_report.base.errors import InputError
from cifar_report.base.files import lock_holder, read_json
from cifar_report.runs.planned import planned_settings
from cifar_report.runs.record import record_digest
from cifar_report.runs.store import identity_of, locked
from cifar_report.study import plan
from cifar_report.study.identity import run_identity


def forget(results: Path, store: Path, variant: str) -> int:
    """Removes a variant's runs: those of the study's folder, and from the store also what no study has published yet.

    The study's summary goes too: Snakemake makes a missing run again if something that it is asked for is missing.

    Returns:
        How many runs there were.

    Raises:
        InputError: there are none, one is being trained or its folder is a link, a run.json is not that of its place in
            the plan, or what tells which seeds the store may have is missing; nothing was removed.
    """
    known = {path.name for path in results.glob("runs/*")} | {path.stem for path in results.glob("plan/*.json")}
    published = sorted((results / "runs" / variant).glob("seed-*/run.json")) if variant in known else []
    planned = _planned(results, variant, published) if variant in known else {}
    identities = {_identity(path, variant, planned) for path in published} | set(planned.values())
    homes = [home for identity in sorted(identities) if os.path.lexists(home := store / identity)]
    if not published and not homes:
        raise InputError(
            f"{results / 'runs' / variant}: expected runs to forget, found none; name a variant that has run"
        )
    for folder in (*homes, *(path.parent for path in published)):
        if folder.is_symlink() or not folder.is_dir():
            raise InputError(
                f"{folder}: expected a run's own folder, found a link or a file; nothing was forgotten; remove it, "
                "then call again"
            )
    with ExitStack() as locks:
        for home in homes:
            if not locks.enter_context(locked(home, wait=False)):
                raise InputError(
                    f"{variant}: {lock_holder(home / 'lock')} trains a run now ({home}), so nothing was forgotten; "
                    "wait until it ends, or stop Snakemake, then call again"
                )
        for folder in (*homes, *(path.parent for path in published)):
            shutil.rmtree(folder)
    for name in ("summary.csv", "costs.csv"):
        (results / name).unlink(missing_ok=True)
    return len(identities)


def _identity(path: Path, variant: str, planned: dict[str, str]) -> str:
    """The identity of a published run, once its run.json is seen to be that of its folder, and unaltered."""
    identity, run, folder = identity_of(path), read_json(path), path.parent.name
    whole = run.get("sha256") in (None, record_digest(run))
    if not whole or run.get("variant") != variant or planned.get(folder, identity) != identity:
        raise InputError(
            f"{path}: expected the run of {variant}, {folder}, as it is planned, found an altered one or another one; "
            "nothing was forgotten; call Snakemake, which makes it again, or remove its folder"
        )
    return identity


def _planned(results: Path, variant: str, published: list[Path]) -> dict[str, str]:
    """By `seed-<n>`, the identities of the plan's and the published seeds.

    Raises:
        InputError: data, plan or choice are not known, so that seeds that were trained ahead would be left.
    """
    needed = [
        results / f"plan/{variant}.json",
        results / "plan/stages/summarise.json",
        results / "dataset/dataset.json",
    ]
    if needed[0].is_file() and (search := read_json(needed[0])["search"]):
        needed.append(results / f"search/{search}/selected.yaml")
    if missing := [path for path in needed if not path.is_file()]:
        raise InputError(
            f"{missing[0]}: expected it, which tells with others what the store may have of {variant}, found none; "
            f"nothing was forgotten; call Snakemake with {variant} in `run`, which makes it, then again"
        )
    document, summarised, dataset = read_json(needed[0]), plan.stage(needed[1]), read_json(needed[2])
    settings = planned_settings(f"runs/{variant}", results)
    seeds = [seed for entry in summarised["variants"] if entry["name"] == variant for seed in entry["seeds"]]
    names = {f"seed-{seed}" for seed in seeds} | {path.parent.name for path in published}
    return {
        name: run_identity(settings, int(name.removeprefix("seed-")), dataset["sha256"], document["code"])
        for name in names
        if name.removeprefix("seed-").isdecimal()
    }
