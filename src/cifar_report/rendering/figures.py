"""The figures of a study: one function a figure, in one style, as PDF for LaTeX and SVG for the HTML report.

The same inputs give the same bytes. Matplotlib, pandas and SciPy are imported where they are used: reading the
workflow asks this module for `names` alone, and needs none of them.
"""

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Int, Shaped, UInt8

from cifar_report.analysis.statistics import CALIBRATION_BINS, confidences, confusion_counts, reliability
from cifar_report.base.errors import InputError
from cifar_report.base.files import atomic, to_json, write_text
from cifar_report.data import datasets

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from cifar_report.runs.record import Run

COLUMN_WIDTH, TEXT_WIDTH = 3.4, 6.3  # inches

# Okabe and Ito 2008: told apart with any kind of colour vision.
BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"
GREY = "#777777"
# A colour never carries a meaning alone: each has its own line and marker.
LINES = ((BLUE, "-", "o"), (VERMILLION, "--", "s"), (GREEN, "-.", "^"), (PURPLE, ":", "D"), (ORANGE, "-", "v"))
SPLITS = {
    "train": ("training", BLUE, "--", "s"),
    "validation": ("validation", GREEN, "-.", "^"),
    "test": ("test", VERMILLION, "-", "o"),
}
# Fonts that Matplotlib brings along, so that every machine draws the same; the second for what the first lacks.
STYLE: dict[str, Any] = {
    "font.family": ["STIXGeneral", "DejaVu Sans"],
    "font.size": 9,
    "axes.labelsize": 9,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.fontsize": 8,
    "text.parse_math": False,  # a label of the configuration may hold a dollar sign
    "axes.linewidth": 0.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "xtick.major.width": 0.5,
    "ytick.major.width": 0.5,
    "ytick.minor.width": 0.4,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "ytick.minor.size": 1.5,
    "lines.linewidth": 1.1,
    "lines.markersize": 3.5,
    "legend.frameon": False,
    "legend.borderpad": 0.0,
    "legend.handlelength": 2.0,
    "legend.handletextpad": 0.5,
    "legend.columnspacing": 1.2,
    "figure.constrained_layout.use": True,
    "figure.constrained_layout.h_pad": 0.03,
    "figure.constrained_layout.w_pad": 0.03,
    "image.interpolation": "none",
    "image.composite_image": False,  # each image as it is, pixel by pixel
    "pdf.fonttype": 42,
    "svg.fonttype": "path",
}

SAMPLE_COLUMNS, WRONG_ROWS = 10, 2
UNIT_ROWS, UNIT_COLUMNS = 3, 10
SHADES = 17  # odd, so that zero is one of them
# The columns of search.csv that are no settings.
SEARCH_COLUMNS = (
    "trial",
    "validation_accuracy",
    "validation_loss",
    "status",
    "selected",
    "rung",
    "step",
    "curve",
    "search",
)


@dataclass(frozen=True)
class Drawing:
    """A figure and what is to be said of it, in plain text: no LaTeX, numbers as a reader wants them.

    `caption` says what is seen and what was found; `facts` are the numbers of it by name; `sources` are the files of
    the study's folder that it was made from.
    """

    figure: "Figure"
    title: str
    caption: str
    facts: dict[str, str]
    sources: list[str]


def names(stage: dict[str, Any]) -> list[str]:
    """The names of a study's figures, in the order of the report, known before anything is trained.

    Args:
        stage: {"variants": [{"name", "label", "seeds", "search", "original_test_accuracy"}, …]} and, where
            figures of more than main effects are wanted, "searches": {search: {"method", "grid": {setting: values or
            range}}}.
    """
    found = [f"curves-{variant['name']}" for variant in stage["variants"]] + ["comparison"]
    for search in _searches(stage):
        found.append(f"search-{search}")
        if len(_searched(stage, search)) > 1:
            found.append(f"interactions-{search}")
    if _batch_size_search(stage):
        found.append("batch-size")
    return [*found, "samples", "confusion", "first-layer", "calibration"]


def write(stage: dict[str, Any], runs: Path, dataset: Path, search: Path | None, output: Path) -> None:
    """Writes `<name>.pdf` and `<name>.svg` for each of `names`, and last `figures.json`.

    The index lists each figure's name, title, caption, facts and sources, see `Drawing`.

    Args:
        stage: as of `names`.
        runs: folder of `<variant>/seed-<n>/`; dataset: folder that `prepare` made.
        search: search.csv, with the trials' folders in `search/` beside it; None where the study has no search.
        output: folder of the figures.

    Raises:
        InputError: a file is missing, or is not what it should be.
    """
    index = []
    with style():
        for name, drawing in _drawings(stage, runs, datasets.load(dataset), search):
            _save(drawing, name, output)
            told = {key: getattr(drawing, key) for key in ("title", "caption", "facts", "sources")}
            index.append({"name": name, **told})
    write_text(output / "figures.json", to_json(index))


@contextmanager
def style() -> Iterator[None]:
    """The style of all figures, whatever the user's own Matplotlib settings are; theirs return afterwards."""
    import matplotlib

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(STYLE)  # type: ignore[arg-type]
        yield


def _drawings(
    stage: dict[str, Any], runs: Path, data: datasets.Dataset, search: Path | None
) -> Iterator[tuple[str, Drawing]]:
    """The drawings of a study by name, in the order of `names`."""
    from cifar_report.runs.record import load_runs, main_models, representative

    variants = stage["variants"]
    found = load_runs(runs, variants)
    labels = {variant["name"]: variant["label"] for variant in variants}
    for variant in variants:
        yield f"curves-{variant['name']}", curves(variant, found[variant["name"]])
    yield "comparison", comparison(variants, found)

    searches = _searches(stage)
    table: Any = read_search(search, searches) if searches else None
    for name in searches:
        trials, axes = table[table["search"] == name], _searched(stage, name)
        halving = _is_halving(stage, name)
        yield f"search-{name}", rungs(name, trials, axes) if halving else search_effects(name, trials)
        if len(axes) > 1:
            yield f"interactions-{name}", parallel(name, trials, axes) if halving else interactions(name, trials, axes)
    if search and (grid := _batch_size_search(stage)):
        yield "batch-size", batch_sizes(grid, table[table["search"] == grid], search.parent / "search" / grid)

    models = main_models(stage.get("main", ()), found)
    best = representative({name: found[name] for name in models})
    if best is None:
        for name in ("samples", "confusion", "first-layer", "calibration"):
            yield name, _nothing(name.replace("-", " ").capitalize(), "every run diverged", [])
        return
    images, targets = data.split("test")
    answers = [(labels[n], run, run.test_logits(len(targets))) for n in models for run in _completed(found[n])[:1]]
    shown = answers[models.index(best)]
    yield "samples", samples(*shown, images, targets, data.class_names)
    yield "confusion", confusion(answers, targets, data.class_names)
    layer = _first_layer_variant(found)
    yield "first-layer", first_layer(_completed(found[layer])[0], labels[layer], tuple(data.description["shape"]))
    yield "calibration", calibration(answers, targets)


