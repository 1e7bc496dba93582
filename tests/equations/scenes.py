"""The numbers that displays are held against: what the functions of the package, or PyTorch, give for random inputs.

A scene knows nothing of the display's right side. Sizes differ from one another, so that a wrong index or transpose has
no value, and no input is 0 or 1 but where the report says so.
"""

import itertools
import math
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import numpy as np
import torch
from torch.autograd.functional import jacobian

from cifar_report.models.numpy_nn.modules import CrossEntropy, LeakyReLU, Linear, Softmax, SoftmaxCrossEntropy
from cifar_report.models.numpy_nn.sgd import SGD
from cifar_report.models.torch_nn.batchnorm import BatchNormFunction, ManualBatchNorm
from cifar_report.models.torch_nn.convolution import Convolution, NineProducts
from cifar_report.training import torch_trainer
from cifar_report.training.batches import learning_rate

from .evaluate import Indexed, Of, Scene
from .helpers import SIZES, SLOPE, settings, small_batch, small_mlp, vgg_pool

Values = dict[Any, Any]
SIGNS = np.array([-1.3, 0.0, 0.7, -0.4])  # before a leaky ReLU: of both signs, and at the kink


def span(count: int) -> range:
    """1 to count."""
    return range(1, count + 1)


def random(seed: int, *shape: int) -> np.ndarray:
    """Numbers of either sign, none near zero."""
    rng = np.random.default_rng(seed)
    return rng.uniform(0.4, 1.9, shape) * rng.choice([-1, 1], shape)


def derivative(function: Callable, *at: np.ndarray, by: int = 0) -> np.ndarray:
    """PyTorch's derivative of a function of tensors by one of them: the value's axes, then that tensor's."""
    tensors = [torch.from_numpy(np.asarray(a, float)) for a in at]
    return jacobian(lambda x: function(*tensors[:by], x, *tensors[by + 1 :]), tensors[by]).numpy()


# --- one image -------------------------------------------------------------------------------------------------------


def chain_rule() -> list[Scene]:
    """A map of two variables that is not linear, under another one: PyTorch's derivatives of each and of the whole."""

    def inner(x: torch.Tensor) -> torch.Tensor:
        return torch.stack([x[0] ** 2 * x[1], torch.sin(x[1]), torch.exp(x[0] * x[1])])

    def outer(y: torch.Tensor) -> torch.Tensor:
        return y[0] * y[1] + y[2] ** 2

    x = random(0, 2)
    y = inner(torch.from_numpy(x)).numpy()
    values = {
        ("y", "x"): derivative(inner, x),
        ("L", "y"): derivative(outer, y),
        ("L", "x"): derivative(lambda x: outer(inner(x)), x),
    }
    return [Scene(values, {"i": span(3), "j": span(2)})]


