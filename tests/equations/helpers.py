"""What several checks need: symbols, derivatives, and small networks with random weights."""

from functools import cache
from itertools import pairwise

import numpy as np
import sympy as sp
import torch

from cifar_report.models.numpy_nn.mlp import MLP
from cifar_report.models.numpy_nn.modules import Linear
from cifar_report.models.torch_nn import vgg
from cifar_report.study.settings import Settings

SLOPE = 0.3
SIZES = (5, 4, 3, 6)  # inputs, two hidden layers, classes: all different, so that a wrong transpose cannot pass
BATCH = 7


def vector(name: str, n: int, **assumptions: bool) -> sp.Matrix:
    """A column of n symbols."""
    return sp.Matrix(sp.symbols(f"{name}:{n}", **({"real": True} | assumptions)))


def matrix(name: str, rows: int, columns: int) -> sp.Matrix:
    """A matrix of symbols."""
    return sp.Matrix(rows, columns, lambda i, j: sp.Symbol(f"{name}_{i}_{j}", real=True))


def gradient(loss: sp.Expr, x: sp.Matrix) -> sp.Matrix:
    """The derivatives of a loss by each element of x, in the shape of x."""
    return x.applyfunc(lambda element: sp.diff(loss, element))


def delta(i: int, j: int) -> int:
    """Kronecker's delta."""
    return int(i == j)


def one_hot(i: int, n: int) -> sp.Matrix:
    """The target of class i."""
    return sp.Matrix([delta(i, k) for k in range(n)])


def same(left: sp.Expr | sp.Matrix, right: sp.Expr | sp.Matrix) -> bool:
    """Whether two expressions, or all elements of two matrices of one shape, are equal by algebra."""
    if not isinstance(left, sp.MatrixBase):
        return _is_zero(left - right)
    return left.shape == right.shape and all(_is_zero(a - b) for a, b in zip(left, right, strict=True))


def _is_zero(difference: sp.Expr) -> bool:
    # A common denominator is usually enough, and much faster than `simplify`, which tries everything.
    difference = sp.expand_power_exp(difference)
    return difference == 0 or sp.cancel(difference) == 0 or sp.simplify(difference) == 0


def symbols_array(x: sp.Matrix) -> np.ndarray:
    """The symbols as an array that NumPy code can add and multiply."""
    return np.array(x.tolist(), dtype=object)


def settings(**changes: object) -> Settings:
    """Of a small float64 NumPy MLP."""
    neutral = {
        "kind": "numpy-mlp",
        "optimiser": "sgd",
        "learning_rate": 0.1,
        "steps": 10,
        "batch_size": BATCH,
        "preprocessing": "mean-image",
        "evaluate_every": 5,
        "evaluation_images": 10,
        "threads": 1,
        "hidden": SIZES[1:-1],
        "slope": SLOPE,
        "precision": "float64",
    }
    return Settings(**(neutral | changes))


def small_mlp(rng: np.random.Generator) -> MLP:
    """Two hidden layers, with biases that are not zero."""
    layers = [Linear(rng.normal(size=(n_out, n_in)), rng.normal(size=n_out)) for n_in, n_out in pairwise(SIZES)]
    return MLP(layers, SLOPE)


def small_batch(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Images as rows, and their classes."""
    return rng.normal(size=(BATCH, SIZES[0])), rng.integers(0, SIZES[-1], BATCH)


@cache
def vgg_pool() -> torch.nn.Module:
    """The VGG's first max pool."""
    small = settings(kind="torch-vgg", hidden=(), slope=0.0, batch_norm="none")
    return next(m for m in vgg.build(small, (1, 32, 32), 2, 0) if isinstance(m, torch.nn.MaxPool2d))