def curves(variant: dict[str, Any], runs: list["Run"]) -> Drawing:
    """Loss and accuracy of every split against the step, at column width.

    Lines are means over the completed runs; the band spans their minimum and maximum, and is absent for one run.
    A marker ends each line: the last step's value is of the whole split, those before it of fixed subsets. The loss
    axis is logarithmic where the means range over more than a factor of ten. Runs that diverged are counted, not drawn.
    """
    title, sources = f"Loss and accuracy of {variant['label']}", _sources(runs, "curve.csv", "run.json")
    completed = _completed(runs)
    if not completed:
        return _nothing(title, _diverged(len(runs), len(runs)), sources)
    figure = _figure(COLUMN_WIDTH, 3.3)
    loss, accuracy = figure.subplots(2, sharex=True)
    lowest, highest = np.inf, 0.0
    for split, (label, colour, line, marker) in SPLITS.items():
        for axes, metric, unit in ((loss, "loss", 1.0), (accuracy, "accuracy", 100.0)):
            steps, values = seed_curves(completed, split, metric)
            if not len(steps):
                continue
            mean = unit * values.mean(axis=0)
            if len(completed) > 1:
                low, high = unit * values.min(axis=0), unit * values.max(axis=0)
                axes.fill_between(steps, low, high, color=colour, alpha=0.2, linewidth=0)
            axes.plot(steps, mean, color=colour, linestyle=line, label=label)
            axes.plot(steps[-1:], mean[-1:], color=colour, marker=marker, clip_on=False, zorder=3)
            if metric == "loss":
                lowest, highest = min(lowest, mean.min()), max(highest, mean.max())
    _scale_loss(loss, lowest, highest)
    original = variant["original_test_accuracy"]
    if original is not None:
        accuracy.axhline(100 * original, color="black", linestyle=":", linewidth=0.8, label="original, test")
    _note(accuracy, _diverged(len(runs) - len(completed), len(runs)))
    loss.set_ylabel("loss (nats)")
    accuracy.set_ylabel("accuracy (%)")
    accuracy.set_xlabel("step")
    _ticks(accuracy.yaxis, 5)
    _ticks(accuracy.xaxis, 6)
    figure.align_ylabels()
    handles, texts = accuracy.get_legend_handles_labels()
    figure.legend(handles, texts, loc="outside upper center", ncols=4, columnspacing=0.9, handlelength=1.8)
    facts = {
        "seeds": str(len(completed)),
        "diverged": str(len(runs) - len(completed)),
        "steps": str(runs[0].record["settings"]["steps"]),
        "band": "minimum to maximum over the seeds" if len(completed) > 1 else "none: one seed",
        "last-step": "the markers are values of the whole splits",
    }
    for split, (label, *_) in SPLITS.items():
        if split in completed[0].record["final"]:
            facts[f"final-{label}-accuracy"] = _percent(_mean_final(completed, split, "accuracy"))
            facts[f"final-{label}-loss"] = f"{_mean_final(completed, split, 'loss'):.3f}"
    if original is not None:
        facts["original-test-accuracy"] = _percent(original)
    caption = (
        f"{variant['label']}: loss and accuracy over {facts['steps']} steps, "
        + (
            f"means of {len(completed)} seeds in bands from their minimum to their maximum"
            if len(completed) > 1
            else "one seed"
        )
        + f". Markers are values of the whole splits: {facts['final-training-accuracy']} in training, "
        + f"{facts['final-test-accuracy']} in the test."
        + (f" Dotted: the original's test accuracy, {_percent(original)}." if original is not None else "")
        + _sentence(_diverged(len(runs) - len(completed), len(runs)))
    )
    return Drawing(figure, title, caption, facts, sources)


def seed_curves(
    runs: list["Run"], split: str, metric: str
) -> tuple[Int[np.ndarray, " steps"], Float[np.ndarray, "runs steps"]]:
    """The steps at which a split was evaluated, and each run's loss (nats) or accuracy (a fraction) there.

    Both are empty where no run has the split.

    Raises:
        InputError: two runs of the variant were evaluated at different steps.
    """
    parts = [run.curve[run.curve["split"] == split] for run in runs]
    if not parts or not len(parts[0]):
        return np.zeros(0, dtype=np.int64), np.zeros((len(parts), 0))
    steps = parts[0]["step"].to_numpy()
    for run, part in zip(runs, parts, strict=True):
        if not np.array_equal(part["step"], steps):
            raise InputError(
                f"{run.folder / 'curve.csv'}: expected the steps of {runs[0].folder / 'curve.csv'}, found others; "
                "run the rule `train` again"
            )
    return steps, np.stack([part[metric].to_numpy(dtype=np.float64) for part in parts])


def comparison(variants: list[dict[str, Any]], runs: dict[str, list["Run"]]) -> Drawing:
    """Every variant's final test accuracy, at text width, from top to bottom in the order of the study.

    A filled point is the mean with Student's 95 % interval of it (none for one seed), faint points below it are the
    seeds, an open diamond is the original's value. Runs that diverged are counted beside the label.
    """
    from cifar_report.analysis.statistics import t_interval

    figure = _figure(TEXT_WIDTH, 0.75 + 0.25 * len(variants))
    axes = figure.subplots()
    ticks, shown, means = [], [], {}
    facts = {"interval": "95 % interval of the mean (Student's t)"}
    for row, variant in enumerate(variants):
        members = runs[variant["name"]]
        completed = _completed(members)
        fate = _diverged(len(members) - len(completed), len(members))
        ticks.append(variant["label"] + (f" ({fate})" if fate else ""))
        values = np.array([100 * run.final("test", "accuracy") for run in completed])
        mean, low, high = t_interval(values)
        if len(values) > 1:
            axes.plot(values, np.full(len(values), row + 0.27), "o", color=BLUE, markersize=3, alpha=0.4, mew=0)
            axes.plot([low, high], [row, row], color=BLUE, linewidth=1.3, marker="|", markersize=6)
            shown += [low, high]
        if len(values):
            axes.plot(mean, row, "o", color=BLUE, markersize=4.5)
            means[variant["label"]] = mean
            shown += [mean, *values]
            facts[variant["name"]] = f"{mean:.1f} %" + (f" [{low:.1f}, {high:.1f}]" if len(values) > 1 else "")
        if variant["original_test_accuracy"] is not None:
            original = 100 * variant["original_test_accuracy"]
            axes.plot(original, row, "D", mfc="none", mec="black", mew=0.9, markersize=5.5)
            shown.append(original)
    axes.set_yticks(range(len(variants)), ticks)
    axes.set_ylim(len(variants) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color="#dddddd", linewidth=0.5)
    axes.set_xlabel("test accuracy (%)")
    _ticks(axes.xaxis, 8)
    if shown:
        # An interval of two seeds can reach far beyond what an accuracy can be.
        low, high = max(min(shown), 0.0), min(max(shown), 100.0)
        pad = max(0.04 * (high - low), 0.5)
        axes.set_xlim(max(low - pad, 0.0) if low > 0 else -pad, high + pad)
    keys = [
        _key("mean and 95 % interval", color=BLUE, marker="o", markersize=4.5, linewidth=1.3),
        _key("each seed", color=BLUE, marker="o", markersize=3, alpha=0.4, mew=0, linestyle="none"),
    ]
    if any(variant["original_test_accuracy"] is not None for variant in variants):
        keys.append(_key("original", mfc="none", mec="black", mew=0.9, marker="D", markersize=5.5, linestyle="none"))
    figure.legend(handles=keys, loc="outside upper right", ncols=3)
    sources = [source for variant in variants for source in _sources(runs[variant["name"]], "run.json")]
    caption = (
        "Test accuracy at the last step: the mean over the seeds with its 95 % interval, and the original's values."
    )
    if means:
        best = max(means, key=means.__getitem__)
        facts["highest"] = f"{best}: {means[best]:.1f} %"
        caption += f" The highest mean is {means[best]:.1f} % ({best})."
    return Drawing(figure, "Test accuracy of all variants", caption, facts, sources)


