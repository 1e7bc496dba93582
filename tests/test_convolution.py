"""The VGG's convolutions, computed in two ways, against PyTorch's; their layout; initial weights and other recipes."""

import copy
import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from cifar_report.base.randomness import initial_parameters
from cifar_report.models.torch_nn import convolution, mlp, vgg
from cifar_report.models.torch_nn.convolution import Convolution, by_products
from cifar_report.models.torch_nn.initial import draw_parameters
from cifar_report.study.settings import Settings
from cifar_report.training import torch_trainer
from cifar_report.training.batches import Order, draw_augmentation

VGG = Settings(
    kind="torch-vgg",
    optimiser="adam",
    learning_rate=1e-4,
    steps=10,
    batch_size=4,
    preprocessing="standardise",
    evaluate_every=10,
    evaluation_images=4,
    threads=1,
    batch_norm="torch",
)
SHAPES = [(1, 1), (2, 2), (1, 3), (4, 4), (3, 5), (16, 16)]
WAYS = pytest.mark.parametrize("largest", [0, 10**6], ids=["library", "products"])


def drawn(inputs: int, outputs: int) -> Convolution:
    """A layer of float64 whose values are all far from zero."""
    layer = Convolution(inputs, outputs).double()
    draw_parameters(layer, seed=0, std=None)
    return layer


@WAYS
@pytest.mark.parametrize("channels_last", [True, False])
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("inputs", [1, 3])
@pytest.mark.parametrize("shape", SHAPES)
def test_convolution_is_that_of_pytorch(monkeypatch, shape, inputs, batch, channels_last, largest):
    """Output and all three gradients, to rounding, on maps of any size."""
    monkeypatch.setattr(convolution, "LARGEST_MAP", largest)
    layer = drawn(inputs, 5)
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(batch, inputs, *shape, generator=rng, dtype=torch.float64)
    grad = torch.randn(batch, 5, *shape, generator=rng, dtype=torch.float64)
    theirs = [t.detach().clone().requires_grad_() for t in (x, layer.state_dict()["weight"], layer.bias)]
    expected = nn.functional.conv2d(*theirs, padding=1)
    expected.backward(grad)
    if channels_last:
        x, grad = (t.contiguous(memory_format=torch.channels_last) for t in (x, grad))
    x.requires_grad_()
    before = copy.deepcopy(layer.state_dict())
    y = layer(x)
    assert all(torch.equal(tensor, before[name]) for name, tensor in layer.state_dict().items())
    y.backward(grad)
    gradients = (x.grad, layer.weight.grad.permute(0, 3, 1, 2), layer.bias.grad)
    for ours, reference in zip((y, *gradients), (expected, *(t.grad for t in theirs)), strict=True):
        torch.testing.assert_close(ours, reference, rtol=1e-12, atol=1e-12)


