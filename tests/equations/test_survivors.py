"""Checks that kill mutants which all others let live: PyTorch and NumPy mend these slips silently."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from cifar_report.models.numpy_nn.modules import LeakyReLU
from cifar_report.models.numpy_nn.sgd import SGD
from cifar_report.models.torch_nn.batchnorm import BatchNormFunction


@pytest.mark.equation("eq:bn-grad-gamma", "eq:bn-grad-beta", how="numeric")
def test_parameter_gradients_are_summed_by_the_function():
    """Called directly, the code's backward has summed over the batch itself, which PyTorch would do in its place."""
    rng = np.random.default_rng(0)
    normalised, grad = (torch.from_numpy(rng.normal(size=(5, 3))) for _ in range(2))
    saved = SimpleNamespace(saved_tensors=(normalised, torch.ones(3).double(), torch.ones(3).double()))
    _, grad_gamma, grad_beta, _ = BatchNormFunction.backward(saved, grad)
    np.testing.assert_allclose(grad_gamma, [sum(grad[s, j] * normalised[s, j] for s in range(5)) for j in range(3)])
    np.testing.assert_allclose(grad_beta, [sum(grad[s, j] for s in range(5)) for j in range(3)])


def test_settings_in_double_precision_keep_the_precision_of_the_network():
    """A slope or a learning rate of type float64 is rounded to the network's float32 before it is used."""
    rng = np.random.default_rng(0)
    values = rng.normal(size=(20, 30)).astype(np.float32)
    module = LeakyReLU(np.float64(0.1))
    assert module.forward(values).dtype == np.float32
    assert module.derivative.dtype == np.float32

    gradient = rng.normal(size=(20, 30)).astype(np.float32)
    expected = values - np.float32(0.1) * gradient
    SGD({"w": values}).step({"w": gradient}, np.float64(0.1))
    np.testing.assert_array_equal(values, expected)
