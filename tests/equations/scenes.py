"""The numbers that displays are held against: what the functions of the package, or PyTorch, give for random inputs.

A scene knows nothing of the display's right side. It is made twice, and a display must hold in both draws: sizes differ
from one another, so that a wrong index or transpose has no value, and sizes and scalars differ between the draws, so
that no number can stand for a letter (`test_draws_differ`). No input is 0 or 1 but where the report says so.
"""

import itertools
import math
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import numpy as np
import torch
from torch.autograd.functional import jacobian

from cifar_report.models.numpy_nn.mlp import MLP
from cifar_report.models.numpy_nn.modules import CrossEntropy, LeakyReLU, Linear, Softmax, SoftmaxCrossEntropy
from cifar_report.models.numpy_nn.sgd import SGD
from cifar_report.models.torch_nn.batchnorm import BatchNormFunction, ManualBatchNorm
from cifar_report.models.torch_nn.convolution import Convolution, NineProducts
from cifar_report.training import torch_trainer
from cifar_report.training.batches import learning_rate

from .evaluate import Indexed, Of, Scene
from .helpers import settings, vgg_pool

Values = dict[Any, Any]
DRAWS = (0, 1)
# Before a leaky ReLU: of both signs, and at the kink.
SIGNS = (np.array([-1.3, 0.0, 0.7, -0.4]), np.array([0.9, -0.6, 0.0]))
SLOPES = (0.3, 0.15)


def span(count: int) -> range:
    """1 to count."""
    return range(1, count + 1)


def random(seed: int, *shape: int) -> np.ndarray:
    """Numbers of either sign, none near zero."""
    rng = np.random.default_rng(seed)
    return rng.uniform(0.4, 1.9, shape) * rng.choice([-1, 1], shape)


def scalars(draw: int, count: int) -> list[float]:
    """Numbers between 0.2 and 0.9, such as rates and shares are."""
    return np.random.default_rng(draw).uniform(0.2, 0.9, count).tolist()


def derivative(function: Callable, *at: np.ndarray, by: int = 0) -> np.ndarray:
    """PyTorch's derivative of a function of tensors by one of them: the value's axes, then that tensor's."""
    tensors = [torch.from_numpy(np.asarray(a, float)) for a in at]
    return jacobian(lambda x: function(*tensors[:by], x, *tensors[by + 1 :]), tensors[by]).numpy()


# --- one image -------------------------------------------------------------------------------------------------------


def chain_rule(draw: int) -> list[Scene]:
    """A map of some variables that is not linear, under another one: PyTorch's derivatives of each and of the whole."""
    inputs, outputs = ((2, 3), (3, 2))[draw]

    def inner(x: torch.Tensor) -> torch.Tensor:
        return torch.stack([x[0] ** 2 * x[1], torch.sin(x[-1] * x[1]), torch.exp(x[0] * x[1])][:outputs])

    def outer(y: torch.Tensor) -> torch.Tensor:
        return y[0] * y[1] + y[-1] ** 2

    x = random(0, inputs)
    y = inner(torch.from_numpy(x)).numpy()
    values = {
        ("y", "x"): derivative(inner, x),
        ("L", "y"): derivative(outer, y),
        ("L", "x"): derivative(lambda x: outer(inner(x)), x),
    }
    return [Scene(values, {"i": span(outputs), "j": span(inputs)})]