def search_effects(name: str, table: "pd.DataFrame") -> Drawing:
    """The validation accuracy of every configuration of a grid against each setting that it varies, at text width.

    Each panel holds all configurations (side by side where they share a value) and joins the means of each value: the
    setting's main effect. The selected configuration is ringed. Trials that diverged are counted, not drawn.

    Args:
        table: the search's rows of search.csv: texts, but `validation_accuracy` (a fraction) and `selected` (a bool).
    """
    completed = table[table["status"] == "completed"]
    diverged = len(table) - len(completed)
    settings = [c for c in table.columns if c not in SEARCH_COLUMNS and table[c].any()]
    settings = [c for c in settings if table[c].nunique() > 1] or settings[:1]
    values = {setting: _in_order(table[setting]) for setting in settings}
    columns = min(4, len(settings))
    rows = -(-len(settings) // columns)
    figure = _figure(TEXT_WIDTH, 0.4 + 1.9 * rows)
    widths = [max(2, len(v)) for v in values.values()] if rows == 1 else None
    panels = figure.subplots(rows, columns, sharey=True, squeeze=False, width_ratios=widths).ravel()
    facts = {"configurations": str(len(table)), "diverged": str(diverged)}
    effects = {}
    for axes, setting in zip(panels, settings, strict=False):
        means = []
        for place, value in enumerate(values[setting]):
            rows_here = completed[completed[setting] == value]
            accuracy = 100 * rows_here["validation_accuracy"].to_numpy()
            x = place + 0.5 * (np.arange(len(accuracy)) - (len(accuracy) - 1) / 2) / max(len(accuracy), 5)
            axes.plot(x, accuracy, "o", color=SKY, mec=BLUE, mew=0.5, markersize=3.5)
            chosen = rows_here["selected"].to_numpy()
            axes.plot(x[chosen], accuracy[chosen], "o", mfc="none", mec=VERMILLION, mew=1.3, markersize=7.5)
            means.append(accuracy.mean() if len(accuracy) else np.nan)
        axes.plot(range(len(means)), means, color="black", marker="_", markersize=11, mew=1.3, linewidth=0.7)
        texts = [_setting_value(value) for value in values[setting]]
        crowded = max(map(len, texts)) > 7 and len(texts) > 2
        axes.set_xticks(range(len(texts)), texts, rotation=25 if crowded else 0, ha="right" if crowded else "center")
        axes.set_xlim(-0.5, len(texts) - 0.5)
        axes.set_xlabel(_setting_name(setting))
        _ticks(axes.yaxis, 6)
        if np.isfinite(means).any():
            effects[setting] = f"{np.nanmax(means) - np.nanmin(means):.1f} points"
            facts[f"effect-of-{setting.replace('_', '-')}"] = effects[setting]
    for axes in panels[len(settings) :]:
        axes.remove()
    for axes in panels[::columns]:
        axes.set_ylabel("validation accuracy (%)")
    keys = [
        _key("configuration", color=SKY, marker="o", mec=BLUE, mew=0.5, markersize=3.5, linestyle="none"),
        _key("mean of the value", color="black", marker="_", markersize=11, mew=1.3, linewidth=0.7),
        _key("selected", mfc="none", mec=VERMILLION, mew=1.3, marker="o", markersize=7.5, linestyle="none"),
    ]
    _note(panels[columns - 1], _diverged(diverged, len(table)))
    figure.legend(handles=keys, loc="outside upper center", ncols=3)
    for _, row in completed[completed["selected"]].iterrows():
        facts["selected"] = ", ".join(f"{_setting_name(s)} {_setting_value(row[s])}" for s in settings)
        facts["selected-validation-accuracy"] = _percent(row["validation_accuracy"])
    caption = (
        f"The search {name}: validation accuracy of all {len(table)} configurations against each setting, and the mean "
        "of each value. From the worst value to the best, that mean moves by "
        + ", ".join(f"{effect} with {_setting_name(setting)}" for setting, effect in effects.items())
        + "."
        + (
            f" Selected: {facts['selected']}, at {facts['selected-validation-accuracy']}."
            if "selected" in facts
            else ""
        )
        + _sentence(_diverged(diverged, len(table)))
    )
    return Drawing(figure, f"Main effects of the settings in the search {name}", caption, facts, ["search.csv"])


def interactions(name: str, table: "pd.DataFrame", grid: dict[str, list[Any]]) -> Drawing:
    """Mean validation accuracy of a grid for each two values of each two settings, as heat maps at text width.

    Where two settings do not interact, a row differs from the next by the same amount in each column. The number said
    of each pair is the largest departure of a cell from that: from its row's mean plus its column's minus the panel's.

    Args:
        table: as of `search_effects`; grid: the settings with two values or more.
    """
    completed = table[table["status"] == "completed"]
    pairs = list(combinations(grid, 2))
    columns = min(3, len(pairs))
    rows = -(-len(pairs) // columns)
    figure = _figure(TEXT_WIDTH, 0.3 + 1.75 * rows)
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    values = {setting: _in_order(table[setting]) for setting in grid}
    means = {}
    for one, other in pairs:
        cells = completed.groupby([one, other])["validation_accuracy"].mean().unstack()
        means[one, other] = 100 * cells.reindex(index=values[one], columns=values[other]).to_numpy()
    every = np.concatenate([cells.ravel() for cells in means.values()])
    facts, largest = {"configurations": str(len(table))}, {}
    if not np.isfinite(every).any():
        return _nothing(f"Interactions in the search {name}", "every trial diverged", ["search.csv"])
    low, high = np.nanmin(every), np.nanmax(every)
    for axes, ((one, other), cells) in zip(panels, means.items(), strict=False):
        image = axes.imshow(cells, cmap="cividis", vmin=low, vmax=high, aspect="auto")
        for (row, column), value in np.ndenumerate(cells):
            text, colour = ("–", "black") if np.isnan(value) else (f"{value:.1f}", "white")
            if value > (low + high) / 2:
                colour = "black"
            axes.text(column, row, text, ha="center", va="center", fontsize=7.5, color=colour)
        texts = [_setting_value(value) for value in values[other]]
        crowded = sum(map(len, texts)) > 20
        axes.set_xticks(range(len(texts)), texts, rotation=25 if crowded else 0, ha="right" if crowded else "center")
        axes.set_yticks(range(len(values[one])), [_setting_value(value) for value in values[one]])
        axes.tick_params(length=0)
        axes.set_xlabel(_setting_name(other))
        axes.set_ylabel(_setting_name(one))
        if np.isfinite(cells).all():
            additive = cells.mean(axis=1, keepdims=True) + cells.mean(axis=0, keepdims=True) - cells.mean()
            largest[one, other] = float(np.abs(cells - additive).max())
            facts[f"{one}-and-{other}".replace("_", "-")] = f"{largest[one, other]:.1f} points"
    for axes in panels[len(pairs) :]:
        axes.remove()
    bar = figure.colorbar(image, ax=list(panels[: len(pairs)]), shrink=0.9, aspect=30)
    bar.set_label("validation accuracy (%)")
    bar.outline.set_visible(False)
    caption = (
        f"The search {name}: mean validation accuracy for each two values of each two settings (per cent). Without an "
        "interaction, two rows differ by the same in every column."
    )
    if largest:
        one, other = max(largest, key=largest.__getitem__)
        caption += (
            f" The largest departure from that is {largest[one, other]:.1f} points, between {_setting_name(one)} and "
            f"{_setting_name(other)}."
        )
    return Drawing(figure, f"Interactions of the settings in the search {name}", caption, facts, ["search.csv"])


def rungs(name: str, table: "pd.DataFrame", axes: dict[str, Any]) -> Drawing:
    """Validation accuracy of a successive halving's configurations on each rung that they reached, at text width.

    A line joins the trials of a configuration; the selected one is ringed. Trials that diverged are counted, not drawn.

    Args:
        table: as of `search_effects`; axes: the settings with two values or more.
    """
    completed = table[table["status"] == "completed"]
    diverged = len(table) - len(completed)
    figure = _figure(TEXT_WIDTH, 2.6)
    panel = figure.subplots()
    places = sorted(table["rung"].unique())
    steps = {rung: int(table.loc[table["rung"] == rung, "step"].astype(int).max()) for rung in places}
    facts = {"configurations": str((table["rung"] == places[0]).sum()), "diverged": str(diverged)}
    for _, trials in completed.groupby(list(axes), sort=False):
        trials = trials.sort_values("rung")
        panel.plot(
            trials["rung"], 100 * trials["validation_accuracy"], "-o", color=BLUE, mfc=SKY, mew=0.5, linewidth=0.7
        )
        chosen = trials[trials["selected"]]
        panel.plot(
            chosen["rung"],
            100 * chosen["validation_accuracy"],
            "o",
            mfc="none",
            mec=VERMILLION,
            mew=1.3,
            markersize=7.5,
        )
    panel.set_xticks(places, [f"rung {rung}: {_plain(steps[rung])} steps" for rung in places])
    panel.set_xlim(places[0] - 0.3, places[-1] + 0.3)
    panel.set_ylabel("validation accuracy (%)")
    _ticks(panel.yaxis, 6)
    _note(panel, _diverged(diverged, len(table)))
    keys = [
        _key("configuration", color=BLUE, marker="o", mfc=SKY, mew=0.5, linewidth=0.7),
        _key("selected", mfc="none", mec=VERMILLION, mew=1.3, marker="o", markersize=7.5, linestyle="none"),
    ]
    figure.legend(handles=keys, loc="outside upper center", ncols=2)
    for rung in places:
        members = completed[completed["rung"] == rung]
        facts[f"rung-{rung}"] = f"{(table['rung'] == rung).sum()} trials of {steps[rung]} steps"
        if len(members):
            facts[f"best-of-rung-{rung}"] = _percent(members["validation_accuracy"].max())
    for _, row in completed[completed["selected"]].iterrows():
        facts["selected"] = ", ".join(f"{_setting_name(s)} {_setting_value(row[s])}" for s in axes)
        facts["selected-validation-accuracy"] = _percent(row["validation_accuracy"])
    counts = [f"{(table['rung'] == rung).sum()} for {_plain(steps[rung])} steps" for rung in places]
    caption = (
        f"The search {name}, by successive halving: validation accuracy of the configurations on each rung. Trained "
        f"were {', then '.join(counts)}, each time anew."
        + (
            f" Selected: {facts['selected']}, at {facts['selected-validation-accuracy']}."
            if "selected" in facts
            else ""
        )
        + _sentence(_diverged(diverged, len(table)))
    )
    return Drawing(figure, f"Rungs of the search {name}", caption, facts, ["search.csv"])


def parallel(name: str, table: "pd.DataFrame", axes: dict[str, Any]) -> Drawing:
    """The configurations that a search drew, in parallel coordinates at text width: an axis a setting, a line each.

    The last axis is the validation accuracy on the first rung, where all trained for as many steps. Colour, line and
    width tell how far a configuration came.

    Args:
        table: as of `search_effects`.
        axes: the settings with two values or more: lists, or ranges {"low", "high", "log"}.
    """
    completed = table[table["status"] == "completed"]
    first = completed[completed["rung"] == table["rung"].min()]
    title = f"Configurations of the search {name}"
    if first.empty:
        return _nothing(title, "every trial diverged", ["search.csv"])
    last = int(table["rung"].max())
    reached = completed.groupby(list(axes), sort=False)["rung"].max()
    accuracy = 100 * first["validation_accuracy"].to_numpy()
    low, high = accuracy.min(), accuracy.max()
    heights = [_places(first[setting], axis) for setting, axis in axes.items()]
    heights.append((accuracy - low) / (high - low) if high > low else np.full(len(first), 0.5))
    figure = _figure(TEXT_WIDTH, 2.8)
    panel = figure.subplots()
    styles = [(GREY, ":", 0.8), (BLUE, "--", 1.1), (VERMILLION, "-", 1.6)]
    looks = {rung: styles[-1] if rung == last else styles[min(rung - 1, 1)] for rung in range(1, last + 1)}
    for row, line in zip(first[list(axes)].itertuples(index=False), np.stack(heights, axis=1), strict=True):
        rung = int(reached[tuple(row)])
        colour, dashes, width = looks[rung]
        panel.plot(range(len(line)), line, color=colour, linestyle=dashes, linewidth=width, zorder=1 + rung)
    names = [*(_setting_name(setting) for setting in axes), "validation accuracy,\nfirst rung (%)"]
    for place, marks in enumerate([*map(_marks, axes.values()), [(0.0, f"{low:.1f}"), (1.0, f"{high:.1f}")]]):
        panel.axvline(place, color="black", linewidth=0.5, zorder=0)
        for height, text in marks:
            panel.text(place - 0.03, height, text, ha="right", va="center", fontsize=7.5, zorder=9, bbox=_PAPER)
    panel.set_xticks(range(len(names)), names)
    panel.set(xlim=(-0.45, len(names) - 0.7), ylim=(-0.06, 1.06), yticks=[])
    panel.tick_params(length=0)
    panel.spines[:].set_visible(False)
    keys = [
        _key(f"ended on rung {rung}" if rung < last else f"reached rung {last}", color=c, linestyle=d, linewidth=w)
        for rung, (c, d, w) in looks.items()
    ]
    figure.legend(handles=keys, loc="outside upper center", ncols=min(4, len(keys)))
    facts = {"configurations": str(len(first)), "first-rung": f"{low:.1f} % to {high:.1f} %"}
    facts |= {f"reached-rung-{rung}": str(int((reached >= rung).sum())) for rung in looks}
    caption = (
        f"The {len(first)} configurations of the search {name} in parallel coordinates: a line each, through its "
        "settings and its validation accuracy on the first rung, where all trained for as many steps. Colour and line "
        "tell the last rung that it reached."
    )
    return Drawing(figure, title, caption, facts, ["search.csv"])


_PAPER = {"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 0.6}


def _places(texts: Iterable[str], axis: Any) -> Float[np.ndarray, " n"]:
    """Where values stand on an axis that reaches from 0 to 1: in equal steps, or in a range by their size."""
    if isinstance(axis, dict):
        scale = np.log if axis["log"] else np.asarray
        value, low, high = (scale(np.asarray(x, dtype=np.float64)) for x in (list(texts), axis["low"], axis["high"]))
        return (value - low) / (high - low)
    listed = [text for _, text in _marks(axis)]
    return np.array([listed.index(_setting_value(text)) for text in texts]) / (len(listed) - 1)


def _marks(axis: Any) -> list[tuple[float, str]]:
    """The heights of an axis that are named, and their names."""
    if isinstance(axis, dict):
        low, high = axis["low"], axis["high"]
        middle = np.sqrt(low * high) if axis["log"] else (low + high) / 2
        return [(0.0, f"{low:g}"), (0.5, f"{middle:.2g}"), (1.0, f"{high:g}")]
    texts = [_setting_value("-".join(map(str, v)) if isinstance(v, list) else str(v)) for v in axis]
    return [(place / (len(texts) - 1), text) for place, text in enumerate(texts)]


def batch_sizes(name: str, table: "pd.DataFrame", trials: Path) -> Drawing:
    """Training loss of a grid's batch sizes, all else as selected, at text width.

    Left against the step, right against the images seen, which is what a step of each size costs. A trial is one run.

    Args:
        table: as of `search_effects`; trials: folder of `<trial>/{run.json,curve.csv}`.
    """
    from cifar_report.runs.record import load_run

    title = f"Training loss by batch size in the search {name}"
    chosen = table[table["selected"]]
    if chosen.empty:
        return _nothing(title, "every trial diverged", ["search.csv"])
    others = [c for c in table.columns if c not in (*SEARCH_COLUMNS, "batch_size") and table[c].any()]
    alike = table[(table[others] == chosen.iloc[0][others]).all(axis=1)]
    runs = sorted((load_run(trials / t) for t in alike["trial"]), key=lambda run: run.record["settings"]["batch_size"])
    completed = _completed(runs)
    figure = _figure(TEXT_WIDTH, 2.3)
    left, right = figure.subplots(1, 2, sharey=True)
    facts = {"diverged": str(len(runs) - len(completed))}
    lowest, highest = np.inf, 0.0
    for run, (colour, line, marker) in zip(completed, _styles(len(completed)), strict=True):
        size = run.record["settings"]["batch_size"]
        part = run.curve[run.curve["split"] == "train"]
        for axes, against in ((left, "step"), (right, "samples_seen")):
            axes.plot(part[against], part["loss"], color=colour, linestyle=line, label=f"batches of {size}")
            axes.plot(part[against].iloc[-1:], part["loss"].iloc[-1:], marker=marker, color=colour, clip_on=False)
        lowest, highest = min(lowest, part["loss"].min()), max(highest, part["loss"].max())
        facts[f"final-training-loss-{size}"] = f"{run.final('train', 'loss'):.3f}"
    _scale_loss(left, lowest, highest)
    left.set_ylabel("training loss (nats)")
    left.set_xlabel("step")
    right.set_xlabel("images seen")
    for axes in (left, right):
        _ticks(axes.xaxis, 6)
    _note(right, _diverged(len(runs) - len(completed), len(runs)))
    handles, texts = left.get_legend_handles_labels()
    figure.legend(handles, texts, loc="outside upper center", ncols=4)
    facts["otherwise"] = ", ".join(f"{_setting_name(s)} {_setting_value(chosen.iloc[0][s])}" for s in others)
    sources = ["search.csv", *(f"search/{name}/{run.folder.name}/curve.csv" for run in runs)]
    ends = [
        f"{run.final('train', 'loss'):.3f} with batches of {run.record['settings']['batch_size']}" for run in completed
    ]
    caption = (
        "Training loss of the search's batch sizes against the step, and against the images that were seen by then; "
        f"one run each, all else as selected. It ends at {', '.join(ends)}."
        + _sentence(_diverged(len(runs) - len(completed), len(runs)))
    )
    return Drawing(figure, title, caption, facts, sources)


def samples(
    label: str,
    run: "Run",
    logits: Float[np.ndarray, "n classes"],
    images: UInt8[np.ndarray, "n channels height width"],
    targets: Int[np.ndarray, " n"],
    class_names: list[str],
) -> Drawing:
    """Test images with their true class and below it the predicted one, at text width.

    First row: of each class the first image of the test split that the model has right (at most ten classes). Below:
    the wrong ones that it is surest of, with a frame and a cross, by falling confidence.
    """
    from matplotlib.patches import Rectangle

    confidence, predicted = confidences(logits)
    right, wrong = choose_samples(logits, targets, len(class_names))
    rows = [
        r for r in (right, *(wrong[i : i + SAMPLE_COLUMNS] for i in range(0, len(wrong), SAMPLE_COLUMNS))) if len(r)
    ]
    header, gap, lines = 0.52, 0.04, 0.34
    cell = (TEXT_WIDTH - header) / SAMPLE_COLUMNS
    side = cell - gap
    tall = side * images.shape[2] / images.shape[3]
    height = len(rows) * (tall + lines) + 0.02
    figure = _figure(TEXT_WIDTH, height)
    figure.set_layout_engine("none")
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, TEXT_WIDTH), ylim=(height, 0))
    axes.set_axis_off()
    for row, chosen in enumerate(rows):
        top = 0.01 + row * (tall + lines)
        for line, text in ((0.09, "true"), (0.22, "predicted")):
            axes.text(0, top + tall + line, text, fontsize=8, style="italic", va="center", color="#444444")
        for column, i in enumerate(chosen):
            left = header + column * cell + gap / 2
            extent = (left, left + side, top + tall, top)
            axes.imshow(_rgb(images[i]), extent=extent, aspect="auto")
            is_wrong = predicted[i] != targets[i]
            middle = left + side / 2
            axes.text(middle, top + tall + 0.09, _short(class_names[targets[i]]), ha="center", va="center", fontsize=8)
            axes.text(
                middle,
                top + tall + 0.22,
                _short(class_names[predicted[i]]),
                ha="center",
                va="center",
                fontsize=8,
                color=VERMILLION if is_wrong else BLUE,
            )
            if is_wrong:
                axes.add_patch(Rectangle((left, top), side, tall, fill=False, edgecolor=VERMILLION, linewidth=1.4))
                badge = 0.13
                axes.add_patch(Rectangle((left + side - badge, top), badge, badge, facecolor=VERMILLION, linewidth=0))
                axes.plot(left + side - badge / 2, top + badge / 2, "x", color="white", markersize=4.5, mew=1.3)
    axes.set(xlim=(0, TEXT_WIDTH), ylim=(height, 0))
    facts = {
        "model": label,
        "seed": str(run.seed),
        "right": str(len(right)),
        "wrong": str(len(wrong)),
    }
    caption = (
        f"Test images, their true class and the one predicted ({label}; seed {run.seed}). First row: of each class the "
        "first image that is right."
    )
    if len(wrong):
        facts["wrong-confidence"] = f"{_percent(confidence[wrong[-1]])} to {_percent(confidence[wrong[0]])}"
        caption += (
            f" Below, framed and crossed: the {len(wrong)} wrong ones of the highest confidence, from "
            f"{_percent(confidence[wrong[0]])} down to {_percent(confidence[wrong[-1]])}."
        )
    sources = [*_sources([run], "test-logits.npy"), "dataset/test-images.npy", "dataset/test-labels.npy"]
    return Drawing(figure, f"Test images and what {label} takes them for", caption, facts, sources)


def choose_samples(
    logits: Float[np.ndarray, "n classes"], targets: Int[np.ndarray, " n"], classes: int
) -> tuple[Int[np.ndarray, " right"], Int[np.ndarray, " wrong"]]:
    """Indices of the first image of each class that is right, and of the wrong ones, the surest first."""
    confidence, predicted = confidences(logits)
    right = [np.flatnonzero((targets == c) & (predicted == c))[:1] for c in range(min(classes, SAMPLE_COLUMNS))]
    wrong = np.flatnonzero(predicted != targets)
    order = np.argsort(-confidence[wrong], kind="stable")
    return np.concatenate(right), wrong[order][: WRONG_ROWS * SAMPLE_COLUMNS]


def confusion(
    models: list[tuple[str, "Run", Float[np.ndarray, "n classes"]]],
    targets: Int[np.ndarray, " n"],
    class_names: list[str],
) -> Drawing:
    """How often each true class (row) is taken for each other (column), in per cent of the row: a panel for each model.

    Shares of up to half a per cent are left blank; beyond 12 classes the numbers give way to a colour bar.

    Args:
        models: label, run and test logits of each.
    """
    classes = len(class_names)
    numbered = classes <= 12
    figure = _figure(TEXT_WIDTH if len(models) > 1 else COLUMN_WIDTH, 3.3)
    panels = figure.subplots(1, len(models), sharey=True, squeeze=False)[0]
    every = range(0, classes, -(-classes // 20))
    texts = [_short(class_names[c]) for c in every]
    turned = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"} if max(map(len, texts)) > 3 else {}
    facts = {"images": str(len(targets))}
    told = []
    for axes, (label, run, logits) in zip(panels, models, strict=True):
        counts = confusion_counts(logits, targets)
        with np.errstate(invalid="ignore"):
            share = 100 * counts / counts.sum(axis=1, keepdims=True)
        # The square root shows rare confusions beside the diagonal.
        image = axes.imshow(np.sqrt(share / 100), cmap="Blues", vmin=0, vmax=1.05, rasterized=True)
        axes.set_xticks(every, texts, **turned)
        axes.set_yticks(every, texts)
        axes.tick_params(length=0, pad=2)
        axes.spines[:].set_visible(True)
        axes.set_xlabel("predicted class")
        if len(models) > 1:
            axes.set_title(label, fontsize=9)
        if numbered:
            for (row, column), value in np.ndenumerate(share):
                if value > 0.5:
                    colour = "white" if value > 35 else "black"
                    axes.text(column, row + 0.03, f"{value:.0f}", ha="center", va="center", fontsize=7.5, color=colour)
        facts[f"accuracy-{run.variant}"] = _percent(np.trace(counts) / counts.sum())
        facts[f"seed-{run.variant}"] = str(run.seed)
        told.append(f"{label} (seed {run.seed}): {facts[f'accuracy-{run.variant}']} of the images are right")
        errors = np.where(np.eye(classes, dtype=bool) | ~np.isfinite(share), 0, share)
        row, column = np.unravel_index(np.argmax(errors), errors.shape)
        if errors[row, column] > 0:
            pair = f"{class_names[row]} taken for {class_names[column]}, {_percent(errors[row, column] / 100)}"
            facts[f"largest-confusion-{run.variant}"] = pair
            told[-1] += f", and the most frequent confusion is {pair}"
    panels[0].set_ylabel("true class")
    if not numbered:
        bar = figure.colorbar(image, ax=panels, shrink=0.8, ticks=np.sqrt([0, 0.01, 0.1, 0.25, 0.5, 1]))
        bar.ax.set_yticklabels(["0", "1", "10", "25", "50", "100"])
        bar.set_label("share of the true class (%)")
    caption = (
        f"Which class the images of each true class are taken for, in per cent of that class, over {len(targets)} test "
        f"images. {'; '.join(told)}. Shares of up to 0.5 % are left blank."
    )
    sources = [source for _, run, _ in models for source in _sources([run], "test-logits.npy")]
    title = f"Confusion matrix of {' and of '.join(label for label, *_ in models)}"
    return Drawing(figure, title, caption, facts, [*sources, "dataset/test-labels.npy"])


def first_layer(run: "Run", label: str, shape: tuple[int, int, int]) -> Drawing:
    """First-layer weights of units as images, at text width: a linear layer's, or a convolution's filters.

    Shown are the units with the largest weights (Euclidean norm), from the top left. Grey is zero; all units share one
    scale, at whose ends the largest half per cent of the weights are cut off. A channel has SHADES steps: weights are
    noisy, and a finer scale would double the size of the report's largest figure and show nothing more.

    Args:
        shape: (channels, height, width) of an image, in which the inputs of a linear layer are laid out.
    """
    weight = first_weights(run.weights()).astype(np.float64)
    units = weight.reshape(len(weight), *(shape if weight.ndim == 2 else weight.shape[1:]))
    largest = np.argsort(-np.linalg.norm(weight.reshape(len(weight), -1), axis=1), kind="stable")
    units = units[largest[: UNIT_ROWS * UNIT_COLUMNS]]
    limit = float(np.quantile(np.abs(units), 0.995)) or 1.0
    pictures = np.round(np.clip(0.5 + _rgb(units) / (2 * limit), 0, 1) * (SHADES - 1)) / (SHADES - 1)
    rows = -(-len(units) // UNIT_COLUMNS)
    figure = _figure(TEXT_WIDTH, 0.04 + rows * (TEXT_WIDTH / UNIT_COLUMNS) * shape[1] / shape[2])
    figure.set_layout_engine("none")
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.set(xlim=(0, UNIT_COLUMNS), ylim=(rows, 0))
    for i, picture in enumerate(pictures):
        row, column = divmod(i, UNIT_COLUMNS)
        extent = (column + 0.04, column + 0.96, row + 0.96, row + 0.04)
        axes.imshow(picture, extent=extent, aspect="auto")
    axes.set(xlim=(0, UNIT_COLUMNS), ylim=(rows, 0))
    facts = {
        "model": label,
        "seed": str(run.seed),
        "shown": f"{len(units)} of {len(weight)} units, those with the largest weights",
        "scale": f"±{limit:.2g}",
    }
    scale = "the scale of each colour" if units.shape[1] > 1 else "the scale from black to white"
    caption = (
        f"First-layer weights as images ({label}; seed {run.seed}): of {len(weight)} units the {len(units)} with the "
        f"largest weights. Grey is zero; {scale}, the same for all units, ends at {facts['scale']}."
    )
    return Drawing(figure, f"First-layer weights of {label}", caption, facts, _sources([run], "model.safetensors"))


def first_weights(weights: dict[str, np.ndarray]) -> Float[np.ndarray, "units ..."]:
    """The weight of the first linear or convolutional layer: two axes or more, and the smallest number in its name."""
    layers = [name for name, array in weights.items() if name.endswith("weight") and array.ndim >= 2]
    return weights[min(layers, key=lambda name: [int(digits) for digits in re.findall(r"\d+", name)])]


def calibration(
    models: list[tuple[str, "Run", Float[np.ndarray, "n classes"]]], targets: Int[np.ndarray, " n"]
) -> Drawing:
    """Reliability diagram at column width: accuracy against confidence in 15 bins, and below how full the bins are.

    A calibrated model lies on the diagonal. Bins without an image are left out. The legend gives the expected
    calibration error (Guo et al. 2017).

    Args:
        models: label, run and test logits of each.
    """
    figure = _figure(COLUMN_WIDTH, 3.5)
    axes, below = figure.subplots(2, sharex=True, height_ratios=[3, 1])
    axes.plot([0, 100], [0, 100], color=GREY, linestyle=":", linewidth=0.8)
    facts = {"bins": str(CALIBRATION_BINS), "images": str(len(targets))}
    errors, edges = [], 100 * np.linspace(0, 1, CALIBRATION_BINS + 1)
    for (label, run, logits), (colour, line, marker) in zip(models, _styles(len(models)), strict=True):
        bins = reliability(logits, targets)
        error = bins.expected_calibration_error()
        filled = bins.count > 0
        axes.plot(
            100 * bins.confidence[filled],
            100 * bins.accuracy[filled],
            color=colour,
            linestyle=line,
            marker=marker,
            label=f"{label} (ECE {_percent(error)})",
            clip_on=False,
        )
        below.stairs(100 * bins.count / bins.count.sum(), edges, color=colour, linestyle=line, linewidth=1.0)
        facts[f"ece-{run.variant}"] = _percent(error)
        errors.append(f"{_percent(error)} ({label}; seed {run.seed})")
        facts[f"seed-{run.variant}"] = str(run.seed)
    axes.set(xlim=(0, 100), ylim=(0, 100), ylabel="accuracy (%)")
    below.set(xlabel="confidence (%)", ylabel="images (%)", ylim=(0, None))
    for axis in (axes.xaxis, axes.yaxis):
        _ticks(axis, 5)
    _ticks(below.yaxis, 2)
    figure.align_ylabels()
    figure.legend(loc="outside upper center", ncols=1)
    sources = [source for _, run, _ in models for source in _sources([run], "test-logits.npy")]
    caption = (
        f"Accuracy against confidence on the {len(targets)} test images, in {CALIBRATION_BINS} bins of equal width; "
        f"below, the share of the images in each. A calibrated model follows the diagonal. Expected calibration error: "
        f"{', '.join(errors)}."
    )
    return Drawing(figure, "Calibration", caption, facts, [*sources, "dataset/test-labels.npy"])


# --- choosing and reading -----------------------------------------------------------------------------------------


def _searches(stage: dict[str, Any]) -> list[str]:
    return list(dict.fromkeys(variant["search"] for variant in stage["variants"] if variant["search"]))


def _is_halving(stage: dict[str, Any], search: str) -> bool:
    return stage.get("searches", {}).get(search, {}).get("method") == "successive-halving"


def _searched(stage: dict[str, Any], search: str) -> dict[str, Any]:
    """The settings of a search that have two values or more, and these values or their range."""
    grid = stage.get("searches", {}).get(search, {}).get("grid", {})
    return {setting: axis for setting, axis in grid.items() if isinstance(axis, dict) or len(axis) > 1}


def _batch_size_search(stage: dict[str, Any]) -> str | None:
    """The first full grid with two batch sizes or more."""
    grids = [name for name in _searches(stage) if not _is_halving(stage, name)]
    return next((name for name in grids if "batch_size" in _searched(stage, name)), None)


def read_search(path: Path | None, searches: list[str]) -> "pd.DataFrame":
    """The rows of search.csv: settings as they stand there, `validation_accuracy` a float and `selected` a bool.

    Raises:
        InputError: the file is missing or malformed, or one of `searches` has no row in it.
    """
    import pandas as pd

    if path is None:
        raise InputError(f"search.csv: expected the trials of {', '.join(searches)}, but no file was named")
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path}: expected a CSV file of trials, found {error}; run the rule `tabulate_search`"
        ) from error
    if missing := [column for column in SEARCH_COLUMNS if column not in table]:
        raise InputError(f"{path}: the column {missing[0]} is missing; run the rule `tabulate_search` again")
    if missing := [name for name in searches if name not in set(table["search"])]:
        raise InputError(f"{path}: no trial of the search {missing[0]}; run the rule `tabulate_search` again")
    table["validation_accuracy"] = pd.to_numeric(table["validation_accuracy"], errors="coerce")
    table["selected"] = table["selected"] == "True"
    table["rung"] = table["rung"].astype(int)
    return table


def _completed(runs: list["Run"]) -> list["Run"]:
    return [run for run in runs if run.completed]


def _first_layer_variant(runs: dict[str, list["Run"]]) -> str:
    """mlp-numpy, else the first MLP, else the first variant, of those with a completed run."""
    from cifar_report.runs.record import family

    completed = [name for name, members in runs.items() if _completed(members)]
    mlps = [name for name in completed if family(runs[name]) == "mlp"]
    return "mlp-numpy" if "mlp-numpy" in completed else (mlps or completed)[0]


def _mean_final(runs: list["Run"], split: str, metric: str) -> float:
    return float(np.mean([run.final(split, metric) for run in runs]))


def _sources(runs: list["Run"], *files: str) -> list[str]:
    """Paths below the study's folder, the same wherever it lies."""
    return [f"runs/{run.variant}/seed-{run.seed}/{file}" for run in runs for file in files]


# --- drawing ------------------------------------------------------------------------------------------------------


def _figure(width: float, height: float) -> "Figure":
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height))


