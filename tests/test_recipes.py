"""Every option of a recipe against a plain loop of PyTorch's own parts, which shares no code with the package.

The package's two frameworks share batches, schedules, augmentation and preprocessing, so neither can judge the other.
Here all of these are written a second time, from the documentation: a stream of random numbers is
`SeedSequence(seed, spawn_key=(purpose, index))`, and the rest are published formulas.
"""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from cifar_report.study.settings import Settings
from cifar_report.training.loop import build_trainer
from cifar_report.training.splits import Split, splits_of

SEED, CLASSES = 5, 7
INITIAL, ORDER, AUGMENT, DROPOUT, ALTERNATE = 0, 1, 2, 3, 7  # purposes of random streams
# Adam makes of a gradient of zero, as of a bias before batch norm, its rounding error divided by ε.
TOLERANCE = {"float64": {"rtol": 1e-9, "atol": 1e-9}, "float32": {"rtol": 1e-3, "atol": 1e-5}}
VGG = (64, "pool", 128, "pool", 256, 256, "pool", 512, 512, "pool", 512, 512, "pool")

# 200 images and batches of 30: 20 steps go through three epochs of 6 steps, each of which drops 20 images.
BASE = {
    "kind": "torch-mlp",
    "optimiser": "sgd",
    "learning_rate": 0.05,
    "steps": 20,
    "batch_size": 30,
    "preprocessing": "standardise",
    "evaluate_every": 10,
    "evaluation_images": 10,
    "threads": 1,
    "hidden": (12,),
    "slope": 0.1,
    "precision": "float64",
}
DEEP = {"hidden": (12, 10, 8)}
BOTH = {"train_on": "train+validation"}
MOMENTUM = {"momentum": 0.9, "weight_decay": 0.03}
NESTEROV = MOMENTUM | {"nesterov": True}
ONE_CYCLE = {"schedule": "one-cycle", "warmup": 0.33}  # 6.6 steps
MEAN_IMAGE = {"preprocessing": "mean-image", "learning_rate": 1e-4}
ADAM = {"optimiser": "adam", "learning_rate": 0.002}
ADAMW = {"optimiser": "adamw", "learning_rate": 0.002, "weight_decay": 2.0}
CONVOLUTIONAL = {"kind": "torch-vgg", "steps": 8, "batch_size": 8, "hidden": (), "slope": 0.0}
CASES = {
    "numpy-plain": {"kind": "numpy-mlp", "initial_std": 0.02, "weight_decay": 0.3, "slope": 0.0} | MEAN_IMAGE,
    "numpy-nesterov-one-cycle-both": {"kind": "numpy-mlp", "flip": True, "shift": 2} | DEEP | NESTEROV | ONE_CYCLE,
    "numpy-momentum-cosine-shift": {"kind": "numpy-mlp", "schedule": "cosine", "shift": 3}
    | BOTH
    | MOMENTUM
    | MEAN_IMAGE,
    "numpy-flip-linear": {"kind": "numpy-mlp", "flip": True, "hidden": (), "schedule": "one-cycle"},
    "sgd-flip-norm-torch": {"flip": True, "weight_decay": 0.3, "batch_norm": "torch"} | MEAN_IMAGE,
    "momentum-shift-norm-manual-average": {"shift": 2, "batch_norm": "manual", "average_decay": 0.8}
    | DEEP
    | MOMENTUM
    | {"schedule": "one-cycle"},
    "nesterov-one-cycle-norm-autograd-dropout-both": {
        "batch_norm": "autograd",
        "dropout": 0.3,
        "label_smoothing": 0.2,
        "flip": True,
        "shift": 1,
    }
    | DEEP
    | NESTEROV
    | ONE_CYCLE
    | BOTH,
    "nesterov-undecayed-mean-image-both": {"flip": True, "shift": 2, "momentum": 0.8, "nesterov": True} | MEAN_IMAGE,
    "adam-cosine-dropout-average": {"weight_decay": 0.1, "dropout": 0.5, "average_decay": 0.9, "schedule": "cosine"}
    | DEEP
    | ADAM,
    "adamw-one-cycle-smoothing": {"label_smoothing": 0.1, "initial_std": 0.05} | ADAMW | ONE_CYCLE,
    "many-steps": {"steps": 170, "deterministic": True, "initial_std": 0.05},
    "float32": {"precision": "float32", "flip": True, "shift": 1} | ADAMW,
    "vgg-adam-cosine": {"schedule": "cosine", "weight_decay": 0.1, "initial_std": 0.05} | ADAM | CONVOLUTIONAL,
    "vgg-adamw-norm-dropout-average-both": {
        "batch_norm": "torch",
        "dropout": 0.4,
        "average_decay": 0.7,
        "label_smoothing": 0.1,
        "flip": True,
        "shift": 2,
    }
    | ADAMW
    | ONE_CYCLE
    | CONVOLUTIONAL,
    "alternate-flips": {"flip": True, "alternate_flips": True},
    "alternate-flips-numpy-shift": {"kind": "numpy-mlp", "flip": True, "alternate_flips": True, "shift": 2} | BOTH,
    "bias-rate-nesterov": {"bias_rate": 8.0, "batch_norm": "torch"} | DEEP | NESTEROV | ONE_CYCLE,
    "bias-rate-adamw": {"bias_rate": 8.0, "batch_norm": "manual"} | ADAMW,
    "vgg-dirac-bias-rate": {"dirac": True, "bias_rate": 8.0, "batch_norm": "torch", "learning_rate": 0.002}
    | NESTEROV
    | CONVOLUTIONAL,
}