def linear(j: int = 4) -> list[Scene]:
    """`Linear`, forward and backward for one image; its Jacobians are PyTorch's. `j` counts inputs, or outputs (3)."""
    weight, bias, x, arriving = random(0, 3, 4), random(1, 3), random(2, 4), random(3, 3)
    module = Linear(weight, bias)
    out = module.forward(x[None])[0]
    grad = module.backward(arriving[None])[0]

    def layer(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.linear(x, weight, bias)

    values = {"W": weight, "b": bias, "x": x, "tilde x": out, "I": np.eye(3)}
    values |= {("L", "tilde x"): arriving, ("L", "x"): grad}
    values |= {("L", "W"): module.grad_weight, ("L", "b"): module.grad_bias}
    values |= {("tilde x", by): derivative(layer, x, weight, bias, by=n) for n, by in enumerate(("x", "W", "b"))}
    return [Scene(values, {"i": span(3), "j": span(j), "k": span(4)})]


def leaky_relu() -> list[Scene]:
    """`LeakyReLU`, forward and backward for one image; its Jacobian is PyTorch's."""
    module, arriving = LeakyReLU(SLOPE), random(0, 4)
    out = module.forward(SIGNS[None])[0]
    values = {"tilde x": SIGNS, "x": out, "a": SLOPE, "d": module.derivative[0], ("L", "x"): arriving}
    values |= {("L", "tilde x"): module.backward(arriving[None])[0]}
    values |= {("x", "tilde x"): derivative(lambda x: torch.nn.functional.leaky_relu(x, SLOPE), SIGNS)}
    return [Scene(values, {"i": span(4), "j": span(4)})]


def softmax() -> list[Scene]:
    """`Softmax`, forward and backward for one image; its Jacobian is PyTorch's."""
    logits, arriving, module = random(0, 4), random(1, 4), Softmax()
    x = module.forward(logits[None])[0]
    values = {"tilde x": logits, "x": x, "xi": 0.6, "M": logits.max(), "Z": math.fsum(np.exp(logits)), "1": np.ones(4)}
    values |= {("L", "x"): arriving, ("L", "tilde x"): module.backward(arriving[None])[0]}
    values |= {("x", "tilde x"): derivative(lambda z: torch.softmax(z, 0), logits)}
    return [Scene(values, {"i": span(4), "j": span(4), "k": span(4)})]


def cross_entropy() -> list[Scene]:
    """`CrossEntropy` after `Softmax` for one image of each class; behind both, `SoftmaxCrossEntropy`."""
    scenes = []
    for tau in range(4):
        logits = random(tau, 4)
        apart, joined = CrossEntropy(), SoftmaxCrossEntropy()
        x = Softmax().forward(logits[None])
        values: Values = {"tilde x": logits, "x": x[0], "t": np.eye(4)[tau], "tau": tau + 1, "M": logits.max()}
        values["L"] = joined.forward(logits[None], np.array([tau]))
        assert abs(values["L"] - apart.forward(x, np.array([tau]))) < 1e-12
        values |= {("L", "x"): apart.backward()[0], ("L", "tilde x"): joined.backward()[0]}
        scenes.append(Scene(values, {"i": span(4), "j": span(4), "k": span(4)}))
    return scenes


def any_targets() -> list[Scene]:
    """Cross entropy with targets that are no class and do not sum to one: PyTorch's derivative by the logits."""
    logits, targets = random(0, 4), random(1, 4)
    x = Softmax().forward(logits[None])[0]
    values = {"x": x, "t": targets}
    values[("L", "tilde x")] = derivative(
        lambda z: -(torch.from_numpy(targets) * torch.log_softmax(z, 0)).sum(), logits
    )
    return [Scene(values, {"i": span(4), "j": span(4)})]


def smoothed_targets() -> list[Scene]:
    """PyTorch's cross entropy with label smoothing: its gradient, and the targets that it takes."""
    scenes = []
    for tau in range(3):
        logits = random(tau, 3)

        def loss(z: torch.Tensor, tau: int = tau) -> torch.Tensor:
            return torch.nn.functional.cross_entropy(z[None], torch.tensor([tau]), label_smoothing=0.2)

        x, grad = Softmax().forward(logits[None])[0], derivative(loss, logits)
        even = np.log(np.full(3, 1 / 3))  # where every x is a third, the gradient is a third less the target
        values: Values = {"x": x, "t": np.eye(3)[tau], "t'": 1 / 3 - derivative(loss, even), "alpha": 0.2}
        values |= {("L", "tilde x"): grad, "n": np.array([7, 5, 3]), "N": 3}
        scenes.append(Scene(values, {"i": span(3)}))
    return scenes


def network(layers: range = range(1, 4)) -> list[Scene]:
    """`MLP`, three layers of different sizes, for one image. By what is no parameter the gradients are PyTorch's."""
    rng = np.random.default_rng(1)
    mlp = small_mlp(rng)
    images, classes = small_batch(rng)
    mlp.loss_and_gradients(images[:1], classes[:1])
    before, after = {}, {0: torch.from_numpy(images[0])}
    for number, layer in enumerate(mlp.linears, start=1):
        before[number] = torch.nn.functional.linear(
            after[number - 1], *map(torch.from_numpy, (layer.weight, layer.bias))
        )
        before[number].requires_grad_()
        last = number == len(mlp.linears)
        after[number] = (
            torch.softmax(before[number], 0) if last else torch.nn.functional.leaky_relu(before[number], SLOPE)
        )
        before[number].retain_grad()
        after[number].retain_grad()
    (-torch.log(after[3][classes[0]])).backward()
    activations = {1: leaky_column, 2: leaky_column, 3: softmax_column}
    values: Values = {"N": 3, "f": activations, "leaky ReLU": leaky_column, "softmax": softmax_column}
    values |= {"x": {n: x.detach().numpy() for n, x in after.items()}, "t": np.eye(SIZES[-1])[classes[0]]}
    values |= {"W": {n: layer.weight for n, layer in enumerate(mlp.linears, 1)}}
    values |= {"b": {n: layer.bias for n, layer in enumerate(mlp.linears, 1)}}
    values |= {"d": {n: module.derivative[0] for n, module in enumerate(mlp.modules[1::2], 1)}}
    values |= {("L", "tilde x"): {n: z.grad.numpy() for n, z in before.items()}}
    values |= {("L", "x"): {n: after[n].grad.numpy() for n in (1, 2, 3)}}
    values |= {("L", "W"): {n: layer.grad_weight for n, layer in enumerate(mlp.linears, 1)}}
    values |= {("L", "b"): {n: layer.grad_bias for n, layer in enumerate(mlp.linears, 1)}}
    return [Scene(values, {"l": layers})]


def leaky_column(x: np.ndarray) -> np.ndarray:
    """The code's activation function of a column."""
    return LeakyReLU(SLOPE).forward(x)


def softmax_column(x: np.ndarray) -> np.ndarray:
    """The code's softmax of a column."""
    return Softmax().forward(x.T).T


# --- batches ---------------------------------------------------------------------------------------------------------


def batch_loss() -> list[Scene]:
    """`MLP` and its loss for a batch of five, and for each of its images; one scene for each of some parameters."""
    rng = np.random.default_rng(2)
    mlp = small_mlp(rng)
    images, classes = (part[:5] for part in small_batch(rng))
    losses, single = [], []
    for s in range(5):
        losses.append(mlp.loss_and_gradients(images[s : s + 1], classes[s : s + 1]))
        single.append({name: g.ravel().copy() for name, g in mlp.gradients().items()})
    loss = mlp.loss_and_gradients(images, classes)
    x = Softmax().forward(mlp.forward(images))
    values: Values = {"B": 5, "L": loss, "L_": np.array(losses), "T": np.eye(SIZES[-1])[classes], "X": x}
    ranges = {"s": span(5), "i": span(SIZES[-1])}
    scenes = []
    for name, g in mlp.gradients().items():
        by_image = np.array([gradients[name][0] for gradients in single])
        scenes.append(Scene(values | {("L", "w"): g.ravel()[0], ("L_", "w"): by_image}, ranges))
    return scenes


def batch_logits() -> list[Scene]:
    """`SoftmaxCrossEntropy` for a batch."""
    logits, classes, module = random(0, 5, 3), np.array([0, 2, 1, 1, 0]), SoftmaxCrossEntropy()
    module.forward(logits, classes)
    x = Softmax().forward(logits)
    return [Scene({"B": 5, "N": 2, "X": {2: x}, "T": np.eye(3)[classes], "G": {2: module.backward()}})]


def batch_linear() -> list[Scene]:
    """`Linear`, forward and backward for a batch."""
    weight, bias, x, grad = random(0, 3, 4), random(1, 3), random(2, 5, 4), random(3, 5, 3)
    module = Linear(weight, bias)
    out = module.forward(x)
    values = {
        "W": weight,
        "b": bias,
        "X": x,
        "tilde X": out,
        "G": grad,
        "1": np.ones(5),
        ("L", "X"): module.backward(grad),
    }
    values |= {("L", "W"): module.grad_weight, ("L", "b"): module.grad_bias}
    return [Scene(values, {"s": span(5), "i": span(3), "k": span(4)})]


def batch_leaky_relu() -> list[Scene]:
    """`LeakyReLU`, forward and backward for a batch."""
    before, grad, module = np.array([SIGNS, SIGNS[::-1], -SIGNS]), random(0, 3, 4), LeakyReLU(SLOPE)
    values = {"X": module.forward(before), "tilde X": before, "a": SLOPE, ("L", "X"): grad}
    values |= {"D": module.derivative, ("L", "tilde X"): module.backward(grad)}
    return [Scene(values, {"s": span(3), "i": span(4)})]


def batch_softmax() -> list[Scene]:
    """`Softmax`, forward and backward for a batch."""
    logits, grad, module = random(0, 3, 4), random(1, 3, 4), Softmax()
    values = {"X": module.forward(logits), ("L", "X"): grad, ("L", "tilde X"): module.backward(grad)}
    return [Scene(values, {"s": span(3), "i": span(4), "j": span(4)})]


# --- steps, and how long they are ------------------------------------------------------------------------------------

RATE, MOMENTUM, DECAY = 0.3, 0.8, 0.7


def loss_of(w: Any) -> Any:
    """Some loss of one parameter, for real and complex numbers."""
    return np.sin(w) * np.exp(0.3 * w)


def slope_of(w: float) -> float:
    """Its derivative, by PyTorch."""
    return float(derivative(lambda w: torch.sin(w) * torch.exp(0.3 * w), np.array(w)))


def sgd_steps(**options: Any) -> dict[str, list[float]]:
    """Four steps of `SGD` down that loss: parameter, gradient and velocity, one more of parameter and velocity."""
    w = np.array([0.9])
    optimiser = SGD({"w": w}, **options)
    steps: dict[str, list[float]] = {"w": [0.9], "g": [], "v": [0.0]}
    for _ in range(4):
        gradient = slope_of(w[0])
        optimiser.step({"w": np.array([gradient])}, RATE)
        steps["g"].append(gradient)
        steps["w"].append(float(w[0]))
        steps["v"].append(float(optimiser.velocity["w"][0]) if optimiser.velocity else 0.0)
    return steps


def sgd(momentum: float = 0.0) -> list[Scene]:
    """Each of four steps of `SGD`: for the velocity, and for the parameter after it."""
    steps = sgd_steps(momentum=momentum)
    scenes = []
    for k in range(4):
        values = {name: steps[name][k] for name in ("w", "g", "v")} | {"eta": RATE, "m": momentum}
        after = {"w": steps["w"][k + 1], "v": steps["v"][k + 1]}
        scenes.append(Scene(values | {("L", "w"): slope_of(steps["w"][k])}, after=after))
    return scenes


def momentum_step() -> list[Scene]:
    """The second half of a step of `SGD` with momentum: the velocity is the new one."""
    return [Scene({**scene.values, "v": scene.after["v"]}, after=scene.after) for scene in sgd(MOMENTUM)]


def weight_decay() -> list[Scene]:
    """The gradient that `SGD` steps along where there is weight decay."""
    steps = sgd_steps(weight_decay=DECAY)
    scenes = []
    for before, after in itertools.pairwise(steps["w"]):
        values = {"w": before, "L": Of("w", loss_of), "lambda": DECAY, "g": (before - after) / RATE}
        scenes.append(Scene(values | {("L", "w"): slope_of(before)}))
    return scenes


def nesterov() -> list[Scene]:
    """`SGD` in Nesterov's form; the point that it does not store is where the velocities alone have led."""
    steps = sgd_steps(momentum=MOMENTUM, nesterov=True)
    points = [steps["w"][0], *(steps["w"][0] - RATE * np.cumsum(steps["v"][1:]))]
    arrays = {"w": steps["w"], "v": steps["v"], "check w": points, "g": steps["g"]}
    values: Values = {name: Indexed(np.array(numbers), (0,)) for name, numbers in arrays.items()}
    values |= {"eta": RATE, "m": MOMENTUM, ("L", "w"): slope_of}
    return [Scene(values, {"kappa": range(4)})]


BETAS, EPSILON = (0.7, 0.85), 0.05


def adam() -> list[Scene]:
    """Four steps of `torch.optim.Adam`, with an epsilon that counts."""
    w = torch.tensor([0.9], dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.Adam([w], lr=RATE, betas=BETAS, eps=EPSILON)
    scenes, before = [], {"w": 0.9, "psi": np.zeros(2)}
    for step, g in enumerate(random(0, 4), start=1):
        w.grad = torch.tensor([g])
        optimiser.step()
        state = optimiser.state[w]
        after = {"w": w.item(), "psi": np.array([state["exp_avg"].item(), state["exp_avg_sq"].item()])}
        values: Values = {"eta": RATE, "zeta": np.array(BETAS), "varepsilon": EPSILON, "g": float(g)}
        values |= before | {"hat psi": after["psi"] / (1 - np.array(BETAS) ** step)}
        scenes.append(Scene(values, after=after))
        before = after
    return scenes


def adam_means() -> list[Scene]:
    """`torch.optim.Adam` with one gradient k times: by its meaning, the corrected means are it and its square."""
    scenes = []
    for steps in span(4):
        w = torch.tensor([0.9], dtype=torch.float64, requires_grad=True)
        optimiser = torch.optim.Adam([w], betas=BETAS)
        for _ in range(steps):
            w.grad = torch.tensor([1.7], dtype=torch.float64)
            optimiser.step()
        means = np.array([optimiser.state[w]["exp_avg"].item(), optimiser.state[w]["exp_avg_sq"].item()])
        values = {"psi": means, "hat psi": np.array([1.7, 1.7**2]), "zeta": np.array(BETAS), "kappa": steps}
        scenes.append(Scene(values))
    return scenes


def rates(schedule: str, **options: Any) -> list[Scene]:
    """`learning_rate` at every step."""
    chosen = settings(schedule=schedule, learning_rate=0.7, steps=20, **options)
    numbers = np.array([learning_rate(chosen, k) for k in range(20)])
    values = {"eta": 0.7, "eta_": Indexed(numbers, (0,)), "K": 20, "omega": chosen.warmup}
    return [Scene(values, {"kappa": range(20)})]


# --- batch normalisation ---------------------------------------------------------------------------------------------


def batch_norm() -> list[Scene]:
    """`BatchNormFunction` forward and backward, and PyTorch's derivatives of each link by itself.

    Where mean and variance are held fixed they are arguments of their own. No function of the package takes them, so
    these links are written out here, and differentiated by PyTorch.
    """
    samples, features, eps = 5, 3, 0.5
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


def any_mean() -> list[Scene]:
    """PyTorch's derivatives of variance and loss by a mean that is any number; at the batch's mean some are zero."""
    x, grad, mean = random(0, 5, 3) * 2, random(1, 5, 3), random(2, 3)

    def variance(mean: torch.Tensor) -> torch.Tensor:
        return ((torch.from_numpy(x) - mean) ** 2).mean(dim=0)

    def normalised(mean: torch.Tensor, var: torch.Tensor) -> torch.Tensor:
        return (torch.from_numpy(x) - mean) / torch.sqrt(var + 0.5)

    def loss(mean: torch.Tensor, var: torch.Tensor) -> torch.Tensor:
        return (torch.from_numpy(grad) * normalised(mean, var)).sum()

    var = variance(torch.from_numpy(mean)).numpy()
    by_mean = derivative(variance, mean)
    values: Values = {"B": 5, "x": x, "mu": mean, "sigma": np.sqrt(var), "varepsilon": 0.5, "hat g": grad}
    values |= {("sigma^2", "mu", "x"): by_mean, ("sigma^2", "mu"): by_mean}
    values |= {("hat x", "mu"): derivative(normalised, mean, var), ("L", "sigma^2"): derivative(loss, mean, var, by=1)}
    values |= {("L", "mu"): derivative(lambda mean: loss(mean, variance(mean)), mean)}
    return [Scene(values, {"s": span(5), "j": span(3)}, sides=2)]


def batch_mean() -> list[Scene]:
    """`BatchNormFunction` at the mean of a batch; PyTorch's derivatives there, and where the mean is any number."""
    return batch_norm() + any_mean()


def running_statistics() -> list[Scene]:
    """`ManualBatchNorm` after two batches: one more batch, and then an evaluation."""
    layer = ManualBatchNorm(3, eps=0.5, momentum=0.3).double()
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(random(0, 3)))
        layer.bias.copy_(torch.from_numpy(random(1, 3)))
    layer(torch.from_numpy(random(2, 4, 3)))
    x = torch.from_numpy(random(3, 5, 3) * 2)

    def state() -> Values:
        return {"bar mu": layer.running_mean.numpy().copy(), "bar sigma": layer.running_var.sqrt().numpy()}

    before = state()
    layer(x)
    values: Values = {"rho": 0.3, "B": 5, "mu": x.mean(dim=0).numpy(), "sigma": x.std(dim=0, unbiased=False).numpy()}
    return [Scene(before | values, {"j": span(3)}, after=state())]


def evaluation() -> list[Scene]:
    """`ManualBatchNorm` in evaluation, after one batch."""
    layer = ManualBatchNorm(3, eps=0.5).double()
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(random(0, 3)))
        layer.bias.copy_(torch.from_numpy(random(1, 3)))
    layer(torch.from_numpy(random(2, 4, 3)))
    x = random(3, 5, 3)
    layer.eval()
    values = {"gamma": layer.weight, "beta": layer.bias, "y": layer(torch.from_numpy(x))}
    values = {name: value.detach().numpy() for name, value in values.items()}
    values |= {"bar mu": layer.running_mean.numpy(), "bar sigma": layer.running_var.sqrt().numpy(), "x": x}
    return [Scene(values | {"varepsilon": 0.5}, {"s": span(5), "j": span(3)})]


