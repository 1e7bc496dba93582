"""The erratum: each line of the original, read literally, fails where ours passes, against an independent reference."""

import re
from pathlib import Path

import numpy as np
import pytest
import sympy as sp
import torch
import yaml
from scipy.stats import binomtest

from cifar_report.models.numpy_nn.modules import CrossEntropy, LeakyReLU, Linear, Softmax, SoftmaxCrossEntropy
from cifar_report.models.torch_nn import vgg
from cifar_report.models.torch_nn.batchnorm import BatchNormFunction
from cifar_report.study import config
from cifar_report.study.settings import Settings

ROOT = Path(__file__).parents[1]
SLOPE = 0.3
EPS = 0.5  # of the size of the variances, so that a line that loses it cannot pass
WRONG = 0.05  # a wrong line misses the reference by more than this share of its largest element


def misses(line: np.ndarray, reference: np.ndarray) -> bool:
    """Whether a line is wrong by far more than rounding."""
    return np.abs(line - reference).max() > WRONG * np.abs(reference).max()


def study() -> config.Study:
    """The full study, whose catalogue holds what the original got."""
    return config.load(yaml.safe_load((ROOT / "config.yaml").read_text()))


# --- the mathematics --------------------------------------------------------------------------------------------------


@pytest.mark.erratum("softmax-minus-sign")
def test_softmax_minus_sign():
    """x x is no product; with x xᵀ in its place the line is minus the derivative; ours is the derivative."""
    z = sp.Matrix(sp.symbols("z:3", real=True))
    x = z.applyfunc(sp.exp) / sum(z.applyfunc(sp.exp))
    t = sp.Matrix([0, 1, 0])
    derivative = sp.Matrix([sp.diff(-sp.log(x[1]), element) for element in z])
    with pytest.raises(sp.matrices.exceptions.ShapeError):
        x * x
    quotient = t.multiply_elementwise(x.applyfunc(lambda p: 1 / p))
    original = (quotient.T * (sp.diag(*x) - x * x.T).T).T
    assert (original + derivative).applyfunc(sp.simplify) == sp.zeros(3, 1)
    assert sp.simplify(original[0] - derivative[0]) != 0
    assert ((sp.diag(*x) - x * x.T) * -quotient - derivative).applyfunc(sp.simplify) == sp.zeros(3, 1)

    logits, softmax, entropy = np.array([[0.5, -1.0, 2.0]]), Softmax(), CrossEntropy()
    entropy.forward(softmax.forward(logits), np.array([1]))
    numbers = dict(zip(z, logits[0], strict=True))
    np.testing.assert_allclose(softmax.backward(entropy.backward())[0], [float(d.subs(numbers)) for d in derivative])


@pytest.mark.erratum("leaky-relu-free-index")
def test_leaky_relu_free_index():
    """Whatever the free index is, the line gives one slope to all units; ours is PyTorch's Jacobian."""
    z = np.array([-1.0, 2.0, -0.5, 3.0])
    jacobian = torch.autograd.functional.jacobian(
        lambda v: torch.nn.functional.leaky_relu(v, SLOPE), torch.from_numpy(z)
    ).numpy()
    for j in range(len(z)):
        assert misses(SLOPE ** (z[j] < 0) * np.eye(len(z)), jacobian)
    np.testing.assert_allclose(np.diag(SLOPE ** (z <= 0)), jacobian)
    module = LeakyReLU(SLOPE)
    module.forward(np.tile(z, (len(z), 1)))
    np.testing.assert_allclose(module.backward(np.eye(len(z))), jacobian)


@pytest.mark.erratum("linear-missing-index")
def test_linear_missing_index():
    """The derivative by the input of the same number is W_ii alone; by the input j it is W_ij, for all i and j."""
    weight = sp.Matrix(2, 3, lambda i, j: sp.Symbol(f"w_{i}_{j}"))
    x = sp.Matrix(sp.symbols("x:3"))
    out = weight * x
    pairs = [(i, j) for i in range(2) for j in range(3)]
    assert [(i, j) for i, j in pairs if sp.diff(out[i], x[i]) == weight[i, j]] == [(0, 0), (1, 1)]
    assert all(sp.diff(out[i], x[j]) == weight[i, j] for i, j in pairs)
    layer = Linear(np.array(weight.tolist()), np.zeros(2, dtype=object))
    layer.forward(np.array([list(x), list(x)]))
    assert sp.Matrix(layer.backward(np.array([[1, 0], [0, 1]], dtype=object))) == weight


