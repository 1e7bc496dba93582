"""The figure of a network's first layer: its weights as images."""

import re
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from cifar_report.rendering.figures.style import TEXT_WIDTH, Drawing, files_of, new_figure, rgb

if TYPE_CHECKING:
    from cifar_report.runs.finished import Run

UNIT_ROWS, UNIT_COLUMNS = 3, 10
SHADES = 17  # odd, so that zero is one of them


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
    pictures = np.round(np.clip(0.5 + rgb(units) / (2 * limit), 0, 1) * (SHADES - 1)) / (SHADES - 1)
    rows = -(-len(units) // UNIT_COLUMNS)
    figure = new_figure(TEXT_WIDTH, 0.04 + rows * (TEXT_WIDTH / UNIT_COLUMNS) * shape[1] / shape[2])
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
    return Drawing(figure, f"First-layer weights of {label}", caption, facts, files_of([run], "model.safetensors"))


def first_weights(weights: dict[str, np.ndarray]) -> Float[np.ndarray, "units ..."]:
    """The weight of the first linear or convolutional layer: two axes or more, and the smallest number in its name."""
    layers = [name for name, array in weights.items() if name.endswith("weight") and array.ndim >= 2]
    return weights[min(layers, key=lambda name: [int(digits) for digits in re.findall(r"\d+", name)])]
