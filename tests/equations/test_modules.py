"""Conventions, modules and local gradients: the sections `notation` and `modules` of the report."""

import itertools

import numpy as np
import pytest
import scipy.special
import sympy as sp
import torch

from cifar_report.models.numpy_nn.modules import CrossEntropy, LeakyReLU, Linear, Softmax, SoftmaxCrossEntropy

from .helpers import (
    BATCH,
    SIZES,
    SLOPE,
    delta,
    gradient,
    matrix,
    one_hot,
    same,
    small_batch,
    small_mlp,
    symbols_array,
    vector,
)

CLASSES = 3
LOGITS = vector("z", CLASSES)
SLOPE_SYMBOL = sp.Symbol("a", positive=True)


def softmax(z: sp.Matrix) -> sp.Matrix:
    total = sum(sp.exp(element) for element in z)
    return z.applyfunc(lambda element: sp.exp(element) / total)


@pytest.mark.equation("eq:network", how="numeric")
def test_network():
    """The composition of the layers, one image at a time, gives the network's logits and probabilities."""
    rng = np.random.default_rng(0)
    mlp = small_mlp(rng)
    images, classes = small_batch(rng)
    logits = mlp.forward(images)
    mlp.loss.forward(logits, classes)
    assert logits.shape == (BATCH, SIZES[-1])
    for image, row, probabilities in zip(images, logits, mlp.loss.probabilities, strict=True):
        x = image
        for number, layer in enumerate(mlp.linears, start=1):
            before = np.array([w @ x + b for w, b in zip(layer.weight, layer.bias, strict=True)])
            x = np.array([z if z > 0 else SLOPE * z for z in before])
            if number == len(mlp.linears):
                np.testing.assert_allclose(row, before, rtol=1e-12)
                np.testing.assert_allclose(probabilities, np.exp(before) / np.exp(before).sum(), rtol=1e-12)


@pytest.mark.equation("eq:linear", "eq:linear-index", how="symbolic")
def test_linear():
    """Matrix and index form agree, and symbols put through the code come out as the index form."""
    weight, bias, x = matrix("W", 3, 2), vector("b", 3), vector("x", 2)
    index_form = sp.Matrix([sum(weight[i, k] * x[k] for k in range(2)) + bias[i] for i in range(3)])
    assert same(weight * x + bias, index_form)
    code = Linear(symbols_array(weight), symbols_array(bias)[:, 0]).forward(symbols_array(x.T))
    assert same(sp.Matrix(code).T, index_form)


@pytest.mark.equation("eq:leaky-relu", "eq:leaky-relu-factor", how="both")
def test_leaky_relu():
    """Both forms are x for x > 0 and a x else, as the code and PyTorch have it."""
    for assumption in ("positive", "negative", "zero"):
        x = sp.Symbol("x", **{assumption: True})
        first = sp.Max(x, 0) + SLOPE_SYMBOL * sp.Min(x, 0)
        factor = SLOPE_SYMBOL ** int(assumption != "positive") * x
        assert same(first, factor)
    values = np.array([[-2.0, -0.5, 0.0, 0.5, 3.0]])
    code = LeakyReLU(SLOPE).forward(values)
    np.testing.assert_allclose(code, np.maximum(values, 0) + SLOPE * np.minimum(values, 0), rtol=1e-15)
    np.testing.assert_allclose(code, SLOPE ** (values <= 0) * values, rtol=1e-15)
    reference = torch.nn.functional.leaky_relu(torch.from_numpy(values), SLOPE)
    np.testing.assert_array_equal(code, reference.numpy())


@pytest.mark.equation("eq:softmax", how="both")
def test_softmax():
    """Elements sum to one; logits that are logarithms of probabilities give these back, by algebra and in the code."""
    assert same(sum(softmax(LOGITS)), sp.Integer(1))
    p = vector("p", 2, positive=True)
    probabilities = sp.Matrix([*p, 1 - sum(p)])
    assert same(softmax(probabilities.applyfunc(sp.log)), probabilities)
    rows = np.random.default_rng(0).dirichlet(np.ones(4), size=6)
    np.testing.assert_allclose(Softmax().forward(np.log(rows)), rows, rtol=1e-13)


