"""Batches in matrix form, and label smoothing: the section `batches` of the report, but for its optimisers."""

import numpy as np
import pytest
import sympy as sp
import torch

from cifar_report.models.numpy_nn.modules import CrossEntropy, LeakyReLU, Linear, Softmax, SoftmaxCrossEntropy

from .helpers import BATCH, SIZES, SLOPE, gradient, matrix, same, small_batch, small_mlp, symbols_array, vector

SAMPLES, INPUTS, OUTPUTS = 3, 2, 4
X, WEIGHT, BIAS = matrix("X", SAMPLES, INPUTS), matrix("W", OUTPUTS, INPUTS), vector("b", OUTPUTS)
GRAD = matrix("G", SAMPLES, OUTPUTS)  # dL/dX~, any numbers
OUT = X * WEIGHT.T + sp.ones(SAMPLES, 1) * BIAS.T
LOSS = sum(g * x for g, x in zip(GRAD, OUT, strict=True))


def linear_backward() -> tuple[Linear, np.ndarray]:
    """The code's gradients of a batch, in symbols."""
    module = Linear(symbols_array(WEIGHT), symbols_array(BIAS)[:, 0])
    module.forward(symbols_array(X))
    return module, module.backward(symbols_array(GRAD))


def torch_mlp_gradients(mlp, images: np.ndarray, classes: np.ndarray) -> dict[str, np.ndarray]:
    """PyTorch's gradients of its own mean cross entropy for the weights of a NumPy network."""
    parameters = {name: torch.from_numpy(w.copy()).requires_grad_() for name, w in mlp.parameters().items()}
    x = torch.from_numpy(images)
    for i in range(len(mlp.linears)):
        x = torch.nn.functional.linear(x, parameters[f"linear.{i}.weight"], parameters[f"linear.{i}.bias"])
        if i < len(mlp.linears) - 1:
            x = torch.nn.functional.leaky_relu(x, SLOPE)
    torch.nn.functional.cross_entropy(x, torch.from_numpy(classes)).backward()
    return {name: w.grad.numpy() for name, w in parameters.items()}


@pytest.mark.equation("eq:batch-loss", how="numeric")
def test_batch_loss():
    """Mean of the images' losses and double sum over one-hot targets against both loss modules and PyTorch."""
    rng = np.random.default_rng(0)
    logits, classes = rng.normal(size=(5, 3)), np.array([0, 2, 1, 1, 0])
    probabilities = Softmax().forward(logits)
    one_by_one = [CrossEntropy().forward(p[None], c[None]) for p, c in zip(probabilities, classes, strict=True)]
    double_sum = -(np.eye(3)[classes] * np.log(probabilities)).sum() / 5
    reference = torch.nn.functional.cross_entropy(torch.from_numpy(logits), torch.from_numpy(classes)).item()
    for loss in (
        sum(one_by_one) / 5,
        double_sum,
        CrossEntropy().forward(probabilities, classes),
        SoftmaxCrossEntropy().forward(logits, classes),
    ):
        np.testing.assert_allclose(loss, reference, rtol=1e-13)


@pytest.mark.equation("eq:batch-mean-gradient", how="numeric")
def test_batch_mean_gradient():
    """The network's gradients of a batch are the mean of those of its images, and PyTorch's."""
    rng = np.random.default_rng(2)
    mlp = small_mlp(rng)
    images, classes = small_batch(rng)
    loss = mlp.loss_and_gradients(images, classes)
    batch = {name: g.copy() for name, g in mlp.gradients().items()}
    losses, single = [], []
    for s in range(BATCH):
        losses.append(mlp.loss_and_gradients(images[s : s + 1], classes[s : s + 1]))
        single.append({name: g.copy() for name, g in mlp.gradients().items()})
    np.testing.assert_allclose(loss, np.mean(losses), rtol=1e-13)
    reference = torch_mlp_gradients(mlp, images, classes)
    assert set(batch) == set(reference) == {f"linear.{i}.{kind}" for i in range(3) for kind in ("weight", "bias")}
    for name, g in batch.items():
        np.testing.assert_allclose(g, sum(gradients[name] for gradients in single) / BATCH, rtol=1e-10, atol=1e-14)
        np.testing.assert_allclose(g, reference[name], rtol=1e-10, atol=1e-14)