@pytest.mark.erratum("row-and-column")
def test_row_and_column():
    """A row fits equation 19 and not 22, a column 22 and not 19; columns throughout give PyTorch's gradients."""
    rng = np.random.default_rng(0)
    hidden, weight, target = rng.normal(size=(4, 1)), rng.normal(size=(3, 4)), np.array([[0.0], [1.0], [0.0]])
    h, w = (torch.from_numpy(a.copy()).requires_grad_() for a in (hidden, weight))
    logits = w @ h
    logits.retain_grad()
    (-torch.from_numpy(target) * torch.log_softmax(logits, dim=0)).sum().backward()
    column = logits.grad.numpy()
    np.testing.assert_allclose((column.T @ weight).T, h.grad.numpy())
    np.testing.assert_allclose(column @ hidden.T, w.grad.numpy())
    for line in (lambda: column.T @ hidden.T, lambda: column @ weight):
        with pytest.raises(ValueError, match="mismatch"):
            line()
    last, loss = Linear(weight, np.zeros(3)), SoftmaxCrossEntropy()
    loss.forward(last.forward(hidden.T), np.array([1]))
    np.testing.assert_allclose(last.backward(loss.backward()).T, h.grad.numpy())
    np.testing.assert_allclose(last.grad_weight, w.grad.numpy())


class BatchNorm:
    """A batch, and PyTorch's own gradients of its batch norm as references."""

    def __init__(self):
        rng = np.random.default_rng(0)
        self.x, self.grad = rng.normal(1, 2, (5, 3)), rng.normal(size=(5, 3))
        self.gamma, self.beta = rng.normal(2, 1, 3), rng.normal(size=3)
        self.leaves = [torch.from_numpy(a).requires_grad_() for a in (self.x, self.gamma, self.beta)]
        x, gamma, beta = self.leaves
        torch.nn.functional.batch_norm(x, None, None, gamma, beta, True, 0, EPS).backward(torch.from_numpy(self.grad))
        self.grad_x, self.grad_gamma, self.grad_beta = (leaf.grad.numpy().copy() for leaf in self.leaves)
        self.mean, self.root = self.x.mean(axis=0), np.sqrt(self.x.var(axis=0) + EPS)
        self.normalised = (self.x - self.mean) / self.root
        self.g = self.gamma * self.grad

    def ours(self) -> list[np.ndarray]:
        """dL/dx, dL/dγ and dL/dβ of our function."""
        for leaf in self.leaves:
            leaf.grad = None
        BatchNormFunction.apply(*self.leaves, EPS).backward(torch.from_numpy(self.grad))
        return [leaf.grad.numpy() for leaf in self.leaves]


@pytest.mark.erratum("bn-gamma-sample-index")
def test_bn_gamma_sample_index():
    """Without s, x̂ leaves the sum: whichever sample it is taken from, the line is wrong; with s it is PyTorch's."""
    case = BatchNorm()
    for normalised in case.normalised:
        assert misses(case.grad.sum(axis=0) * normalised, case.grad_gamma)
    np.testing.assert_allclose((case.grad * case.normalised).sum(axis=0), case.grad_gamma)
    np.testing.assert_allclose(case.ours()[1], case.grad_gamma)


@pytest.mark.erratum("bn-dropped-factor")
def test_bn_dropped_factor():
    """The line but one, with the terms before it, misses PyTorch's gradient; with x̂ inside the sum it is that."""
    case = BatchNorm()
    samples = len(case.x)
    before = (case.g - case.g.sum(axis=0) / samples) / case.root
    outside = (case.mean - case.x) / (samples * case.root)
    assert misses(before + outside * (case.g / case.root).sum(axis=0), case.grad_x)
    np.testing.assert_allclose(before + outside * (case.g * case.normalised / case.root).sum(axis=0), case.grad_x)
    np.testing.assert_allclose(case.ours()[0], case.grad_x)


