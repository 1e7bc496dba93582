"""Batch normalisation: the section `batchnorm` of the report, term by term for a batch of three, and its code."""

import numpy as np
import pytest
import sympy as sp
import torch

from cifar_report.models.torch_nn.batchnorm import AutogradBatchNorm, BatchNormFunction, ManualBatchNorm

from .helpers import delta, gradient, same, vector

SIZE = 3
X, G = vector("x", SIZE), vector("g", SIZE)  # one feature over the batch; dL/dx^, any numbers
EPSILON, ROOT = sp.symbols("epsilon R", positive=True)
MEAN = sum(X) / SIZE
VARIANCE_OF_X = sum((x - MEAN) ** 2 for x in X) / SIZE
NORMALISED = X.applyfunc(lambda x: (x - MEAN) / sp.sqrt(VARIANCE_OF_X + EPSILON))
LOSS = NORMALISED.dot(G)
FEATURES = 4


def equal(left: sp.Expr, right: sp.Expr) -> bool:
    """Whether both are equal once the root of variance plus epsilon has a name, which makes them rational."""
    named = {EPSILON: ROOT**2 - VARIANCE_OF_X}
    return sp.cancel(sp.together((left - right).subs(named))) == 0


def formula(x: np.ndarray, gamma: np.ndarray, beta: np.ndarray, eps: float) -> dict[str, np.ndarray]:
    """The forward pass by sums over samples, feature by feature."""
    samples, features = x.shape
    mean = np.array([sum(x[s, j] for s in range(samples)) / samples for j in range(features)])
    variance = np.array([sum((x[s, j] - mean[j]) ** 2 for s in range(samples)) / samples for j in range(features)])
    normalised = (x - mean) / np.sqrt(variance + eps)
    return {"mean": mean, "variance": variance, "normalised": normalised, "output": gamma * normalised + beta}


def tensors(seed: int = 0, samples: int = 6) -> tuple[torch.Tensor, ...]:
    """A batch, dL/dy, gamma and beta, all float64 and far from 0 and 1."""
    rng = np.random.default_rng(seed)
    arrays = (
        rng.normal(2.0, 3.0, (samples, FEATURES)),
        rng.normal(size=(samples, FEATURES)),
        rng.normal(1.5, 1.0, FEATURES),
        rng.normal(-1.0, 1.0, FEATURES),
    )
    return tuple(torch.from_numpy(a) for a in arrays)


def module(kind: type[torch.nn.Module], gamma: torch.Tensor, beta: torch.Tensor, **options: float) -> torch.nn.Module:
    """A batch-norm layer of float64 with these parameters."""
    layer = kind(FEATURES, **options).double()
    with torch.no_grad():
        layer.weight.copy_(gamma)
        layer.bias.copy_(beta)
    return layer


KINDS = pytest.mark.parametrize("kind", [AutogradBatchNorm, ManualBatchNorm])


@pytest.mark.equation("eq:bn-mean", "eq:bn-var", "eq:bn-normalise", "eq:bn-affine", how="numeric")
def test_forward():
    """Sums over samples against NumPy's mean and biased variance, and the result against the code and PyTorch."""
    x, _, gamma, beta = tensors()
    expected = formula(x.numpy(), gamma.numpy(), beta.numpy(), eps=0.5)
    np.testing.assert_allclose(expected["mean"], x.numpy().mean(axis=0), rtol=1e-14)
    np.testing.assert_allclose(expected["variance"], x.numpy().var(axis=0), rtol=1e-13)
    identity = torch.ones(FEATURES).double(), torch.zeros(FEATURES).double()
    np.testing.assert_allclose(BatchNormFunction.apply(x, *identity, 0.5), expected["normalised"], rtol=1e-12)
    outputs = [BatchNormFunction.apply(x, gamma, beta, 0.5)]
    kinds = (AutogradBatchNorm, ManualBatchNorm, torch.nn.BatchNorm1d)
    outputs += [module(kind, gamma, beta, eps=0.5)(x).detach() for kind in kinds]
    for output in outputs:
        np.testing.assert_allclose(output.numpy(), expected["output"], rtol=1e-12)