def drawn_arrays():
    """The three splits of a data set: not square, each channel with its own mean and spread."""
    rng = np.random.default_rng(0)
    arrays = {}
    for name, count in {"train": 200, "validation": 45, "test": 210}.items():
        images = rng.normal([[[90]], [[150]], [[200]]], [[[60]], [[30]], [[15]]], (count, 3, 17, 19))
        arrays[f"{name}-images"] = images.clip(0, 255).astype(np.uint8)
        arrays[f"{name}-labels"] = rng.integers(0, CLASSES, count)
    return arrays


ARRAYS = drawn_arrays()


def stream(purpose, index=0):
    return np.random.default_rng(np.random.SeedSequence(SEED, spawn_key=(purpose, index)))


@torch.no_grad()
def initial_model(settings):
    """The layers of the kind, with the weights that the seed stands for."""
    norms = settings.batch_norm != "none"
    dropout = [nn.Dropout(settings.dropout)] if settings.dropout else []
    if settings.kind == "torch-vgg":
        layers, inputs = [], 3
        for entry in VGG:
            if entry == "pool":
                layers += [nn.MaxPool2d(3, 2, 1)]
                continue
            layers += [nn.Conv2d(inputs, entry, 3, padding=1), *[nn.BatchNorm2d(entry)] * norms, nn.ReLU()]
            inputs = entry
        layers += [nn.Flatten(), *dropout]
    else:
        layers, inputs = [nn.Flatten()], 3 * 17 * 19
        for units in settings.hidden:
            norm = [nn.BatchNorm1d(units)] * norms
            layers += [nn.Linear(inputs, units), *norm, nn.LeakyReLU(settings.slope), *dropout]
            inputs = units
    model = nn.Sequential(*layers, nn.Linear(inputs, CLASSES))
    model.to(getattr(torch, settings.precision))
    layers = [layer for layer in model if isinstance(layer, nn.Linear | nn.Conv2d)]
    for index, layer in enumerate(layers):
        rng, shape = stream(INITIAL, index), tuple(layer.weight.shape)
        if settings.initial_std is None:
            bound = 1 / np.sqrt(layer.weight[0].numel())
            weight, bias = rng.uniform(-bound, bound, shape), rng.uniform(-bound, bound, len(layer.bias))
        else:
            weight, bias = rng.normal(0, settings.initial_std, shape), np.zeros(len(layer.bias))
        layer.weight.copy_(torch.from_numpy(weight.astype(settings.precision)))
        layer.bias.copy_(torch.from_numpy(bias.astype(settings.precision)))
        if settings.dirac and layer.weight.ndim == 4:
            nn.init.dirac_(layer.weight[: min(shape[:2])])
    return model


def preprocessed(settings, images, of):
    """Images minus the mean of the images `of`, in float32, and over their standard deviation."""
    x = torch.from_numpy(images).to(getattr(torch, settings.precision))
    if settings.preprocessing == "mean-image":
        return x - torch.from_numpy(of.mean(axis=0).astype(np.float32))
    mean, std = of.mean(axis=(0, 2, 3)), of.std(axis=(0, 2, 3))
    mean, std = (torch.from_numpy(array.astype(np.float32))[:, None, None] for array in (mean, std))
    return (x - mean) / std


