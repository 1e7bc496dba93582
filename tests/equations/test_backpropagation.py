"""Gradients of one image's loss, module by module: the section `backpropagation` of the report."""

import itertools
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.special
import sympy as sp
import torch

from cifar_report.models.numpy_nn.modules import CrossEntropy, LeakyReLU, Linear, Softmax, SoftmaxCrossEntropy

from .helpers import SLOPE, delta, gradient, matrix, one_hot, same, small_batch, small_mlp, symbols_array, vector

CLASSES = 3
LOGITS = vector("z", CLASSES)
ARRIVING = vector("u", CLASSES)  # dL/dx, any numbers: the loss is then u.x, up to terms of higher order
TOTAL = sum(sp.exp(z) for z in LOGITS)
PROBABILITIES = LOGITS.applyfunc(lambda z: sp.exp(z) / TOTAL)


@pytest.mark.equation("eq:backprop-softmax-matrix", "eq:backprop-softmax", how="both")
def test_backprop_softmax():
    """Matrix form and product of vectors against the derivative; the code against PyTorch's differentiation."""
    x, u = PROBABILITIES, ARRIVING
    expected = gradient(x.dot(u), LOGITS)
    assert same((sp.diag(*x) - x * x.T) * u, expected)
    assert same(x.multiply_elementwise(u - sp.ones(CLASSES, 1) * (x.T * u)), expected)
    rng = np.random.default_rng(0)
    logits, arriving = rng.normal(size=(5, 4)), rng.normal(size=(5, 4))
    module = Softmax()
    module.forward(logits)
    z = torch.from_numpy(logits).requires_grad_()
    torch.softmax(z, dim=1).backward(torch.from_numpy(arriving))
    np.testing.assert_allclose(module.backward(arriving), z.grad.numpy(), rtol=1e-12, atol=1e-15)


@pytest.mark.equation("eq:joined-index", "eq:backprop-joined", how="both")
def test_backprop_joined():
    """For targets of sum one the gradient is x - t, element by element, as vectors, and in the code."""
    first = vector("t", CLASSES - 1)
    x, t = PROBABILITIES, sp.Matrix([*first, 1 - sum(first)])
    loss = -sum(t[i] * sp.log(x[i]) for i in range(CLASSES))
    for j in range(CLASSES):
        assert same(sp.diff(loss, LOGITS[j]), x[j] - t[j])
    for tau in range(CLASSES):
        assert same(gradient(-sp.log(x[tau]), LOGITS), x - one_hot(tau, CLASSES))
    logits = np.array([[0.3, -1.2, 0.7, 2.0]])
    for tau in range(4):
        joined, softmax, entropy = SoftmaxCrossEntropy(), Softmax(), CrossEntropy()
        joined.forward(logits, np.array([tau]))
        difference = scipy.special.softmax(logits) - np.eye(4)[tau]
        np.testing.assert_allclose(joined.backward(), difference, atol=1e-15)
        entropy.forward(softmax.forward(logits), np.array([tau]))
        np.testing.assert_allclose(softmax.backward(entropy.backward()), difference, atol=1e-15)


@pytest.mark.equation("eq:softmax-cross-entropy", how="both")
def test_softmax_cross_entropy():
    """The loss from the logits is that of softmax and cross entropy; the code agrees with the two modules apart."""
    for tau in range(CLASSES):
        difference = sp.log(TOTAL) - LOGITS[tau] + sp.log(PROBABILITIES[tau])
        assert same(sp.expand_log(difference, force=True), sp.Integer(0))
    logits = np.array([[0.3, -1.2, 0.7, 2.0]])
    for tau in range(4):
        loss = SoftmaxCrossEntropy().forward(logits, np.array([tau]))
        np.testing.assert_allclose(loss, np.log(np.exp(logits).sum()) - logits[0, tau], rtol=1e-14)
        apart = CrossEntropy().forward(Softmax().forward(logits), np.array([tau]))
        np.testing.assert_allclose(loss, apart, rtol=1e-14)