@pytest.mark.equation("eq:bn-zero-mean", "eq:bn-unit-variance", how="both")
def test_moments_of_normalised_values():
    """Mean zero, and mean square just below one, by algebra; the code with an epsilon of the variance's size."""
    assert equal(sum(NORMALISED) / SIZE, sp.Integer(0))
    assert equal(sum(x**2 for x in NORMALISED) / SIZE, VARIANCE_OF_X / (VARIANCE_OF_X + EPSILON))
    x = tensors()[0]
    out = BatchNormFunction.apply(x, torch.ones(FEATURES).double(), torch.zeros(FEATURES).double(), 4.0).numpy()
    np.testing.assert_allclose(out.mean(axis=0), 0, atol=1e-15)
    np.testing.assert_allclose((out**2).mean(axis=0), x.numpy().var(axis=0) / (x.numpy().var(axis=0) + 4), rtol=1e-13)


@KINDS
@pytest.mark.equation("eq:bn-running-mean", "eq:bn-running-var", how="numeric")
def test_running_statistics(kind: type[torch.nn.Module]):
    """Recursions over three batches, the variance unbiased, against the code and torch.nn.BatchNorm1d."""
    _, _, gamma, beta = tensors()
    ours, reference = (module(k, gamma, beta, momentum=0.3) for k in (kind, torch.nn.BatchNorm1d))
    mean, variance = np.zeros(FEATURES), np.ones(FEATURES)
    for seed, samples in enumerate((6, 2, 5)):
        x = tensors(seed, samples)[0]
        ours(x)
        reference(x)
        batch = formula(x.numpy(), gamma.numpy(), beta.numpy(), eps=0.0)
        mean = (1 - 0.3) * mean + 0.3 * batch["mean"]
        variance = (1 - 0.3) * variance + 0.3 * samples / (samples - 1) * batch["variance"]
        np.testing.assert_allclose(ours.running_mean.numpy(), mean, rtol=1e-12)
        np.testing.assert_allclose(ours.running_var.numpy(), variance, rtol=1e-12)
    np.testing.assert_allclose(reference.running_mean.numpy(), mean, rtol=1e-12)
    np.testing.assert_allclose(reference.running_var.numpy(), variance, rtol=1e-12)


@KINDS
@pytest.mark.equation("eq:bn-evaluate", how="numeric")
def test_evaluation(kind: type[torch.nn.Module]):
    """Running averages in the place of the batch's, which then stay as they are; one image alone has its own result."""
    x, _, gamma, beta = tensors()
    ours, reference = (module(k, gamma, beta, eps=0.5) for k in (kind, torch.nn.BatchNorm1d))
    ours(x)
    reference(x)
    ours.eval()
    reference.eval()
    other = tensors(1)[0]
    before = {name: value.clone() for name, value in ours.named_buffers()}
    mean, variance = ours.running_mean.numpy(), ours.running_var.numpy()
    expected = gamma.numpy() * (other.numpy() - mean) / np.sqrt(variance + 0.5) + beta.numpy()
    np.testing.assert_allclose(ours(other).detach().numpy(), expected, rtol=1e-12)
    np.testing.assert_allclose(ours(other[:1]).detach().numpy(), expected[:1], rtol=1e-12)
    np.testing.assert_allclose(reference(other).detach().numpy(), expected, rtol=1e-12)
    assert all(torch.equal(value, before[name]) for name, value in ours.named_buffers())
    ours.train()
    np.testing.assert_allclose(
        ours(other).detach().numpy(), formula(other.numpy(), gamma.numpy(), beta.numpy(), 0.5)["output"], rtol=1e-12
    )


@pytest.mark.equation("eq:bn-grad-gamma", "eq:bn-grad-beta", "eq:bn-grad-normalised", how="both")
def test_parameter_gradients():
    """Derivatives by gamma, beta and normalised values, by algebra; the sums of the code and of PyTorch's module."""
    gamma, beta = sp.symbols("gamma beta", real=True)
    normalised, arriving = vector("h", SIZE), vector("u", SIZE)
    loss = sum(arriving[s] * (gamma * normalised[s] + beta) for s in range(SIZE))
    assert same(sp.diff(loss, gamma), sum(arriving[s] * normalised[s] for s in range(SIZE)))
    assert same(sp.diff(loss, beta), sum(arriving[s] for s in range(SIZE)))
    assert same(gradient(loss, normalised), gamma * arriving)
    x, grad, weight, bias = tensors()
    expected = formula(x.numpy(), weight.numpy(), bias.numpy(), eps=0.5)
    for kind in (ManualBatchNorm, AutogradBatchNorm, torch.nn.BatchNorm1d):
        layer = module(kind, weight, bias, eps=0.5)
        layer(x).backward(grad)
        sums = (grad.numpy() * expected["normalised"]).sum(axis=0)
        np.testing.assert_allclose(layer.weight.grad.numpy(), sums, rtol=1e-11)
        np.testing.assert_allclose(layer.bias.grad.numpy(), grad.numpy().sum(axis=0), rtol=1e-11)