def moved(settings, x, index, step, epoch, images):
    """A batch, each image moved down and right into zeros, then mirrored."""
    rng, shift, (height, width) = stream(AUGMENT, step), settings.shift, x.shape[2:]
    mirrored = rng.random(len(x)) < 0.5
    if settings.alternate_flips:
        mirrored = (stream(ALTERNATE).random(images) < 0.5)[index] ^ (epoch % 2 == 1)
    downs, rights = rng.integers(-shift, shift + 1, (2, len(x)))
    out = []
    for image, down, right, mirror in zip(x, downs, rights, mirrored, strict=True):
        padded = torch.roll(F.pad(image, (shift,) * 4), (int(down), int(right)), (1, 2))
        image = padded[:, shift : shift + height, shift : shift + width]
        out.append(image.flip(2) if settings.flip and mirror else image)
    return torch.stack(out)


def build_optimiser(settings, model):
    """PyTorch's, with a group of its own for the biases of batch norm."""
    biases = [layer.bias for layer in model if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d)]
    rest = [p for p in model.parameters() if not any(p is bias for bias in biases)]
    rate, decay = settings.learning_rate, settings.weight_decay
    groups = [{"params": rest, "lr": rate, "weight_decay": decay}]
    if biases:
        scaled = {"lr": rate * settings.bias_rate, "weight_decay": decay / settings.bias_rate}
        groups.append({"params": biases} | scaled)
    if settings.optimiser == "sgd":
        return torch.optim.SGD(groups, momentum=settings.momentum, nesterov=settings.nesterov)
    return {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[settings.optimiser](groups)


def build_schedule(settings, optimiser):
    """Of one-cycle, corners: it rises from 0, a step before the first, falls from the warm-up's end to 0 after the
    last."""
    steps = settings.steps
    factors = {
        "constant": lambda step: 1.0,
        "cosine": lambda step: (1 + np.cos(np.pi * step / steps)) / 2,
        "one-cycle": lambda step: np.interp(step, [-1, settings.warmup * steps, steps], [0, 1, 0]),
    }
    return torch.optim.lr_scheduler.LambdaLR(optimiser, factors[settings.schedule])


def trained(settings, images, labels, device):
    """The model after the last step; of an average, the model that it makes."""
    model = initial_model(settings).to(device).train()
    optimiser = build_optimiser(settings, model)
    schedule = build_schedule(settings, optimiser)
    count, size, average = len(images), settings.batch_size, None
    x, labels = preprocessed(settings, images, images), torch.from_numpy(labels)
    for step in range(settings.steps):
        epoch, place = divmod(step, count // size)
        index = stream(ORDER, epoch).permutation(count)[place * size : (place + 1) * size]
        batch = moved(settings, x[index], index, step, epoch, count)
        smoothing, targets = settings.label_smoothing, F.one_hot(labels[index], CLASSES).to(x.dtype)
        targets = (1 - smoothing) * targets + smoothing / CLASSES
        torch.manual_seed(int(stream(DROPOUT, step).integers(2**63)))
        loss = F.cross_entropy(model(batch.to(device)), targets.to(device))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        if settings.average_decay:
            decay, state = settings.average_decay, model.state_dict()
            average = average or {name: tensor.clone() for name, tensor in state.items()}
            average = {name: decay * average[name] + (1 - decay) * tensor for name, tensor in state.items()}
    if average:
        model.load_state_dict(average)
    return model.eval()


@pytest.mark.parametrize("change", [pytest.param(c, id=n) for n, c in CASES.items()])
def test_a_recipe_trains_as_a_plain_loop_does(change):
    """Weights, running statistics and the logits of test images agree to rounding after the last step."""
    settings = Settings(**BASE | change)
    split = splits_of(settings, ARRAYS)["train"]
    assert isinstance(split, Split)
    trainer = build_trainer(settings, split, CLASSES, SEED)
    test = ARRAYS["test-images"][: 12 if settings.kind == "torch-vgg" else None]
    for until in (settings.steps // 3, settings.steps):  # the evaluation between the two must leave no trace
        trainer.advance(until)
        logits = trainer.logits(test)

    both = settings.train_on == "train+validation"
    images, labels = (
        np.concatenate([ARRAYS[f"{name}-{part}"] for name in (["train", "validation"] if both else ["train"])])
        for part in ("images", "labels")
    )
    model = trained(settings, images, labels, trainer.device)
    with torch.no_grad():
        expected = model(preprocessed(settings, test, images).to(trainer.device)).cpu().numpy()
    weights, expected_weights = (
        [array for name, array in parameters.items() if not name.endswith("num_batches_tracked")]
        for parameters in (trainer.parameters(), model.cpu().state_dict())
    )
    for ours, theirs in zip(weights, expected_weights, strict=True):
        assert ours.dtype == settings.precision
        np.testing.assert_allclose(ours, theirs.numpy(), **TOLERANCE[settings.precision])
    np.testing.assert_allclose(logits, expected, **TOLERANCE[settings.precision])
