"""Figures of what trained networks answer for the test images: samples, confused classes, and calibration."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Int, UInt8

from cifar_report.analysis.statistics import CALIBRATION_BINS, confidences, confusion_counts, reliability
from cifar_report.rendering.figures.style import (
    BLUE,
    COLUMN_WIDTH,
    GREY,
    TEXT_WIDTH,
    VERMILLION,
    Drawing,
    files_of,
    in_percent,
    line_looks,
    new_figure,
    plain_number,
    plain_ticks,
    rgb,
    short_labels,
)

if TYPE_CHECKING:
    from cifar_report.runs.finished import Run

SAMPLE_COLUMNS, WRONG_ROWS = 10, 2


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
    rows: list[Sequence[int | None]] = [right]
    rows += [wrong[i : i + SAMPLE_COLUMNS].tolist() for i in range(0, len(wrong), SAMPLE_COLUMNS)]
    names = short_labels(class_names, 10)
    size = 8 if names == class_names else 7  # of a name, which must not touch its neighbour
    header, gap, lines = 0.52, 0.04, 0.34
    cell = (TEXT_WIDTH - header) / SAMPLE_COLUMNS
    side = cell - gap
    tall = side * images.shape[2] / images.shape[3]
    height = len(rows) * (tall + lines) + 0.02
    figure = new_figure(TEXT_WIDTH, height)
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
            middle = left + side / 2
            if i is None:
                axes.add_patch(Rectangle((left, top), side, tall, fill=False, edgecolor=GREY, linewidth=0.6))
                axes.text(middle, top + tall / 2, "none", ha="center", va="center", fontsize=8, color=GREY)
                axes.text(middle, top + tall + 0.09, names[column], ha="center", va="center", fontsize=size)
                continue
            extent = (left, left + side, top + tall, top)
            axes.imshow(rgb(images[i]), extent=extent, aspect="auto")
            is_wrong = predicted[i] != targets[i]
            axes.text(middle, top + tall + 0.09, names[targets[i]], ha="center", va="center", fontsize=size)
            axes.text(
                middle,
                top + tall + 0.22,
                names[predicted[i]],
                ha="center",
                va="center",
                fontsize=size,
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
        "right": str(len(right) - right.count(None)),
        "wrong": str(len(wrong)),
    }
    caption = (
        f"Test images, their true class and the one predicted ({label}; seed {run.seed}). First row: of each class the "
        "first image that is right" + (", an empty frame where none is." if None in right else ".")
    )
    if len(wrong):
        facts["wrong-confidence"] = f"{in_percent(confidence[wrong[-1]])} to {in_percent(confidence[wrong[0]])}"
        surest = [in_percent(confidence[wrong[0]]), in_percent(confidence[wrong[-1]])]
        caption += " Below, framed and crossed: " + (
            f"the {len(wrong)} wrong ones of the highest confidence, from {surest[0]} down to {surest[1]}."
            if len(wrong) > 1
            else f"the one that is wrong, with a confidence of {surest[0]}."
        )
    sources = [*files_of([run], "test-logits.npy"), "dataset/test-images.npy", "dataset/test-labels.npy"]
    return Drawing(figure, f"Test images and what {label} takes them for", caption, facts, sources)


def choose_samples(
    logits: Float[np.ndarray, "n classes"], targets: Int[np.ndarray, " n"], classes: int
) -> tuple[list[int | None], Int[np.ndarray, " wrong"]]:
    """Indices of the first of each class that is right, None for none, and of the wrong ones, the surest first."""
    confidence, predicted = confidences(logits)
    is_right = [(targets == c) & (predicted == c) for c in range(min(classes, SAMPLE_COLUMNS))]
    right = [int(np.argmax(each)) if each.any() else None for each in is_right]
    wrong = np.flatnonzero(predicted != targets)
    order = np.argsort(-confidence[wrong], kind="stable")
    return right, wrong[order][: WRONG_ROWS * SAMPLE_COLUMNS]


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
    figure = new_figure(TEXT_WIDTH if len(models) > 1 else COLUMN_WIDTH, 3.3)
    panels = figure.subplots(1, len(models), sharey=True, squeeze=False)[0]
    every = range(0, classes, -(-classes // 20))
    names = short_labels(class_names, 11)
    texts = [names[c] for c in every]
    turned = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"} if max(map(len, texts)) > 3 else {}
    facts = {"images": str(len(targets))}
    findings = []
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
                    colour = "white" if value > 50 else "black"
                    axes.text(column, row + 0.03, f"{value:.0f}", ha="center", va="center", fontsize=7.5, color=colour)
        facts[f"accuracy-{run.variant}"] = in_percent(np.trace(counts) / counts.sum())
        facts[f"seed-{run.variant}"] = str(run.seed)
        findings.append(f"{label} (seed {run.seed}): {facts[f'accuracy-{run.variant}']} of the images are right")
        errors = np.where(np.eye(classes, dtype=bool) | ~np.isfinite(share), 0, share)
        row, column = np.unravel_index(np.argmax(errors), errors.shape)
        if errors[row, column] > 0:
            pair = f"{class_names[row]} taken for {class_names[column]}, {in_percent(errors[row, column] / 100)}"
            facts[f"largest-confusion-{run.variant}"] = pair
            findings[-1] += f", and the most frequent confusion is {pair}"
    panels[0].set_ylabel("true class")
    if not numbered:
        bar = figure.colorbar(image, ax=panels, shrink=0.8, ticks=np.sqrt([0, 0.01, 0.1, 0.25, 0.5, 1]))
        bar.ax.set_yticklabels(["0", "1", "10", "25", "50", "100"])
        bar.set_label("share of the true class (%)")
    caption = (
        "Which class the images of each true class are taken for, in per cent of that class, over "
        f"{plain_number(len(targets))} test images. {'; '.join(findings)}. Shares of up to 0.5 % are left blank."
    )
    sources = [source for _, run, _ in models for source in files_of([run], "test-logits.npy")]
    title = f"Confusion matrix of {' and of '.join(label for label, *_ in models)}"
    return Drawing(figure, title, caption, facts, [*sources, "dataset/test-labels.npy"])


def calibration(
    models: list[tuple[str, "Run", Float[np.ndarray, "n classes"]]], targets: Int[np.ndarray, " n"]
) -> Drawing:
    """Reliability diagram at column width: accuracy against confidence in 15 bins, and below how full the bins are.

    A calibrated model lies on the diagonal. Bins without an image are left out. The legend gives the expected
    calibration error (Guo et al. 2017).

    Args:
        models: label, run and test logits of each.
    """
    figure = new_figure(COLUMN_WIDTH, 3.5)
    axes, below = figure.subplots(2, sharex=True, height_ratios=[3, 1])
    axes.plot([0, 100], [0, 100], color=GREY, linestyle=":", linewidth=0.8)
    facts = {"bins": str(CALIBRATION_BINS), "images": str(len(targets))}
    errors, edges = [], 100 * np.linspace(0, 1, CALIBRATION_BINS + 1)
    for (label, run, logits), (colour, line, marker) in zip(models, line_looks(len(models)), strict=True):
        bins = reliability(logits, targets)
        error = bins.expected_calibration_error()
        filled = bins.count > 0
        axes.plot(
            100 * bins.confidence[filled],
            100 * bins.accuracy[filled],
            color=colour,
            linestyle=line,
            marker=marker,
            label=f"{label} (ECE {in_percent(error)})",
            clip_on=False,
        )
        below.stairs(100 * bins.count / bins.count.sum(), edges, color=colour, linestyle=line, linewidth=1.0)
        facts[f"ece-{run.variant}"] = in_percent(error)
        errors.append(f"{in_percent(error)} ({label}; seed {run.seed})")
        facts[f"seed-{run.variant}"] = str(run.seed)
    axes.set(xlim=(0, 100), ylim=(0, 100), ylabel="accuracy (%)")
    below.set(xlabel="confidence (%)", ylabel="images (%)", ylim=(0, None))
    for axis in (axes.xaxis, axes.yaxis):
        plain_ticks(axis, 5)
    plain_ticks(below.yaxis, 2)
    figure.align_ylabels()
    figure.legend(loc="outside upper center", ncols=1)
    sources = [source for _, run, _ in models for source in files_of([run], "test-logits.npy")]
    caption = (
        f"Accuracy against confidence on the {plain_number(len(targets))} test images, in {CALIBRATION_BINS} bins of "
        "equal width; below, the share of the images in each. A calibrated model follows the diagonal. Expected "
        f"calibration error: {', '.join(errors)}."
    )
    return Drawing(figure, "Calibration", caption, facts, [*sources, "dataset/test-labels.npy"])
