"""The plan: a small file for each variant, trial and stage, which holds all that its jobs depend on besides data.

Parsing the Snakefile writes them, each only where its content changed. They are the inputs of the jobs, so that exactly
the jobs run again whose settings or code changed; touched files, comments and a lost `.snakemake/` rerun nothing.
"""

from functools import cache
from pathlib import Path
from typing import Any

import yaml

from cifar_report.config import Search, Settings, Study
from cifar_report.errors import InputError
from cifar_report.files import to_json, write_text_if_changed
from cifar_report.provenance import code_digest, training_modules

# The modules that do the work of each stage.
STAGES = {
    "prepare": ("cifar_report.datasets",),
    "search": ("cifar_report.summary",),
    "summarise": ("cifar_report.summary",),
    "shifts": ("cifar_report.shifts",),
    "figures": ("cifar_report.figures",),
    "tables": ("cifar_report.tables",),
    "claims": ("cifar_report.claims",),
    "equations": ("cifar_report.equations", "cifar_report.numpy_nn.mlp", "cifar_report.torch_nn.mlp"),
}


def write(study: Study, config: dict[str, Any], folder: Path) -> None:
    """Writes `<variant>.json`, `search/<search>/<trial>.json`, `select/<search>.json` and `stages/<stage>.json`.

    Beside them stands `config.yaml`, the configuration after all overlays.

    Raises:
        InputError: the folder cannot be written.
    """
    try:
        for name, document in documents(study).items():
            write_text_if_changed(folder / f"{name}.json", to_json(document))
        write_text_if_changed(folder / "config.yaml", yaml.safe_dump(config, sort_keys=False, allow_unicode=True))
    except OSError as error:
        raise InputError(f"{folder}: expected a folder to write results to, found {error.strerror}") from error


def documents(study: Study) -> dict[str, dict[str, Any]]:
    """Each plan file's content by its name without ending."""
    code = cache(code_digest)
    plans: dict[str, dict[str, Any]] = {}
    for variant in study.variants.values():
        kind = variant.settings["kind"]
        plans[variant.name] = {
            "variant": variant.name,
            "search": variant.search,
            "settings": variant.settings if variant.search else variant.resolved().canonical(),
            "code": code(*training_modules(kind)),
        }
    for search in study.searches.values():
        for trial, settings in search.trials().items():
            plans[f"search/{search.name}/{trial}"] = {
                "variant": f"{search.name}-{trial[:6]}",
                "seed": search.seed,
                "settings": settings.canonical(),
                "code": code(*training_modules(settings.kind)),
            }
        plans[f"select/{search.name}"] = {"settings": _trials(search), "code": code(*STAGES["search"])}
    slices = _stage_settings(study)
    for stage, modules in STAGES.items():
        plans[f"stages/{stage}"] = {"settings": slices[stage], "code": code(*modules)}
    return plans


def settings_of(plan: dict[str, Any], selected: dict[str, Any] | None = None) -> Settings:
    """The full settings of a variant's or trial's plan, with what its search selected."""
    return Settings.from_mapping(plan["settings"] | (selected or {}))


def _stage_settings(study: Study) -> dict[str, Any]:
    """The slice of the configuration that each stage takes."""
    variants = [
        {
            "name": v.name,
            "label": v.label,
            "seeds": v.seeds,
            "search": v.search,
            "original_test_accuracy": v.original_test_accuracy,
        }
        for v in study.variants.values()
    ]
    rows = {"variants": variants}
    searches = {s.name: _trials(s) for s in study.searches.values()}
    return {
        "prepare": {
            "name": study.dataset_name,
            "source": study.dataset,
            "validation_images": study.validation_images,
        },
        "search": searches,
        "summarise": rows,
        "shifts": study.shifts | {"variants": [v for v in variants if v["name"] in study.shifts["variants"]]},
        "figures": rows | {"searches": searches},
        "tables": rows | {"searches": searches, "study": study.name, "report": study.report},
        "claims": rows | {"searches": searches, "catalogue": study.catalogue},
        "equations": {},
    }


def _trials(search: Search) -> dict[str, Any]:
    return {"grid": search.grid, "trials": list(search.trials())}
