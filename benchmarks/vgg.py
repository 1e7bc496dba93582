"""The VGG on the whole machine: training and evaluation, the plain loop, the convolutions alone, and layer by layer.

`python vgg.py DATASET ROUNDS STEPS IMAGES` prints {"results": …, "info": …} as its last line.

Ours are two one-thread processes side by side, the peer one process with two threads. Each waits at a pipe while others
are timed; all are told to start at once.
"""

import json
import multiprocessing
import statistics
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

from timing import interleaved, inverse, judged, settings, told, training_split

GROUPS = {
    "convolutions": ("mkldnn_convolution", "convolution_backward", "convolution_overrideable"),
    "batch norm": ("batch_norm",),
    "max pools": ("max_pool",),
    "ReLUs": ("relu", "clamp_min", "threshold_backward"),
    "Adam": ("adam",),
    "linear layer and loss": ("addmm", "::mm", "softmax", "nll_loss"),
    "batch gather and preprocessing": ("index_select", "sub_", "div_"),
    # Those of the images are small: the time goes into gradients, which convolutions return with the channels first
    # and which the fused Adam, too, copies.
    "copies between layouts and dtypes": ("_to_copy", "copy_"),
}


class Ours:
    """Our trainer of the VGG on one thread, and its convolutions alone at the shapes and layouts that it uses."""

    def __init__(self, folder: Path):
        from cifar_report.training.loop import build_trainer

        self.split, classes = training_split(folder)
        self.chosen = settings("vgg")
        self.trainer = build_trainer(self.chosen, self.split, classes, 0)
        self.training = self._recorded(lambda: self.train(1))
        self.evaluation: list[Layer] = []
        self.evaluated = 0

    def train(self, steps: int) -> None:
        self.trainer.advance(self.trainer.step + steps)

    def convolutions(self, steps: int) -> None:
        for _ in range(steps):
            for layer in self.training:
                layer.forward()
                layer.backward(True)

    def evaluate(self, images: int) -> None:
        self.trainer.logits(self.split.images[:images])

    def evaluate_convolutions(self, images: int) -> None:
        if self.evaluated != images:
            self.evaluation, self.evaluated = self._recorded(lambda: self.evaluate(images)), images
        for layer in self.evaluation:
            layer.forward()

    def layers(self, rounds: int) -> list[dict[str, Any]]:
        """Each convolution's speed, by kind of product, and the share of its taps that lie in the padding."""
        rows = []
        for i, layer in enumerate(self.training):
            timed = {"forward": (lambda n, c=layer: [c.forward() for _ in range(n)], 1)}
            timed["weight gradient"] = (lambda n, c=layer: [c.backward(False) for _ in range(n)], 1)
            if layer.inner:
                timed["input gradient"] = (lambda n, c=layer: [c.backward(True, False) for _ in range(n)], 1)
            speeds = {
                f"{k}, GFLOP/s": round(layer.gflop / statistics.median(v), 1)
                for k, v in interleaved(timed, rounds).items()
            }
            rows.append({"layer": i, "shape": layer.shape, "taps in padding": layer.padding_share} | speeds)
        return rows

    def profile(self, steps: int) -> dict[str, float]:
        """Milliseconds a step by kind of work, from PyTorch's profiler."""
        from torch.profiler import ProfilerActivity, profile

        with profile(activities=[ProfilerActivity.CPU]) as profiled:
            self.train(steps)
        spent: dict[str, float] = defaultdict(float)
        for event in profiled.key_averages():
            name = event.key.lower()
            group = next((g for g, words in GROUPS.items() if any(word in name for word in words)), "the rest")
            spent[group] += event.self_cpu_time_total / 1e3 / steps
        return {group: round(ms, 1) for group, ms in sorted(spent.items(), key=lambda item: -item[1])}

    def gflop(self, steps: int) -> float:
        return steps * sum(layer.gflop * (3 if layer.inner else 2) for layer in self.training)

    def _recorded(self, run) -> "list[Layer]":
        """What the convolutions are given while `run` runs."""
        from cifar_report.models.torch_nn.convolution import Convolution

        layers: list[Layer] = []
        hooks = [
            module.register_forward_pre_hook(lambda m, inputs: layers.append(Layer(m, inputs[0])))
            for module in self.trainer.model.modules()
            if isinstance(module, Convolution)
        ]
        run()
        for hook in hooks:
            hook.remove()
        return layers