def linear(draw: int, j: int = 1) -> list[Scene]:
    """`Linear`, forward and backward for one image; its Jacobians are PyTorch's. `j`: of inputs (1) or outputs (0)."""
    sizes = outputs, inputs = ((3, 4), (5, 2))[draw]
    weight, bias, x, arriving = random(0, *sizes), random(1, outputs), random(2, inputs), random(3, outputs)
    module = Linear(weight, bias)
    out = module.forward(x[None])[0]
    grad = module.backward(arriving[None])[0]

    def layer(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.linear(x, weight, bias)

    values = {"W": weight, "b": bias, "x": x, "tilde x": out, "I": np.eye(outputs)}
    values |= {("L", "tilde x"): arriving, ("L", "x"): grad}
    values |= {("L", "W"): module.grad_weight, ("L", "b"): module.grad_bias}
    values |= {("tilde x", by): derivative(layer, x, weight, bias, by=n) for n, by in enumerate(("x", "W", "b"))}
    return [Scene(values, {"i": span(outputs), "j": span(sizes[j]), "k": span(inputs)})]


def leaky_relu(draw: int) -> list[Scene]:
    """`LeakyReLU`, forward and backward for one image; its Jacobian is PyTorch's."""
    before, slope = SIGNS[draw], SLOPES[draw]
    module, arriving = LeakyReLU(slope), random(0, before.size)
    out = module.forward(before[None])[0]
    values = {"tilde x": before, "x": out, "a": slope, "d": module.derivative[0], ("L", "x"): arriving}
    values |= {("L", "tilde x"): module.backward(arriving[None])[0]}
    values |= {("x", "tilde x"): derivative(lambda x: torch.nn.functional.leaky_relu(x, slope), before)}
    return [Scene(values, {"i": span(before.size), "j": span(before.size)})]


def softmax(draw: int) -> list[Scene]:
    """`Softmax`, forward and backward for one image; its Jacobian is PyTorch's."""
    size, xi = ((4, 0.6), (3, -0.35))[draw]
    logits, arriving, module = random(draw, size), random(2 + draw, size), Softmax()
    x = module.forward(logits[None])[0]
    values = {"tilde x": logits, "x": x, "xi": xi, "M": logits.max(), "Z": math.fsum(np.exp(logits))}
    values |= {"1": np.ones(size)}
    values |= {("L", "x"): arriving, ("L", "tilde x"): module.backward(arriving[None])[0]}
    values |= {("x", "tilde x"): derivative(lambda z: torch.softmax(z, 0), logits)}
    return [Scene(values, {"i": span(size), "j": span(size), "k": span(size)})]


def cross_entropy(draw: int) -> list[Scene]:
    """`CrossEntropy` after `Softmax` for one image of each class; behind both, `SoftmaxCrossEntropy`."""
    scenes, size = [], (4, 3)[draw]
    for tau in range(size):
        logits = random(10 * draw + tau, size)
        apart, joined = CrossEntropy(), SoftmaxCrossEntropy()
        x = Softmax().forward(logits[None])
        values: Values = {"tilde x": logits, "x": x[0], "t": np.eye(size)[tau], "tau": tau + 1, "M": logits.max()}
        values["L"] = joined.forward(logits[None], np.array([tau]))
        assert abs(values["L"] - apart.forward(x, np.array([tau]))) < 1e-12
        values |= {("L", "x"): apart.backward()[0], ("L", "tilde x"): joined.backward()[0]}
        scenes.append(Scene(values, {"i": span(size), "j": span(size), "k": span(size)}))
    return scenes


def any_targets(draw: int) -> list[Scene]:
    """Cross entropy with targets that are no class and do not sum to one: PyTorch's derivative by the logits."""
    size = (4, 3)[draw]
    logits, targets = random(0, size), random(1, size)
    x = Softmax().forward(logits[None])[0]
    values = {"x": x, "t": targets}
    values[("L", "tilde x")] = derivative(
        lambda z: -(torch.from_numpy(targets) * torch.log_softmax(z, 0)).sum(), logits
    )
    return [Scene(values, {"i": span(size), "j": span(size)})]


def smoothed_targets(draw: int) -> list[Scene]:
    """PyTorch's cross entropy with label smoothing: its gradient, and the targets that it takes."""
    alpha, sizes = ((0.2, [7, 3]), (0.35, [8, 6, 5]))[draw]
    scenes, classes = [], sizes[-1]
    for tau in range(classes):
        logits = random(10 * draw + tau, classes)

        def loss(z: torch.Tensor, tau: int = tau) -> torch.Tensor:
            return torch.nn.functional.cross_entropy(z[None], torch.tensor([tau]), label_smoothing=alpha)

        x, grad = Softmax().forward(logits[None])[0], derivative(loss, logits)
        even = np.full(classes, 1 / classes)  # where every x is this, the gradient is this less the target
        smoothed = even - derivative(loss, np.log(even))
        values: Values = {"x": x, "t": np.eye(classes)[tau], "t'": smoothed, "alpha": alpha}
        values |= {("L", "tilde x"): grad, "n": np.array(sizes), "N": len(sizes)}
        scenes.append(Scene(values, {"i": span(classes)}))
    return scenes


def small_mlp(draw: int) -> tuple[MLP, np.ndarray, np.ndarray]:
    """An `MLP` of three or four layers, and a batch of seven or eight images for it, with their classes."""
    sizes, count = (((5, 4, 2, 6), 7), ((6, 5, 3, 7, 2), 8))[draw]
    layers = [Linear(random(n, *shape[::-1]), random(n, shape[1])) for n, shape in enumerate(itertools.pairwise(sizes))]
    return MLP(layers, SLOPES[draw]), random(9, count, sizes[0]), np.arange(count) % sizes[-1]


def network(draw: int, without: int = 0) -> list[Scene]:
    """`MLP`, its layers of different sizes, for one image. By what is no parameter the gradients are PyTorch's.

    `without`: how many of the last layers the display is not of.
    """
    mlp, images, classes = small_mlp(draw)
    leaky, number_of_layers = partial(leaky_column, SLOPES[draw]), len(mlp.linears)
    mlp.loss_and_gradients(images[:1], classes[:1])
    before, after = {}, {0: torch.from_numpy(images[0])}
    for number, layer in enumerate(mlp.linears, start=1):
        before[number] = torch.nn.functional.linear(
            after[number - 1], *map(torch.from_numpy, (layer.weight, layer.bias))
        )
        before[number].requires_grad_()
        last = number == len(mlp.linears)
        after[number] = (
            torch.softmax(before[number], 0) if last else torch.nn.functional.leaky_relu(before[number], SLOPES[draw])
        )
        before[number].retain_grad()
        after[number].retain_grad()
    output = after[number_of_layers]
    (-torch.log(output[classes[0]])).backward()
    activations = dict.fromkeys(range(1, number_of_layers), leaky) | {number_of_layers: softmax_column}
    values: Values = {"N": number_of_layers, "f": activations, "leaky ReLU": leaky, "softmax": softmax_column}
    values |= {"x": {n: x.detach().numpy() for n, x in after.items()}, "t": np.eye(len(output))[classes[0]]}
    values |= {"W": {n: layer.weight for n, layer in enumerate(mlp.linears, 1)}}
    values |= {"b": {n: layer.bias for n, layer in enumerate(mlp.linears, 1)}}
    values |= {"d": {n: module.derivative[0] for n, module in enumerate(mlp.modules[1::2], 1)}}
    values |= {("L", "tilde x"): {n: z.grad.numpy() for n, z in before.items()}}
    values |= {("L", "x"): {n: after[n].grad.numpy() for n in before}}
    values |= {("L", "W"): {n: layer.grad_weight for n, layer in enumerate(mlp.linears, 1)}}
    values |= {("L", "b"): {n: layer.grad_bias for n, layer in enumerate(mlp.linears, 1)}}
    return [Scene(values, {"l": span(number_of_layers - without)})]


def leaky_column(slope: float, x: np.ndarray) -> np.ndarray:
    """The code's activation function of a column."""
    return LeakyReLU(slope).forward(x)


def softmax_column(x: np.ndarray) -> np.ndarray:
    """The code's softmax of a column."""
    return Softmax().forward(x.T).T


# --- batches ---------------------------------------------------------------------------------------------------------


def batch_loss(draw: int) -> list[Scene]:
    """`MLP` and its loss for a batch, and for each of its images; one scene for each of some parameters."""
    mlp, images, classes = small_mlp(draw)
    losses, single = [], []
    for s in range(len(images)):
        losses.append(mlp.loss_and_gradients(images[s : s + 1], classes[s : s + 1]))
        single.append({name: g.ravel().copy() for name, g in mlp.gradients().items()})
    loss = mlp.loss_and_gradients(images, classes)
    x = Softmax().forward(mlp.forward(images))
    values: Values = {"B": len(x), "L": loss, "L_": np.array(losses), "T": np.eye(x.shape[1])[classes], "X": x}
    ranges = {"s": span(len(x)), "i": span(x.shape[1])}
    scenes = []
    for name, g in mlp.gradients().items():
        by_image = np.array([gradients[name][0] for gradients in single])
        scenes.append(Scene(values | {("L", "w"): g.ravel()[0], ("L_", "w"): by_image}, ranges))
    return scenes


def batch_logits(draw: int) -> list[Scene]:
    """`SoftmaxCrossEntropy` for a batch."""
    last, size, classes = ((2, 3, [0, 2, 1, 1, 0]), (3, 6, [5, 0, 3, 3]))[draw]
    logits, module = random(0, len(classes), size), SoftmaxCrossEntropy()
    module.forward(logits, np.array(classes))
    x = Softmax().forward(logits)
    values = {"B": len(classes), "N": last, "X": {last: x}, "G": {last: module.backward()}}
    return [Scene(values | {"T": np.eye(size)[classes]})]


def batch_linear(draw: int) -> list[Scene]:
    """`Linear`, forward and backward for a batch."""
    samples, outputs, inputs = ((5, 3, 4), (4, 5, 3))[draw]
    weight, bias, x, grad = (
        random(0, outputs, inputs),
        random(1, outputs),
        random(2, samples, inputs),
        random(3, samples, outputs),
    )
    module = Linear(weight, bias)
    out = module.forward(x)
    values = {
        "W": weight,
        "b": bias,
        "X": x,
        "tilde X": out,
        "G": grad,
        "1": np.ones(samples),
        ("L", "X"): module.backward(grad),
    }
    values |= {("L", "W"): module.grad_weight, ("L", "b"): module.grad_bias}
    return [Scene(values, {"s": span(samples), "i": span(outputs), "k": span(inputs)})]


def batch_leaky_relu(draw: int) -> list[Scene]:
    """`LeakyReLU`, forward and backward for a batch."""
    signs, slope = SIGNS[draw], SLOPES[draw]
    before, module = np.array([signs, -signs, signs[::-1]][draw:]), LeakyReLU(slope)
    grad = random(0, *before.shape)
    values = {"X": module.forward(before), "tilde X": before, "a": slope, ("L", "X"): grad}
    values |= {"D": module.derivative, ("L", "tilde X"): module.backward(grad)}
    return [Scene(values, {"s": span(len(before)), "i": span(signs.size)})]


def batch_softmax(draw: int) -> list[Scene]:
    """`Softmax`, forward and backward for a batch."""
    samples, size = ((3, 4), (5, 3))[draw]
    logits, grad, module = random(0, samples, size), random(1, samples, size), Softmax()
    values = {"X": module.forward(logits), ("L", "X"): grad, ("L", "tilde X"): module.backward(grad)}
    return [Scene(values, {"s": span(samples), "i": span(size), "j": span(size)})]


# --- steps, and how long they are ------------------------------------------------------------------------------------


def loss_of(w: Any) -> Any:
    """Some loss of one parameter, for real and complex numbers."""
    return np.sin(w) * np.exp(0.3 * w)


def slope_of(w: float) -> float:
    """Its derivative, by PyTorch."""
    return float(derivative(lambda w: torch.sin(w) * torch.exp(0.3 * w), np.array(w)))


def sgd_steps(rate: float, count: int = 4, **options: Any) -> dict[str, list[float]]:
    """Steps of `SGD` down that loss: parameter, gradient and velocity, one more of parameter and velocity."""
    w = np.array([0.9])
    optimiser = SGD({"w": w}, **options)
    steps: dict[str, list[float]] = {"w": [0.9], "g": [], "v": [0.0]}
    for _ in range(count):
        gradient = slope_of(w[0])
        optimiser.step({"w": np.array([gradient])}, rate)
        steps["g"].append(gradient)
        steps["w"].append(float(w[0]))
        steps["v"].append(float(optimiser.velocity["w"][0]) if optimiser.velocity else 0.0)
    return steps


def sgd(draw: int, with_momentum: bool = False) -> list[Scene]:
    """Each of four steps of `SGD`: for the velocity, and for the parameter after it. Else m and v mean nothing."""
    rate, momentum = scalars(draw, 2)
    steps = sgd_steps(rate, momentum=momentum if with_momentum else 0.0)
    scenes = []
    for k in range(4):
        values: Values = {name: steps[name][k] for name in ("w", "g")} | {"eta": rate}
        after = {"w": steps["w"][k + 1]}
        if with_momentum:
            values |= {"m": momentum, "v": steps["v"][k]}
            after["v"] = steps["v"][k + 1]
        scenes.append(Scene(values | {("L", "w"): slope_of(steps["w"][k])}, after=after))
    return scenes


def momentum_step(draw: int) -> list[Scene]:
    """The second half of a step of `SGD` with momentum: the velocity is the new one."""
    return [Scene({**scene.values, "v": scene.after["v"]}, after=scene.after) for scene in sgd(draw, True)]


def weight_decay(draw: int) -> list[Scene]:
    """The gradient that `SGD` steps along where there is weight decay."""
    rate, decay = scalars(draw, 2)
    steps = sgd_steps(rate, weight_decay=decay)
    scenes = []
    for before, after in itertools.pairwise(steps["w"]):
        values = {"w": before, "L": Of("w", loss_of), "lambda": decay, "g": (before - after) / rate}
        scenes.append(Scene(values | {("L", "w"): slope_of(before)}))
    return scenes


def nesterov(draw: int) -> list[Scene]:
    """`SGD` in Nesterov's form; the point that it does not store is where the velocities alone have led."""
    (rate, momentum), count = scalars(draw, 2), 4 + draw
    steps = sgd_steps(rate, count, momentum=momentum, nesterov=True)
    points = [steps["w"][0], *(steps["w"][0] - rate * np.cumsum(steps["v"][1:]))]
    arrays = {"w": steps["w"], "v": steps["v"], "check w": points, "g": steps["g"]}
    values: Values = {name: Indexed(np.array(numbers), (0,)) for name, numbers in arrays.items()}
    values |= {"eta": rate, "m": momentum, ("L", "w"): slope_of}
    return [Scene(values, {"kappa": range(count)})]


def adam(draw: int) -> list[Scene]:
    """Four steps of `torch.optim.Adam`, with an epsilon that counts."""
    rate, epsilon, *betas = scalars(draw, 4)
    w = torch.tensor([0.9], dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.Adam([w], lr=rate, betas=tuple(betas), eps=epsilon)
    scenes, before = [], {"w": 0.9, "psi": np.zeros(2)}
    for step, g in enumerate(random(draw, 4), start=1):
        w.grad = torch.tensor([g])
        optimiser.step()
        state = optimiser.state[w]
        after = {"w": w.item(), "psi": np.array([state["exp_avg"].item(), state["exp_avg_sq"].item()])}
        values: Values = {"eta": rate, "zeta": np.array(betas), "varepsilon": epsilon, "g": float(g)}
        values |= before | {"hat psi": after["psi"] / (1 - np.array(betas) ** step)}
        scenes.append(Scene(values, after=after))
        before = after
    return scenes


def adam_means(draw: int) -> list[Scene]:
    """`torch.optim.Adam` with one gradient k times: by its meaning, the corrected means are it and its square."""
    scenes, betas, (g,) = [], scalars(draw, 2), random(draw, 1)
    for steps in span(4):
        w = torch.tensor([0.9], dtype=torch.float64, requires_grad=True)
        optimiser = torch.optim.Adam([w], betas=tuple(betas))
        for _ in range(steps):
            w.grad = torch.tensor([g], dtype=torch.float64)
            optimiser.step()
        means = np.array([optimiser.state[w]["exp_avg"].item(), optimiser.state[w]["exp_avg_sq"].item()])
        values = {"psi": means, "hat psi": np.array([g, g**2]), "zeta": np.array(betas), "kappa": steps}
        scenes.append(Scene(values))
    return scenes


def rates(draw: int, schedule: str) -> list[Scene]:
    """`learning_rate` at every step."""
    rate, steps, warmup = ((0.7, 20, 0.33), (0.4, 13, 0.45))[draw]
    options = {"warmup": warmup} if schedule == "one-cycle" else {}
    chosen = settings(schedule=schedule, learning_rate=rate, steps=steps, **options)
    numbers = np.array([learning_rate(chosen, k) for k in range(steps)])
    values = {"eta": rate, "eta_": Indexed(numbers, (0,)), "K": steps, **({"omega": warmup} if options else {})}
    return [Scene(values, {"kappa": range(steps)})]


# --- batch normalisation ---------------------------------------------------------------------------------------------


BATCHES = ((5, 3, 0.5), (4, 2, 0.3))  # samples, features, epsilon


def batch_norm(draw: int) -> list[Scene]:
    """`BatchNormFunction` forward and backward, and PyTorch's derivatives of each link by itself.

    Where mean and variance are held fixed they are arguments of their own. No function of the package takes them, so
    these links are written out here, and differentiated by PyTorch.
    """
    samples, features, eps = BATCHES[draw]
    x, arriving = random(0, samples, features) * 2, random(1, samples, features)
    gamma, beta = random(2, features), random(3, features)
    leaves = [torch.from_numpy(a).requires_grad_() for a in (x, gamma, beta)]
    y = BatchNormFunction.apply(*leaves, eps)
    y.backward(torch.from_numpy(arriving))
    ones, zeros = torch.ones(features).double(), torch.zeros(features).double()
    tensor = torch.from_numpy(x)
    mean, var = tensor.mean(dim=0), tensor.var(dim=0, unbiased=False)

    def normalised(x: torch.Tensor, mean: torch.Tensor, var: torch.Tensor) -> torch.Tensor:
        return (x - mean) / torch.sqrt(var + eps)

    def whole(x: torch.Tensor) -> torch.Tensor:
        return BatchNormFunction.apply(x, ones, zeros, eps)

    def variance(x: torch.Tensor, mean: torch.Tensor) -> torch.Tensor:
        return ((x - mean) ** 2).mean(dim=0)

    at = x, mean.numpy(), var.numpy()
    after = torch.from_numpy(gamma), torch.from_numpy(beta), torch.from_numpy(arriving)
    g = derivative(lambda h: (after[2] * (after[0] * h + after[1])).sum(), whole(tensor).numpy())

    def loss(mean: torch.Tensor, var: torch.Tensor) -> torch.Tensor:
        return (torch.from_numpy(g) * normalised(tensor, mean, var)).sum()

    values: Values = {"B": samples, "varepsilon": eps, "x": x, "gamma": gamma, "beta": beta, "I": np.eye(samples)}
    values |= {"mu": mean.numpy(), "sigma": var.sqrt().numpy(), "1": np.ones(samples), "hat g": g}
    values |= {"hat x": whole(tensor).numpy(), "y": y.detach().numpy(), ("L", "y"): arriving, ("L", "hat x"): g}
    values |= {("L", name): leaf.grad.numpy() for name, leaf in zip(("x", "gamma", "beta"), leaves, strict=True)}
    values |= {("y", "gamma"): derivative(lambda *a: BatchNormFunction.apply(*a, eps), x, gamma, beta, by=1)}
    values |= {("y", "beta"): derivative(lambda *a: BatchNormFunction.apply(*a, eps), x, gamma, beta, by=2)}
    values |= {("hat x", "x"): derivative(whole, x), ("mu", "x"): derivative(lambda x: x.mean(dim=0), x)}
    local = {by: derivative(normalised, *at, by=n) for n, by in enumerate(("x", "mu", "sigma^2"))}
    values |= {("hat x", "x", "mu,sigma^2"): local["x"], ("hat x", "mu", "x,sigma^2"): local["mu"]}
    values |= {("hat x", "sigma^2", "x,mu"): local["sigma^2"], ("hat x", "sigma^2"): local["sigma^2"]}
    values |= {("hat x", "mu"): local["mu"], ("sigma^2", "x", "mu"): derivative(variance, *at[:2])}
    values |= {("sigma^2", "mu", "x"): derivative(variance, *at[:2], by=1)}
    values |= {("sigma^2", "mu"): derivative(variance, *at[:2], by=1)}
    values |= {("L", "sigma^2"): derivative(loss, *at[1:], by=1)}
    values |= {("L", "mu"): derivative(lambda mean: loss(mean, variance(tensor, mean)), at[1])}
    return [Scene(values, {"s": span(samples), "r": span(samples), "i": span(features), "j": span(features)})]


def any_mean(draw: int) -> list[Scene]:
    """PyTorch's derivatives of variance and loss by a mean that is any number; at the batch's mean some are zero."""
    samples, features, eps = BATCHES[draw]
    x, grad, mean = random(0, samples, features) * 2, random(1, samples, features), random(2, features)

    def variance(mean: torch.Tensor) -> torch.Tensor:
        return ((torch.from_numpy(x) - mean) ** 2).mean(dim=0)

    def normalised(mean: torch.Tensor, var: torch.Tensor) -> torch.Tensor:
        return (torch.from_numpy(x) - mean) / torch.sqrt(var + eps)

    def loss(mean: torch.Tensor, var: torch.Tensor) -> torch.Tensor:
        return (torch.from_numpy(grad) * normalised(mean, var)).sum()

    var = variance(torch.from_numpy(mean)).numpy()
    by_mean = derivative(variance, mean)
    values: Values = {"B": samples, "x": x, "mu": mean, "sigma": np.sqrt(var), "varepsilon": eps, "hat g": grad}
    values |= {("sigma^2", "mu", "x"): by_mean, ("sigma^2", "mu"): by_mean}
    values |= {("hat x", "mu"): derivative(normalised, mean, var), ("L", "sigma^2"): derivative(loss, mean, var, by=1)}
    values |= {("L", "mu"): derivative(lambda mean: loss(mean, variance(mean)), mean)}
    return [Scene(values, {"s": span(samples), "j": span(features)}, sides=2)]


def batch_mean(draw: int) -> list[Scene]:
    """`BatchNormFunction` at the mean of a batch; PyTorch's derivatives there, and where the mean is any number."""
    return batch_norm(draw) + any_mean(draw)


def running_statistics(draw: int) -> list[Scene]:
    """`ManualBatchNorm` after two batches: one more batch, and then an evaluation."""
    (samples, features, eps), share = BATCHES[draw], (0.3, 0.45)[draw]
    layer = ManualBatchNorm(features, eps=eps, momentum=share).double()
    layer(torch.from_numpy(random(2, 7, features)))
    x = torch.from_numpy(random(3, samples, features) * 2)

    def state() -> Values:
        return {"bar mu": layer.running_mean.numpy().copy(), "bar sigma": layer.running_var.sqrt().numpy()}

    before = state()
    layer(x)
    values: Values = {
        "rho": share,
        "B": samples,
        "mu": x.mean(dim=0).numpy(),
        "sigma": x.std(dim=0, unbiased=False).numpy(),
    }
    return [Scene(before | values, {"j": span(features)}, after=state())]


def evaluation(draw: int) -> list[Scene]:
    """`ManualBatchNorm` in evaluation, after one batch."""
    samples, features, eps = BATCHES[draw]
    layer = ManualBatchNorm(features, eps=eps).double()
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(random(0, features)))
        layer.bias.copy_(torch.from_numpy(random(1, features)))
    layer(torch.from_numpy(random(2, 7, features)))
    x = random(3, samples, features)
    layer.eval()
    values = {"gamma": layer.weight, "beta": layer.bias, "y": layer(torch.from_numpy(x))}
    values = {name: value.detach().numpy() for name, value in values.items()}
    values |= {"bar mu": layer.running_mean.numpy(), "bar sigma": layer.running_var.sqrt().numpy(), "x": x}
    return [Scene(values | {"varepsilon": eps}, {"s": span(samples), "j": span(features)})]


# --- convolutional networks ------------------------------------------------------------------------------------------

MAPS = ((2, 3, 4, 5), (3, 2, 5, 4))  # maps in and out, height, width


def convolution(draw: int) -> list[Scene]:
    """`NineProducts` for one image, and PyTorch's convolution of five rows and columns; the matrices are Jacobians."""
    (maps_in, maps_out, height, width), reach = MAPS[draw], 1 + draw
    side = 2 * reach + 1
    weight, bias = random(0, maps_out, maps_in, side, side), random(1, maps_out)
    x, grad = random(2, maps_in, height, width), random(3, maps_out, height, width)
    image, kernels, biases = (torch.from_numpy(a).requires_grad_() for a in (x, weight, bias))
    if reach == 1:
        out = NineProducts.apply(image.permute(1, 2, 0)[None], kernels.permute(0, 2, 3, 1), biases)[0].permute(2, 0, 1)
    else:
        out = torch.nn.functional.conv2d(image[None], kernels, biases, padding=reach)[0]
    out.backward(torch.from_numpy(grad))
    matrix = derivative(lambda x: torch.nn.functional.conv2d(x[None], torch.from_numpy(weight), padding=reach)[0], x)
    map_first, weight_first = (1, 0, 0), (1, 1, -reach, -reach)
    values: Values = {"h": reach, "b": bias, "W": Indexed(weight, weight_first), "x": Indexed(x, map_first, 0.0)}
    values |= {
        "tilde x": Indexed(out.detach().numpy(), map_first),
        "G": Indexed(grad, map_first, 0.0),
    }
    values |= {"mathcal W": Indexed(matrix, map_first * 2), ("L", "b"): biases.grad.numpy()}
    values |= {("L", "W"): Indexed(kernels.grad.numpy(), weight_first)}
    values |= {("L", "x"): Indexed(image.grad.numpy(), map_first)}
    rows, columns, taps = range(height), range(width), range(-reach, reach + 1)
    ranges = {
        "o": span(maps_out),
        "c": span(maps_in),
        "p": rows,
        "q": columns,
        "p'": rows,
        "q'": columns,
        "u": taps,
        "z": taps,
    }
    return [Scene(values, ranges)]


def moved_image(draw: int) -> list[Scene]:
    """`Convolution` of an image and of the same moved down by some rows, away from the borders."""
    (maps_in, maps_out, *_), (rows, side) = MAPS[draw], ((2, 9), (3, 11))[draw]
    layer = Convolution(maps_in, maps_out).double()
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(random(0, maps_out, 3, 3, maps_in)))
    x = random(1, maps_in, side, side)
    moved = np.roll(x, rows, axis=1)
    maps = [layer(torch.from_numpy(image)[None])[0].detach().numpy() for image in (x, moved)]
    values: Values = {"Delta": rows, "tilde x": Indexed(maps[0], (1, 0, 0)), "tilde x'": Indexed(maps[1], (1, 0, 0))}
    return [Scene(values, {"o": span(maps_out), "p": range(rows + 1, side - 1), "q": range(1, side - 1)})]


