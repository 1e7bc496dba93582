"""docs/bench.svg: each measured ratio as a share of its goal. `python chart.py` draws it from results.json again."""

import json
from pathlib import Path

from timing import GOAL, ROOT

# Greys and colours that are readable on white and on a dark page.
TEXT, MET, MISSED = "#808891", "#2f9e6e", "#d9713c"


def draw(results: list[dict], path: Path) -> None:
    """A bar a goal: up to 1 is within it; where more is better, the goal's bound divided by what was measured."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams |= {"svg.fonttype": "path", "svg.hashsalt": "bench", "text.color": TEXT, "font.size": 9}
    from matplotlib import pyplot as plt

    measured = [entry for entry in results if entry["met"] is not None][::-1]
    figure, axes = plt.subplots(figsize=(9, 0.36 * len(measured) + 0.9), layout="constrained")
    for y, entry in enumerate(measured):
        _, _, relation, bound = GOAL.fullmatch(entry["goal"]).groups()
        ratio, goal = entry["ratio"]["median"], float(bound)
        share = ratio / goal if relation == "<=" else goal / ratio
        axes.barh(y, share, height=0.6, color=MET if entry["met"] else MISSED)
        sign = "≤" if relation == "<=" else "≥"
        axes.annotate(
            f"{ratio:.3g}  (goal {sign} {goal:g})", (max(share, 1), y), (6, 0), textcoords="offset points", va="center"
        )
    axes.axvline(1, color=TEXT, linewidth=1, linestyle="--")
    axes.set_yticks(range(len(measured)), [entry["name"] for entry in measured])
    axes.set_xlim(0, max([1.0, *(bar.get_width() for bar in axes.patches)]) * 1.3)
    axes.set_xlabel("share of what the goal allows (less is better; 1 is the goal)", color=TEXT)
    axes.tick_params(colors=TEXT, length=0)
    axes.spines[:].set_visible(False)
    figure.savefig(path, transparent=True, metadata={"Date": None})
    plt.close(figure)


if __name__ == "__main__":
    draw(json.loads(Path(__file__).with_name("results.json").read_text()), ROOT / "docs/bench.svg")
