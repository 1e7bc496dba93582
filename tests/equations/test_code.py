"""What the checked code promises besides its equations: names, precision, and arrays that are left alone."""

import numpy as np
import pytest
import torch

from cifar_report.models.numpy_nn import mlp as numpy_mlp
from cifar_report.models.numpy_nn.modules import CrossEntropy, LeakyReLU, Linear, Softmax, SoftmaxCrossEntropy
from cifar_report.models.numpy_nn.sgd import SGD
from cifar_report.models.torch_nn import mlp as torch_mlp

from .helpers import BATCH, SIZES, SLOPE, settings, small_batch, small_mlp

SHAPE = (5, 2, 3)  # channels, height, width


@pytest.mark.parametrize(
    ("precision", "dtype", "tolerance"), [("float64", np.float64, 1e-12), ("float32", np.float32, 1e-4)]
)
@pytest.mark.parametrize("std", [None, 0.3])
def test_both_frameworks_build_one_network(precision: str, dtype: type, tolerance: float, std: float | None):
    """Same seed, same weights, logits, loss and gradients in NumPy and in PyTorch; images are flattened alike."""
    chosen = settings(precision=precision, initial_std=std)
    ours, theirs = (module.build(chosen, SHAPE, 6, seed=3) for module in (numpy_mlp, torch_mlp))
    theirs = theirs.to(torch.float64 if dtype is np.float64 else torch.float32)
    layers = [layer for layer in theirs if isinstance(layer, torch.nn.Linear)]
    expected = [parameter for layer in layers for parameter in (layer.weight, layer.bias)]
    assert list(ours.parameters()) == [f"linear.{i}.{kind}" for i in range(3) for kind in ("weight", "bias")]
    for mine, other in zip(ours.parameters().values(), expected, strict=True):
        assert mine.dtype == dtype
        np.testing.assert_allclose(mine, other.detach().numpy(), rtol=1e-7)
    rng = np.random.default_rng(0)
    images, classes = rng.normal(size=(BATCH, *SHAPE)).astype(dtype), rng.integers(0, 6, BATCH)
    logits = theirs(torch.from_numpy(images))
    loss = torch.nn.functional.cross_entropy(logits, torch.from_numpy(classes))
    loss.backward()
    flat = images.reshape(BATCH, -1)
    np.testing.assert_allclose(ours.forward(flat), logits.detach().numpy(), rtol=tolerance, atol=tolerance)
    assert ours.loss_and_gradients(flat, classes) == pytest.approx(loss.item(), rel=tolerance)
    assert list(ours.gradients()) == list(ours.parameters())
    for mine, other in zip(ours.gradients().values(), expected, strict=True):
        assert mine.dtype == dtype
        np.testing.assert_allclose(mine, other.grad.numpy(), rtol=tolerance, atol=tolerance)


def test_network_without_hidden_layer():
    """A single linear layer: the logits are its values, and its gradients are those of the logistic regression."""
    rng = np.random.default_rng(0)
    weight, bias = rng.normal(size=(3, 4)), rng.normal(size=3)
    x, classes = rng.normal(size=(5, 4)), np.array([0, 1, 2, 2, 0])
    mlp = numpy_mlp.MLP([Linear(weight, bias)], SLOPE)
    mlp.loss_and_gradients(x, classes)
    np.testing.assert_allclose(mlp.forward(x), x @ weight.T + bias, rtol=1e-13)
    difference = (mlp.loss.probabilities - np.eye(3)[classes]) / 5
    np.testing.assert_allclose(mlp.gradients()["linear.0.weight"], difference.T @ x, rtol=1e-12)
    np.testing.assert_allclose(mlp.gradients()["linear.0.bias"], difference.sum(axis=0), rtol=1e-12)


def test_parameters_are_the_arrays_of_the_layers():
    """What the optimiser updates in place is what the layers use."""
    mlp = small_mlp(np.random.default_rng(0))
    for i, layer in enumerate(mlp.linears):
        assert mlp.parameters()[f"linear.{i}.weight"] is layer.weight
        assert mlp.parameters()[f"linear.{i}.bias"] is layer.bias


