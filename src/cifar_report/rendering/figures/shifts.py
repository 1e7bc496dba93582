"""The figure of what networks lose on shifted images."""

from typing import TYPE_CHECKING

from cifar_report.rendering.figures.style import (
    COLUMN_WIDTH,
    Drawing,
    line_looks,
    new_figure,
    nothing_drawn,
    plain_number,
    plain_ticks,
    sentence,
)

if TYPE_CHECKING:
    import pandas as pd


def shift_losses(labels: dict[str, str], shifts: "pd.DataFrame") -> Drawing:
    """The test accuracy that each variant loses, in points, against the pixels that the images are moved by.

    Lines are means over the seeds, with Student's 95 % intervals of them (none for one seed).

    Args:
        labels: of the variants that are measured, by their names.
        shifts: shifts.csv.
    """
    from cifar_report.analysis.measurements import SHIFTED, lost
    from cifar_report.analysis.statistics import t_interval

    title, sources = "Accuracy lost on shifted images", ["shifts.csv"]
    points, shares = lost(shifts), lost(shifts, share=True)
    drawn = [name for name in labels if name in points.index.get_level_values("variant")]
    if not drawn:
        return nothing_drawn(title, "every run diverged", sources)
    figure = new_figure(COLUMN_WIDTH, 2.3)
    axes = figure.subplots()
    facts = {"images": str(shifts["images"].iloc[0]), "interval": "95 % interval of the mean (Student's t)"}
    ends, last = [], SHIFTED[-1]
    for place, (name, (colour, line, marker)) in enumerate(zip(drawn, line_looks(len(drawn)), strict=True)):
        intervals = [t_interval(100 * points.loc[name][pixels].to_numpy()) for pixels in SHIFTED]
        beside = [pixels + 0.06 * (place - (len(drawn) - 1) / 2) for pixels in SHIFTED]  # so that no bar hides another
        means = [interval.mean for interval in intervals]
        seeds, mean = len(points.loc[name]), means[-1]
        halves = [interval.half for interval in intervals] if seeds > 1 else None
        axes.errorbar(beside, means, halves, color=colour, linestyle=line, marker=marker, capsize=2, label=labels[name])
        share = 100 * shares.loc[name][last].mean()
        limits = f" [{intervals[-1].low:.1f}, {intervals[-1].high:.1f}]" if seeds > 1 else ""
        facts[name] = f"{mean:.1f} points{limits}, {share:.1f} % of its accuracy; {seeds} seed{'s' * (seeds > 1)}"
        ends.append(f"{labels[name]} {mean:.1f}{limits} points, {share:.1f} % of its accuracy")
    axes.set_xlabel("images moved by (pixels)")
    axes.set_ylabel("test accuracy lost (points)")
    axes.set_xticks(list(SHIFTED))
    plain_ticks(axes.yaxis, 6)
    axes.axhline(0, color="#cccccc", linewidth=0.5, zorder=0)
    axes.legend(loc="upper left")
    caption = (
        f"Test accuracy lost on images moved up, down, left and right, the mean of the four, on "
        f"{plain_number(float(facts['images']))} test images: means over the seeds with 95 % intervals."
        + sentence(f"Moved by {last} pixels, lost are: {'; '.join(ends)}")
    )
    return Drawing(figure, title, caption, facts, sources)
