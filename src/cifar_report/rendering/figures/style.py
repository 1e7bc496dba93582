"""What all figures share: sizes, colours, Matplotlib's settings, the parts and texts that recur, and how to save."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Shaped

from cifar_report.base.files import atomic

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    from cifar_report.runs.finished import Run

COLUMN_WIDTH, TEXT_WIDTH = 3.4, 6.3  # inches

# Okabe and Ito 2008: told apart with any kind of colour vision.
BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"
GREY = "#777777"
# A colour never carries a meaning alone: each has its own line and marker.
LINES = ((BLUE, "-", "o"), (VERMILLION, "--", "s"), (GREEN, "-.", "^"), (PURPLE, ":", "D"), (ORANGE, "-", "v"))
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


@dataclass(frozen=True)
class Drawing:
    """A figure and what is to be said of it, in plain text: no LaTeX, numbers as a reader wants them.

    `caption` says what is seen and what follows from it, `facts` are its numbers by name, and `sources` the files of
    the study's folder that it was made from.
    """

    figure: "Figure"
    title: str
    caption: str
    facts: dict[str, str]
    sources: list[str]


@contextmanager
def style() -> Iterator[None]:
    """The style of all figures, whatever the user's own Matplotlib settings are; theirs return afterwards."""
    import matplotlib

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(STYLE)  # type: ignore[arg-type]
        yield


def save(drawing: Drawing, name: str, folder: Path) -> None:
    """Writes `<name>.pdf` and `<name>.svg`, the same bytes for the same drawing."""
    import matplotlib

    # A layout knows how large what it lays out is after a first drawing alone: titles above images were cut.
    drawing.figure.draw_without_rendering()
    # The salt makes the identifiers in an SVG differ from those of other figures, and the same each time.
    with matplotlib.rc_context({"svg.hashsalt": name}):
        for ending, undated in (("pdf", "CreationDate"), ("svg", "Date")):
            with atomic(folder / f"{name}.{ending}") as file:
                metadata = {undated: None, "Title": drawing.title}
                drawing.figure.savefig(file, format=ending, backend=ending, metadata=metadata)
            drawing.figure.set_layout_engine("none")  # laid out once, for both


def new_figure(width: float, height: float) -> "Figure":
    """An empty figure of this size, in inches, which pyplot does not know of."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height))


def nothing_drawn(title: str, reason: str, sources: list[str]) -> Drawing:
    """A drawing that says why it is empty, in place of a figure that a study declares and whose runs all failed."""
    figure = new_figure(COLUMN_WIDTH, 0.5)
    text = f"Nothing to draw: {reason}."
    figure.text(0.5, 0.5, text, ha="center", va="center")
    return Drawing(figure, title, f"{title}. {text}", {"not-drawn": reason}, sources)


def note(axes: "Axes", text: str) -> None:
    """Puts a small remark above the right corner of the axes, where no curve comes; none for an empty text."""
    if text:
        axes.text(1, 1.01, text, transform=axes.transAxes, ha="right", va="bottom", fontsize=8, style="italic")


def line_looks(count: int) -> list[tuple[str, str, str]]:
    """Colours, line styles and markers that tell so many lines apart."""
    return [LINES[i % len(LINES)] for i in range(count)]


def legend_key(label: str, **properties: Any) -> "Line2D":
    """An entry of a legend that is written by hand: a label, and the line or marker that it explains."""
    from matplotlib.lines import Line2D

    return Line2D([], [], label=label, **properties)


def plain_ticks(axis: Any, most: int) -> None:
    """Gives an axis at most so many intervals, and plain numbers: no offset, no exponent."""
    from matplotlib.ticker import MaxNLocator

    axis.set_major_locator(MaxNLocator(most, steps=[1, 2, 2.5, 5, 10]))
    axis.set_major_formatter(plain_number)


def scale_loss(axes: "Axes", lowest: float, highest: float) -> None:
    """Scales an axis of losses: logarithmic where those drawn range over more than a factor of ten, else linear from
    zero or above.
    """
    from matplotlib.ticker import LogLocator, NullFormatter

    if not 0 < lowest < highest / 10:
        plain_ticks(axes.yaxis, 5)
        axes.set_ylim(bottom=max(axes.get_ylim()[0], 0))
        return
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if highest / lowest < 200 else (1.0,)))
    axes.yaxis.set_minor_locator(LogLocator(subs=range(1, 10)))
    axes.yaxis.set_major_formatter(plain_number)
    axes.yaxis.set_minor_formatter(NullFormatter())


def rgb(images: Shaped[np.ndarray, "*n channels height width"]) -> Shaped[np.ndarray, "*n height width 3"]:
    """Images as Matplotlib draws them: channels last, a single one three times, so that no colour map tints it."""
    last = np.moveaxis(images, -3, -1)
    return np.broadcast_to(last, (*last.shape[:-1], 3))


def plain_number(value: float, _: float | None = None) -> str:
    """A number without exponent; from five digits on grouped by thin spaces, as siunitx does in the text."""
    text = f"{value:.10f}".rstrip("0").rstrip(".") if abs(value) < 1e-4 else f"{value:.10g}"
    if abs(value) >= 1e4:
        text = f"{value:,.0f}".replace(",", "\u2009")
    return "0" if text in ("-0", "") else text


def short_labels(labels: list[str], most: int) -> list[str]:
    """Labels of at most so many characters, for where more would overlap; those that differ do so shortened, too.

    A label that is too long loses its end; where that makes two alike, its middle, and where that does not tell them
    apart either, they are numbered by their places; or all, where another is called as one is numbered.
    """
    cut = [label if len(label) <= most else f"{label[: most - 1]}…" for label in labels]
    alike = {i for i, label in enumerate(cut) if cut.count(label) > 1}
    if not alike:
        return cut
    for end in (most // 2, *range(1, most - 2)):
        ends = [f"{label[: most - 1 - end]}…{label[-end:]}" if i in alike else cut[i] for i, label in enumerate(labels)]
        if len(set(ends)) == len(labels):
            return ends
    numbered = [f"{label[: most - 1 - len(str(i))]}…{i}" for i, label in enumerate(labels)]
    some = [numbered[i] if i in alike else cut[i] for i in range(len(labels))]
    return some if len(set(some)) == len(labels) else numbered


def in_percent(fraction: float) -> str:
    """A fraction in per cent, to a tenth, such as "46.6 %"."""
    return f"{100 * fraction:.1f} %"


def diverged_count(part: int, whole: int) -> str:
    """How many runs diverged, such as "1 of 3 runs diverged"; empty for none."""
    return f"{part} of {whole} runs diverged" if part else ""


def sentence(text: str) -> str:
    """A further sentence of a caption; none for an empty text."""
    return f" {text}." if text else ""


def completed_runs(runs: list["Run"]) -> list["Run"]:
    """Those that reached their last step with finite losses."""
    return [run for run in runs if run.completed]


def files_of(runs: list["Run"], *files: str) -> list[str]:
    """These files of each run as a drawing's sources, named from the study's folder."""
    return [run.source(file) for run in runs for file in files]