def parameters(draw: int) -> list[Scene]:
    """How many parameters `Convolution` and PyTorch's layers have, its convolution with five rows and columns."""
    maps_in, maps_out, height, width = ((3, 5, 4, 6), (4, 3, 7, 5))[draw]
    sizes = {"C": maps_in, "C'": maps_out, "P": height, "Q": width}
    linear = torch.nn.Linear(maps_in * height * width, maps_out * height * width)
    scenes = []
    for reach, layer in ((1, Convolution(maps_in, maps_out)), (2, torch.nn.Conv2d(maps_in, maps_out, 5))):
        counts = [sum(w.numel() for w in each.parameters()) for each in (layer, linear)]
        scenes.append(Scene(sizes | {"h": reach, "convolution:": counts[0], "linear:": counts[1]}))
    return scenes


def max_pool(draw: int) -> list[Scene]:
    """The VGG's max pool, on maps of odd and of even sides, and of negative values."""
    count, height, width = ((2, 6, 8), (4, 9, 5))[draw]
    x = random(0, count, height, width) - 5
    out = vgg_pool()(torch.from_numpy(x)[None])[0].numpy()
    values = {"x": Indexed(x, (1, 0, 0), -math.inf), "tilde x": Indexed(out, (1, 0, 0))}
    return [Scene(values, {"c": span(count), "p": range(out.shape[1]), "q": range(out.shape[2])})]