# --- convolutional networks ------------------------------------------------------------------------------------------

IN, OUT, HEIGHT, WIDTH = 2, 3, 4, 5


def convolution() -> list[Scene]:
    """`NineProducts`, forward and backward for one image; the matrix that it is, is PyTorch's Jacobian."""
    weight, bias, x, grad = (
        random(0, OUT, IN, 3, 3),
        random(1, OUT),
        random(2, IN, HEIGHT, WIDTH),
        random(3, OUT, HEIGHT, WIDTH),
    )
    image = torch.from_numpy(x).permute(1, 2, 0)[None].clone().requires_grad_()
    kernels = torch.from_numpy(weight).permute(0, 2, 3, 1).clone().requires_grad_()
    biases = torch.from_numpy(bias).requires_grad_()
    out = NineProducts.apply(image, kernels, biases)
    out.backward(torch.from_numpy(grad).permute(1, 2, 0)[None])
    matrix = derivative(lambda x: torch.nn.functional.conv2d(x[None], torch.from_numpy(weight), padding=1)[0], x)
    map_first, weight_first = (1, 0, 0), (1, 1, -1, -1)
    values: Values = {"h": 1, "b": bias, "W": Indexed(weight, weight_first), "x": Indexed(x, map_first, 0.0)}
    values |= {
        "tilde x": Indexed(out[0].detach().permute(2, 0, 1).numpy(), map_first),
        "G": Indexed(grad, map_first, 0.0),
    }
    values |= {"mathcal W": Indexed(matrix, map_first * 2), ("L", "b"): biases.grad.numpy()}
    values |= {("L", "W"): Indexed(kernels.grad.permute(0, 3, 1, 2).numpy(), weight_first)}
    values |= {("L", "x"): Indexed(image.grad[0].permute(2, 0, 1).numpy(), map_first)}
    rows, columns, taps = range(HEIGHT), range(WIDTH), range(-1, 2)
    ranges = {"o": span(OUT), "c": span(IN), "p": rows, "q": columns, "p'": rows, "q'": columns, "u": taps, "z": taps}
    return [Scene(values, ranges)]


