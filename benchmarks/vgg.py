"""The VGG on the whole machine: training and evaluation, the plain loop, and products of matrices; layer by layer.

`python vgg.py DATASET ROUNDS STEPS IMAGES` prints {"results": …, "info": …} as its last line.

Ours are two one-thread processes side by side, the peer one process with two threads. Each waits at a pipe while others
are timed; all are told to start at once.

The limit is the arithmetic of all convolutions, without the multiplications by the zeros around a map, at the speed at
which the machine multiplies large square matrices: the faster of NumPy and PyTorch, in the same processes and rounds.
"""

import json
import multiprocessing
import statistics
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from timing import interleaved, inverse, judged, settings, told, training_split

SIDE = 1024  # of the square matrices
PRODUCT = 2 * SIDE**3 / 1e9  # GFLOP
GROUPS = {
    "convolutions by the library": ("mkldnn_convolution", "convolution_backward", "convolution_overrideable"),
    "products of matrices": ("::mm", "addmm"),
    "batch norm": ("batch_norm",),
    "max pools": ("max_pool",),
    "ReLUs": ("relu", "clamp_min", "threshold_backward"),
    "Adam": ("adam",),
    "loss": ("softmax", "nll_loss"),
    "sums of the nine products": ("aten::add",),
    "batch gather and preprocessing": ("index_select", "sub_", "div_"),
    "copies between layouts and dtypes": ("_to_copy", "copy_"),
}


class Ours:
    """Our trainer of the VGG on one thread, and products of matrices."""

    def __init__(self, folder: Path):
        import torch

        from cifar_report.training.loop import build_trainer

        self.split, classes = training_split(folder)
        self.trainer = build_trainer(settings("vgg"), self.split, classes, 0)
        factors = np.random.default_rng(0).standard_normal((2, SIDE, SIDE), np.float32)
        self.arrays = (*factors, np.empty_like(factors[0]))
        self.tensors = [torch.from_numpy(array) for array in self.arrays]

    def train(self, steps: int) -> None:
        self.trainer.advance(self.trainer.step + steps)

    def evaluate(self, images: int) -> None:
        self.trainer.logits(self.split.images[:images])

    def products_numpy(self, count: int) -> None:
        a, b, out = self.arrays
        for _ in range(count):
            np.matmul(a, b, out=out)

    def products_torch(self, count: int) -> None:
        import torch

        a, b, out = self.tensors
        for _ in range(count):
            torch.mm(a, b, out=out)

    def layers(self, steps: int) -> list[dict[str, Any]]:
        """Milliseconds of each layer within real steps, forward and backward (medians), and of what is no layer."""

        clock = time.perf_counter
        spent: dict[tuple[str, str], list[float]] = defaultdict(list)
        rows: dict[str, dict[str, Any]] = {}
        started: dict[str, Any] = {}

        def begin(layer, inputs):
            started["forward"] = clock()

        def end(layer, inputs, output):
            name = names[layer]
            spent[name, "forward, ms"].append(clock() - started["forward"])
            if name not in rows:
                rows[name] = {"layer": name} | arithmetic(layer, inputs[0], output)
            if output.requires_grad:
                # Called when the gradient with respect to this output is known: the layer after it is done.
                output.register_hook(lambda _, name=name: turn(name))

        def turn(name):
            now = clock()
            if "backward" in started:
                spent[started["layer"], "backward, ms"].append(now - started["backward"])
            started.update(backward=now, layer=name)

        def before_adam(*_):
            turn("Adam")
            started.pop("backward")
            started["Adam"] = clock()

        def after_adam(*_):
            spent["Adam", "ms"].append(clock() - started["Adam"])

        model, optimiser = self.trainer.model, self.trainer.optimiser
        names = {layer: f"{i} {type(layer).__name__}" for i, layer in enumerate(model)}
        hooks = [optimiser.register_step_pre_hook(before_adam), optimiser.register_step_post_hook(after_adam)]
        for layer in model:
            hooks += [layer.register_forward_pre_hook(begin), layer.register_forward_hook(end)]
        begun = clock()
        self.train(steps)
        whole = 1e3 * (clock() - begun) / steps
        for hook in hooks:
            hook.remove()
        for (name, direction), seconds in spent.items():
            rows.setdefault(name, {"layer": name})[direction] = round(1e3 * statistics.median(seconds), 3)
        known = sum(row.get(key, 0) for row in rows.values() for key in ("forward, ms", "backward, ms", "ms"))
        rest = {"layer": "loss, batch and the rest", "ms": round(whole - known, 3)}
        return [*rows.values(), rest]

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


