"""The plan: a small file for each variant, trial and stage, which holds all that its jobs depend on besides data.

Parsing the Snakefile writes them, each only where its content changed. They are the inputs of the jobs, so that exactly
the jobs run again whose settings or code changed; touched files, comments and a lost `.snakemake/` rerun nothing.
"""

import errno
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from cifar_report.base.errors import InputError
from cifar_report.base.files import blocked, keep_digest, read_json, read_yaml, sha256, to_json, write_text_if_changed
from cifar_report.data import datasets
from cifar_report.data.archives import listing, located
from cifar_report.study.config import Search, Study, check_data
from cifar_report.study.displays import digests
from cifar_report.study.kinds import KINDS
from cifar_report.study.settings import NEUTRAL, Settings, coerced, digest
from cifar_report.study.stages import kept_code_digest, kept_in, modules_digest

# The modules that do the work of each stage.
STAGES = {
    "prepare": ("cifar_report.data.datasets",),
    "search": ("cifar_report.analysis.searches",),
    "summarise": ("cifar_report.analysis.summary",),
    "shifts": ("cifar_report.analysis.perturbed",),
    "flips": ("cifar_report.analysis.perturbed",),
    "batch-statistics": ("cifar_report.analysis.perturbed",),
    "agreement": (
        "cifar_report.analysis.agreement",
        *sorted({entry.rpartition(".")[0] for kind in KINDS.values() for entry in (kind.trainer, kind.builder)}),
    ),
    "events": ("cifar_report.rendering.events",),
    "figures": ("cifar_report.rendering.figures",),
    "tables": ("cifar_report.rendering.tables",),
    "claims": ("cifar_report.analysis.claims.verdicts", "cifar_report.rendering.claims"),
    "equations": (
        "cifar_report.rendering.equations",
        "cifar_report.study.settings",
        *sorted({entry.rpartition(".")[0] for kind in KINDS.values() for entry in (kind.trainer, kind.builder)}),
    ),
    "report": (),
    "html": ("cifar_report.rendering.pages",),
}
# The files of the repository that each stage reads, as patterns from its root; the file of the claims is the study's.
# Their digests stand in the plan, so that what was made from others is noticed however old they are.
SOURCES = {
    "equations": ("tests/equations/*.py",),
    "report": ("report/**/*.tex", "report/**/*.bib", "workflow/scripts/render-report"),
    "html": ("workflow/report/*.rst", "workflow/report/style.css"),
}
# What each stage takes of a variant's entry, besides its name.
FIELDS = {
    "summarise": ("seeds", "original_test_accuracy"),
    "shifts": ("seeds",),
    "flips": ("seeds",),
    "batch-statistics": ("seeds",),
    "events": ("seeds",),
    "figures": ("label", "seeds", "search", "original_test_accuracy", "original_figure"),
    "tables": ("label", "seeds", "search", "original_test_accuracy"),
    "claims": ("seeds", "search"),
    "html": ("label",),
}
HALVING = "cifar_report.runs.halving"  # draws and promotes the trials of a search
SELECTION = "cifar_report.analysis.selection"  # chooses one of them


def write(study: Study, config: dict[str, Any], folder: Path) -> None:
    """Writes `<variant>.json`, `select/<search>.json` and `stages/<stage>.json`.

    For each trial of a grid `search/<search>/<trial>.json`, for a search that draws them `halving/<search>.json`.
    Beside them stand `config.yaml`, the configuration after all overlays, and `stages/needs.json`, what runs ask of the
    data.

    Raises:
        InputError: the folder cannot be written, or the data that are there are not such as the study needs.
    """
    try:
        with kept_in(folder.parents[1] / ".digests.json"):
            plans = documents(study)
        before = _prepared(folder)
        prepare = plans["stages/prepare"]
        if not prepare.get("files", True):  # the images went, but what was prepared of them may be there
            prepare["files"] = before.get("files")
        if to_json(before) == to_json(prepare):  # else `prepare-dataset` checks the data that it makes
            check_needs(study.needs(), folder.parent / "dataset")
        # First, since by it the folder is known as a study's, which keeps digests of what is written there.
        write_text_if_changed(folder / "config.yaml", yaml.safe_dump(config, sort_keys=False, allow_unicode=True))
        keep_digest(folder / "config.yaml")
        for name, document in plans.items():
            write_text_if_changed(folder / f"{name}.json", to_json(document))
    except OSError as error:
        named = Path(error.filename or folder)
        place = error.errno in (errno.EEXIST, errno.ENOTDIR) and blocked(error)
        if place or named.is_relative_to(folder.parents[1]):
            raise InputError(
                f"{place or folder}: expected a folder to write results to, found {error.strerror}"
            ) from error
        raise InputError(
            f"{named}: expected to read it, as the configuration names it, found {error.strerror}"
        ) from error