def _nothing(title: str, reason: str, sources: list[str]) -> Drawing:
    """What stands in place of a figure that a study declares, and whose runs all failed."""
    figure = _figure(COLUMN_WIDTH, 0.5)
    text = f"Nothing to draw: {reason}."
    figure.text(0.5, 0.5, text, ha="center", va="center")
    return Drawing(figure, title, f"{title}. {text}", {"not-drawn": reason}, sources)


def _note(axes: "Axes", text: str) -> None:
    """A small remark above the right corner, where no curve comes."""
    if text:
        axes.text(1, 1.01, text, transform=axes.transAxes, ha="right", va="bottom", fontsize=8, style="italic")


def _save(drawing: Drawing, name: str, folder: Path) -> None:
    """As PDF and SVG, without dates; the salt makes the identifiers in an SVG differ from those of other figures."""
    import matplotlib

    with matplotlib.rc_context({"svg.hashsalt": name}):
        for ending, undated in (("pdf", "CreationDate"), ("svg", "Date")):
            with atomic(folder / f"{name}.{ending}") as file:
                metadata = {undated: None, "Title": drawing.title}
                drawing.figure.savefig(file, format=ending, backend=ending, metadata=metadata)
            drawing.figure.set_layout_engine("none")  # laid out once, for both


def _rgb(images: Shaped[np.ndarray, "*n channels height width"]) -> Shaped[np.ndarray, "*n height width 3"]:
    """As Matplotlib draws it: the channels last, and a single one three times, which it would colour by a map."""
    last = np.moveaxis(images, -3, -1)
    return np.broadcast_to(last, (*last.shape[:-1], 3))