def moved_image() -> list[Scene]:
    """`Convolution` of an image and of the same moved down by two rows, away from the borders."""
    layer = Convolution(IN, OUT).double()
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(random(0, OUT, 3, 3, IN)))
    x = random(1, IN, 9, 9)
    moved = np.roll(x, 2, axis=1)
    maps = [layer(torch.from_numpy(image)[None])[0].detach().numpy() for image in (x, moved)]
    values: Values = {"Delta": 2, "tilde x": Indexed(maps[0], (1, 0, 0)), "tilde x'": Indexed(maps[1], (1, 0, 0))}
    return [Scene(values, {"o": span(OUT), "p": range(3, 8), "q": range(1, 8)})]


def parameters() -> list[Scene]:
    """How many parameters `Convolution` and PyTorch's layers have, its convolution with five rows and columns."""
    sizes = {"C": IN, "C'": OUT, "P": HEIGHT, "Q": WIDTH}
    linear = torch.nn.Linear(IN * HEIGHT * WIDTH, OUT * HEIGHT * WIDTH)
    scenes = []
    for reach, layer in ((1, Convolution(IN, OUT)), (2, torch.nn.Conv2d(IN, OUT, 5))):
        counts = [sum(w.numel() for w in each.parameters()) for each in (layer, linear)]
        scenes.append(Scene(sizes | {"h": reach, "convolution:": counts[0], "linear:": counts[1]}))
    return scenes