def _prepared(folder: Path) -> dict[str, Any]:
    """What the plan said of the data before; nothing where that cannot be read."""
    try:
        return dict(read_json(folder / "stages/prepare.json"))
    except (InputError, TypeError, ValueError):
        return {}


def stage(path: Path) -> Any:
    """The settings in the plan file of a stage, or of a search's selection.

    Raises:
        InputError: it is missing, or not what the plan wrote.
    """
    try:
        return read_json(path)["settings"]
    except (KeyError, TypeError) as error:
        raise InputError(f"{path}: is not what the plan wrote, so it was damaged; call snakemake again") from error


def check_needs(needs: dict[str, dict[str, Any]], dataset: Path) -> None:
    """Refuses a study whose variants or searches ask for other data than there are; where there are none, none.

    Args:
        needs: as of `Study.needs`; dataset: folder that `prepare` made.
    """
    if (dataset / "dataset.json").is_file():
        data = datasets.load(dataset)
        for where, each in needs.items():
            check_data(each, data.counts, data.shape, f"config: {where}")


def sources(stage: str, root: Path = Path()) -> list[str]:
    """The files of the repository that a stage reads, named from its root."""
    found = {path.relative_to(root).as_posix() for pattern in SOURCES[stage] for path in root.glob(pattern)}
    return sorted(found)


def documents(study: Study, root: Path = Path()) -> dict[str, dict[str, Any]]:
    """Each plan file's content by its name without ending; `root` is that of the repository."""
    code, trains = cache(modules_digest), cache(kept_code_digest)
    plans: dict[str, dict[str, Any]] = {}
    for variant in study.variants.values():
        plans[variant.name] = {
            "variant": variant.name,
            "search": variant.search,
            "settings": coerced(variant.settings) if variant.search else variant.resolved().canonical(),
            "code": trains(variant.settings["kind"]),
        }
    for search in study.searches.values():
        for name, trial in search.trials().items():
            plans[f"search/{search.name}/{name}"] = {
                "variant": f"{search.name}-{name[:6]}",
                "seed": trial.seed,
                "settings": trial.settings.canonical(),
                "code": trains(trial.settings.kind),
            }
        if search.halving:
            plans[f"halving/{search.name}"] = {
                "search": search.name,
                "seed": search.seeds[0],
                "settings": search.base,
                "grid": search.grid,
                "rung_steps": search.rung_steps(),
                "halving": asdict(search.halving),
                "code": trains(search.base["kind"]),
                "search_code": code(HALVING),
            }
        plans[f"select/{search.name}"] = {"settings": _trials(search), "code": code(SELECTION)}
    slices = stage_settings(study)
    for stage, modules in STAGES.items():
        plans[f"stages/{stage}"] = {"settings": slices.get(stage, {}), "code": code(*modules)}
        if stage in SOURCES:
            plans[f"stages/{stage}"]["sources"] = {name: sha256(root / name) for name in sources(stage, root)}
    plans["stages/equations"]["displays"] = digests(root / "report")  # and not the text around them
    if study.claims:
        plans["stages/claims"]["sources"] = {study.claims: sha256(root / study.claims)}
    if "path" in study.dataset and "sha256" not in study.dataset:  # images that may be replaced
        plans["stages/prepare"]["files"] = listing(located(study.dataset["path"]))
    plans["stages/needs"] = {"settings": study.needs()}
    return plans


def settings_of(plan: dict[str, Any], selected: dict[str, Any] | None = None) -> Settings:
    """The full settings of a variant's or trial's plan, with what its search selected.

    Raises:
        InputError: this code makes other settings of them than they say.
    """
    planned = plan["settings"] | (selected or {})
    settings = Settings.from_mapping(planned)
    found = settings.full()
    if differ := [name for name, value in planned.items() if found[name] != _as_json(value)]:
        raise InputError(
            f"plan: settings.{differ[0]}: {planned[differ[0]]!r} is read as {found[differ[0]]!r}; the code that reads "
            "settings changed while the study ran: call the same command again"
        )
    return settings


def selected_settings(path: Path) -> dict[str, Any]:
    """What a search chose: the settings in its selected.yaml.

    Raises:
        InputError: it is not what `select-trial` wrote.
    """
    try:
        return dict(read_yaml(path)["settings"])
    except (InputError, KeyError, TypeError, ValueError, OSError) as error:
        raise InputError(
            f"{path}: expected the settings that the search selected, found something else ({error}); delete it, it is "
            "remade"
        ) from error


