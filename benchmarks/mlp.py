"""One step of the MLPs, on one thread: ours, peers written in the plain way, and the matrix products alone.

`python mlp.py numpy|torch DATASET ROUNDS` prints {"results": …, "info": …} as its last line.
"""

import dataclasses
import itertools
import json
import sys
import tempfile
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
from timing import interleaved, inverse, judged, scaled, settings, told, training_split

from cifar_report.data import datasets
from cifar_report.training.loop import Trainer, build_trainer
from cifar_report.training.splits import Split

Steps = Callable[[int], None]


def ours(trainer: Trainer) -> Steps:
    """Steps of a trainer, batch gather included."""
    return lambda steps: trainer.advance(trainer.step + steps)


def prepared(split: Split, images: int) -> tuple[np.ndarray, np.ndarray]:
    """The first images as float32 rows minus their mean, and their labels: what the peers start from."""
    x = split.images[:images].reshape(images, -1).astype(np.float32)
    return x - x.mean(axis=0), np.array(split.labels[:images])


def plain_numpy(split: Split, classes: int, hidden: int, batch: int, rate: float, slope: float) -> Steps:
    """The MLP as one writes it down at first: each line allocates what it computes."""
    x_all, labels = prepared(split, min(20_000, len(split.labels)))
    rng = np.random.default_rng(0)
    w1 = rng.normal(0, 1e-4, (x_all.shape[1], hidden)).astype(np.float32)
    w2 = rng.normal(0, 1e-4, (hidden, classes)).astype(np.float32)
    b1, b2 = np.zeros(hidden, np.float32), np.zeros(classes, np.float32)
    one_hot = np.eye(classes, dtype=np.float32)[labels]

    def run(steps: int) -> None:
        nonlocal w1, w2, b1, b2
        for _ in range(steps):
            index = rng.choice(len(x_all), batch, replace=False)
            x, t = x_all[index], one_hot[index]
            a = x @ w1 + b1
            h = np.where(a > 0, a, slope * a)
            z = h @ w2 + b2
            e = np.exp(z - z.max(axis=1, keepdims=True))
            p = e / e.sum(axis=1, keepdims=True)
            gz = (p - t) / batch
            gw2, gb2 = h.T @ gz, gz.sum(axis=0)
            ga = (gz @ w2.T) * np.where(a > 0, 1, slope).astype(np.float32)
            gw1, gb1 = x.T @ ga, ga.sum(axis=0)
            w1, b1 = w1 - np.float32(rate) * gw1, b1 - np.float32(rate) * gb1
            w2, b2 = w2 - np.float32(rate) * gw2, b2 - np.float32(rate) * gb2

    return run


def scikit_learn(split: Split, hidden: int, batch: int, steps: int) -> Steps:
    """scikit-learn's MLPClassifier; `partial_fit` on so many images is one epoch, so `steps` steps."""
    import sklearn
    from sklearn.neural_network import MLPClassifier

    x, labels = prepared(split, steps * batch)
    model = MLPClassifier(
        (hidden,), solver="sgd", batch_size=batch, learning_rate_init=1e-4, alpha=0.0, momentum=0.0, random_state=0
    )
    classes = np.unique(split.labels)

    def run(_: int) -> None:
        with sklearn.config_context(assume_finite=True):  # a fit of many epochs checks its input once, not each epoch
            model.partial_fit(x, labels, classes=classes)

    return run


def products_numpy(sizes: tuple[int, ...], batch: int) -> Steps:
    """The matrix products of a step alone: X Wᵀ, Gᵀ X and, but for the first layer, G W."""
    rng = np.random.default_rng(0)

    def draw(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape, np.float32)

    layers = [(draw(batch, n), draw(m, n), draw(batch, m), i > 0) for i, (n, m) in enumerate(pairwise(sizes))]
    outputs = [(draw(batch, m), draw(m, n), draw(batch, n)) for n, m in pairwise(sizes)]

    def run(steps: int) -> None:
        for _ in range(steps):
            for (x, w, g, inner), (out, grad, back) in zip(layers, outputs, strict=True):
                np.matmul(x, w.T, out=out)
                np.matmul(g.T, x, out=grad)
                if inner:
                    np.matmul(g, w, out=back)

    return run