class Layer:
    """One convolution as the library computes it, on random numbers in the shape and layout of an input of ours."""

    def __init__(self, module, x):
        import torch

        self.weight, self.bias = module.kernels.detach().clone(), module.bias.detach().clone()
        self.stride, self.padding = (1, 1), (1, 1)
        self.inner = x.requires_grad
        self.x = torch.randn_like(x, requires_grad=False)
        with torch.no_grad():
            self.grad = torch.randn_like(self.forward())
        n, m, side, size = x.shape[1], self.weight.shape[0], x.shape[2], self.weight.shape[2]
        self.shape = f"{n}→{m} at {side}×{side}"
        self.gflop = 2 * self.grad[:, 0].numel() * self.weight.numel() / 1e9
        inside = sum(
            0 <= place + tap < side for place in range(side) for tap in range(-(size // 2), size - size // 2)
        ) / (size * side)
        self.padding_share = round(1 - inside**2, 3)

    def forward(self):
        import torch

        with torch.no_grad():
            return torch.nn.functional.conv2d(self.x, self.weight, self.bias, self.stride, self.padding)

    def backward(self, inputs: bool, weights: bool = True) -> None:
        import torch

        torch.ops.aten.convolution_backward(
            self.grad,
            self.x,
            self.weight,
            [len(self.weight)],
            self.stride,
            self.padding,
            (1, 1),
            False,
            (0, 0),
            1,
            (inputs and self.inner, weights, weights),
        )


class Plain:
    """The same network in the training loop of PyTorch's tutorials: contiguous, TensorDataset, torch.optim.Adam."""

    def __init__(self, folder: Path):
        import itertools

        import torch

        from cifar_report.models.torch_nn import vgg

        split, classes = training_split(folder)
        chosen = settings("vgg")
        x = torch.tensor(split.images[:5000]).float()
        dataset = torch.utils.data.TensorDataset(x - x.mean(0), torch.tensor(split.labels[:5000]))
        loader = torch.utils.data.DataLoader(dataset, batch_size=chosen.batch_size, shuffle=True, drop_last=True)
        self.batches = itertools.chain.from_iterable(itertools.repeat(loader))
        layers: list[torch.nn.Module] = []
        channels = split.images.shape[1]
        for entry in vgg.PLAN:
            if entry == "pool":
                layers.append(torch.nn.MaxPool2d(3, stride=2, padding=1))
                continue
            layers += [torch.nn.Conv2d(channels, entry, 3, padding=1), torch.nn.BatchNorm2d(entry), torch.nn.ReLU()]
            channels = entry
        self.model = torch.nn.Sequential(*layers, torch.nn.Flatten(), torch.nn.Linear(channels, classes))
        self.criterion = torch.nn.CrossEntropyLoss()
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=chosen.learning_rate)

    def train(self, steps: int) -> None:
        for _ in range(steps):
            inputs, labels = next(self.batches)
            self.optimizer.zero_grad()
            loss = self.criterion(self.model(inputs), labels)
            loss.backward()
            self.optimizer.step()


def worker(pipe, kind: str, threads: int, folder: Path) -> None:
    """Answers calls of methods: (name, argument) → what it returns."""
    import torch

    torch.set_num_threads(threads)
    side = {"ours": Ours, "plain": Plain}[kind](folder)
    pipe.send("ready")
    while (call := pipe.recv()) is not None:
        method, argument = call
        pipe.send(getattr(side, method)(argument))


def sgemm(argument: int) -> float:
    """GFLOP/s of a large square product on the threads of this process: what the products cannot exceed."""
    import torch

    a, b = torch.randn(argument, argument), torch.randn(argument, argument)
    out = a @ b
    seconds = interleaved({"product": (lambda n: [torch.mm(a, b, out=out) for _ in range(n)], 1)}, 5)["product"]
    return 2 * argument**3 / 1e9 / min(seconds)


def main(folder: Path, rounds: int, steps: int, images: int) -> dict[str, Any]:
    """All rows of the VGG."""
    context = multiprocessing.get_context("spawn")
    batch = settings("vgg").batch_size
    pipes = {}
    processes = []
    for name, kind, threads in (("first", "ours", 1), ("second", "ours", 1), ("plain", "plain", 2)):
        pipes[name], theirs = context.Pipe()
        processes.append(context.Process(target=worker, args=(theirs, kind, threads, folder), daemon=True))
        processes[-1].start()
    for pipe in pipes.values():
        pipe.recv()  # ready

    def call(method: str, *names: str):
        def run(argument: int):
            for name in names:
                pipes[name].send((method, argument))
            return [pipes[name].recv() for name in names]

        return run

    both = ("first", "second")
    training = interleaved(
        {
            "value": (call("train", *both), steps),
            "limit": (call("convolutions", *both), steps),
            "peer": (call("train", "plain"), steps),
            "alone": (call("train", "first"), steps),
        },
        rounds,
    )
    evaluation = interleaved(
        {
            "value": (call("evaluate", "first"), images),
            "limit": (call("evaluate_convolutions", "first"), images),
        },
        max(rounds // 2, 2),
    )
    speed = {name: inverse(training[name], batch * (2 if name in ("value", "limit") else 1)) for name in training}
    (gflop,) = call("gflop", "first")(1)
    (layers,) = call("layers", "first")(max(rounds // 2, 2))
    (profile,) = call("profile", "first")(steps)
    for pipe, process in zip(pipes.values(), processes, strict=True):
        pipe.send(None)
        process.join()

    ten_thousand = {name: [10_000 * second for second in seconds] for name, seconds in evaluation.items()}
    peak = sgemm(1500)
    results = [
        judged(
            "VGG training throughput of the whole machine",
            "images/s",
            "value / peer >= 1.5",
            speed["value"],
            speed["peer"],
            speed["limit"],
            stretch=2,
        ),
        judged(
            f"VGG evaluation of 10,000 images (from {images:,}): convolutions",
            "s",
            "value / limit <= 1.2",
            ten_thousand["value"],
            limit=ten_thousand["limit"],
        ),
    ]
    median = {name: statistics.median(seconds) for name, seconds in training.items()}
    info = [
        told("VGG step, one process alone on one thread", median["alone"], "s"),
        told("VGG convolutions of a training step", gflop, "GFLOP"),
        told("sgemm on one thread, 1500×1500", peak, "GFLOP/s"),
        told("VGG training against the convolutions of the two processes", median["value"] / median["limit"], "ratio"),
        told("VGG convolutions, share of sgemm's speed on each core", gflop / median["limit"] / peak, "ratio"),
        told("VGG training, share of sgemm's speed on each core", gflop / median["value"] / peak, "ratio"),
        told("VGG convolutions layer by layer, one thread", layers),
        told("VGG step by kind of work, one thread, profiled", profile, "ms"),
    ]
    return {"results": results, "info": info}


if __name__ == "__main__":
    import torch

    torch.set_num_threads(1)
    found = main(Path(sys.argv[1]), *map(int, sys.argv[2:]))
    print(json.dumps(found, ensure_ascii=False))
