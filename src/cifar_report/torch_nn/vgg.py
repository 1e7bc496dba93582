"""The VGG of the study: eight 3×3 convolutions, five max pools, a linear layer (after Simonyan and Zisserman 2015)."""

from typing import TYPE_CHECKING

from torch import nn

from cifar_report.torch_nn.initial import draw_parameters

if TYPE_CHECKING:
    from cifar_report.config import Settings

# Output channels of each convolution; "pool" is a 3×3 max pool with stride 2 and padding 1.
PLAN = (64, "pool", 128, "pool", 256, 256, "pool", 512, 512, "pool", 512, 512, "pool")


def build(settings: "Settings", shape: tuple[int, int, int], classes: int, seed: int) -> nn.Sequential:
    """(batch, channels, 32, 32) → logits (batch, classes); 9,231,114 parameters for 3 channels and 10 classes.

    Each convolution has stride 1, padding 1 and a bias, and is followed by batch norm (where the settings ask for it)
    and a ReLU. Images of other sizes than 17 to 32 pixels are refused: the last map must be 1×1.

    Raises:
        ValueError: height or width is not between 17 and 32.
    """
    channels, height, width = shape
    if not (17 <= height <= 32 and 17 <= width <= 32):
        raise ValueError(f"the VGG takes images of 17 to 32 pixels a side, got {height}×{width}")
    layers: list[nn.Module] = []
    for entry in PLAN:
        if isinstance(entry, str):
            layers.append(nn.MaxPool2d(3, stride=2, padding=1))
            continue
        layers.append(nn.Conv2d(channels, entry, 3, padding=1))
        if settings.batch_norm == "torch":
            layers.append(nn.BatchNorm2d(entry))
        layers.append(nn.ReLU(inplace=True))
        channels = entry
    layers.append(nn.Flatten())
    if settings.dropout:
        layers.append(nn.Dropout(settings.dropout))
    layers.append(nn.Linear(channels, classes))
    model = nn.Sequential(*layers)
    draw_parameters(model, seed, settings.initial_std)
    return model
