"""Figures of how well the variants do: each one's curves of loss and accuracy, and all their test accuracies."""

from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Int

from cifar_report.base.errors import InputError
from cifar_report.rendering.figures.style import (
    BLUE,
    COLUMN_WIDTH,
    GREEN,
    TEXT_WIDTH,
    VERMILLION,
    Drawing,
    completed_runs,
    diverged_count,
    files_of,
    in_percent,
    legend_key,
    new_figure,
    note,
    nothing_drawn,
    plain_ticks,
    scale_loss,
    sentence,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure, SubFigure

    from cifar_report.runs.finished import Run

SPLITS = {
    "train": ("training", BLUE, "--", "s"),
    "validation": ("validation", GREEN, "-.", "^"),
    "test": ("test", VERMILLION, "-", "o"),
}


def curves(variant: dict[str, Any], runs: list["Run"]) -> Drawing:
    """Loss and accuracy of every split against the step, at column width; see `_draw_curves`."""
    title, sources = f"Loss and accuracy of {variant['label']}", files_of(runs, "curve.csv", "run.json")
    completed = completed_runs(runs)
    diverged = diverged_count(len(runs) - len(completed), len(runs))
    if not completed:
        return nothing_drawn(title, diverged, sources)
    figure = new_figure(COLUMN_WIDTH, 2.9)
    handles, texts = _draw_curves(figure, variant, runs)
    figure.legend(handles, texts, loc="outside upper center", ncols=4, columnspacing=0.9, handlelength=1.8)
    facts = {
        "seeds": str(len(completed)),
        "diverged": str(len(runs) - len(completed)),
        "steps": str(runs[0].record["settings"]["steps"]),
        "band": "minimum to maximum over the seeds" if len(completed) > 1 else "none: one seed",
        "last-step": "the markers are values of the whole splits",
    }
    from cifar_report.analysis.summary import Facts

    of_variant = Facts(runs)
    for split, (label, *_) in SPLITS.items():
        if split in completed[0].record["final"]:
            facts[f"final-{label}-accuracy"] = in_percent(of_variant.accuracy[split].mean)
            facts[f"final-{label}-loss"] = f"{of_variant.loss[split].mean:.3f}"
    original = variant["original_test_accuracy"]
    if original is not None:
        facts["original-test-accuracy"] = in_percent(original)
    seeds = f"means and range of {len(completed)} seeds" if len(completed) > 1 else "one seed"
    caption = (
        f"{variant['label']}: {facts['final-training-accuracy']} in training and {facts['final-test-accuracy']} in the "
        f"test after {facts['steps']} steps; {seeds}."
        + (f" Dotted: the original's test accuracy, {in_percent(original)}." if original is not None else "")
        + sentence(diverged)
    )
    return Drawing(figure, title, caption, facts, sources)


def originals(variants: list[dict[str, Any]], runs: dict[str, list["Run"]]) -> Drawing:
    """The original's figures drawn anew, side by side and in its order, with its test accuracies; see `_draw_curves`.

    Args:
        variants: those that have an original accuracy.
    """
    from cifar_report.analysis.summary import Facts

    title = "The original's figures, drawn anew"
    sources = [source for variant in variants for source in files_of(runs[variant["name"]], "curve.csv", "run.json")]
    figure = new_figure(TEXT_WIDTH, 2.65 * -(-len(variants) // 2))
    panels = figure.subfigures(-(-len(variants) // 2), 2, squeeze=False).ravel()
    keys: dict[str, Any] = {}
    caption = "The original's figures, drawn anew: means over the seeds, bands from their minimum to their maximum, "
    caption += "markers of the whole splits. Dotted: its test accuracy."
    facts = {}
    for panel, variant in zip(panels, variants, strict=False):
        members, original, number = runs[variant["name"]], variant["original_test_accuracy"], variant["original_figure"]
        panel.suptitle(f"Its figure {number}: {variant['label']}", fontsize=9)
        if not completed_runs(members):
            facts[variant["name"]] = diverged_count(len(members), len(members))
            panel.text(0.5, 0.5, facts[variant["name"]], ha="center", va="center")
            continue
        handles, texts = _draw_curves(panel, variant, members)
        keys |= dict(zip(texts, handles, strict=True))
        each = Facts(members)
        ours = each.accuracy["test"]
        half = f" ± {100 * ours.half:.1f}" if each.seeds > 1 else ""
        facts[variant["name"]] = f"{100 * ours.mean:.1f}{half} % in the test, {in_percent(original)} in the original"
        caption += f" Figure {number}: {facts[variant['name']]}; training {in_percent(each.accuracy['train'].mean)}."
    figure.legend(keys.values(), keys.keys(), loc="outside lower center", ncols=4)
    return Drawing(figure, title, caption, facts, sources)


def _draw_curves(
    figure: "Figure | SubFigure", variant: dict[str, Any], runs: list["Run"]
) -> tuple[list[Any], list[str]]:
    """Draws loss and accuracy of every split, one above the other, and returns the legend's handles and labels.

    Lines are means over the completed runs; the band spans their minimum and maximum, and is absent for one run.
    A marker ends each line: the last step's value is of the whole split, those before it of fixed subsets. The loss
    axis is logarithmic where the means range over more than a factor of ten. Runs that diverged are counted, not drawn.
    """
    completed = completed_runs(runs)
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
    scale_loss(loss, lowest, highest)
    if variant["original_test_accuracy"] is not None:
        level = 100 * variant["original_test_accuracy"]
        accuracy.axhline(level, color="black", linestyle=":", linewidth=0.8, label="original, test")
    note(accuracy, diverged_count(len(runs) - len(completed), len(runs)))
    loss.set_ylabel("loss (nats)")
    accuracy.set_ylabel("accuracy (%)")
    accuracy.set_xlabel("step")
    plain_ticks(accuracy.yaxis, 5)
    plain_ticks(accuracy.xaxis, 6)
    figure.align_ylabels()
    return accuracy.get_legend_handles_labels()


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
                "run the rule `train_variant` again"
            )
    return steps, np.stack([part[metric].to_numpy(dtype=np.float64) for part in parts])


def comparison(variants: list[dict[str, Any]], runs: dict[str, list["Run"]]) -> Drawing:
    """Every variant's final test accuracy, at text width, from top to bottom in the order of the study.

    A filled point is the mean with Student's 95 % interval of it (none for one seed), faint points below it are the
    seeds, an open diamond is the original's value. Runs that diverged are counted beside the label.
    """
    from cifar_report.analysis.summary import Facts

    figure = new_figure(TEXT_WIDTH, 0.75 + 0.25 * len(variants))
    axes = figure.subplots()
    ticks, shown, means = [], [], {}
    facts = {"interval": "95 % interval of the mean (Student's t)"}
    for row, variant in enumerate(variants):
        of_variant = Facts(runs[variant["name"]])
        fate = diverged_count(of_variant.diverged, len(of_variant.runs))
        ticks.append(variant["label"] + (f" ({fate})" if fate else ""))
        values = 100 * of_variant.values("test", "accuracy")
        mean, low, high = (100 * limit for limit in of_variant.accuracy["test"])
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
    plain_ticks(axes.xaxis, 8)
    if shown:
        # An interval of two seeds can reach far beyond what an accuracy can be.
        low, high = max(min(shown), 0.0), min(max(shown), 100.0)
        pad = max(0.04 * (high - low), 0.5)
        axes.set_xlim(max(low - pad, 0.0) if low > 0 else -pad, high + pad)
    keys = [
        legend_key("mean and 95 % interval", color=BLUE, marker="o", markersize=4.5, linewidth=1.3),
        legend_key("each seed", color=BLUE, marker="o", markersize=3, alpha=0.4, mew=0, linestyle="none"),
    ]
    reproduces = any(variant["original_test_accuracy"] is not None for variant in variants)
    if reproduces:
        keys.append(
            legend_key("original", mfc="none", mec="black", mew=0.9, marker="D", markersize=5.5, linestyle="none")
        )
    figure.legend(handles=keys, loc="outside upper right", ncols=3)
    sources = [source for variant in variants for source in files_of(runs[variant["name"]], "run.json")]
    caption = "Test accuracy at the last step: the mean over the seeds with its 95 % interval" + (
        ", and the original's values." if reproduces else "."
    )
    if means:
        best = max(means, key=means.__getitem__)
        facts["highest"] = f"{best}: {means[best]:.1f} %"
        caption += f" The highest mean is {means[best]:.1f} % ({best})."
    return Drawing(figure, "Test accuracy of all variants", caption, facts, sources)