def test_gradient_of_the_images_is_not_computed(monkeypatch: pytest.MonkeyPatch):
    """The first layer is asked for no input gradient, which would cost a third of its work; the others are."""
    asked, backward = [], Linear.backward

    def recorded(self: Linear, grad: np.ndarray, input_gradient: bool = True) -> np.ndarray | None:
        result = backward(self, grad, input_gradient)
        asked.append((self.weight.shape[1], result is not None))
        return result

    monkeypatch.setattr(Linear, "backward", recorded)
    rng = np.random.default_rng(0)
    small_mlp(rng).loss_and_gradients(*small_batch(rng))
    assert asked == [(SIZES[2], True), (SIZES[1], True), (SIZES[0], False)]


def test_training_lowers_the_loss():
    """Steps of the optimiser on the network's own arrays fit a small batch."""
    rng = np.random.default_rng(0)
    mlp = small_mlp(rng)
    images, classes = small_batch(rng)
    optimiser = SGD(mlp.parameters())
    losses = []
    for _ in range(300):
        losses.append(mlp.loss_and_gradients(images, classes))
        optimiser.step(mlp.gradients(), 0.1)
    assert losses[-1] < 0.1 < losses[0]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_modules_keep_precision_and_inputs(dtype: type):
    """No module widens single precision or writes into what it is given; a second backward gives the same again."""
    rng = np.random.default_rng(0)
    x, grad = rng.normal(size=(4, 3)).astype(dtype), rng.normal(size=(4, 3)).astype(dtype)
    classes = np.array([0, 1, 2, 0])
    probabilities = Softmax().forward(x)
    linear = Linear(rng.normal(size=(3, 3)).astype(dtype), np.ones(3, dtype))
    for module in (linear, LeakyReLU(SLOPE), Softmax()):
        kept = x.copy(), grad.copy()
        out = module.forward(x)
        first = module.backward(grad).copy()
        assert out.dtype == first.dtype == dtype
        np.testing.assert_array_equal(module.backward(grad), first)
        np.testing.assert_array_equal(x, kept[0])
        np.testing.assert_array_equal(grad, kept[1])
    assert linear.grad_weight.dtype == linear.grad_bias.dtype == dtype
    for loss, given in ((SoftmaxCrossEntropy(), x), (CrossEntropy(), probabilities)):
        kept = given.copy()
        assert type(loss.forward(given, classes)) is float
        first = loss.backward().copy()
        assert first.dtype == dtype
        np.testing.assert_array_equal(loss.backward(), first)
        np.testing.assert_array_equal(given, kept)


def test_backward_without_input_gradient_returns_nothing():
    """The parameters' gradients are there all the same."""
    layer = Linear(np.ones((2, 3)), np.zeros(2))
    layer.forward(np.ones((4, 3)))
    assert layer.backward(np.ones((4, 2)), input_gradient=False) is None
    np.testing.assert_array_equal(layer.grad_weight, np.full((2, 3), 4.0))


def test_rate_does_not_widen_single_precision():
    """A double-precision rate is rounded to the parameter's precision before it is multiplied."""
    w, g = np.array([1.1, -2.3, 1e4], np.float32), np.array([0.7, 1 / 3, -0.1], np.float32)
    expected = w - np.float32(0.1) * g
    SGD({"w": w}).step({"w": g.copy()}, np.float64(0.1))
    np.testing.assert_array_equal(w, expected)


def test_velocity_is_kept_where_there_is_momentum():
    """A checkpoint holds one velocity for each parameter with momentum, and none without."""
    parameters = {"a": np.ones(2), "b": np.ones((3, 2), np.float32)}
    velocity = SGD(parameters, momentum=0.5).velocity
    assert {name: (v.shape, v.dtype, v.any()) for name, v in velocity.items()} == {
        "a": ((2,), np.float64, False),
        "b": ((3, 2), np.float32, False),
    }
    assert SGD(parameters).velocity == {}