def products_torch(sizes: tuple[int, ...], batch: int) -> Steps:
    """The same in PyTorch."""
    import torch

    layers = [
        (torch.randn(batch, n), torch.randn(m, n), torch.randn(batch, m), i > 0)
        for i, (n, m) in enumerate(pairwise(sizes))
    ]
    outputs = [(torch.empty(batch, m), torch.empty(m, n), torch.empty(batch, n)) for n, m in pairwise(sizes)]

    def run(steps: int) -> None:
        for _ in range(steps):
            for (x, w, g, inner), (out, grad, back) in zip(layers, outputs, strict=True):
                torch.mm(x, w.T, out=out)
                torch.mm(g.T, x, out=grad)
                if inner:
                    torch.mm(g, w, out=back)

    return run


def plain_torch(dataset, sizes: tuple[int, ...], batch: int, rate: float) -> Steps:
    """The training loop of PyTorch's tutorials over a DataLoader."""
    import torch
    from torch import nn

    loader = torch.utils.data.DataLoader(dataset, batch_size=batch, shuffle=True, drop_last=True)
    batches = itertools.chain.from_iterable(itertools.repeat(loader))
    layers = [layer for n, m in pairwise(sizes) for layer in (nn.Linear(n, m), nn.LeakyReLU(0.02))][:-1]
    model = nn.Sequential(nn.Flatten(), *layers)
    criterion = nn.CrossEntropyLoss()
    optimizer = torch.optim.Adam(model.parameters(), lr=rate)

    def run(steps: int) -> None:
        for inputs, labels in itertools.islice(batches, steps):
            optimizer.zero_grad()
            loss = criterion(model(inputs), labels)
            loss.backward()
            optimizer.step()

    return run


def with_transforms(split: Split):
    """Images as `torchvision.datasets.CIFAR10` gives them: each a PIL image, through the tutorial's transforms."""
    import torch
    from PIL import Image
    from torchvision import transforms

    transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize(0.5, 0.5)])
    data, targets = split.images[:20_000].transpose(0, 2, 3, 1).copy(), split.labels[:20_000].tolist()
    if data.shape[-1] == 1:  # grey
        data = data[..., 0]

    class Images(torch.utils.data.Dataset):
        def __len__(self) -> int:
            return len(targets)

        def __getitem__(self, index: int):
            return transform(Image.fromarray(data[index])), targets[index]

    return Images()


def profiled(trainer: Trainer, steps: int) -> dict[str, float]:
    """Milliseconds a step inside each of PyTorch's operators, without those that they call; the largest eight."""
    import torch

    trainer.advance(trainer.step + steps)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        trainer.advance(trainer.step + steps)
    spent = {entry.key: entry.self_cpu_time_total / steps / 1e3 for entry in profile.key_averages()}
    return {name: round(spent[name], 3) for name in sorted(spent, key=spent.get, reverse=True)[:8]}


