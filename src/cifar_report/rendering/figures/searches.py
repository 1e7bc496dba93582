"""Figures of the searches for settings: what each setting does to the validation accuracy, and how trials fared."""

from collections.abc import Iterable
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from cifar_report.rendering.figures.style import (
    BLUE,
    GREY,
    SKY,
    TEXT_WIDTH,
    VERMILLION,
    Drawing,
    completed_runs,
    diverged_count,
    in_percent,
    legend_key,
    line_looks,
    new_figure,
    note,
    nothing_drawn,
    plain_number,
    plain_ticks,
    scale_loss,
    sentence,
)

if TYPE_CHECKING:
    import pandas as pd

# The ring around the selected configuration, and the paper under the marks of an axis, which lines would cross.
_RING: dict[str, Any] = {"mfc": "none", "mec": VERMILLION, "mew": 1.3, "markersize": 7.5}
_PAPER = {"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 0.6}


def search_effects(name: str, table: "pd.DataFrame") -> Drawing:
    """The validation accuracy of every configuration of a grid against each setting that it varies, at text width.

    Each panel holds all configurations, as the means over their seeds (side by side where they share a value), and
    joins the means of each value in the order in which they are listed; from the first to the last is the setting's
    main effect. The selected configuration is ringed. Trials that diverged are counted, not drawn.

    Args:
        table: the search's rows of what `analysis.searches.read` gives.
    """
    from cifar_report.analysis import searches

    every = searches.configurations(table)
    completed = every[every["validation_accuracy"].notna()]
    diverged = int(every["diverged"].sum())
    varied = searches.levels(table)
    values = varied or {setting: list(table[setting][:1]) for setting in searches.settings(table)[:1]}
    settings = list(values)
    columns = min(4, len(settings))
    rows = -(-len(settings) // columns)
    figure = new_figure(TEXT_WIDTH, 0.4 + 1.9 * rows)
    widths = [max(2, len(v)) for v in values.values()] if rows == 1 else None
    panels = figure.subplots(rows, columns, sharey=True, squeeze=False, width_ratios=widths).ravel()
    facts = {"configurations": str(len(every)), "trials": str(len(table)), "diverged": str(diverged)}
    effects = {}
    for axes, setting in zip(panels, settings, strict=False):
        means = []
        for place, value in enumerate(values[setting]):
            rows_here = completed[completed[setting] == value]
            accuracy = 100 * rows_here["validation_accuracy"].to_numpy()
            x = place + 0.5 * (np.arange(len(accuracy)) - (len(accuracy) - 1) / 2) / max(len(accuracy), 5)
            axes.plot(x, accuracy, "o", color=SKY, mec=BLUE, mew=0.5, markersize=3.5)
            chosen = rows_here["selected"].to_numpy()
            axes.plot(x[chosen], accuracy[chosen], "o", **_RING)
            means.append(accuracy.mean() if len(accuracy) else np.nan)
        axes.plot(range(len(means)), means, color="black", marker="_", markersize=11, mew=1.3, linewidth=0.7)
        texts = [_setting_value(value) for value in values[setting]]
        crowded = max(map(len, texts)) > 7 and len(texts) > 2
        axes.set_xticks(range(len(texts)), texts, rotation=25 if crowded else 0, ha="right" if crowded else "center")
        axes.set_xlim(-0.5, len(texts) - 0.5)
        axes.set_xlabel(_setting_name(setting))
        plain_ticks(axes.yaxis, 6)
        effect = searches.main_effects(table, {setting: 1}).interval() if setting in varied else None
        if effect and np.isfinite(effect.mean):
            limits = f" ({100 * effect.low:.1f} to {100 * effect.high:.1f})" if np.isfinite(effect.low) else ""
            effects[setting] = f"{100 * effect.mean:.1f} points{limits}"
            facts[f"effect-of-{setting.replace('_', '-')}"] = effects[setting]
    for axes in panels[len(settings) :]:
        axes.remove()
    for axes in panels[::columns]:
        axes.set_ylabel("validation accuracy (%)")
    keys = [
        legend_key("configuration", color=SKY, marker="o", mec=BLUE, mew=0.5, markersize=3.5, linestyle="none"),
        legend_key("mean of the value", color="black", marker="_", markersize=11, mew=1.3, linewidth=0.7),
        legend_key("selected", marker="o", linestyle="none", **_RING),
    ]
    note(panels[columns - 1], diverged_count(diverged, len(table)))
    figure.legend(handles=keys, loc="outside upper center", ncols=3)
    facts |= _selected(completed, settings)
    caption = (
        f"The search {name}: validation accuracy of all {len(every)} configurations, each the mean of its seeds "
        f"({len(table)} trials), against each setting, and the mean of each value."
        + sentence(
            "From the first value to the last, that mean moves, with its 95 % interval where seeds are several, by "
            + ", ".join(f"{effect} with {_setting_name(setting)}" for setting, effect in effects.items())
            if effects
            else ""
        )
        + _selection(facts)
        + sentence(diverged_count(diverged, len(table)))
    )
    return Drawing(figure, f"Main effects of the settings in the search {name}", caption, facts, ["search.csv"])


def interactions(name: str, table: "pd.DataFrame", grid: dict[str, list[Any]]) -> Drawing:
    """Mean validation accuracy of a grid for each two values of each two settings, as heat maps at text width.

    Where two settings do not interact, a row differs from the next by the same amount in each column. The number said
    of each pair is the largest departure of a cell from that: from its row's mean plus its column's minus the panel's.

    Args:
        table: as of `search_effects`; grid: the settings with two values or more.
    """
    from cifar_report.analysis import searches

    each = searches.configurations(table)
    pairs = list(combinations(grid, 2))
    columns = min(3, len(pairs))
    rows = -(-len(pairs) // columns)
    figure = new_figure(TEXT_WIDTH, 0.3 + 1.75 * rows)
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    values = searches.levels(table)
    means = {}
    for one, other in pairs:
        cells = each.groupby([one, other])["validation_accuracy"].mean().unstack()
        means[one, other] = 100 * cells.reindex(index=values[one], columns=values[other]).to_numpy()
    every = np.concatenate([cells.ravel() for cells in means.values()])
    facts, largest = {"configurations": str(len(each))}, {}
    if not np.isfinite(every).any():
        return nothing_drawn(f"Interactions in the search {name}", "every trial diverged", ["search.csv"])
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
    figure = new_figure(TEXT_WIDTH, 2.6)
    panel = figure.subplots()
    places = sorted(table["rung"].unique())
    steps = {rung: int(table.loc[table["rung"] == rung, "step"].max()) for rung in places}
    facts = {"configurations": str((table["rung"] == places[0]).sum()), "diverged": str(diverged)}
    for _, trials in completed.groupby(list(axes), sort=False):
        trials = trials.sort_values("rung")
        panel.plot(
            trials["rung"], 100 * trials["validation_accuracy"], "-o", color=BLUE, mfc=SKY, mew=0.5, linewidth=0.7
        )
        chosen = trials[trials["selected"]]
        panel.plot(chosen["rung"], 100 * chosen["validation_accuracy"], "o", **_RING)
    panel.set_xticks(places, [f"rung {rung}: {plain_number(steps[rung])} steps" for rung in places])
    panel.set_xlim(places[0] - 0.3, places[-1] + 0.3)
    panel.set_ylabel("validation accuracy (%)")
    plain_ticks(panel.yaxis, 6)
    note(panel, diverged_count(diverged, len(table)))
    keys = [
        legend_key("configuration", color=BLUE, marker="o", mfc=SKY, mew=0.5, linewidth=0.7),
        legend_key("selected", marker="o", linestyle="none", **_RING),
    ]
    figure.legend(handles=keys, loc="outside upper center", ncols=2)
    for rung in places:
        members = completed[completed["rung"] == rung]
        facts[f"rung-{rung}"] = f"{(table['rung'] == rung).sum()} trials of {steps[rung]} steps"
        if len(members):
            facts[f"best-of-rung-{rung}"] = in_percent(members["validation_accuracy"].max())
    facts |= _selected(completed, axes)
    counts = [f"{(table['rung'] == rung).sum()} for {plain_number(steps[rung])} steps" for rung in places]
    caption = (
        f"The search {name}, by successive halving: validation accuracy of the configurations on each rung. Trained "
        f"were {', then '.join(counts)}, each time anew."
        + _selection(facts)
        + sentence(diverged_count(diverged, len(table)))
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
        return nothing_drawn(title, "every trial diverged", ["search.csv"])
    last = int(table["rung"].max())
    reached = completed.groupby(list(axes), sort=False)["rung"].max()
    accuracy = 100 * first["validation_accuracy"].to_numpy()
    low, high = accuracy.min(), accuracy.max()
    heights = [_places(first[setting], axis) for setting, axis in axes.items()]
    heights.append((accuracy - low) / (high - low) if high > low else np.full(len(first), 0.5))
    figure = new_figure(TEXT_WIDTH, 2.8)
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
        legend_key(
            f"ended on rung {rung}" if rung < last else f"reached rung {last}", color=c, linestyle=d, linewidth=w
        )
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


def batch_sizes(name: str, table: "pd.DataFrame", trials: Path) -> Drawing:
    """Training loss of a grid's batch sizes, all else as selected, at text width.

    Left against the step, right against the images seen, which is what a step of each size costs. A line is the
    geometric mean of the seeds' losses.

    Args:
        table: as of `search_effects`; trials: folder of `<trial>/{run.json,curve.csv}`.
    """
    import pandas as pd

    from cifar_report.analysis import searches
    from cifar_report.runs.finished import load_run

    title = f"Training loss by batch size in the search {name}"
    chosen = table[table["selected"]]
    if chosen.empty:
        return nothing_drawn(title, "every trial diverged", ["search.csv"])
    others = [setting for setting in searches.settings(table) if setting != "batch_size"]
    alike = table[(table[others] == chosen.iloc[0][others]).all(axis=1)]
    runs = [load_run(trials / trial) for trial in alike["trial"]]
    completed = completed_runs(runs)
    sizes = sorted({run.record["settings"]["batch_size"] for run in completed})
    figure = new_figure(TEXT_WIDTH, 2.3)
    left, right = figure.subplots(1, 2, sharey=True)
    facts = {"diverged": str(len(runs) - len(completed))}
    lowest, highest = np.inf, 0.0
    for size, (colour, line, marker) in zip(sizes, line_looks(len(sizes)), strict=True):
        curves = [run.curve for run in completed if run.record["settings"]["batch_size"] == size]
        together = pd.concat([curve[curve["split"] == "train"] for curve in curves]).groupby(["step", "samples_seen"])
        loss = together["loss"].agg(lambda losses: np.exp(np.log(losses).mean())).reset_index()
        for axes, against in ((left, "step"), (right, "samples_seen")):
            axes.plot(loss[against], loss["loss"], color=colour, linestyle=line, label=f"batches of {size}")
            axes.plot(loss[against].iloc[-1:], loss["loss"].iloc[-1:], marker=marker, color=colour, clip_on=False)
        lowest, highest = min(lowest, loss["loss"].min()), max(highest, loss["loss"].max())
        facts[f"final-training-loss-{size}"] = f"{loss['loss'].iloc[-1]:.3g}"
    scale_loss(left, lowest, highest)
    left.set_ylabel("training loss (nats)")
    left.set_xlabel("step")
    right.set_xlabel("images seen")
    for axes in (left, right):
        plain_ticks(axes.xaxis, 6)
    note(right, diverged_count(len(runs) - len(completed), len(runs)))
    handles, texts = left.get_legend_handles_labels()
    figure.legend(handles, texts, loc="outside upper center", ncols=4)
    facts["otherwise"] = ", ".join(f"{_setting_name(s)} {_setting_value(chosen.iloc[0][s])}" for s in others)
    sources = ["search.csv", *(f"search/{name}/{run.folder.name}/curve.csv" for run in runs)]
    ends = [f"{facts[f'final-training-loss-{size}']} with batches of {size}" for size in sizes]
    seeds = table["seed"].nunique()
    caption = (
        "Training loss of the search's batch sizes against the step, and against the images that were seen by then; "
        + (f"geometric means of {seeds} seeds" if seeds > 1 else "one run each")
        + f", all else as selected. It ends at {', '.join(ends)}."
        + sentence(diverged_count(len(runs) - len(completed), len(runs)))
    )
    return Drawing(figure, title, caption, facts, sources)


def _selected(trials: "pd.DataFrame", settings: Iterable[str]) -> dict[str, str]:
    """The selected configuration in words, nothing where none was; the accuracy that chose it says too much of it."""
    chosen = trials[trials["selected"]]
    if chosen.empty:
        return {}
    return {"selected": ", ".join(f"{_setting_name(s)} {_setting_value(chosen.iloc[0][s])}" for s in settings)}


def _selection(facts: dict[str, str]) -> str:
    """The sentence of a caption about what `_selected` tells."""
    return sentence(f"Selected: {facts['selected']}" if "selected" in facts else "")


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


def _setting_name(setting: str) -> str:
    """A setting in words."""
    return {"hidden": "hidden units"}.get(setting, setting.replace("_", " "))


def _setting_value(text: str) -> str:
    """A value of search.csv as a reader wants it: 3 × 500 for 500-500-500, 0.002 for 0.0020."""
    parts = text.split("-")
    if len(parts) > 1 and len(set(parts)) == 1:
        return f"{len(parts)} × {parts[0]}"
    try:
        return f"{float(text):g}"
    except ValueError:
        return text.replace("-", ", ") if all(part.isdigit() for part in parts) else text