def max_pool() -> list[Scene]:
    """The VGG's max pool, on maps of odd and of even sides, and of negative values."""
    layer, scenes = vgg_pool(), []
    for height, width in ((6, 8), (5, 7)):
        x = random(0, 2, height, width) - 5
        out = layer(torch.from_numpy(x)[None])[0].numpy()
        values = {"x": Indexed(x, (1, 0, 0), -math.inf), "tilde x": Indexed(out, (1, 0, 0))}
        scenes.append(Scene(values, {"c": span(2), "p": range(out.shape[1]), "q": range(out.shape[2])}))
    return scenes


def map_statistics() -> list[Scene]:
    """`ManualBatchNorm` over maps, a position a sample: with its momentum at one, it keeps the last batch's."""
    x = random(0, 3, IN, HEIGHT, WIDTH)
    count = 3 * HEIGHT * WIDTH
    layer = ManualBatchNorm(IN, momentum=1.0).double()
    layer(torch.from_numpy(x).permute(0, 2, 3, 1).reshape(count, IN))
    biased = layer.running_var.numpy() * (count - 1) / count
    values: Values = {"B": 3, "P": HEIGHT, "Q": WIDTH, "mu": layer.running_mean.numpy(), "sigma": np.sqrt(biased)}
    ranges = {"s": span(3), "c": span(IN), "p": range(HEIGHT), "q": range(WIDTH)}
    return [Scene(values | {"x": Indexed(x, (1, 1, 0, 0))}, ranges)]


