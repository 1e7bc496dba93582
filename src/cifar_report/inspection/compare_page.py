"""How a comparison of two studies is shown: as text in a terminal, and as one self-contained HTML page with curves."""

import io
import math
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from cifar_report.base.errors import InputError
from cifar_report.base.files import check_replaceable, write_text
from cifar_report.inspection.compare import Comparison
from cifar_report.rendering import figures
from cifar_report.runs.finished import Run

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CURVES = "Curves that differ"
CURVES_NOTE = (
    "Accuracy on a fixed subset of the test split, at the last step on all of it: means over the seeds, in bands from "
    "the lowest to the highest seed."
)
PANELS = 3  # a line


def show(comparison: Comparison) -> None:
    """Prints it: in colour to a terminal, else as plain text of up to 200 columns."""
    from rich import box
    from rich.console import Console
    from rich.table import Table as RichTable
    from rich.text import Text

    plain = not sys.stdout.isatty()
    console = Console(width=200 if plain else None, highlight=False)
    tones = {"up": "green", "down": "red", "flip": "bold", "quiet": "dim"}
    for letter, side in (("A", comparison.a), ("B", comparison.b)):
        console.print(Text(f"{letter}: {side.name}  {side.about}".rstrip()))
    for text in comparison.lead:
        console.print(Text(text))
    for table in comparison.tables:
        shown = RichTable(
            box=None if plain else box.SIMPLE_HEAD,
            title=table.title,
            title_justify="left",
            pad_edge=False,
            title_style="bold",
        )
        for column in table.columns:
            shown.add_column(column, overflow="fold")
        for row in table.rows:
            shown.add_row(*map(Text, row.cells), style=tones.get(row.tone))
        console.print()
        console.print(shown)


MARK = b'<meta name="generator" content="cifar-report compare">'  # of its pages


def check_output(output: Path) -> None:
    """Raises InputError where the ending is not that of a page, or something else than an earlier one is there."""
    if output.suffix != ".html":
        raise InputError(f"{output}: expected a page to write that ends in .html; for a PDF, print it from a browser")
    check_replaceable(output, "page of compare", lambda path: MARK in path.read_bytes())


def write(comparison: Comparison, output: Path) -> None:
    """Writes a self-contained HTML page."""
    import jinja2

    template = Path(__file__).with_suffix(".html").read_text()
    page = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(template)
    svg = _curves(comparison) if comparison.drawn else ""
    write_text(output, page.render(comparison=comparison, svg=svg, title=CURVES, note=CURVES_NOTE))


def _curves(comparison: Comparison) -> str:
    """Test accuracy against the images seen, a panel a variant, as SVG."""
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    sides = (("A", comparison.a, figures.VERMILLION, "--"), ("B", comparison.b, figures.BLUE, "-"))
    lines = math.ceil(len(comparison.drawn) / PANELS)
    with figures.style(), matplotlib.rc_context({"svg.hashsalt": "compare"}):
        figure = Figure(figsize=(11, 2.3 * lines + 0.8), layout="constrained")
        for place, name in enumerate(comparison.drawn, 1):
            axes = figure.add_subplot(lines, PANELS, place)
            for _, side, colour, line in sides:
                _curve(axes, [run for run in side.runs.get(name, ()) if run.completed], colour, line)
            axes.set_title(name, fontsize=9, loc="left")
            axes.locator_params(nbins=4)
        figure.supxlabel("thousand images seen", fontsize=9)
        figure.supylabel("test accuracy (%)", fontsize=9)
        keys = [Line2D([], [], label=name, color=colour, ls=line) for name, _, colour, line in sides]  # type: ignore[arg-type]
        figure.legend(handles=keys, loc="outside lower right", ncols=2)
        file = io.StringIO()
        figure.savefig(file, format="svg", metadata={"Date": None})
    return re.sub(r"^.*?(?=<svg)", "", file.getvalue(), flags=re.DOTALL)


def _curve(axes: "Axes", runs: list[Run], colour: str, line: str) -> None:
    if not runs:
        return
    steps, values = figures.seed_curves(runs, "test", "accuracy")
    seen = steps * runs[0].curve["samples_seen"].iloc[-1] / runs[0].curve["step"].iloc[-1] / 1000
    axes.plot(seen, 100 * values.mean(axis=0), color=colour, linestyle=line, zorder=3 if line == "--" else 2)
    if len(runs) > 1:
        axes.fill_between(
            seen, 100 * values.min(axis=0), 100 * values.max(axis=0), color=colour, alpha=0.15, linewidth=0
        )