def map_statistics(draw: int) -> list[Scene]:
    """`ManualBatchNorm` over maps, a position a sample: with its momentum at one, it keeps the last batch's."""
    (maps, _, height, width), samples = MAPS[draw], (3, 6)[draw]
    x = random(0, samples, maps, height, width)
    count = samples * height * width
    layer = ManualBatchNorm(maps, momentum=1.0).double()
    layer(torch.from_numpy(x).permute(0, 2, 3, 1).reshape(count, maps))
    biased = layer.running_var.numpy() * (count - 1) / count
    values: Values = {"B": samples, "P": height, "Q": width, "mu": layer.running_mean.numpy(), "sigma": np.sqrt(biased)}
    ranges = {"s": span(samples), "c": span(maps), "p": range(height), "q": range(width)}
    return [Scene(values | {"x": Indexed(x, (1, 1, 0, 0))}, ranges)]


def operations(draw: int) -> list[Scene]:
    """What `Trainer.count` says of two convolutions, a max pool between them, and one or two linear layers."""
    network = torch.nn.Sequential(Convolution(3, 4), torch.nn.MaxPool2d(2), Convolution(4, 2), torch.nn.Flatten())
    network.extend(
        [torch.nn.Linear(2 * 3 * 5, 7), torch.nn.Linear(7, 10)] if draw else [torch.nn.Linear(2 * 3 * 5, 10)]
    )
    chosen = settings(kind="torch-vgg", hidden=(), slope=0.0, batch_norm="none", precision="float32")
    images, labels = np.zeros((8, 3, 6, 10), np.uint8), np.arange(8)
    trainer = torch_trainer.Trainer(lambda *_: network, chosen, images, labels, 10, seed=0)
    weights = (layer.weight for layer in network if hasattr(layer, "weight"))
    layers = {n: weight.detach().flatten(1).numpy() for n, weight in enumerate(weights, 1)}
    values: Values = {"F": trainer.count()["forward_flops"], "W": layers}
    values |= {"P": np.array([6, 3, 1, 1][: len(layers)]), "Q": np.array([10, 5, 1, 1][: len(layers)])}
    return [Scene(values, {"l": span(len(layers))})]