@pytest.mark.equation("eq:softmax-invariance", how="both")
def test_softmax_invariance():
    """A constant added to all logits changes nothing, by algebra and in the code."""
    c = sp.Symbol("c", real=True)
    shifted = LOGITS.applyfunc(lambda z: sp.exp(z + c)) / sum(sp.exp(z + c) for z in LOGITS)
    middle = LOGITS.applyfunc(lambda z: sp.exp(c) * sp.exp(z)) / (sp.exp(c) * sum(sp.exp(z) for z in LOGITS))
    assert same(shifted, middle)
    assert same(middle, softmax(LOGITS))
    z = np.random.default_rng(0).normal(size=(3, 4))
    np.testing.assert_allclose(Softmax().forward(z + 123.0), Softmax().forward(z), rtol=1e-12)


@pytest.mark.equation("eq:softmax-shift", how="both")
def test_softmax_shift():
    """Whichever logit is the largest, the shifted form is the softmax; the code holds for logits of ten thousand."""
    for largest in LOGITS:
        exponentials = (LOGITS - largest * sp.ones(CLASSES, 1)).applyfunc(sp.exp)
        assert same(exponentials / sum(exponentials), softmax(LOGITS))
    z = np.array([[1e4, 1e4 - 1, -1e4], [-1e4, -1e4 - 1, -1e4 - 2], [1.0, 2.0, 3.0], [0.0, 700.0, 800.0]])
    with np.errstate(over="ignore", invalid="ignore"):
        unshifted = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    assert not np.isfinite(unshifted[:2]).all()
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        code = Softmax().forward(z)
    np.testing.assert_allclose(code, scipy.special.softmax(z, axis=1), rtol=1e-13)
    np.testing.assert_allclose(code[2], unshifted[2], rtol=1e-13)


@pytest.mark.equation("eq:cross-entropy", "eq:cross-entropy-class", how="both")
def test_cross_entropy():
    """For each class the sum is its one term; the code and SciPy's entropies agree with it."""
    x = vector("x", CLASSES, positive=True)
    for tau in range(CLASSES):
        whole_sum = -sum(t * sp.log(p) for t, p in zip(one_hot(tau, CLASSES), x, strict=True))
        assert same(whole_sum, -sp.log(x[tau]))
    probabilities = np.array([[0.2, 0.5, 0.3]])
    for tau in range(CLASSES):
        target = np.eye(CLASSES)[tau]
        entropy = scipy.special.rel_entr(target, probabilities[0]).sum()  # of a one-hot target, the cross entropy
        np.testing.assert_allclose(CrossEntropy().forward(probabilities, np.array([tau])), entropy, rtol=1e-14)
        np.testing.assert_allclose(-np.log(probabilities[0, tau]), entropy, rtol=1e-14)
    with pytest.raises(FloatingPointError, match="row 1"):
        CrossEntropy().forward(np.array([[0.5, 0.5], [1.0, 0.0]]), np.array([1, 1]))


@pytest.mark.equation("eq:grad-cross-entropy", "eq:grad-cross-entropy-vector", how="both")
def test_grad_cross_entropy():
    """Derivative of the sum, element by element and as a quotient of vectors, and the code for a batch of one."""
    x, t = vector("x", CLASSES, positive=True), vector("t", CLASSES)
    loss = -sum(t[i] * sp.log(x[i]) for i in range(CLASSES))
    for i in range(CLASSES):
        assert same(sp.diff(loss, x[i]), -t[i] / x[i])
    assert same(gradient(loss, x), -t.multiply_elementwise(x.applyfunc(lambda p: 1 / p)))
    module = CrossEntropy()
    module.forward(np.array([[0.2, 0.5, 0.3]]), np.array([1]))
    np.testing.assert_allclose(module.backward(), [[0.0, -2.0, 0.0]], rtol=1e-15)


@pytest.mark.equation("eq:jacobian-softmax", how="both")
def test_jacobian_softmax():
    """Matrix form against the Jacobian; the code's backward, given each unit vector, returns its rows."""
    x = softmax(LOGITS)
    assert same(x.jacobian(LOGITS), sp.diag(*x) - x * x.T)
    assert same(sp.diag(*x) - x * x.T, (sp.diag(*x) - x * x.T).T)
    z = np.array([0.3, -1.2, 0.7, 2.0])
    module = Softmax()
    p = module.forward(np.tile(z, (4, 1)))[0]
    np.testing.assert_allclose(module.backward(np.eye(4)), np.diag(p) - np.outer(p, p), atol=1e-15)