@WAYS
def test_convolution_has_the_derivatives_of_its_formula(monkeypatch, largest):
    monkeypatch.setattr(convolution, "LARGEST_MAP", largest)
    layer = drawn(2, 3)
    x = torch.randn(2, 2, 2, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64).requires_grad_()

    def function(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(layer, {"weight": weight, "bias": bias}, x)

    assert torch.autograd.gradcheck(function, (x, layer.weight, layer.bias))


def test_a_second_derivative_of_the_products_is_refused():
    """Rather than silently wrong."""
    layer = drawn(2, 3)
    x = torch.randn(1, 2, 2, 2, dtype=torch.float64).requires_grad_()
    (first,) = torch.autograd.grad(layer(x).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.sum().backward()


def test_rule_is_of_shape_device_and_precision():
    def maps(*shape: int, device: str = "cpu") -> torch.Tensor:
        return torch.empty(1, 1, *shape, device=device)

    assert by_products(maps(4, 4)) and by_products(maps(1, 16)) and by_products(maps(1, 1))
    assert not by_products(maps(5, 4)) and not by_products(maps(32, 32))
    assert not by_products(maps(2, 2, device="meta"))
    with torch.autocast("cpu", torch.bfloat16):
        assert not by_products(maps(2, 2))


@WAYS
def test_no_gradient_is_copied(monkeypatch, largest):
    """Weight, gradient and moments are contiguous, and the output has its channels last."""
    monkeypatch.setattr(convolution, "LARGEST_MAP", largest)
    layer = Convolution(8, 16)
    draw_parameters(layer, seed=0, std=None)
    optimiser = torch.optim.Adam(layer.parameters(), fused=True)
    x = torch.ones(2, 8, 4, 4).contiguous(memory_format=torch.channels_last).requires_grad_()
    y = layer(x)
    assert y.is_contiguous(memory_format=torch.channels_last)
    y.square().sum().backward()
    optimiser.step()
    for tensor in (layer.weight, layer.weight.grad, *optimiser.state[layer.weight].values()):
        assert tensor.is_contiguous()


def test_products_copy_nothing_of_the_weight_s_size():
    layer = Convolution(256, 256)
    draw_parameters(layer, seed=0, std=None)
    optimiser = torch.optim.Adam(layer.parameters(), fused=True)
    x = torch.ones(2, 256, 2, 2).contiguous(memory_format=torch.channels_last)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], record_shapes=True) as profile:
        for _ in range(2):
            layer(x).square().sum().backward()
            optimiser.step()
    copies = [event for event in profile.events() if event.name == "aten::copy_"]
    assert all(np.prod(event.input_shapes[0]) < layer.weight.numel() for event in copies)


def test_state_dict_has_the_shape_of_pytorch_s():
    """And goes through a copy, an average and a layer of PyTorch's and back."""
    theirs = nn.Conv2d(3, 5, 3, padding=1)
    ours = Convolution(3, 5)
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(2, 3, 6, 7, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(ours(x), theirs(x))
    average = AveragedModel(nn.Sequential(ours), multi_avg_fn=get_ema_multi_avg_fn(0.5), use_buffers=True)
    average.update_parameters(nn.Sequential(ours))
    for state, prefix in (
        (ours.state_dict(), ""),
        (copy.deepcopy(ours).state_dict(), ""),
        (nn.Sequential(ours).state_dict(), "0."),
        (average.state_dict(), "module.0."),
    ):
        for name, tensor in theirs.state_dict().items():
            assert torch.equal(state[prefix + name], tensor)
    again = copy.deepcopy(average)
    with torch.no_grad():
        again.module[0].weight.zero_()
    given = average.state_dict()
    again.load_state_dict(given)
    assert torch.equal(again.module[0].weight, ours.weight) and again.module[0].weight.is_contiguous()
    assert given["module.0.weight"].shape == (5, 3, 3, 3)  # what the caller holds is left as it was


def test_initial_weights_are_those_of_pytorch_s_layers():
    """Drawn in shape (out, in, 3, 3), as a layer of PyTorch's draws them."""
    model = nn.Sequential(Convolution(3, 5), nn.Conv2d(5, 4, 3), nn.Linear(4, 2))
    draw_parameters(model, seed=7, std=None)
    for index, shape in enumerate(((5, 3, 3, 3), (4, 5, 3, 3), (2, 4))):
        weight, bias = initial_parameters(7, index, shape, None)
        np.testing.assert_array_equal(model.state_dict()[f"{index}.weight"], weight.astype(np.float32))
        np.testing.assert_array_equal(model.state_dict()[f"{index}.bias"], bias.astype(np.float32))


def test_initial_weights_of_layers_without_a_bias():
    class Own(nn.Conv2d):
        """With a parameter more."""

        def __init__(self):
            super().__init__(4, 6, 3, groups=2, bias=False)
            self.gain = nn.Parameter(torch.full((1,), 2.0))

    model = nn.Sequential(nn.Conv2d(3, 4, 1, bias=False), Own(), nn.Linear(6, 2, bias=False))
    draw_parameters(model, seed=7, std=0.1)
    for index, shape in enumerate(((4, 3, 1, 1), (6, 2, 3, 3), (2, 6))):
        weight, _ = initial_parameters(7, index, shape, 0.1)
        np.testing.assert_array_equal(model[index].weight.detach(), weight.astype(np.float32))
    assert model[1].gain.item() == 2


# --- the whole network ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(3, 17, 17), (1, 28, 28), (4, 40, 33), (3, 17, 96)])
def test_vgg_takes_any_size(shape):
    """The last map's average is a map of one position's only value."""
    model = vgg.build(VGG, shape, 7, seed=0).eval()
    x = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        logits = model(x)
        *features, linear = model
        maps = nn.Sequential(*features[:-2])(x)
    assert logits.shape == (2, 7)
    torch.testing.assert_close(logits, linear(maps.mean(dim=(2, 3))))
    if shape == (3, 17, 17):
        assert maps.shape == (2, 512, 1, 1) and torch.equal(logits, linear(maps.flatten(1)))


def test_vgg_refuses_sides_below_17():
    with pytest.raises(ValueError, match="17 pixels or more, got 16×40"):
        vgg.build(VGG, (3, 16, 40), 10, seed=0)


def images(count: int = 12, shape: tuple[int, int, int] = (3, 17, 17)) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (count, *shape), dtype=np.uint8), rng.integers(0, 10, count)


