"""Convolution, pooling and cost: the section `cnn` of the report, against PyTorch's layers and differentiation."""

import itertools

import numpy as np
import pytest
import torch

from cifar_report.models.numpy_nn import mlp as numpy_mlp
from cifar_report.models.torch_nn import vgg
from cifar_report.models.torch_nn.batchnorm import ManualBatchNorm
from cifar_report.training import numpy_trainer, torch_trainer

from .helpers import settings, vgg_pool

IN, OUT, HEIGHT, WIDTH = 2, 3, 4, 5
HALF = 1  # of the kernel's width, as in the report
OFFSETS = range(-HALF, HALF + 1)


def layer_and_image(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Weight (out, in, 3, 3), bias (out,) and image (in, height, width)."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=(OUT, IN, 3, 3)), rng.normal(size=OUT), rng.normal(size=(IN, HEIGHT, WIDTH))


def at(image: np.ndarray, c: int, p: int, q: int) -> float:
    """A value of an image, zero outside."""
    return image[c, p, q] if 0 <= p < image.shape[1] and 0 <= q < image.shape[2] else 0.0


def torch_convolution(weight: np.ndarray, bias: np.ndarray, image: np.ndarray, grad: np.ndarray | None = None):
    """PyTorch's convolution of one image, and, given dL/d(output), the gradients by weight, bias and image."""
    tensors = [torch.from_numpy(a.copy()).requires_grad_() for a in (weight, bias, image)]
    out = torch.nn.functional.conv2d(tensors[2][None], tensors[0], tensors[1], padding=HALF)[0]
    if grad is None:
        return out.detach().numpy()
    out.backward(torch.from_numpy(grad))
    return [t.grad.numpy() for t in tensors]


@pytest.mark.equation("eq:conv", how="numeric")
def test_conv():
    """Sums over channels and window, written out, against PyTorch's convolution."""
    weight, bias, image = layer_and_image()
    out = np.empty((OUT, HEIGHT, WIDTH))
    for o, p, q in np.ndindex(out.shape):
        out[o, p, q] = bias[o] + sum(
            weight[o, c, u + HALF, v + HALF] * at(image, c, p + u, q + v)
            for c, u, v in itertools.product(range(IN), OFFSETS, OFFSETS)
        )
    np.testing.assert_allclose(out, torch_convolution(weight, bias, image), rtol=1e-12)


def weight_matrix(weight: np.ndarray) -> np.ndarray:
    """The weight of the linear layer that the convolution is."""
    whole = np.zeros((OUT, HEIGHT, WIDTH, IN, HEIGHT, WIDTH))
    for o, p, q, c, p_in, q_in in np.ndindex(whole.shape):
        if abs(p_in - p) <= HALF and abs(q_in - q) <= HALF:
            whole[o, p, q, c, p_in, q_in] = weight[o, c, p_in - p + HALF, q_in - q + HALF]
    return whole.reshape(OUT * HEIGHT * WIDTH, IN * HEIGHT * WIDTH)


@pytest.mark.equation("eq:conv-matrix", how="numeric")
def test_conv_matrix():
    """The patterned matrix times the image as a vector is PyTorch's convolution; its transpose takes gradients back."""
    weight, bias, image = layer_and_image()
    whole = weight_matrix(weight)
    out = (whole @ image.ravel()).reshape(OUT, HEIGHT, WIDTH) + bias[:, None, None]
    np.testing.assert_allclose(out, torch_convolution(weight, bias, image), rtol=1e-12)
    grad = np.random.default_rng(1).normal(size=(OUT, HEIGHT, WIDTH))
    through = (whole.T @ grad.ravel()).reshape(IN, HEIGHT, WIDTH)
    np.testing.assert_allclose(through, torch_convolution(weight, bias, image, grad)[2], rtol=1e-11, atol=1e-13)


@pytest.mark.equation("eq:conv-parameters", "eq:linear-parameters", how="numeric")
def test_parameters():
    """Both counts against PyTorch's layers; with them, the VGG has the number of parameters of its docstring."""

    def convolution(channels: int, out: int) -> int:
        return out * (channels * (2 * HALF + 1) ** 2 + 1)

    def size(layer: torch.nn.Module) -> int:
        return sum(w.numel() for w in layer.parameters())

    assert convolution(IN, OUT) == size(torch.nn.Conv2d(IN, OUT, 3, padding=1))
    positions = HEIGHT * WIDTH
    assert OUT * positions * (IN * positions + 1) == size(torch.nn.Linear(IN * positions, OUT * positions))
    channels = (3, *(entry for entry in vgg.PLAN if entry != "pool"))
    pairs = list(itertools.pairwise(channels))
    norms = 2 * sum(channels[1:])
    assert sum(convolution(*pair) for pair in pairs) + norms + 10 * (channels[-1] + 1) == 9_231_114


@pytest.mark.equation("eq:conv-shift", how="numeric")
def test_conv_shift():
    """An image moved down and one moved to the right move the output, away from the borders."""
    weight, bias, _ = layer_and_image()
    image = np.random.default_rng(2).normal(size=(IN, 9, 9))
    out, d = torch_convolution(weight, bias, image), 2
    for axis in (1, 2):
        moved = np.zeros_like(image)
        to, source = [slice(None)] * 3, [slice(None)] * 3
        to[axis], source[axis] = slice(d, None), slice(None, -d)
        moved[tuple(to)] = image[tuple(source)]
        moved_out = torch_convolution(weight, bias, moved)
        inner = range(d + HALF, 9 - HALF)
        for p, q in itertools.product(inner, inner):
            old = (p - d, q) if axis == 1 else (p, q - d)
            np.testing.assert_allclose(moved_out[:, p, q], out[:, old[0], old[1]], rtol=1e-12)


@pytest.mark.equation("eq:conv-grad-weight", "eq:conv-grad-bias", "eq:conv-grad-input", how="numeric")
def test_conv_gradients():
    """All three sums, written out, against PyTorch's differentiation."""
    weight, bias, image = layer_and_image()
    grad = np.random.default_rng(1).normal(size=(OUT, HEIGHT, WIDTH))
    places = list(itertools.product(range(HEIGHT), range(WIDTH)))
    by_weight, by_bias, by_image = np.empty_like(weight), np.empty_like(bias), np.empty_like(image)
    for o, c, u, v in itertools.product(range(OUT), range(IN), OFFSETS, OFFSETS):
        by_weight[o, c, u + HALF, v + HALF] = sum(grad[o, p, q] * at(image, c, p + u, q + v) for p, q in places)
    for o in range(OUT):
        by_bias[o] = sum(grad[o, p, q] for p, q in places)
    for c, p, q in np.ndindex(image.shape):
        by_image[c, p, q] = sum(
            weight[o, c, u + HALF, v + HALF] * at(grad, o, p - u, q - v)
            for o, u, v in itertools.product(range(OUT), OFFSETS, OFFSETS)
        )
    expected = torch_convolution(weight, bias, image, grad)
    for formula, reference in zip((by_weight, by_bias, by_image), expected, strict=True):
        np.testing.assert_allclose(formula, reference, rtol=1e-11, atol=1e-13)


def windows(height: int, width: int) -> dict[tuple[int, int], list[tuple[int, int]]]:
    """The positions within the map of each window of the study's max pool."""
    rows, columns = (height + 1) // 2, (width + 1) // 2
    return {
        (p, q): [
            (2 * p + u, 2 * q + v)
            for u, v in itertools.product((-1, 0, 1), repeat=2)
            if 0 <= 2 * p + u < height and 0 <= 2 * q + v < width
        ]
        for p, q in itertools.product(range(rows), range(columns))
    }


@pytest.mark.written_for("eq:max-pool-grad", "cb2307a647e3b60929d1794d648eca02aff894d84d1ee216ff1742052eaf098c")
@pytest.mark.equation("eq:max-pool", "eq:max-pool-grad", how="numeric")
def test_max_pool():
    """Maxima over windows, and the gradient to where they lie, against the VGG's pool and PyTorch's differentiation."""
    rng = np.random.default_rng(0)
    layer = vgg_pool()
    for height, width in ((6, 8), (5, 7)):
        image = rng.normal(size=(2, height, width)) - 5  # negative, so that a padding of zeros would show
        x = torch.from_numpy(image.copy()).requires_grad_()
        reference = layer(x[None])[0]
        grad = rng.normal(size=reference.shape)
        reference.backward(torch.from_numpy(grad))
        out, by_image = np.empty(reference.shape), np.zeros_like(image)
        for c in range(2):
            for (p, q), places in windows(height, width).items():
                largest = max(places, key=lambda place: image[c, *place])
                out[c, p, q] = image[c, *largest]
                by_image[c, *largest] += grad[c, p, q]
        np.testing.assert_array_equal(out, reference.detach().numpy())
        np.testing.assert_allclose(by_image, x.grad.numpy(), rtol=1e-12)


@pytest.mark.equation("eq:conv-bn-mean", "eq:conv-bn-var", how="numeric")
def test_conv_batch_norm():
    """Normalised by sums over images and positions, and by the code with a position a sample, against BatchNorm2d."""
    x = np.random.default_rng(0).normal(2.0, 3.0, (3, IN, HEIGHT, WIDTH))
    count = 3 * HEIGHT * WIDTH
    reference = torch.nn.BatchNorm2d(IN).double()
    expected = reference(torch.from_numpy(x)).detach()
    rows = torch.from_numpy(x).permute(0, 2, 3, 1).reshape(count, IN)
    ours = ManualBatchNorm(IN).double()
    again = ours(rows).detach().reshape(3, HEIGHT, WIDTH, IN).permute(0, 3, 1, 2)
    torch.testing.assert_close(again, expected)
    torch.testing.assert_close(ours.running_var, reference.running_var)
    for c in range(IN):
        mean = sum(x[s, c, p, q] for s, p, q in np.ndindex(3, HEIGHT, WIDTH)) / count
        variance = sum((x[s, c, p, q] - mean) ** 2 for s, p, q in np.ndindex(3, HEIGHT, WIDTH)) / count
        np.testing.assert_allclose((x[:, c] - mean) / np.sqrt(variance + 1e-5), expected[:, c].numpy(), rtol=1e-10)


@pytest.mark.equation("eq:flops", how="numeric")
def test_flops():
    """Twice the multiplications, counted layer by layer for the VGG and the perceptron; the trainers count the same."""
    images, labels = np.zeros((8, 3, 32, 32), np.uint8), np.arange(8)
    small = settings(kind="torch-vgg", hidden=(), slope=0.0, batch_norm="torch", precision="float32")
    side, channels, expected = 32, 3, 0
    for entry in vgg.PLAN:
        if entry == "pool":
            side //= 2
        else:
            expected += 2 * (channels * entry * (2 * HALF + 1) ** 2) * side * side
            channels = entry
    expected += 2 * channels * 10
    trainer = torch_trainer.Trainer(vgg.build, small, images, labels, 10, seed=0)
    assert trainer.count()["forward_flops"] == expected
    perceptron = numpy_trainer.Trainer(numpy_mlp.build, settings(), images, labels, 10, seed=0)
    sizes = (3 * 32 * 32, *settings().hidden, 10)
    assert perceptron.count()["forward_flops"] == 2 * sum(a * b for a, b in itertools.pairwise(sizes))
