"""With which loss a perceptron of PyTorch's initial weights begins, from the images alone."""

import numpy as np
from jaxtyping import Float, UInt8

_BLOCK = 500  # images at a time


def root_mean_squares(images: UInt8[np.ndarray, "n channels height width"]) -> Float[np.ndarray, " n"]:
    """Of each image, the root of the mean square of its values' differences to the mean image of all."""
    mean = images.mean(axis=0)
    blocks = (images[i : i + _BLOCK] - mean for i in range(0, len(images), _BLOCK))
    return np.sqrt(np.concatenate([np.square(block).mean(axis=(1, 2, 3)) for block in blocks]))


def deviations(
    root_mean_squares: Float[np.ndarray, " n"], pixels: int, hidden: int, slope: float
) -> Float[np.ndarray, " n"]:
    """Of each image's logits, over draws of a network with one hidden layer (eq:initial-logits)."""
    squares = pixels * root_mean_squares**2
    return np.sqrt(1 / (3 * hidden) + (1 + slope**2) / (18 * pixels) * (1 + squares))


def largest_of(count: int) -> float:
    """The mean of the largest of so many independent standard normal numbers."""
    from scipy import integrate, stats

    def density(z: float) -> float:
        return count * z * stats.norm.pdf(z) * stats.norm.cdf(z) ** (count - 1)

    return float(integrate.quad(density, -10, 10)[0])