def _styles(count: int) -> list[tuple[str, str, str]]:
    """So many colours, line styles and markers."""
    return [LINES[i % len(LINES)] for i in range(count)]


def _key(label: str, **properties: Any):
    from matplotlib.lines import Line2D

    return Line2D([], [], label=label, **properties)


def _ticks(axis: Any, most: int) -> None:
    """At most so many intervals, numbers plain: no offset, no exponent."""
    from matplotlib.ticker import MaxNLocator

    axis.set_major_locator(MaxNLocator(most, steps=[1, 2, 2.5, 5, 10]))
    axis.set_major_formatter(_plain)


def _scale_loss(axes: "Axes", lowest: float, highest: float) -> None:
    """Logarithmic where the drawn losses range over more than a factor of ten, else linear and not below zero."""
    from matplotlib.ticker import LogLocator, NullFormatter

    if not 0 < lowest < highest / 10:
        _ticks(axes.yaxis, 5)
        axes.set_ylim(bottom=max(axes.get_ylim()[0], 0))
        return
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if highest / lowest < 200 else (1.0,)))
    axes.yaxis.set_minor_locator(LogLocator(subs=range(1, 10)))
    axes.yaxis.set_major_formatter(_plain)
    axes.yaxis.set_minor_formatter(NullFormatter())