@pytest.mark.equation("eq:bn-scale-paths", "eq:bn-local-scale", "eq:bn-local-shift", how="both")
def test_local_derivatives_of_outputs():
    """The whole Jacobian of PyTorch's module by scale and shift, and the sum over samples and features with it."""
    x, grad, weight, bias = tensors()
    samples, features = x.shape
    normalised = torch.from_numpy(formula(x.numpy(), weight.numpy(), bias.numpy(), eps=0.5)["normalised"])

    def output(scale: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.batch_norm(x, None, None, scale, shift, True, 0, 0.5)

    by_scale, by_shift = torch.autograd.functional.jacobian(output, (weight, bias))  # [s, i, j]
    for s, i, j in np.ndindex(samples, features, features):
        assert by_scale[s, i, j].item() == pytest.approx(delta(i, j) * normalised[s, j].item(), abs=1e-12)
        assert by_shift[s, i, j].item() == delta(i, j)
    layer = module(ManualBatchNorm, weight, bias, eps=0.5)
    layer(x).backward(grad)
    paths = [sum(grad[s, i] * by_scale[s, i, j] for s, i in np.ndindex(samples, features)) for j in range(features)]
    np.testing.assert_allclose(layer.weight.grad.numpy(), [path.item() for path in paths], rtol=1e-11)


@pytest.mark.equation("eq:bn-backward", how="both")
def test_backward():
    """The final form against the derivative by each input, by algebra; the code's backward against PyTorch's and it."""
    root = sp.sqrt(VARIANCE_OF_X + EPSILON)
    for r in range(SIZE):
        bracket = G[r] - sum(G) / SIZE - NORMALISED[r] / SIZE * G.dot(NORMALISED)
        assert equal(bracket / root, sp.diff(LOSS, X[r]))
    x, grad, gamma, beta = tensors()
    forward = formula(x.numpy(), gamma.numpy(), beta.numpy(), eps=0.5)
    g, normalised, samples = gamma.numpy() * grad.numpy(), forward["normalised"], len(x)
    final = np.empty_like(g)
    for r in range(samples):
        sums = g.sum(axis=0) / samples, normalised[r] / samples * (g * normalised).sum(axis=0)
        final[r] = (g[r] - sums[0] - sums[1]) / np.sqrt(forward["variance"] + 0.5)
    for kind in (ManualBatchNorm, AutogradBatchNorm, torch.nn.BatchNorm1d):
        inputs = x.clone().requires_grad_()
        module(kind, gamma, beta, eps=0.5)(inputs).backward(grad)
        np.testing.assert_allclose(inputs.grad.numpy(), final, rtol=1e-11, atol=1e-14)
    leaves = [t.clone().requires_grad_() for t in (x, gamma, beta)]
    assert torch.autograd.gradcheck(BatchNormFunction.apply, (*leaves, 0.5))


@pytest.mark.equation("eq:bn-grad-sum", how="both")
def test_grad_sum():
    """The gradients of a batch sum to zero, by algebra and in the code, and so does a preceding bias's gradient."""
    assert equal(sum(gradient(LOSS, X)), sp.Integer(0))
    x, grad, gamma, beta = tensors()
    bias = torch.zeros(FEATURES, dtype=torch.float64, requires_grad=True)
    module(ManualBatchNorm, gamma, beta)(x + bias).backward(grad)
    np.testing.assert_allclose(bias.grad.numpy(), 0, atol=1e-14)


@KINDS
def test_module_is_a_batch_norm_of_pytorch(kind: type[torch.nn.Module]):
    """Same defaults, same parameters and buffers, same results in training, single precision and gradients included."""
    ours, reference = kind(FEATURES), torch.nn.BatchNorm1d(FEATURES)
    assert (ours.eps, ours.momentum) == (reference.eps, reference.momentum)
    theirs = {name: value for name, value in reference.state_dict().items() if name != "num_batches_tracked"}
    assert {name: value.tolist() for name, value in ours.state_dict().items()} == {
        name: value.tolist() for name, value in theirs.items()
    }
    assert {name for name, _ in ours.named_parameters()} == {"weight", "bias"}
    x, grad = (t.float() for t in tensors()[:2])
    mine, other = x.clone().requires_grad_(), x.clone().requires_grad_()
    out, expected = ours(mine), reference(other)
    assert out.dtype == torch.float32
    torch.testing.assert_close(out, expected)
    out.backward(grad)
    expected.backward(grad)
    torch.testing.assert_close(mine.grad, other.grad, rtol=1e-4, atol=1e-6)
    assert not ours.running_mean.requires_grad and not ours.running_var.requires_grad
    # With a variance near zero epsilon decides, so a default that differs would show.
    tiny = 1e-3 * x.double()
    torch.testing.assert_close(kind(FEATURES).double()(tiny), torch.nn.BatchNorm1d(FEATURES).double()(tiny))


def test_function_has_the_default_epsilon_of_pytorch():
    """Without an epsilon the function takes that of torch.nn.BatchNorm1d."""
    x, _, gamma, beta = tensors()
    tiny = 1e-3 * x
    expected = torch.nn.functional.batch_norm(tiny, None, None, gamma, beta, training=True)
    torch.testing.assert_close(BatchNormFunction.apply(tiny, gamma, beta), expected)


@KINDS
def test_training_on_one_sample_is_refused(kind: type[torch.nn.Module]):
    """A batch of one has no unbiased variance; two samples suffice; evaluation takes any number."""
    layer = kind(FEATURES)
    with pytest.raises(ValueError, match="a batch of 2 or more, got 1"):
        layer(torch.ones(1, FEATURES))
    layer(torch.eye(2, FEATURES))
    layer.eval()(torch.ones(1, FEATURES))


@KINDS
@pytest.mark.parametrize("training", [True, False])
def test_other_shapes_are_refused(kind: type[torch.nn.Module], training: bool):
    """Where torch.nn.BatchNorm1d refuses, ours do, and say what was expected; broadcasting would take one feature."""
    ours, reference = kind(FEATURES).train(training), torch.nn.BatchNorm1d(FEATURES).train(training)
    for shape in ((8, 1), (8, FEATURES + 1), (1, 1), (FEATURES,), (1,), (8, 1, FEATURES), (2, 2, 2, FEATURES)):
        with pytest.raises((ValueError, RuntimeError)):
            reference(torch.ones(shape))
        with pytest.raises(ValueError) as refused:
            ours(torch.ones(shape))
        assert f"expected (batch, {FEATURES}), got {shape}" in str(refused.value)
    assert torch.equal(ours.running_mean, torch.zeros(FEATURES))


def test_function_refuses_other_shapes():
    """Called without its module too, nothing broadcasts."""
    one, four = torch.ones(1), torch.ones(FEATURES)
    for x, weight, bias in (
        (torch.ones(8, 1), four, four),
        (torch.ones(8, FEATURES), one, one),
        (torch.ones(8, FEATURES), four, one),
        (torch.ones(8, FEATURES), one, four),
        (torch.ones(8, FEATURES), four[None], four[None]),
        (torch.ones(8, FEATURES), torch.eye(FEATURES), torch.eye(FEATURES)),
        (torch.ones(8, FEATURES, FEATURES), four, four),
    ):
        with pytest.raises(ValueError, match="expected"):
            BatchNormFunction.apply(x, weight, bias)
    with pytest.raises(ValueError, match=rf"got \(1,\) and \({FEATURES},\)"):
        BatchNormFunction.apply(torch.ones(8, FEATURES), one, four)


def test_second_derivatives_are_refused():
    """The backward treats saved values as constants, so PyTorch would give second derivatives that lack a part."""
    x, _, gamma, beta = tensors()
    x.requires_grad_()
    loss = BatchNormFunction.apply(x, gamma, beta).square().sum()
    (first,) = torch.autograd.grad(loss, x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.square().sum().backward()


@KINDS
def test_bf16_is_normalised_in_the_precision_of_the_weights(kind):
    """As PyTorch's own does under autocast."""
    x = torch.randn(8, 3, generator=torch.Generator().manual_seed(0)).bfloat16()
    ours, theirs = kind(3), torch.nn.BatchNorm1d(3)
    for _ in range(2):
        torch.testing.assert_close(ours(x), theirs(x.float()))
    torch.testing.assert_close(ours.running_var, theirs.running_var)
    torch.testing.assert_close(ours.eval()(x), theirs.eval()(x.float()))
