"""Which runs a study asks for, and what each of them is by the plan and the data as they are now."""

from pathlib import Path
from typing import Any

from cifar_report.base.files import read_json
from cifar_report.data import datasets
from cifar_report.study import plan
from cifar_report.study.identity import run_identity
from cifar_report.study.settings import Settings


def planned_runs(results: Path) -> list[str]:
    """The folder of each run and trial that the study asks for; trials that a search draws, once it has drawn them."""
    variants = plan.stage(results / "plan/stages/summarise.json")["variants"]
    folders = [f"runs/{variant['name']}/seed-{seed}" for variant in variants for seed in variant["seeds"]]
    for search, stage in plan.stage(results / "plan/stages/search.json").items():
        listed = results / "search" / search / "trials.json"
        drawn = [trial["trial"] for trial in read_json(listed)["trials"]] if listed.is_file() else []
        folders += [f"search/{search}/{trial}" for trial in stage.get("trials", drawn)]
    return folders


def plan_of(folder: str) -> str:
    """The plan file of a run's folder."""
    kind, name, *_ = folder.split("/")
    return f"plan/{name}.json" if kind == "runs" else f"plan/{folder}.json"


def planned_settings(folder: str, results: Path) -> Settings:
    """The settings that a run's plan asks for, with those that its search has selected."""
    document = read_json(results / plan_of(folder))
    path = results / "search" / str(document.get("search")) / "selected.yaml"
    selected = plan.selected_settings(path) if path.is_file() else {}
    return plan.settings_of(document, selected)


def planned_identity(folder: str, run: dict[str, Any], results: Path) -> str:
    """The identity that a run of this seed, which opens these arrays, has by the plan and the data as they are now."""
    known = datasets.load(results / "dataset").digests()
    data = {name: known.get(name, "") for name in run["data"]["digests"]}
    code = read_json(results / plan_of(folder))["code"]
    return run_identity(planned_settings(folder, results), run["seed"], data, code)