def operations() -> list[Scene]:
    """What `Trainer.count` says of two convolutions, a max pool between them, and a linear layer."""
    network = torch.nn.Sequential(Convolution(3, 4), torch.nn.MaxPool2d(2), Convolution(4, 2), torch.nn.Flatten())
    network.append(torch.nn.Linear(2 * 3 * 5, 10))
    chosen = settings(kind="torch-vgg", hidden=(), slope=0.0, batch_norm="none", precision="float32")
    images, labels = np.zeros((8, 3, 6, 10), np.uint8), np.arange(8)
    trainer = torch_trainer.Trainer(lambda *_: network, chosen, images, labels, 10, seed=0)
    layers = {n: network[at].weight.detach().flatten(1).numpy() for n, at in enumerate((0, 2, 4), 1)}
    values: Values = {"F": trainer.count()["forward_flops"], "W": layers}
    values |= {"P": np.array([6, 3, 1]), "Q": np.array([10, 5, 1])}
    return [Scene(values, {"l": span(3)})]


SCENES: dict[str, Callable[[], list[Scene]]] = {
    f"eq:{slug}": scene
    for scene, slugs in (
        (chain_rule, "chain-rule-index chain-rule"),
        (network, "network backprop-joined backprop-weight backprop-bias"),
        (partial(network, range(1, 3)), "backprop-linear backprop-recursion"),
        (linear, "linear linear-index jacobian-linear-input-index jacobian-linear-input jacobian-linear-bias"),
        (linear, "backprop-linear-input-index backprop-linear-input backprop-linear-weight backprop-linear-bias"),
        (partial(linear, j=3), "jacobian-linear-weight jacobian-linear-bias-index"),
        (partial(linear, j=3), "backprop-linear-weight-index backprop-linear-bias-index"),
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
        (partial(sgd, MOMENTUM), "momentum-velocity"),
        (momentum_step, "momentum-step"),
        (nesterov, "nesterov-velocity nesterov-point nesterov-cancelled nesterov"),
        (adam, "adam-mean adam-square"),
        (adam_means, "adam-mean-corrected adam-square-corrected"),
        (adam, "adam-step"),
        (partial(rates, "cosine"), "cosine"),
        (partial(rates, "one-cycle", warmup=0.33), "one-cycle"),
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
    """The scenes of a display; displays that share a function share what it makes."""
    return _made(SCENES[label])


@cache
def _made(scene: Callable[[], list[Scene]]) -> list[Scene]:
    return scene()
