"""Which figures a study has, and of which runs each is drawn; writes them all, with an index of what they show."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cifar_report.base.errors import InputError
from cifar_report.base.files import to_json, write_text
from cifar_report.data import datasets
from cifar_report.rendering.figures.accuracy import comparison, curves, originals
from cifar_report.rendering.figures.predictions import calibration, confusion, samples
from cifar_report.rendering.figures.searches import (
    batch_sizes,
    interactions,
    parallel,
    rungs,
    search_effects,
)
from cifar_report.rendering.figures.shifts import shift_losses
from cifar_report.rendering.figures.style import Drawing, completed_runs, nothing_drawn, save, style
from cifar_report.rendering.figures.weights import first_layer

if TYPE_CHECKING:
    from cifar_report.runs.finished import Run

IN_DETAIL = ("samples", "confusion", "first-layer", "calibration")  # figures of single trained networks


def names(stage: dict[str, Any]) -> list[str]:
    """The names of a study's figures, in the order of the report, known before anything is trained.

    Args:
        stage: {"variants": [{"name", "label", "seeds", "search", "original_test_accuracy", "original_figure"}, …]}
            and, where figures of more than main effects are wanted, "searches": {search: {"method", "grid": {setting:
            values or range}}}, and "shifted": names of the variants that are measured on shifted images.
    """
    figures = [f"curves-{variant['name']}" for variant in stage["variants"]] + ["comparison"]
    if _of_original(stage):
        figures.append("originals")
    for search in _searches(stage):
        figures.append(f"search-{search}")
        if len(_searched(stage, search)) > 1:
            figures.append(f"interactions-{search}")
    if _batch_size_search(stage):
        figures.append("batch-size")
    if stage.get("shifted"):
        figures.append("shifts")
    return [*figures, *IN_DETAIL]


def write(
    stage: dict[str, Any], runs: Path, dataset: Path, search: Path | None, output: Path, shifts: Path | None = None
) -> None:
    """Writes `<name>.pdf` and `<name>.svg` for each of `names`, and last `figures.json`.

    The index lists each figure's name, title, caption, facts and sources, see `Drawing`.

    Args:
        stage: as of `names`.
        runs: folder of `<variant>/seed-<n>/`; dataset: folder that `prepare` made.
        search: search.csv, with the trials' folders in `search/` beside it; None where the study has no search.
        output: folder of the figures.
        shifts: shifts.csv; None where the study measures no variant on shifted images.

    Raises:
        InputError: a file is missing, or is not what it should be.
    """
    index = []
    with style():
        for name, drawing in _drawings(stage, runs, datasets.load(dataset), search, shifts):
            save(drawing, name, output)
            parts = {key: getattr(drawing, key) for key in ("title", "caption", "facts", "sources")}
            index.append({"name": name, **parts})
    write_text(output / "figures.json", to_json(index))


def _drawings(
    stage: dict[str, Any], runs: Path, data: datasets.Dataset, search: Path | None, shifts: Path | None
) -> Iterator[tuple[str, Drawing]]:
    """The drawings of a study by name, in the order of `names`."""
    from cifar_report.analysis import searches
    from cifar_report.analysis.measurements import SHIFTS, read
    from cifar_report.analysis.selection import main_models, representative
    from cifar_report.runs.finished import load_runs

    variants = stage["variants"]
    by_variant = load_runs(runs, variants)
    labels = {variant["name"]: variant["label"] for variant in variants}
    for variant in variants:
        yield f"curves-{variant['name']}", curves(variant, by_variant[variant["name"]])
    yield "comparison", comparison(variants, by_variant)
    if printed := _of_original(stage):
        yield "originals", originals(printed, by_variant)

    searched = _searches(stage)
    if searched and search is None:
        raise InputError(f"search.csv: expected the trials of {', '.join(searched)}, but no file was named")
    table: Any = searches.read(search, searched) if searched and search else None
    for name in searched:
        trials, axes = table[table["search"] == name], _searched(stage, name)
        halving = _is_halving(stage, name)
        yield f"search-{name}", rungs(name, trials, axes) if halving else search_effects(name, trials)
        if len(axes) > 1:
            yield f"interactions-{name}", parallel(name, trials, axes) if halving else interactions(name, trials, axes)
    if search and (grid := _batch_size_search(stage)):
        yield "batch-size", batch_sizes(grid, table[table["search"] == grid], search.parent / "search" / grid)

    if shifted := stage.get("shifted"):
        if shifts is None:
            raise InputError(f"shifts.csv: expected the accuracies of {', '.join(shifted)}, but no file was named")
        yield "shifts", shift_losses({name: labels[name] for name in shifted}, read(shifts, SHIFTS))

    models = main_models(stage.get("main", ()), by_variant)
    best = representative({name: by_variant[name] for name in models})
    if best is None:
        for name in IN_DETAIL:
            yield name, nothing_drawn(name.replace("-", " ").capitalize(), "every run diverged", [])
        return
    images, targets = data.split("test")
    first = {name: completed_runs(by_variant[name])[0] for name in models}
    answers = [(labels[name], run, run.test_logits(len(targets))) for name, run in first.items()]
    shown = answers[models.index(best)]
    yield "samples", samples(*shown, images, targets, data.class_names)
    yield "confusion", confusion(answers, targets, data.class_names)
    layer = _first_layer_variant(by_variant)
    run, shape = completed_runs(by_variant[layer])[0], tuple(data.description["shape"])
    yield "first-layer", first_layer(run, labels[layer], shape)
    yield "calibration", calibration(answers, targets)


def _of_original(stage: dict[str, Any]) -> list[dict[str, Any]]:
    """The variants that reproduce one of the original, in its order."""
    found = [variant for variant in stage["variants"] if variant["original_test_accuracy"] is not None]
    return sorted(found, key=lambda variant: variant["original_figure"])


def _searches(stage: dict[str, Any]) -> list[str]:
    """The searches that variants of the study take their settings from."""
    return list(dict.fromkeys(variant["search"] for variant in stage["variants"] if variant["search"]))


def _is_halving(stage: dict[str, Any], search: str) -> bool:
    """Whether a search promotes its trials from rung to rung, instead of training a full grid."""
    return stage.get("searches", {}).get(search, {}).get("method") == "successive-halving"


def _searched(stage: dict[str, Any], search: str) -> dict[str, Any]:
    """The settings of a search that have two values or more, and these values or their range."""
    grid = stage.get("searches", {}).get(search, {}).get("grid", {})
    return {setting: axis for setting, axis in grid.items() if isinstance(axis, dict) or len(axis) > 1}


def _batch_size_search(stage: dict[str, Any]) -> str | None:
    """The search whose batch sizes are compared: the first full grid with two or more; None without one."""
    grids = [name for name in _searches(stage) if not _is_halving(stage, name)]
    return next((name for name in grids if "batch_size" in _searched(stage, name)), None)


def _first_layer_variant(runs: dict[str, list["Run"]]) -> str:
    """The variant whose first layer is shown, of those with a completed run: the first MLP, else the first of all."""
    from cifar_report.analysis.selection import family

    completed = [name for name, members in runs.items() if completed_runs(members)]
    mlps = [name for name in completed if family(runs[name]) == "mlp"]
    return (mlps or completed)[0]