@pytest.mark.equation("eq:linear-batch-index", "eq:linear-batch", how="symbolic")
def test_linear_batch():
    """Index and matrix form, each image's column form transposed, and symbols put through the code, all agree."""
    index_form = sp.Matrix(SAMPLES, OUTPUTS, lambda s, i: sum(X[s, k] * WEIGHT[i, k] for k in range(INPUTS)) + BIAS[i])
    assert same(OUT, index_form)
    for s in range(SAMPLES):
        assert same(index_form[s, :], (WEIGHT * X[s, :].T + BIAS).T)
    code = Linear(symbols_array(WEIGHT), symbols_array(BIAS)[:, 0]).forward(symbols_array(X))
    assert same(sp.Matrix(code), index_form)


@pytest.mark.equation("eq:batch-grad-logits", how="both")
def test_batch_grad_logits():
    """Derivative of the mean loss by all logits of a batch, by algebra; the code against PyTorch."""
    logits, classes = matrix("z", 2, 3), (2, 0)
    totals = [sum(sp.exp(z) for z in logits[s, :]) for s in range(2)]
    loss = sum(sp.log(totals[s]) - logits[s, classes[s]] for s in range(2)) / 2
    probabilities = sp.Matrix(2, 3, lambda s, i: sp.exp(logits[s, i]) / totals[s])
    targets = sp.Matrix(2, 3, lambda s, i: int(i == classes[s]))
    assert same(gradient(loss, logits), (probabilities - targets) / 2)
    rng = np.random.default_rng(0)
    values, numbers = rng.normal(size=(5, 3)), np.array([0, 2, 1, 1, 0])
    module = SoftmaxCrossEntropy()
    module.forward(values, numbers)
    z = torch.from_numpy(values).requires_grad_()
    torch.nn.functional.cross_entropy(z, torch.from_numpy(numbers)).backward()
    np.testing.assert_allclose(module.backward(), z.grad.numpy(), rtol=1e-12, atol=1e-16)
    np.testing.assert_allclose(module.backward(), (module.probabilities - np.eye(3)[numbers]) / 5, rtol=1e-12)
    apart, softmax = CrossEntropy(), Softmax()
    apart.forward(softmax.forward(values), numbers)
    np.testing.assert_allclose(softmax.backward(apart.backward()), z.grad.numpy(), rtol=1e-12, atol=1e-16)


@pytest.mark.equation("eq:batch-grad-weight-index", "eq:batch-grad-weight", how="symbolic")
def test_batch_grad_weight():
    """Sum over images, product of matrices and sum of outer products against the derivative and the code in symbols."""
    expected = gradient(LOSS, WEIGHT)
    index_form = sp.Matrix(OUTPUTS, INPUTS, lambda i, k: sum(GRAD[s, i] * X[s, k] for s in range(SAMPLES)))
    assert same(index_form, expected)
    assert same(GRAD.T * X, expected)
    assert same(sum((GRAD[s, :].T * X[s, :] for s in range(SAMPLES)), sp.zeros(OUTPUTS, INPUTS)), expected)
    assert same(sp.Matrix(linear_backward()[0].grad_weight), expected)


@pytest.mark.equation("eq:batch-grad-bias-index", "eq:batch-grad-bias", how="symbolic")
def test_batch_grad_bias():
    """Sum over images and product with ones against the derivative, and the code in symbols: a sum, not a mean."""
    expected = gradient(LOSS, BIAS)
    assert same(sp.Matrix([sum(GRAD[s, i] for s in range(SAMPLES)) for i in range(OUTPUTS)]), expected)
    assert same(GRAD.T * sp.ones(SAMPLES, 1), expected)
    assert same(sp.Matrix(linear_backward()[0].grad_bias), expected)


@pytest.mark.equation("eq:batch-grad-input-index", "eq:batch-grad-input", how="symbolic")
def test_batch_grad_input():
    """Index and matrix form against the derivative by the batch, and against the code in symbols."""
    expected = gradient(LOSS, X)
    index_form = sp.Matrix(SAMPLES, INPUTS, lambda s, k: sum(GRAD[s, i] * WEIGHT[i, k] for i in range(OUTPUTS)))
    assert same(index_form, expected)
    assert same(GRAD * WEIGHT, expected)
    assert same(sp.Matrix(linear_backward()[1]), expected)


