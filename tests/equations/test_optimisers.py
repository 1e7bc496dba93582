"""Steps, learning rates and initial weights: the rest of the section `batches` of the report."""

import itertools
import math

import numpy as np
import pytest
import scipy.stats
import sympy as sp
import torch

from cifar_report.base.randomness import initial_parameters
from cifar_report.models.numpy_nn.sgd import SGD
from cifar_report.models.torch_nn.initial import draw_parameters
from cifar_report.training.batches import learning_rate

from .helpers import same, settings

ETA, MOMENTUM, DECAY = sp.symbols("eta m lambda", positive=True)
W, VELOCITY = sp.symbols("w v", real=True)


def symbolic_steps(gradients: list[sp.Symbol], **options: object) -> list[sp.Expr]:
    """A parameter w after each step of the code, in symbols."""
    parameter = np.array([W], dtype=object)
    optimiser, visited = SGD({"w": parameter}, **options), []
    for g in gradients:
        optimiser.step({"w": np.array([g], dtype=object)}, ETA)
        visited.append(parameter[0])
    return visited


def numeric_steps(options: dict, rates: list[float], dtype: type = np.float64) -> tuple[np.ndarray, np.ndarray]:
    """Two parameters after several steps with gradients that depend on them: the code's and PyTorch's."""
    rng = np.random.default_rng(0)
    start = {"a": rng.normal(size=(3, 2)).astype(dtype), "b": rng.normal(size=4).astype(dtype)}
    ours = {name: w.copy() for name, w in start.items()}
    theirs = {name: torch.from_numpy(w.copy()).requires_grad_() for name, w in start.items()}
    optimiser = SGD(ours, **options)
    reference = torch.optim.SGD(theirs.values(), lr=1.0, **options)
    for rate in rates:
        optimiser.step({name: w**3 - 1 for name, w in ours.items()}, rate)
        for w in theirs.values():
            w.grad = w.detach() ** 3 - 1
        reference.param_groups[0]["lr"] = rate
        reference.step()
    return (
        np.concatenate([w.ravel() for w in ours.values()]),
        np.concatenate([w.detach().numpy().ravel() for w in theirs.values()]),
    )


@pytest.mark.equation("eq:sgd", how="both")
def test_sgd():
    """One and two steps of the code in symbols, and several against torch.optim.SGD with a rate that changes."""
    g = sp.symbols("g0:2")
    assert same(symbolic_steps(g)[0], W - ETA * g[0])
    assert same(symbolic_steps(g)[1], W - ETA * g[0] - ETA * g[1])
    ours, theirs = numeric_steps({}, [0.1, 0.05, 0.2, 0.01])
    np.testing.assert_allclose(ours, theirs, rtol=1e-13)


@pytest.mark.equation("eq:weight-decay", how="both")
def test_weight_decay():
    """The derivative of the penalised loss, one step of the code in symbols, and several against torch.optim.SGD."""
    loss = sp.Function("L")(W)
    g = sp.Symbol("g", real=True)
    assert same(sp.diff(loss + DECAY / 2 * W**2, W), sp.diff(loss, W) + DECAY * W)
    assert same(symbolic_steps([g], weight_decay=DECAY)[0], W - ETA * (g + DECAY * W))
    for options in ({"weight_decay": 0.3}, {"weight_decay": 0.3, "momentum": 0.8}):
        ours, theirs = numeric_steps(options, [0.1, 0.05, 0.2])
        np.testing.assert_allclose(ours, theirs, rtol=1e-13)


@pytest.mark.equation("eq:momentum-velocity", "eq:momentum-step", how="both")
def test_momentum():
    """Three steps of the code in symbols against the recursion from rest, and several against torch.optim.SGD."""
    g = sp.symbols("g0:3")
    w, v = W, sp.Integer(0)
    for k, visited in enumerate(symbolic_steps(g, momentum=MOMENTUM)):
        v = MOMENTUM * v + g[k]
        w = w - ETA * v
        assert same(visited, w)
    assert same(v, g[2] + MOMENTUM * g[1] + MOMENTUM**2 * g[0])
    ours, theirs = numeric_steps({"momentum": 0.9}, [0.1, 0.05, 0.2, 0.01])
    np.testing.assert_allclose(ours, theirs, rtol=1e-13)