def measure_numpy(split: Split, classes: int, rounds: int):
    """The rows of the NumPy MLP."""
    chosen = settings("mlp-numpy")
    batch, (hidden,), inputs = chosen.batch_size, chosen.hidden, split.images[0].size
    steps = min(50, len(split.labels) // batch)
    trainer = build_trainer(chosen, split, classes, 0)
    seconds = interleaved(
        {
            "value": (ours(trainer), steps),
            "limit": (products_numpy((inputs, hidden, classes), batch), steps),
            "sklearn": (scikit_learn(split, hidden, batch, steps), steps),
            "plain": (plain_numpy(split, classes, hidden, batch, chosen.learning_rate, chosen.slope), steps),
        },
        rounds,
    )
    ms = {name: scaled(values, 1e3) for name, values in seconds.items()}
    name = f"NumPy MLP step {inputs}-{hidden}-{classes}, batch {batch}"
    results = [
        judged(f"{name}: matrix products", "ms", "value / limit <= 1.25", ms["value"], limit=ms["limit"]),
        judged(f"{name}: scikit-learn", "ms", "peer / value >= 1.35", ms["value"], ms["sklearn"], stretch=1.5),
    ]
    flops = 2 * batch * (2 * inputs * hidden + 3 * hidden * classes) / 1e9
    info = [
        told("NumPy MLP step written plainly", sorted(ms["plain"])[rounds // 2], "ms"),
        told("NumPy matrix products of the MLP step", sorted(inverse(seconds["limit"], flops))[rounds // 2], "GFLOP/s"),
    ]
    return results, info


def measure_torch(split: Split, classes: int, rounds: int):
    """The rows of the PyTorch MLPs."""
    import torch

    torch.set_num_threads(1)
    chosen = settings("mlp-torch")
    batch, (hidden,), inputs = chosen.batch_size, chosen.hidden, split.images[0].size
    sizes = (inputs, hidden, classes)
    images, labels = prepared(split, min(20_000, len(split.labels)))
    tensors = torch.utils.data.TensorDataset(torch.from_numpy(images), torch.from_numpy(labels))
    trainer = build_trainer(chosen, split, classes, 0)
    seconds = interleaved(
        {
            "value": (ours(trainer), 50),
            "limit": (products_torch(sizes, batch), 50),
            "tensors": (plain_torch(tensors, sizes, batch, chosen.learning_rate), 50),
            "transforms": (plain_torch(with_transforms(split), sizes, batch, chosen.learning_rate), 5),
        },
        rounds,
    )
    ms = {name: scaled(values, 1e3) for name, values in seconds.items()}
    name = f"PyTorch MLP step {inputs}-{hidden}-{classes}, batch {batch}"
    results = [
        judged(f"{name}: matrix products", "ms", "value / limit <= 1.3", ms["value"], limit=ms["limit"]),
        judged(f"{name}: TensorDataset loop", "ms", "peer / value >= 1.45", ms["value"], ms["tensors"]),
        judged(f"{name}: loop with transforms", "ms", "peer / value >= 12", ms["value"], ms["transforms"]),
    ]
    info = [told(f"{name}: where the time goes, from a profile", profiled(trainer, 50), "ms")]
    with tempfile.TemporaryDirectory() as scratch:
        # On the digits, gradients become so small that their arithmetic may take many times as long.
        datasets.prepare("digits", {"source": "digits"}, 200, Path(scratch), Path(scratch))
        digits, ten = training_split(Path(scratch))
        by_size = {split.images[0].size: (split, classes), digits.images[0].size: (digits, ten)}
        for data in by_size.values():
            wide_results, wide_info = measure_wide(*data, rounds)
            results += wide_results
            info += wide_info
    return results, info


def measure_wide(split: Split, classes: int, rounds: int):
    """The row of a PyTorch MLP with three hidden layers of 500 units."""
    chosen = dataclasses.replace(settings("mlp-torch"), hidden=(500, 500, 500), batch_size=500)
    sizes = (split.images[0].size, *chosen.hidden, classes)
    trainer = build_trainer(chosen, split, classes, 0)
    seconds = interleaved(
        {
            "value": (ours(trainer), 10),
            "limit": (products_torch(sizes, 500), 10),
        },
        rounds,
    )
    ms = {name: scaled(values, 1e3) for name, values in seconds.items()}
    name = f"PyTorch MLP step {'-'.join(map(str, sizes))}, batch 500"
    results = [judged(f"{name}: matrix products", "ms", "value / limit <= 1.2", ms["value"], limit=ms["limit"])]
    flops = 2 * 500 * (3 * sum(n * m for n, m in pairwise(sizes)) - sizes[0] * sizes[1]) / 1e9
    speed = sorted(inverse(seconds["limit"], flops))[rounds // 2]
    info = [
        told(f"{name}: where the time goes, from a profile", profiled(trainer, 10), "ms"),
        told(f"{name}: its matrix products", speed, "GFLOP/s"),
    ]
    return results, info


if __name__ == "__main__":
    framework, folder, rounds = sys.argv[1:]
    split, classes = training_split(Path(folder))
    measure = {"numpy": measure_numpy, "torch": measure_torch}[framework]
    results, info = measure(split, classes, int(rounds))
    print(json.dumps({"results": results, "info": info}))