@pytest.mark.equation("eq:batch-leaky-relu", how="numeric")
def test_batch_leaky_relu():
    """Element by element over a batch, against the code and against central differences."""
    rng = np.random.default_rng(0)
    values, arriving = rng.normal(size=(5, 4)), rng.normal(size=(5, 4))
    formula = np.empty_like(values)
    for index, z in np.ndenumerate(values):
        formula[index] = (1 if z > 0 else SLOPE) * arriving[index]
    module, step = LeakyReLU(SLOPE), 1e-6
    high, low = module.forward(values + step), module.forward(values - step)
    np.testing.assert_allclose(formula, arriving * (high - low) / (2 * step), rtol=1e-8)
    module.forward(values)
    np.testing.assert_allclose(module.backward(arriving), formula, rtol=1e-15)


@pytest.mark.equation("eq:batch-softmax", how="numeric")
def test_batch_softmax():
    """Row by row over a batch, against the code and against PyTorch's differentiation."""
    rng = np.random.default_rng(0)
    values, u = rng.normal(size=(5, 4)), rng.normal(size=(5, 4))
    module = Softmax()
    x = module.forward(values)
    formula = np.empty_like(x)
    for s in range(5):
        for j in range(4):
            formula[s, j] = x[s, j] * (u[s, j] - sum(x[s, i] * u[s, i] for i in range(4)))
    z = torch.from_numpy(values).requires_grad_()
    torch.softmax(z, dim=1).backward(torch.from_numpy(u))
    np.testing.assert_allclose(formula, z.grad.numpy(), rtol=1e-11, atol=1e-15)
    np.testing.assert_allclose(module.backward(u), formula, rtol=1e-11, atol=1e-15)


def smoothed(classes: np.ndarray, count: int, share: float) -> np.ndarray:
    """The smoothed targets, one image a row."""
    return (1 - share) * np.eye(count)[classes] + share / count


@pytest.mark.equation("eq:label-smoothing", how="numeric")
def test_label_smoothing():
    """Targets sum to one, and cross entropy with them is PyTorch's with label smoothing."""
    rng = np.random.default_rng(0)
    logits, classes = rng.normal(size=(5, 3)), np.array([0, 2, 1, 1, 0])
    targets = smoothed(classes, 3, 0.1)
    np.testing.assert_allclose(targets.sum(axis=1), 1, rtol=1e-15)
    loss = -(targets * np.log(Softmax().forward(logits))).sum() / 5
    z, t = torch.from_numpy(logits), torch.from_numpy(classes)
    reference = torch.nn.functional.cross_entropy(z, t, label_smoothing=0.1).item()
    np.testing.assert_allclose(loss, reference, rtol=1e-13)


@pytest.mark.equation("eq:label-smoothing-gradient", how="both")
def test_label_smoothing_gradient():
    """The derivative for smoothed targets, by algebra, and PyTorch's gradient for a batch of one."""
    z, share = vector("z", 3), sp.Symbol("alpha", positive=True)
    total = sum(sp.exp(value) for value in z)
    targets = sp.Matrix([(1 - share) * int(i == 1) + share / 3 for i in range(3)])
    x = z.applyfunc(lambda value: sp.exp(value) / total)
    loss = -sum(targets[i] * (z[i] - sp.log(total)) for i in range(3))
    assert same(gradient(loss, z), x - targets)
    logits = torch.tensor([[0.3, -1.2, 0.7]], dtype=torch.float64, requires_grad=True)
    torch.nn.functional.cross_entropy(logits, torch.tensor([1]), label_smoothing=0.1).backward()
    difference = torch.softmax(logits.detach(), dim=1).numpy() - smoothed(np.array([1]), 3, 0.1)
    np.testing.assert_allclose(logits.grad.numpy(), difference, rtol=1e-12)


def test_network_gradients_by_finite_differences():
    """Every gradient of the network against central differences of its loss, which use no derivative at all."""
    rng = np.random.default_rng(3)
    mlp = small_mlp(rng)
    images, classes = small_batch(rng)
    mlp.loss_and_gradients(images, classes)
    step = 1e-6
    for name, w in mlp.parameters().items():
        g = mlp.gradients()[name]
        assert g.shape == w.shape
        for index in np.ndindex(w.shape):
            old = w[index]
            w[index] = old + step
            high = mlp.loss.forward(mlp.forward(images), classes)
            w[index] = old - step
            low = mlp.loss.forward(mlp.forward(images), classes)
            w[index] = old
            assert abs(g[index] - (high - low) / (2 * step)) < 1e-7, (name, index)
    assert mlp.forward(images).shape == (BATCH, SIZES[-1])