@pytest.mark.equation("eq:nesterov-velocity", "eq:nesterov-point", how="symbolic")
def test_nesterov_definition():
    """On a quadratic loss, three look-ahead steps seen from the stored points are three steps of the code."""
    curvature = sp.Symbol("c", positive=True)
    start = W  # at rest the stored point and the point itself are one
    parameter = np.array([start], dtype=object)
    optimiser = SGD({"w": parameter}, momentum=MOMENTUM, nesterov=True)
    u, v = start, sp.Integer(0)
    for _ in range(3):
        stored = u - ETA * MOMENTUM * v
        assert same(parameter[0], stored)
        optimiser.step({"w": curvature * parameter}, ETA)
        v = MOMENTUM * v + curvature * stored
        u = u - ETA * v
    assert same(parameter[0], u - ETA * MOMENTUM * v)


@pytest.mark.equation("eq:nesterov-cancelled", "eq:nesterov", how="both")
def test_nesterov():
    """Both rows from the definition by algebra; the code in symbols, and several steps against torch.optim.SGD."""
    g = sp.symbols("g0:3")
    point = W + ETA * MOMENTUM * VELOCITY  # u_k in terms of the stored w_k
    next_velocity = MOMENTUM * VELOCITY + g[0]
    next_point = point - ETA * next_velocity
    assert same(W + ETA * MOMENTUM * VELOCITY - ETA * (MOMENTUM * VELOCITY + g[0]), next_point)
    assert same(next_point, W - ETA * g[0])
    assert same(next_point - ETA * MOMENTUM * next_velocity, W - ETA * (g[0] + MOMENTUM * next_velocity))
    w, v = W, sp.Integer(0)
    for k, visited in enumerate(symbolic_steps(g, momentum=MOMENTUM, nesterov=True)):
        v = MOMENTUM * v + g[k]
        w = w - ETA * (g[k] + MOMENTUM * v)
        assert same(visited, w)
    for options in ({}, {"weight_decay": 0.3}):
        ours, theirs = numeric_steps({"momentum": 0.9, "nesterov": True} | options, [0.1, 0.05, 0.2, 0.01])
        np.testing.assert_allclose(ours, theirs, rtol=1e-13)