def superseded(study: Study, store: Path) -> tuple[int, float]:
    """How many finished runs were trained for this study by other code, and not since by this, and how long they took.

    Args:
        store: folder of all runs.

    Returns:
        Their number, and the seconds of training and evaluation together.
    """
    codes = {kind: kept_code_digest(kind) for kind in KINDS}
    wanted = [(variant.settings, set(variant.seeds)) for variant in study.variants.values()]
    for search in study.searches.values():
        drawn = {name: value for name, value in search.base.items() if name not in search.grid and name != "steps"}
        seeds = set(search.seeds)
        wanted += [(trial.settings.full(), {trial.seed}) for trial in search.trials().values()] or [(drawn, seeds)]
    parts = [(coerced(settings), seeds) for settings, seeds in wanted]
    seconds: dict[str, float] = {}
    there = set()
    for path in store.glob("*/finished/run.json"):
        try:
            run = read_json(path)
            # A setting that came to be since is neutral in it.
            own = {name: _as_json(value) for name, value in (NEUTRAL | run["settings"]).items()}
            took = run["seconds"] + run["evaluation_seconds"]
            known = digest({"settings": own, "seed": run["seed"], "data": run["data"]["digests"]})
            if run["code"] == codes.get(own["kind"]):
                there.add(known)
            elif any(
                run["seed"] in seeds and all(own.get(name) == _as_json(value) for name, value in settings.items())
                for settings, seeds in parts
            ):
                seconds[known] = took
        except (InputError, KeyError, TypeError):
            continue  # whoever wants that run tells what is wrong with it
    missing = seconds.keys() - there
    return len(missing), sum(seconds[known] for known in missing)


def _as_json(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def stage_settings(study: Study) -> dict[str, Any]:
    """The slice of the configuration that each stage takes."""
    variants = [
        {
            "name": v.name,
            "label": v.label,
            "seeds": v.seeds,
            "search": v.search,
            "original_test_accuracy": v.original_test_accuracy,
            "original_figure": v.original_figure,
        }
        for v in study.variants.values()
    ]

    def rows(stage: str) -> dict[str, Any]:
        return {"variants": [{name: variant[name] for name in ("name", *FIELDS[stage])} for variant in variants]}

    searches = {s.name: _trials(s) for s in study.searches.values()}
    return {
        "prepare": {
            "name": study.dataset_name,
            "source": study.dataset,
            "validation_images": study.validation_images,
        },
        "search": searches,
        "summarise": rows("summarise"),
        "shifts": study.shifts
        | {"variants": [v for v in rows("shifts")["variants"] if v["name"] in study.shifts["variants"]]},
        "flips": {"variants": [v for v in rows("flips")["variants"] if v["name"] in study.flipped]},
        "batch-statistics": {
            "variants": [v for v in rows("batch-statistics")["variants"] if v["name"] in study.by_batch_statistics]
        },
        "agreement": {"pairs": [_pair(study, *names) for names in study.agreement]},
        "events": rows("events") if study.tensorboard else {"variants": []},
        "figures": rows("figures")
        | {"searches": searches, "main": _main(study)}
        | {"shifted": [name for name in study.shifts["variants"] if name in study.variants]},
        "tables": rows("tables")
        | {"reproduces": study.reproduces}
        | {"searches": searches, "study": study.name, "report": study.report, "main": _main(study)}
        | {"agreement": len(study.agreement)}
        | {"like": {v.name: v.like for v in study.variants.values() if v.like}}
        | {key: {name: _listed(study, name) for name in getattr(study, key)} for key in ("ablations", "recipes")},
        "claims": rows("claims") | {"catalogue": study.catalogue},
        "html": rows("html")
        | {"study": study.name, "dataset": study.dataset_name}
        | {"searches": {s.name: list(s.grid) for s in study.searches.values()}},
    }


def _pair(study: Study, first: str, second: str) -> dict[str, Any]:
    """Two implementations that are compared, with the first's first seed."""
    settings = {name: study.variants[name].resolved().canonical() for name in (first, second)}
    return {"first": first, "second": second, "seed": study.variants[first].seeds[0], "settings": settings}


def _main(study: Study) -> list[str]:
    """The variant of each family, MLP or VGG, that `report.best` names last, of those that the study runs."""
    named = [name for reproduced, best in study.best.items() for name in (reproduced, *best) if name in study.variants]
    return list({KINDS[study.variants[name].settings["kind"]].family: name for name in named}.values())


def _listed(study: Study, name: str) -> dict[str, Any]:
    """What is told of a list of configurations: its variant, how long that trains and these do, and their names."""
    search = study.searches[name]
    like = study.variants[search.like]
    names = {"variant": like.name, "label": like.label, "configurations": list(search.listed)}
    return names | {"steps": search.base["steps"], "steps_of_variant": like.settings.get("steps")}


def _trials(search: Search) -> dict[str, Any]:
    """What is known of a search beforehand; the trials of a successive halving stand in its `trials.json`."""
    known = {"method": search.method, "grid": search.grid}
    if search.halving:
        return known | {"rung_steps": search.rung_steps()}
    return known | {"trials": {name: trial.replicate for name, trial in search.trials().items()}}
