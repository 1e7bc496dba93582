"""The multilayer perceptron: linear layers with leaky ReLUs between them."""

import math
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Int

from cifar_report.base.randomness import initial_parameters
from cifar_report.models.numpy_nn.modules import LeakyReLU, Linear, SoftmaxCrossEntropy

if TYPE_CHECKING:
    from cifar_report.study.settings import Settings


class MLP:
    """x^(l) = leaky ReLU(W^(l) x^(l-1) + b^(l)), the last layer linear, under softmax cross entropy (eq:network).

    Args:
        layers: the linear layers, first to last.
        slope: a of the leaky ReLU.
    """

    def __init__(self, layers: list[Linear], slope: float):
        self.linears = layers
        self.modules = [module for layer in layers for module in (layer, LeakyReLU(slope))][:-1]
        self.loss = SoftmaxCrossEntropy()

    def forward(self, x: Float[np.ndarray, "batch in"]) -> Float[np.ndarray, "batch classes"]:
        """The logits x̃^(N) (eq:network)."""
        for module in self.modules:
            x = module.forward(x)
        return x

    def backward(self) -> None:
        """Leaves dL/dW and dL/db in every linear layer, from the last to the first.

        Equations: eq:backprop-linear, eq:backprop-recursion, eq:backprop-weight, eq:backprop-bias.
        """
        grad = self.loss.backward()
        for module in self.modules[:0:-1]:
            grad = module.backward(grad)
        self.linears[0].backward(grad, input_gradient=False)

    def loss_and_gradients(self, x: Float[np.ndarray, "batch in"], targets: Int[np.ndarray, " batch"]) -> float:
        """The batch's mean loss in nats (eq:batch-loss); its gradients (eq:batch-mean-gradient) are in the layers."""
        loss = self.loss.forward(self.forward(x), targets)
        self.backward()
        return loss

    def parameters(self) -> dict[str, Float[np.ndarray, "..."]]:
        """The arrays themselves by name: linear.0.weight, linear.0.bias, linear.1.weight, …"""
        return {
            f"linear.{i}.{name}": getattr(layer, name)
            for i, layer in enumerate(self.linears)
            for name in ("weight", "bias")
        }

    def gradients(self) -> dict[str, Float[np.ndarray, "..."]]:
        """dL/d(parameter) by the parameter's name, after `backward`."""
        return {
            f"linear.{i}.{name}": getattr(layer, f"grad_{name}")
            for i, layer in enumerate(self.linears)
            for name in ("weight", "bias")
        }


def build(settings: "Settings", shape: tuple[int, int, int], classes: int, seed: int) -> MLP:
    """The MLP of `settings` for images of `shape`, its weights drawn from `seed`, in float32 or float64."""
    dtype = np.dtype(settings.precision)
    sizes = pairwise((math.prod(shape), *settings.hidden, classes))
    drawn = [initial_parameters(seed, i, (n_out, n_in), settings.initial_std) for i, (n_in, n_out) in enumerate(sizes)]
    return MLP([Linear(weight.astype(dtype), bias.astype(dtype)) for weight, bias in drawn], settings.slope)