@pytest.mark.erratum("bn-wrong-sample-index")
def test_bn_wrong_sample_index():
    """Whichever sample s outside the sum is taken to be, the line is wrong for other samples; r is right for all."""
    case = BatchNorm()
    samples = len(case.x)
    inner = (case.g * case.normalised).sum(axis=0)
    for normalised in case.normalised:
        assert misses((case.g - case.g.mean(axis=0) - normalised / samples * inner) / case.root, case.grad_x)
    ours = (case.g - case.g.mean(axis=0) - case.normalised / samples * inner) / case.root
    np.testing.assert_allclose(ours, case.grad_x)
    np.testing.assert_allclose(case.ours()[0], case.grad_x)


# --- the words --------------------------------------------------------------------------------------------------------


@pytest.mark.erratum("autograd-words")
def test_autograd_words():
    """No module has a method `backward`, nor torch.nn the class; the record is the tensor's."""
    assert not hasattr(torch.nn.Module(), "backward") and not hasattr(torch.nn, "Parameters")
    x = torch.tensor([0.5, -2.0], dtype=torch.float64)
    layer = torch.nn.Linear(2, 2, dtype=torch.float64)
    assert all(isinstance(parameter, torch.nn.Parameter) for parameter in layer.parameters())
    through_module = layer(x).square().sum()
    through_function = (layer.weight @ x + layer.bias).square().sum()
    assert through_module.grad_fn is not None and not layer(x).detach().requires_grad
    gradients = [torch.autograd.grad(loss, layer.weight)[0] for loss in (through_module, through_function)]
    torch.testing.assert_close(*gradients)


@pytest.mark.erratum("batch-norm-words")
def test_batch_norm_words():
    """The output of one sample changes with another of its batch, and with none of another batch."""
    batches = torch.from_numpy(np.random.default_rng(0).normal(size=(2, 4, 3)))

    def first_output(inputs: torch.Tensor) -> torch.Tensor:
        return torch.stack([torch.nn.functional.batch_norm(batch, None, None, training=True) for batch in inputs])[0, 0]

    jacobian = torch.autograd.functional.jacobian(first_output, batches)  # [feature, batch, sample, feature]
    assert all(abs(jacobian[j, 0, s, j]) > 1e-3 for j in range(3) for s in range(4))
    assert not jacobian[:, 1].any()


@pytest.mark.erratum("convolution-words")
def test_convolution_words():
    """Of a spot far from the borders, shifted by a pixel: another output, and the first one shifted."""
    rng = np.random.default_rng(0)
    image, kernel = torch.zeros(1, 1, 9, 9, dtype=torch.float64), torch.from_numpy(rng.normal(size=(1, 1, 3, 3)))
    image[..., 3:6, 3:6] = torch.from_numpy(rng.normal(size=(3, 3)))
    before, after = (torch.nn.functional.conv2d(i, kernel, padding=1) for i in (image, image.roll(1, dims=2)))
    assert misses(after.numpy(), before.numpy())
    torch.testing.assert_close(after.roll(-1, dims=2), before)


# --- the code ---------------------------------------------------------------------------------------------------------


def small_batch() -> tuple[np.ndarray, np.ndarray]:
    """A batch of eight points in the plane, and their two classes."""
    rng = np.random.default_rng(0)
    return rng.normal(size=(8, 2)), np.array([0, 1, 1, 0, 1, 0, 1, 1])


@pytest.mark.erratum("bias-averaged-twice")
def test_bias_averaged_twice():
    """A gradient check: the mean of gradients that hold 1/B already is too small by the factor B, our sum is right."""
    x, targets = small_batch()
    layer, loss = Linear(np.array([[0.3, -0.2], [0.1, 0.4]]), np.array([0.2, -0.1])), SoftmaxCrossEntropy()
    h, checked = 1e-6, np.empty(2)
    for i in range(2):
        sides = [Linear(layer.weight, layer.bias + sign * h * np.eye(2)[i]).forward(x) for sign in (1, -1)]
        checked[i] = (loss.forward(sides[0], targets) - loss.forward(sides[1], targets)) / (2 * h)
    loss.forward(layer.forward(x), targets)
    grad = loss.backward()
    layer.backward(grad)
    original = grad.mean(axis=0)
    assert misses(original, checked)
    np.testing.assert_allclose(len(x) * original, checked, rtol=1e-6)
    np.testing.assert_allclose(layer.grad_bias, checked, rtol=1e-6)