@pytest.mark.equation("eq:jacobian-leaky-relu-index", "eq:jacobian-leaky-relu", how="both")
def test_jacobian_leaky_relu():
    """For every choice of signs the derivative is 1 or a on the diagonal; the code keeps it, with a at the kink."""
    for signs in itertools.product(("positive", "negative"), repeat=3):
        z = sp.Matrix([sp.Symbol(f"z{i}", **{sign: True}) for i, sign in enumerate(signs)])
        x = z.applyfunc(lambda value: sp.Max(value, 0) + SLOPE_SYMBOL * sp.Min(value, 0))
        exponent = [int(sign == "negative") for sign in signs]
        for i, j in itertools.product(range(3), repeat=2):
            assert same(sp.diff(x[i], z[j]), delta(i, j) * SLOPE_SYMBOL ** exponent[i])
        assert same(x.jacobian(z), sp.diag(*[SLOPE_SYMBOL**e for e in exponent]))
    module = LeakyReLU(SLOPE)
    values = np.array([[-1.0, 0.0, 2.0]])
    module.forward(values)
    np.testing.assert_array_equal(module.derivative, SLOPE ** (values <= 0))
    z = torch.from_numpy(values).requires_grad_()
    torch.nn.functional.leaky_relu(z, SLOPE).sum().backward()
    np.testing.assert_array_equal(module.derivative, z.grad.numpy())


@pytest.mark.equation("eq:jacobian-linear-input-index", "eq:jacobian-linear-input", how="symbolic")
def test_jacobian_linear_input():
    """Derivative of each output by each input, and the Jacobian: W; the code, given unit vectors, returns its rows."""
    weight, bias, x = matrix("W", 3, 2), vector("b", 3), vector("x", 2)
    output = weight * x + bias
    for i, j in itertools.product(range(3), range(2)):
        assert same(sp.diff(output[i], x[j]), weight[i, j])
    assert same(output.jacobian(x), weight)
    module = Linear(symbols_array(weight), symbols_array(bias)[:, 0])
    module.forward(symbols_array(x.T).repeat(3, axis=0))
    assert same(sp.Matrix(module.backward(np.eye(3, dtype=int).astype(object))), weight)


@pytest.mark.equation("eq:jacobian-linear-weight", how="symbolic")
def test_jacobian_linear_weight():
    """All elements of the tensor of third order; the code, given the unit vector of an output, returns that slice."""
    weight, bias, x = matrix("W", 3, 2), vector("b", 3), vector("x", 2)
    output = weight * x + bias
    for i in range(3):
        module = Linear(symbols_array(weight), symbols_array(bias)[:, 0])
        module.forward(symbols_array(x.T))
        module.backward(symbols_array(one_hot(i, 3).T))
        for j, k in itertools.product(range(3), range(2)):
            assert same(sp.diff(output[i], weight[j, k]), delta(i, j) * x[k])
            assert same(module.grad_weight[j, k], delta(i, j) * x[k])


@pytest.mark.equation("eq:jacobian-linear-bias-index", "eq:jacobian-linear-bias", how="symbolic")
def test_jacobian_linear_bias():
    """Derivative of each output by each bias, and the Jacobian: the identity; the code, given unit vectors, too."""
    weight, bias, x = matrix("W", 3, 2), vector("b", 3), vector("x", 2)
    output = weight * x + bias
    for i, j in itertools.product(range(3), repeat=2):
        assert same(sp.diff(output[i], bias[j]), sp.Integer(delta(i, j)))
        module = Linear(symbols_array(weight), symbols_array(bias)[:, 0])
        module.forward(symbols_array(x.T))
        module.backward(symbols_array(one_hot(i, 3).T))
        assert module.grad_bias[j] == delta(i, j)
    assert same(output.jacobian(bias), sp.eye(3))


def test_joined_module_has_the_probabilities_of_the_softmax():
    """The joined module's probabilities are those of the softmax."""
    z = np.random.default_rng(0).normal(scale=5, size=(4, 3))
    joined = SoftmaxCrossEntropy()
    joined.forward(z, np.array([0, 1, 2, 0]))
    np.testing.assert_allclose(joined.probabilities, scipy.special.softmax(z, axis=1), rtol=1e-13)