@pytest.mark.parametrize(
    "change",
    [
        {"optimiser": "sgd", "momentum": 0.9, "learning_rate": 0.01},
        {"optimiser": "sgd", "momentum": 0.9, "nesterov": True, "average_decay": 0.9, "bias_rate": 64.0},
        {"optimiser": "adam"},
        {"optimiser": "adamw", "average_decay": 0.9, "weight_decay": 0.1, "flip": True, "alternate_flips": True},
    ],
    ids=["sgd", "sgd-average-bias-rate", "adam", "adamw-average-flips"],
)
def test_a_resumed_vgg_equals_an_undisturbed_one(change):
    """To the bit: the layout in memory of a weight and its moments comes back."""
    settings = dataclasses.replace(VGG, **change)
    undisturbed, resumed = (torch_trainer.Trainer(vgg.build, settings, *images(), 10, seed=0) for _ in range(2))
    undisturbed.advance(2)
    resumed.restore({name: array.copy() for name, array in undisturbed.state().items()}, 2)
    for trainer in (undisturbed, resumed):
        trainer.advance(4)
    for a, b in zip(undisturbed.state().values(), resumed.state().values(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_saved_weights_of_the_vgg():
    trainer = torch_trainer.Trainer(vgg.build, VGG, *images(), 10, seed=0)
    saved = trainer.parameters()
    assert saved["0.weight"].shape == (64, 3, 3, 3) and saved["0.weight"].flags.c_contiguous
    weight, _ = initial_parameters(0, 0, (64, 3, 3, 3), None)
    np.testing.assert_array_equal(saved["0.weight"], weight.astype(np.float32))
    assert trainer.count()["parameters"] == 9_231_114


def test_denormal_numbers_are_flushed_in_training_and_evaluation_alone(monkeypatch):
    """In single and double precision."""
    small = torch.tensor(1e-40), torch.tensor(1e-310, dtype=torch.float64)

    def kept():
        return [(number * 1).item() != 0 for number in small]

    settings = dataclasses.replace(VGG, kind="torch-mlp", hidden=(4,))
    trainer = torch_trainer.Trainer(mlp.build, settings, *images(), 10, seed=0)
    inside = []
    trainer.model.register_forward_hook(lambda *_: inside.append(kept()))
    trainer.advance(1)
    trainer.logits(images()[0])
    assert inside == [[False, False]] * 2 and kept() == [True, True]


# --- recipes ----------------------------------------------------------------------------------------------------------


def test_dirac_begins_as_the_identity():
    """As torch.nn.init.dirac_ on the first output channels; the rest and the biases stay as they were drawn."""
    plain, begun = (vgg.build(dataclasses.replace(VGG, dirac=d), (3, 17, 17), 10, seed=0) for d in (False, True))
    x = torch.randn(2, 3, 5, 5, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(begun[0](x)[:, :3], x + begun[0].bias[:3, None, None])
    before, after = plain.state_dict(), begun.state_dict()
    count = 0
    for name, tensor in before.items():
        if tensor.ndim == 4:
            n = min(tensor.shape[:2])
            nn.init.dirac_(tensor[:n])
            count += 1
        assert torch.equal(after[name], tensor)
    assert count == 8


@pytest.mark.parametrize("build, batch_norm", [(vgg.build, "torch"), (mlp.build, "manual"), (mlp.build, "autograd")])
def test_bias_rate(build, batch_norm):
    """After one step of plain gradient descent, batch norm's biases have moved so many times as far, decay apart."""
    settings = dataclasses.replace(
        VGG,
        optimiser="sgd",
        learning_rate=0.01,
        hidden=(5,),
        batch_norm=batch_norm,
        weight_decay=0.5,
        precision="float64",
    )
    moved = []
    for rate in (1.0, 8.0):
        trainer = torch_trainer.Trainer(build, dataclasses.replace(settings, bias_rate=rate), *images(), 10, seed=0)
        assert len(trainer.optimiser.param_groups) == (1 if rate == 1 else 2)
        with torch.no_grad():
            for parameter in trainer.model.parameters():
                parameter.add_(0.1)  # so that there is something to decay
        before = {name: value.copy() for name, value in trainer.parameters().items()}
        trainer.advance(1)
        moved.append({name: value - before[name] for name, value in trainer.parameters().items()})
        decay = {name: -0.01 * 0.5 * value for name, value in before.items()}
    biases = [name + ".bias" for name, module in trainer.model.named_modules() if hasattr(module, "running_mean")]
    assert len(biases) == (8 if build is vgg.build else 1)
    for name, value in moved[0].items():
        if name in biases:
            gradient = value - decay[name]
            np.testing.assert_allclose(moved[1][name] - decay[name], 8 * gradient, rtol=1e-6, atol=1e-14)
            assert np.abs(gradient).max() > 1e-9
        else:
            np.testing.assert_array_equal(moved[1][name], value)


def test_alternate_flips():
    """Each image is mirrored in every second epoch, about half of them in the first; moves stay as they were."""
    settings = SimpleNamespace(flip=True, shift=2, batch_size=50, alternate_flips=True)
    order = Order(1000, 50, seed=3)
    mirrored = np.full((4, 1000), -1)
    for step in range(80):
        flips, moves = draw_augmentation(settings, 3, step, order)
        mirrored[order.epoch(step), order.batch(step)] = flips
        independent, same_moves = draw_augmentation(
            SimpleNamespace(**(vars(settings) | {"alternate_flips": False})), 3, step, order
        )
        assert flips.dtype == independent.dtype == bool and flips.shape == (50,)
        np.testing.assert_array_equal(moves, same_moves)
    assert (mirrored >= 0).all() and 400 < mirrored[0].sum() < 600
    np.testing.assert_array_equal(mirrored[1], 1 - mirrored[0])
    np.testing.assert_array_equal(mirrored[2:], mirrored[:2])
    again = draw_augmentation(settings, 3, 41, Order(1000, 50, seed=3))  # nothing depends on the steps before
    np.testing.assert_array_equal(again[0], mirrored[2][order.batch(41)])
    other = draw_augmentation(settings, 4, 0, Order(1000, 50, seed=4))[0]
    assert not np.array_equal(other, draw_augmentation(settings, 3, 0, order)[0])


def test_independent_flips_are_drawn_as_ever():
    """Bits of finished runs: which images a step mirrors, and where they move."""
    settings = dataclasses.replace(VGG, flip=True, shift=2)
    flips, moves = draw_augmentation(settings, 0, 5, Order(100, 4, seed=0))
    rng = np.random.default_rng(np.random.SeedSequence(0, spawn_key=(2, 5)))
    np.testing.assert_array_equal(flips, rng.random(4) < 0.5)
    np.testing.assert_array_equal(moves, rng.integers(-2, 3, (2, 4)))