def adam_steps(gradients: np.ndarray) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """A parameter after torch.optim.Adam's steps, and the state that Adam keeps of it."""
    w = torch.tensor([0.5, -1.0], dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.Adam([w], lr=0.01)
    for g in gradients:
        w.grad = torch.from_numpy(g)
        optimiser.step()
    return w.detach(), optimiser.state[w]


ADAM_GRADIENTS = np.random.default_rng(0).normal(size=(4, 2))
BETA_1, BETA_2, EPSILON = 0.9, 0.999, 1e-8  # PyTorch's defaults


@pytest.mark.equation("eq:adam-mean", "eq:adam-square", how="numeric")
def test_adam_means():
    """The recursions from zero against the state that torch.optim.Adam keeps."""
    p, q = np.zeros(2), np.zeros(2)
    for g in ADAM_GRADIENTS:
        p = BETA_1 * p + (1 - BETA_1) * g
        q = BETA_2 * q + (1 - BETA_2) * g**2
    _, state = adam_steps(ADAM_GRADIENTS)
    np.testing.assert_allclose(p, state["exp_avg"].numpy(), rtol=1e-13)
    np.testing.assert_allclose(q, state["exp_avg_sq"].numpy(), rtol=1e-13)


@pytest.mark.equation("eq:adam-step", how="numeric")
def test_adam_step():
    """Several steps against torch.optim.Adam, from the first, where the correction is largest."""
    w, p, q = np.array([0.5, -1.0]), np.zeros(2), np.zeros(2)
    for k, g in enumerate(ADAM_GRADIENTS, start=1):
        p = BETA_1 * p + (1 - BETA_1) * g
        q = BETA_2 * q + (1 - BETA_2) * g**2
        w = w - 0.01 * (p / (1 - BETA_1**k)) / (np.sqrt(q / (1 - BETA_2**k)) + EPSILON)
        np.testing.assert_allclose(w, adam_steps(ADAM_GRADIENTS[:k])[0].numpy(), rtol=1e-12)


@pytest.mark.equation("eq:cosine", how="numeric")
def test_cosine():
    """Rates of all steps against the code and against torch.optim.lr_scheduler.CosineAnnealingLR."""
    chosen = settings(schedule="cosine", learning_rate=0.3, steps=8)
    w = torch.zeros(1, requires_grad=True)
    optimiser = torch.optim.SGD([w], lr=0.3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, T_max=8)
    for k in range(8):
        formula = 0.3 / 2 * (1 + math.cos(math.pi * k / 8))
        assert learning_rate(chosen, k) == pytest.approx(formula, rel=1e-14)
        assert schedule.get_last_lr()[0] == pytest.approx(formula, rel=1e-12)
        optimiser.step()
        schedule.step()


@pytest.mark.equation("eq:one-cycle", how="numeric")
def test_one_cycle():
    """Rates of all steps against the code and against straight lines from zero to the peak and back to zero."""
    steps = 20
    for warmup in (0.0, 0.25, 0.33):
        chosen = settings(schedule="one-cycle", learning_rate=0.3, steps=steps, warmup=warmup)
        for k in range(steps):
            rising = 0.3 * (k + 1) / (warmup * steps + 1)
            falling = 0.3 * (1 - k / steps) / (1 - warmup)
            formula = rising if k < warmup * steps else falling
            lines = np.interp(k, [-1, warmup * steps, steps], [0, 0.3, 0])
            assert formula == pytest.approx(lines, rel=1e-12)
            assert learning_rate(chosen, k) == pytest.approx(formula, rel=1e-12)


def standard_uniform(values: np.ndarray, bound: float) -> float:
    """The p-value that values come from the uniform distribution on (-bound, bound)."""
    return scipy.stats.kstest(values.ravel(), scipy.stats.uniform(-bound, 2 * bound).cdf).pvalue


@pytest.mark.written_for("eq:initial-normal", "03001a8d225c7f098a96bd582bb507abc45da5239981dc724e3edd4c74d16f26")
@pytest.mark.equation("eq:initial-normal", how="numeric")
def test_initial_normal():
    """Draws follow the normal distribution, by a Kolmogorov-Smirnov test; biases are zero."""
    weight, bias = initial_parameters(0, 0, (200, 50), 1e-4)
    assert scipy.stats.kstest(weight.ravel(), scipy.stats.norm(0, 1e-4).cdf).pvalue > 0.01
    np.testing.assert_array_equal(bias, np.zeros(200))


@pytest.mark.written_for("eq:initial-uniform", "1c628da2508da563ffa71b97a9ab1d8ca2ff4d9b48499a9a8d5b60ea9f2d7c84")
@pytest.mark.equation("eq:initial-uniform", how="numeric")
def test_initial_uniform():
    """Draws for both kinds of layer, and PyTorch's own, follow the distribution, by a Kolmogorov-Smirnov test."""
    for shape in ((200, 49), (64, 3, 3, 3)):
        bound = 1 / math.sqrt(math.prod(shape[1:]))
        weight, bias = initial_parameters(0, 0, shape, None)
        assert weight.shape == shape and bias.shape == shape[:1]
        assert standard_uniform(weight, bound) > 0.01 and standard_uniform(bias, bound) > 0.01
        with torch.random.fork_rng():
            torch.manual_seed(0)
            layer = torch.nn.Linear(*shape[::-1]) if len(shape) == 2 else torch.nn.Conv2d(3, 64, 3)
        for values in (layer.weight, layer.bias):
            assert standard_uniform(values.detach().numpy(), bound) > 0.01
        draw_parameters(torch.nn.Sequential(layer), seed=0, std=None)
        np.testing.assert_allclose(layer.weight.detach().numpy(), weight, rtol=1e-6)
        np.testing.assert_allclose(layer.bias.detach().numpy(), bias, rtol=1e-6)


@pytest.mark.written_for(
    "eq:initial-normal-variance", "232e870f2b69eb160bcb4e510140730078b7eb31353e4eec30e411c4b09831ba"
)
@pytest.mark.written_for(
    "eq:initial-uniform-variance", "6902b321b38f82a832e4f954a31834893e3970808f805b812d1274e595daf490"
)
@pytest.mark.equation("eq:initial-normal-variance", "eq:initial-uniform-variance", how="both")
def test_initial_variance():
    """Second moments by integration, and the variance of many units that are drawn by the code, to two per cent."""
    weight, bound, deviation = sp.Symbol("W", real=True), sp.Symbol("c", positive=True), sp.Symbol("s", positive=True)
    uniform = sp.integrate(weight**2 / (2 * bound), (weight, -bound, bound))
    density = sp.exp(-(weight**2) / (2 * deviation**2)) / (deviation * sp.sqrt(2 * sp.pi))
    normal = sp.integrate(weight**2 * density, (weight, -sp.oo, sp.oo))
    x = sp.symbols("x0:3")
    squares = sum(value**2 for value in x)
    fan_in = len(x)
    at_bound = uniform.subs(bound, 1 / sp.sqrt(fan_in))
    assert same(at_bound * squares + at_bound, (1 + squares) / (3 * fan_in))
    assert same(normal * squares, deviation**2 * squares)
    values = np.array([1.5, -2.0, 0.5])
    for std, formula in ((0.2, 0.2**2 * (values**2).sum()), (None, (1 + (values**2).sum()) / (3 * 3))):
        weight_drawn, bias_drawn = initial_parameters(0, 0, (40_000, 3), std)
        assert (weight_drawn @ values + bias_drawn).var() == pytest.approx(formula, rel=0.02)


@pytest.mark.written_for("eq:initial-leaky-relu", "6970df3a95cd4a62fd4c9dd870882d038584dfd8ebd63b0bc3f7c3490b05438c")
@pytest.mark.written_for("eq:initial-logits", "70af9bbabad8ada0b443b48f8d12f892ae4778f7bd7fd241fdbb644d4b612c90")
@pytest.mark.equation("eq:initial-leaky-relu", "eq:initial-logits", how="both")
def test_initial_logits():
    """The mean square by integration over half-lines, and logits of 40,000 drawn networks to two per cent."""
    z, a, bound = sp.Symbol("z", real=True), sp.Symbol("a", positive=True), sp.Symbol("b", positive=True)
    kept = sp.integrate(z**2 / (2 * bound), (z, 0, bound)) + sp.integrate((a * z) ** 2 / (2 * bound), (z, -bound, 0))
    assert same(kept, (1 + a**2) / 2 * sp.integrate(z**2 / (2 * bound), (z, -bound, bound)))
    values, slope, networks = np.array([1.5, -2.0, 0.5]), 0.3, 40_000
    rows, biases = initial_parameters(0, 0, (networks * 2, 3), None)  # two hidden units a network
    hidden = (rows @ values + biases).reshape(networks, 2)
    hidden = np.where(hidden > 0, hidden, slope * hidden)
    weights, biases = initial_parameters(0, 1, (networks, 2), None)
    expected = 1 / (3 * 2) + (1 + slope**2) / (18 * 3) * (1 + (values**2).sum())
    assert ((weights * hidden).sum(axis=1) + biases).var() == pytest.approx(expected, rel=0.02)


def test_options_of_sgd_together():
    """All combinations of momentum, Nesterov's form and weight decay against torch.optim.SGD, in both precisions."""
    for momentum, nesterov, decay in itertools.product((0.0, 0.7), (False, True), (0.0, 0.2)):
        if nesterov and not momentum:
            continue  # PyTorch refuses it
        options = {"momentum": momentum, "nesterov": nesterov, "weight_decay": decay}
        for dtype, tolerance in ((np.float64, 1e-13), (np.float32, 1e-6)):
            ours, theirs = numeric_steps(options, [0.1, 0.05, 0.2, 0.01], dtype)
            assert ours.dtype == dtype
            np.testing.assert_allclose(ours, theirs, rtol=tolerance)