def arithmetic(layer, x, y) -> dict[str, Any]:
    """The shape of a convolution, and GFLOP of its forward pass but for multiplications by zeros around the map."""
    from cifar_report.models.torch_nn.convolution import Convolution

    if not isinstance(layer, Convolution):
        return {}
    height, width = x.shape[2:]
    inside = (3 * height - 2) * (3 * width - 2) / (9 * height * width)
    gflop = 2 * y[:, 0].numel() * layer.weight.numel() * inside / 1e9
    return {"shape": f"{x.shape[1]}→{y.shape[1]} at {height}×{width}", "GFLOP": round(gflop, 6)}


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

    def products(*names: str):
        return {library: (call(f"products_{library}", *names), 20) for library in ("numpy", "torch")}

    def limit(seconds: dict[str, list[float]], gflop: float) -> list[float]:
        """Seconds that so much arithmetic takes as products, round by round."""
        return [gflop / PRODUCT * min(both) for both in zip(seconds["numpy"], seconds["torch"], strict=True)]

    both = ("first", "second")
    training = interleaved(
        {
            "value": (call("train", *both), steps),
            "peer": (call("train", "plain"), steps),
            "alone": (call("train", "first"), steps),
            **products(*both),
        },
        rounds,
    )
    evaluation = interleaved(
        {"value": (call("evaluate", "first"), images), **products("first")},
        max(rounds // 2, 2),
    )
    (layers,) = call("layers", "first")(max(rounds, 2))
    (profile,) = call("profile", "first")(steps)
    for pipe, process in zip(pipes.values(), processes, strict=True):
        pipe.send(None)
        process.join()

    # Forward, and the gradients of weights and inputs; of the images none is needed.
    convolutions = [row["GFLOP"] for row in layers if "GFLOP" in row]
    gflop = 3 * sum(convolutions) - convolutions[0]
    training["limit"] = limit(training, gflop)
    evaluation["limit"] = limit(evaluation, sum(convolutions) / batch)
    speed = {name: inverse(training[name], batch * (1 if name == "peer" else 2)) for name in ("value", "peer", "limit")}
    ten_thousand = {name: [10_000 * second for second in evaluation[name]] for name in ("value", "limit")}
    results = [
        judged(
            "VGG training throughput of the whole machine",
            "images/s",
            "value / peer >= 1.5",
            speed["value"],
            speed["peer"],
            speed["limit"],
            stretch=1.8,
        ),
        judged(
            f"VGG evaluation of 10,000 images (from {images:,}): matrix products",
            "s",
            "value / limit <= 1.2",
            ten_thousand["value"],
            limit=ten_thousand["limit"],
        ),
    ]
    median = {name: statistics.median(seconds) for name, seconds in training.items()}
    info = [
        told("VGG step, one process alone on one thread", median["alone"], "s"),
        told("VGG convolutions of a training step, without padding", gflop, "GFLOP"),
        *(
            told(f"Products of {SIDE}×{SIDE} matrices on each core, {library}", PRODUCT / median[library], "GFLOP/s")
            for library in ("numpy", "torch")
        ),
        told("VGG training against its arithmetic as products", median["value"] / median["limit"], "ratio"),
        told("VGG step layer by layer, one thread", layers),
        told("VGG step by kind of work, one thread, profiled", profile, "ms"),
    ]
    return {"results": results, "info": info}


if __name__ == "__main__":
    import torch

    torch.set_num_threads(1)
    found = main(Path(sys.argv[1]), *map(int, sys.argv[2:]))
    print(json.dumps(found, ensure_ascii=False))
