"""Initial weights in PyTorch models: the same draws as in NumPy, on every device."""

import torch
from torch import nn

from cifar_report.randomness import initial_parameters


@torch.no_grad()
def draw_parameters(model: nn.Module, seed: int, std: float | None) -> None:
    """Draws the weight and bias of each linear and convolutional layer, in the order in which they stand."""
    layers = [m for m in model.modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    for index, layer in enumerate(layers):
        drawn = initial_parameters(seed, index, tuple(layer.weight.shape), std)
        for parameter, array in zip(layer.parameters(), drawn, strict=True):
            parameter.copy_(torch.from_numpy(array))
