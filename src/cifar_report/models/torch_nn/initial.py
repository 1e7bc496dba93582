"""Initial weights in PyTorch models: the same draws as in NumPy, on every device."""

import torch
from torch import nn

from cifar_report.base.randomness import initial_parameters
from cifar_report.models.torch_nn.convolution import Convolution


def draw_parameters(model: nn.Module, seed: int, std: float | None) -> None:
    """Draws weight and, where there is one, bias of each linear and convolutional layer, in the order they stand in."""
    layers = [m for m in model.modules() if isinstance(m, nn.Linear | nn.Conv2d | Convolution)]
    for index, layer in enumerate(layers):
        names = layer.state_dict()
        weight, bias = initial_parameters(seed, index, tuple(names["weight"].shape), std)
        drawn = {"weight": weight, "bias": bias}
        layer.load_state_dict({name: torch.from_numpy(drawn[name]) for name in drawn if name in names}, strict=False)