def _plain(value: float, _: float | None = None) -> str:
    """A number without exponent; from five digits on grouped by thin spaces, as siunitx does in the text."""
    text = f"{value:.10f}".rstrip("0").rstrip(".") if abs(value) < 1e-4 else f"{value:.10g}"
    if abs(value) >= 1e4:
        text = f"{value:,.0f}".replace(",", "\u2009")
    return "0" if text in ("-0", "") else text


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.1f} %"


def _diverged(part: int, whole: int) -> str:
    """Such as "1 of 3 runs diverged"; empty for none."""
    return f"{part} of {whole} runs diverged" if part else ""


def _sentence(text: str) -> str:
    return f" {text}." if text else ""


def _short(text: str, most: int = 11) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def _in_order(values: Iterable[str]) -> list[str]:
    """Distinct values, by size where all are numbers, else as they come."""
    found = list(dict.fromkeys(values))
    try:
        return sorted(found, key=float)
    except ValueError:
        return found


def _setting_name(setting: str) -> str:
    return {"hidden": "hidden units"}.get(setting, setting.replace("_", " "))


def _setting_value(text: str) -> str:
    """3 × 500 for 500-500-500, 0.002 for 0.0020."""
    parts = text.split("-")
    if len(parts) > 1 and len(set(parts)) == 1:
        return f"{len(parts)} × {parts[0]}"
    try:
        return f"{float(text):g}"
    except ValueError:
        return text.replace("-", ", ") if all(part.isdigit() for part in parts) else text