@pytest.mark.equation("eq:softmax-cross-entropy-shift", how="both")
def test_softmax_cross_entropy_shift():
    """Any shift leaves the loss alone; the code is finite and right for logits of ten thousand."""
    shift = sp.Symbol("M", real=True)
    shifted_total = sum(sp.exp(z - shift) for z in LOGITS)
    for tau in range(CLASSES):
        assert same(sp.log(sp.simplify(shifted_total * sp.exp(shift))), sp.log(TOTAL))
        by_parts = sp.log(shifted_total) - (LOGITS[tau] - shift)
        assert same(gradient(by_parts, LOGITS), PROBABILITIES - one_hot(tau, CLASSES))
        assert same(sp.diff(by_parts, shift), sp.Integer(0))
    logits = np.array([[1e4, -1e4, 0.0, 1e4], [-1e4, -1e4 + 3, -1e4 - 5, -2e4]])
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        for tau in range(4):
            module = SoftmaxCrossEntropy()
            loss = module.forward(logits, np.full(2, tau))
            expected = scipy.special.logsumexp(logits, axis=1) - logits[:, tau]
            np.testing.assert_allclose(loss, expected.mean(), rtol=1e-12)
            difference = (scipy.special.softmax(logits, axis=1) - np.eye(4)[[tau, tau]]) / 2
            np.testing.assert_allclose(module.backward(), difference, atol=1e-12)


@pytest.mark.equation(
    "eq:backprop-leaky-relu-index", "eq:backprop-leaky-relu-matrix", "eq:backprop-leaky-relu", how="both"
)
def test_backprop_leaky_relu():
    """All three forms against the derivative for every choice of signs; the code against PyTorch, kink included."""
    a, u = sp.Symbol("a", positive=True), ARRIVING
    for signs in itertools.product(("positive", "negative"), repeat=CLASSES):
        z = sp.Matrix([sp.Symbol(f"z{i}", **{sign: True}) for i, sign in enumerate(signs)])
        x = z.applyfunc(lambda value: sp.Max(value, 0) + a * sp.Min(value, 0))
        d = sp.Matrix([a ** int(sign == "negative") for sign in signs])
        expected = gradient(x.dot(u), z)
        assert same(sp.Matrix([d[i] * u[i] for i in range(CLASSES)]), expected)
        assert same(sp.diag(*d) * u, expected)
        assert same(d.multiply_elementwise(u), expected)
    rng = np.random.default_rng(0)
    values, arriving = rng.normal(size=(5, 4)), rng.normal(size=(5, 4))
    values[0] = 0.0
    module = LeakyReLU(SLOPE)
    module.forward(values)
    z = torch.from_numpy(values).requires_grad_()
    torch.nn.functional.leaky_relu(z, SLOPE).backward(torch.from_numpy(arriving))
    np.testing.assert_allclose(module.backward(arriving), z.grad.numpy(), rtol=1e-15)
    np.testing.assert_allclose(module.backward(arriving), SLOPE ** (values <= 0) * arriving, rtol=1e-15)


WEIGHT, BIAS, INPUT = matrix("W", 3, 2), vector("b", 3), vector("x", 2)
LINEAR_LOSS = (WEIGHT * INPUT + BIAS).dot(ARRIVING)


def linear_backward() -> tuple[Linear, np.ndarray]:
    """The code's gradients of one image, in symbols."""
    module = Linear(symbols_array(WEIGHT), symbols_array(BIAS)[:, 0])
    module.forward(symbols_array(INPUT.T))
    return module, module.backward(symbols_array(ARRIVING.T))


@pytest.mark.equation("eq:backprop-linear-input-index", "eq:backprop-linear-input", how="symbolic")
def test_backprop_linear_input():
    """Index and matrix form against the derivative by the input, and against symbols put through the code."""
    expected = gradient(LINEAR_LOSS, INPUT)
    assert same(sp.Matrix([sum(WEIGHT[i, j] * ARRIVING[i] for i in range(3)) for j in range(2)]), expected)
    assert same(WEIGHT.T * ARRIVING, expected)
    assert same(sp.Matrix(linear_backward()[1]).T, expected)


