"""The multilayer perceptron of the report in PyTorch, with optional batch norm and dropout."""

from typing import TYPE_CHECKING

import torch
from torch import nn

from cifar_report.models.torch_nn.batchnorm import AutogradBatchNorm, ManualBatchNorm
from cifar_report.models.torch_nn.initial import draw_parameters

if TYPE_CHECKING:
    from cifar_report.study.settings import Settings

BATCH_NORMS = {"autograd": AutogradBatchNorm, "manual": ManualBatchNorm, "torch": nn.BatchNorm1d}


def build(settings: "Settings", shape: tuple[int, int, int], classes: int, seed: int) -> nn.Sequential:
    """(batch, channels, height, width) → logits (batch, classes): linear, batch norm, leaky ReLU, dropout, …, linear.

    Args:
        shape: (channels, height, width) of an image.
        seed: of the initial weights, which equal those of the NumPy MLP (eq:network) for the same seed.
    """
    dtype = torch.float64 if settings.precision == "float64" else torch.float32  # so that no initial weight is rounded
    channels, height, width = shape
    layers: list[nn.Module] = [nn.Flatten()]
    inputs = channels * height * width
    for units in settings.hidden:
        layers.append(nn.Linear(inputs, units, dtype=dtype))
        if settings.batch_norm != "none":
            layers.append(BATCH_NORMS[settings.batch_norm](units))
        layers.append(nn.LeakyReLU(settings.slope))
        if settings.dropout:
            layers.append(nn.Dropout(settings.dropout))
        inputs = units
    layers.append(nn.Linear(inputs, classes, dtype=dtype))
    model = nn.Sequential(*layers)
    draw_parameters(model, seed, settings.initial_std)
    return model
