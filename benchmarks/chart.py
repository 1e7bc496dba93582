"""docs/bench.svg: each measured ratio as a share of its goal. `python records.py` draws it from the records again."""

from pathlib import Path
from typing import TYPE_CHECKING

from timing import GOAL

if TYPE_CHECKING:
    from records import Row

# Greys and colours that are readable on white and on a dark page.
TEXT, MET, MISSED = "#808891", "#2f9e6e", "#d9713c"


def draw(goals: "dict[str, list[Row]]", path: Path) -> None:
    """A bar a goal and processor: up to 1 is within it; where more is better, the bound divided by the measured.

    What an earlier commit than the newest measured has given is drawn pale.
    """
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams |= {"svg.fonttype": "path", "svg.hashsalt": "bench", "text.color": TEXT, "font.size": 9}
    from matplotlib import pyplot as plt

    measured = [(name, row) for name, rows in goals.items() for row in rows if row.entry["met"] is not None][::-1]
    several = len({row.processor for _, row in measured}) > 1
    figure, axes = plt.subplots(figsize=(9, 0.36 * len(measured) + 0.9), layout="constrained")
    for y, (_, row) in enumerate(measured):
        _, _, relation, bound = GOAL.fullmatch(row.entry["goal"]).groups()
        ratio, goal = row.entry["ratio"]["median"], float(bound)
        share = ratio / goal if relation == "<=" else goal / ratio
        colour = MET if row.entry["met"] else MISSED
        axes.barh(y, share, height=0.6, color=colour, alpha=1 if row.newest else 0.4)
        sign = "≤" if relation == "<=" else "≥"
        axes.annotate(
            f"{ratio:.3g}  (goal {sign} {goal:g})", (max(share, 1), y), (6, 0), textcoords="offset points", va="center"
        )
    axes.axvline(1, color=TEXT, linewidth=1, linestyle="--")
    labels = [f"{name}\n{row.processor}" if several else name for name, row in measured]
    axes.set_yticks(range(len(measured)), labels)
    axes.set_xlim(0, max([1.0, *(bar.get_width() for bar in axes.patches)]) * 1.3)
    axes.set_xlabel("share of what the goal allows (less is better; 1 is the goal)", color=TEXT)
    axes.tick_params(colors=TEXT, length=0)
    axes.spines[:].set_visible(False)
    figure.savefig(path, transparent=True, metadata={"Date": None})
    plt.close(figure)