@pytest.mark.equation("eq:backprop-linear-weight-index", "eq:backprop-linear-weight", how="symbolic")
def test_backprop_linear_weight():
    """The sum over the tensor and the outer product against the derivative by W, and against the code in symbols."""
    expected, u, x = gradient(LINEAR_LOSS, WEIGHT), ARRIVING, INPUT
    whole_sum = sp.Matrix(3, 2, lambda j, k: sum(delta(i, j) * x[k] * u[i] for i in range(3)))
    assert same(whole_sum, expected)
    assert same(sp.Matrix(3, 2, lambda j, k: u[j] * x[k]), expected)
    assert same(u * x.T, expected)
    assert same(sp.Matrix(linear_backward()[0].grad_weight), expected)


@pytest.mark.equation("eq:backprop-linear-bias-index", "eq:backprop-linear-bias", how="symbolic")
def test_backprop_linear_bias():
    """Index and vector form against the derivative by the bias, and against symbols put through the code."""
    expected, u = gradient(LINEAR_LOSS, BIAS), ARRIVING
    assert same(sp.Matrix([sum(delta(i, j) * u[i] for i in range(3)) for j in range(3)]), expected)
    assert same(u, expected)
    assert same(sp.Matrix(linear_backward()[0].grad_bias), expected)


def one_image() -> SimpleNamespace:
    """A network's values for one image, PyTorch's gradients with respect to all, and the code's for its parameters."""
    rng = np.random.default_rng(1)
    mlp = small_mlp(rng)
    images, classes = small_batch(rng)
    mlp.loss_and_gradients(images[:1], classes[:1])
    weights = [torch.from_numpy(layer.weight.copy()).requires_grad_() for layer in mlp.linears]
    biases = [torch.from_numpy(layer.bias.copy()).requires_grad_() for layer in mlp.linears]
    before, after = [], [torch.from_numpy(images[0])]
    for number, (weight, bias) in enumerate(zip(weights, biases, strict=True), start=1):
        before.append(weight @ after[-1] + bias)
        last = number == len(weights)
        after.append(torch.softmax(before[-1], 0) if last else torch.nn.functional.leaky_relu(before[-1], SLOPE))
    for value in (*before, *after[1:]):
        value.retain_grad()
    (-torch.log(after[-1][classes[0]])).backward()
    reference = {f"linear.{i}.weight": w.grad.numpy() for i, w in enumerate(weights)}
    reference |= {f"linear.{i}.bias": b.grad.numpy() for i, b in enumerate(biases)}
    return SimpleNamespace(
        weights=[w.detach().numpy() for w in weights],
        before=[z.detach().numpy() for z in before],
        after=[x.detach().numpy() for x in after],
        grad_before=[z.grad.numpy() for z in before],
        grad_after=[x.grad.numpy() for x in after[1:]],
        reference=reference,
        code=mlp.gradients(),
    )


@pytest.mark.equation("eq:backprop-linear", "eq:backprop-recursion", how="numeric")
def test_backprop_recursion():
    """From one layer to the one before, in a network of three layers, against PyTorch's differentiation."""
    values = one_image()
    for index in (1, 0):
        through_weight = values.weights[index + 1].T @ values.grad_before[index + 1]
        np.testing.assert_allclose(through_weight, values.grad_after[index], rtol=1e-12)
        slopes = SLOPE ** (values.before[index] <= 0)
        np.testing.assert_allclose(slopes * through_weight, values.grad_before[index], rtol=1e-12)


@pytest.mark.equation("eq:backprop-weight", "eq:backprop-bias", how="numeric")
def test_backprop_parameters():
    """Outer product and vector in each layer against PyTorch's differentiation and the network's backward."""
    values = one_image()
    for index, grad in enumerate(values.grad_before):
        for kind, formula in (("weight", np.outer(grad, values.after[index])), ("bias", grad)):
            name = f"linear.{index}.{kind}"
            np.testing.assert_allclose(formula, values.reference[name], rtol=1e-12)
            np.testing.assert_allclose(values.code[name], formula, rtol=1e-10, atol=1e-13)
