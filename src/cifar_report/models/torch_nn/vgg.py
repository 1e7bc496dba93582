"""The VGG of the study: eight 3×3 convolutions, five max pools, a linear layer (after Simonyan and Zisserman 2015)."""

from typing import TYPE_CHECKING

import torch
from torch import nn

from cifar_report.models.torch_nn.convolution import Convolution
from cifar_report.models.torch_nn.initial import draw_parameters

if TYPE_CHECKING:
    from cifar_report.study.settings import Settings

# Output channels of each convolution; "pool" is a 3×3 max pool with stride 2 and padding 1.
PLAN = (64, "pool", 128, "pool", 256, 256, "pool", 512, 512, "pool", 512, 512, "pool")
SMALLEST_SIDE = 17  # pixels; of smaller images the last pools would see a single position


def build(settings: "Settings", shape: tuple[int, int, int], classes: int, seed: int) -> nn.Sequential:
    """(batch, channels, height, width) → logits (batch, classes); 9,231,114 parameters for 3 channels and 10 classes.

    Each convolution has stride 1, padding 1 and a bias, and is followed by batch norm (where the settings ask for it)
    and a ReLU. The last map, one position for images of up to 32 pixels a side, is averaged over its positions.

    Args:
        shape: (channels, height, width) of an image.
        seed: of the initial weights.

    Raises:
        ValueError: height or width is below 17.
    """
    channels, height, width = shape
    if min(height, width) < SMALLEST_SIDE:
        raise ValueError(f"expected sides of {SMALLEST_SIDE} pixels or more, got {height}×{width}")
    layers: list[nn.Module] = []
    for entry in PLAN:
        if isinstance(entry, str):
            layers.append(nn.MaxPool2d(3, stride=2, padding=1))
            continue
        layers.append(Convolution(channels, entry))
        if settings.batch_norm == "torch":
            layers.append(nn.BatchNorm2d(entry))
        layers.append(nn.ReLU(inplace=True))
        channels = entry
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    if settings.dropout:
        layers.append(nn.Dropout(settings.dropout))
    layers.append(nn.Linear(channels, classes))
    # In their own precision before they are drawn, so that no initial weight is rounded.
    model = nn.Sequential(*layers).to(torch.float64 if settings.precision == "float64" else torch.float32)
    draw_parameters(model, seed, settings.initial_std)
    if settings.dirac:
        for layer in model:
            if isinstance(layer, Convolution):
                begin_as_identity(layer)
    return model


@torch.no_grad()
def begin_as_identity(layer: Convolution) -> None:
    """The first outputs become the inputs, W[o, c, u, v] = 1 where o = c and u = v = 0 and else 0, as far as both go.

    The other outputs and the biases keep what was drawn (Zagoruyko and Komodakis 2017).
    """
    inputs = layer.kernels.shape[1]
    nn.init.dirac_(layer.kernels[:inputs])