SCENES: dict[str, Callable[[int], list[Scene]]] = {
    f"eq:{slug}": scene
    for scene, slugs in (
        (chain_rule, "chain-rule-index chain-rule"),
        (network, "network backprop-joined backprop-weight backprop-bias"),
        (partial(network, without=1), "backprop-linear backprop-recursion"),
        (linear, "linear linear-index jacobian-linear-input-index jacobian-linear-input jacobian-linear-bias"),
        (linear, "backprop-linear-input-index backprop-linear-input backprop-linear-weight backprop-linear-bias"),
        (partial(linear, j=0), "jacobian-linear-weight jacobian-linear-bias-index"),
        (partial(linear, j=0), "backprop-linear-weight-index backprop-linear-bias-index"),
        (leaky_relu, "leaky-relu leaky-relu-factor jacobian-leaky-relu-index jacobian-leaky-relu"),
        (leaky_relu, "backprop-leaky-relu-index backprop-leaky-relu-matrix backprop-leaky-relu"),
        (softmax, "softmax softmax-invariance softmax-shift jacobian-softmax-quotient jacobian-softmax-index"),
        (softmax, "jacobian-softmax-diagonal jacobian-softmax-off-diagonal jacobian-softmax"),
        (softmax, "backprop-softmax-index backprop-softmax-collected backprop-softmax-matrix backprop-softmax"),
        (cross_entropy, "cross-entropy cross-entropy-class grad-cross-entropy grad-cross-entropy-vector joined-index"),
        (cross_entropy, "softmax-cross-entropy softmax-cross-entropy-shift"),
        (any_targets, "joined-substituted joined-cancelled joined-split"),
        (smoothed_targets, "label-smoothing label-smoothing-gradient"),
        (batch_loss, "batch-loss batch-mean-gradient"),
        (batch_logits, "batch-grad-logits"),
        (
            batch_linear,
            "linear-batch-index linear-batch batch-grad-weight-index batch-grad-weight batch-grad-bias-index",
        ),
        (batch_linear, "batch-grad-bias batch-grad-input-index batch-grad-input"),
        (batch_leaky_relu, "batch-leaky-relu"),
        (batch_softmax, "batch-softmax"),
        (sgd, "sgd"),
        (weight_decay, "weight-decay"),
        (partial(sgd, with_momentum=True), "momentum-velocity"),
        (momentum_step, "momentum-step"),
        (nesterov, "nesterov-velocity nesterov-point nesterov-cancelled nesterov"),
        (adam, "adam-mean adam-square"),
        (adam_means, "adam-mean-corrected adam-square-corrected"),
        (adam, "adam-step"),
        (partial(rates, schedule="cosine"), "cosine"),
        (partial(rates, schedule="one-cycle"), "one-cycle"),
        (batch_norm, "bn-mean bn-var bn-normalise bn-affine bn-zero-mean bn-unit-variance bn-grad-gamma bn-grad-beta"),
        (batch_norm, "bn-scale-paths bn-local-scale bn-local-shift"),
        (batch_norm, "bn-grad-normalised bn-local-normalised-input bn-local-normalised-mean bn-local-normalised-var"),
        (batch_norm, "bn-local-var-input bn-local-mean-input bn-grad-var bn-paths"),
        (batch_mean, "bn-local-var-mean bn-grad-mean"),
        (batch_norm, "bn-substituted bn-normalised-sums bn-backward bn-jacobian bn-backward-matrix bn-grad-sum"),
        (running_statistics, "bn-running-mean bn-running-var"),
        (evaluation, "bn-evaluate"),
        (convolution, "conv conv-matrix conv-grad-weight conv-grad-bias conv-grad-input"),
        (moved_image, "conv-shift"),
        (parameters, "conv-parameters linear-parameters"),
        (max_pool, "max-pool"),
        (map_statistics, "conv-bn-mean conv-bn-var"),
        (operations, "flops"),
    )
    for slug in slugs.split()
}


@cache
def scenes(label: str) -> list[Scene]:
    """The scenes of a display, of all draws; displays that share a function share what it makes."""
    return [scene for draw in DRAWS for scene in _made(SCENES[label], draw)]


@cache
def _made(scene: Callable[[int], list[Scene]], draw: int) -> list[Scene]:
    return scene(draw)
