"""A convolutional network layer by layer, counted in the network that the code builds."""

from typing import TYPE_CHECKING, NamedTuple

from cifar_report.study.kinds import entries

if TYPE_CHECKING:
    from cifar_report.study.settings import Settings

_WORDS = {
    "Convolution": "convolution 3×3",
    "BatchNorm2d": "batch norm",
    "MaxPool2d": "max pool 3×3",
    "AdaptiveAvgPool2d": "mean over positions",
    "Linear": "linear",
}
_OPENING = ("Convolution", "MaxPool2d", "AdaptiveAvgPool2d", "Linear")  # the others belong to the row before them


class Layer(NamedTuple):
    """A row: what it is called, the shape that it gives, its parameters and the operations of one image through it."""

    words: str
    shape: tuple[int, ...]
    parameters: int
    flops: int


def layers(settings: "Settings", shape: tuple[int, ...], classes: int) -> list[Layer]:
    """The layers of a torch model that is a sequence, each with the normalisation and activation function behind it.

    Args:
        settings: of a kind whose builder gives a `torch.nn.Sequential`.
        shape: (channels, height, width) of an image.
    """
    import torch  # takes seconds, and most tables need none

    model = entries(settings.kind)[1](settings, shape, classes, 0).eval()
    x = torch.zeros(1, *shape, dtype=next(model.parameters()).dtype)
    rows: list[Layer] = []
    with torch.no_grad():
        for module in model:
            kind, before = type(module).__name__, x
            x = module(x)
            words, given = _WORDS.get(kind, kind), tuple(x.shape[1:])
            count = sum(parameter.numel() for parameter in module.parameters())
            if kind not in _OPENING:
                if count or kind == "ReLU":
                    rows[-1] = Layer(f"{rows[-1].words}, {words}", given, rows[-1].parameters + count, rows[-1].flops)
            elif kind != "AdaptiveAvgPool2d" or x.shape != before.shape:
                weighs = kind in ("Convolution", "Linear")
                rows.append(Layer(words, given, count, 2 * module.weight.numel() * x[0, 0].numel() if weighs else 0))
    return rows