@pytest.mark.erratum("log-with-a-constant")
def test_log_with_a_constant():
    """Through the softmax, the line has PyTorch's gradient for equal logits, nearly none for others."""

    def line(logits: np.ndarray) -> np.ndarray:
        x = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
        return (np.diag(x) - np.outer(x, x)) @ (-np.eye(3)[0] / (x + 1e-9))

    def reference(logits: np.ndarray) -> np.ndarray:
        z = torch.from_numpy(logits).requires_grad_()
        torch.nn.functional.cross_entropy(z, torch.tensor(0)).backward()
        return z.grad.numpy()

    equal, apart = np.zeros(3), np.array([0.0, 30.0, -5.0])
    np.testing.assert_allclose(line(equal), reference(equal), rtol=1e-8)
    assert np.abs(line(apart)).max() < 1e-3 and np.abs(reference(apart)).max() > 0.999
    for logits in (equal, apart):
        module = SoftmaxCrossEntropy()
        module.forward(logits[None], np.array([0]))
        np.testing.assert_allclose(module.backward()[0], reference(logits), atol=1e-12)


@pytest.mark.erratum("never-eval-mode")
def test_never_eval_mode():
    """In training mode an image's logits depend on its batch, and the averages move; in eval mode neither."""
    settings = Settings(
        kind="torch-vgg",
        optimiser="adam",
        learning_rate=1e-4,
        steps=1,
        batch_size=32,
        preprocessing="mean-image",
        evaluate_every=1,
        evaluation_images=1,
        threads=1,
        batch_norm="torch",
    )
    model = vgg.build(settings, (3, 17, 17), 10, seed=0)
    images = torch.from_numpy(np.random.default_rng(0).normal(0, 60, (6, 3, 17, 17)).astype(np.float32))

    def logits_of_first() -> list[np.ndarray]:
        with torch.no_grad():
            return [model(batch)[0].numpy() for batch in (images[:4], images[[0, 4, 5]])]

    def averages() -> np.ndarray:
        return np.concatenate([b.double().numpy().ravel() for b in model.buffers()])

    before = averages()
    assert misses(*logits_of_first())
    trained = averages()
    assert misses(trained, before)
    model.eval()
    first, second = logits_of_first()
    np.testing.assert_allclose(first, second, rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(averages(), trained)


@pytest.mark.erratum("one-batch-accuracy")
def test_one_batch_accuracy():
    """0.84 of 32 images agrees with a training accuracy equal to the test's and with one far above; 50,000 tell."""
    test_accuracy = 0.79
    one_batch = binomtest(round(0.84 * 32), 32).proportion_ci(0.95)
    assert one_batch.low < test_accuracy and one_batch.high > test_accuracy + 0.1
    whole_split = binomtest(round(0.84 * 50_000), 50_000).proportion_ci(0.95)
    assert whole_split.low > test_accuracy and whole_split.high - whole_split.low < 0.01


# --- the list itself --------------------------------------------------------------------------------------------------


def test_concordance_is_whole():
    """Each numbered equation of the original has one row, and the terms of batch norm have nine."""
    table = (ROOT / "report/sections/concordance.tex").read_text()
    rows = re.findall(r"^    \\?(?:theirs\{)?(\d+|--)\}? & [^&]* & [^&]*\\eqref\{eq:[^&]*&", table, re.MULTILINE)
    assert [row for row in rows if row != "--"] == [str(number) for number in range(1, 30)]
    assert rows.count("--") == 9


def test_every_entry_has_a_test(request: pytest.FixtureRequest):
    """The entries of the report's erratum and the marks in this file are the same."""
    printed = re.findall(r"^\\slip\{([a-z0-9-]+)\}", (ROOT / "report/sections/erratum.tex").read_text(), re.MULTILINE)
    marks = [
        mark.args[0]
        for value in vars(request.module).values()
        for mark in getattr(value, "pytestmark", [])
        if mark.name == "erratum"
    ]
    assert sorted(marks) == sorted(printed)
    assert len(set(printed)) == len(printed)
