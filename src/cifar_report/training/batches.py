"""Which images a step sees, how they are preprocessed and augmented, and with which learning rate: pure functions."""

import math
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from cifar_report.base.randomness import Purpose, generator

if TYPE_CHECKING:
    from cifar_report.study.settings import Settings

Images = UInt8[np.ndarray, "n channels height width"]


class Order:
    """Mini-batches without replacement: each epoch a new permutation, the remainder dropped.

    The permutation depends on the seed and the epoch alone, so all variants of a seed see the images in one order.
    """

    def __init__(self, images: int, batch_size: int, seed: int):
        if batch_size > images:
            raise ValueError(f"a batch of {batch_size} from {images} training images")
        self.images, self.batch_size, self.seed = images, batch_size, seed
        self.per_epoch = images // batch_size
        self.drawn = -1  # the epoch of the permutation at hand

    def batch(self, step: int) -> Int[np.ndarray, " batch"]:
        """The indices of the images of a step, counted from 0."""
        epoch, place = divmod(step, self.per_epoch)
        if epoch != self.drawn:
            self.permutation = generator(self.seed, Purpose.ORDER, epoch).permutation(self.images)
            self.drawn = epoch
        return self.permutation[place * self.batch_size : (place + 1) * self.batch_size]

    def epoch(self, step: int) -> int:
        """The epoch of a step, both counted from 0."""
        return step // self.per_epoch


def draw_augmentation(
    settings: "Settings", seed: int, step: int, order: Order
) -> tuple[Bool[np.ndarray, " batch"], Int[np.ndarray, "2 batch"]]:
    """Which images of a step's batch are mirrored, and by how many pixels each moves down and right.

    With `alternate_flips`, an image is mirrored in every second epoch, and a draw decides in which (Jordan 2024): two
    epochs show each image both ways, which independent draws do for only half of the images.
    """
    rng = generator(seed, Purpose.AUGMENT, step)
    flips = rng.random(settings.batch_size) < (0.5 if settings.flip else 0.0)
    if settings.flip and settings.alternate_flips:
        at_first = generator(seed, Purpose.FLIPS).random(order.images) < 0.5
        flips = at_first[order.batch(step)] ^ (order.epoch(step) % 2 == 1)
    return flips, rng.integers(-settings.shift, settings.shift + 1, (2, settings.batch_size))


def augmented(
    x: Float[np.ndarray, "batch channels height width"],
    flips: Bool[np.ndarray, " batch"],
    moves: Int[np.ndarray, "2 batch"],
) -> Float[np.ndarray, "batch channels height width"]:
    """Each image moved down and right by its `moves`, zeros filling in, and then mirrored where it is to be."""
    out = np.zeros_like(x)
    for image, target, flip, (down, right) in zip(x, out, flips, moves.T.tolist(), strict=True):
        (rows_to, rows_from), (columns_to, columns_from) = map(_overlap, (down, right), image.shape[1:])
        target = target[:, :, ::-1] if flip else target
        target[:, rows_to, columns_to] = image[:, rows_from, columns_from]
    return out


def _overlap(move: int, size: int) -> tuple[slice, slice]:
    """Where a line of `size` pixels, moved by `move`, covers its old place, and which of its pixels come there."""
    return slice(max(move, 0), max(size + move, 0)), slice(max(-move, 0), max(size - move, 0))


def statistics(images: Images, preprocessing: str) -> tuple[np.ndarray, np.ndarray]:
    """What is subtracted and what is divided by, float32, from the training images; both broadcast over a batch.

    `mean-image`: the mean of each pixel (channels, height, width), and 1; the pixels stay 0 to 255.
    `standardise`: mean and standard deviation of each channel (channels, 1, 1).
    """
    if preprocessing == "mean-image":
        return images.mean(axis=0, dtype=np.float64).astype(np.float32), np.ones((1, 1, 1), np.float32)
    # From counts of the 256 values, exactly, instead of a float copy of the data.
    counts = np.stack([np.bincount(images[:, c].ravel(), minlength=256) for c in range(images.shape[1])])
    values = np.arange(256.0)
    mean = counts @ values / counts.sum(axis=1)
    variance = counts @ values**2 / counts.sum(axis=1) - mean**2
    std = np.sqrt(np.maximum(variance, 1.0))  # a channel that hardly varies is only centred
    return mean.astype(np.float32)[:, None, None], std.astype(np.float32)[:, None, None]


def learning_rate(settings: "Settings", step: int) -> float:
    """The rate of a step, counted from 0.

    constant: η. cosine: η (1 + cos(π κ/K)) / 2 (Loshchilov and Hutter 2017). one-cycle: a linear rise from 0 to η over
    the share `warmup` of the K steps, then a linear fall to 0 (after Smith and Topin 2019).
    """
    peak, progress = settings.learning_rate, step / settings.steps
    if settings.schedule == "cosine":
        return peak * (1 + math.cos(math.pi * progress)) / 2
    if settings.schedule == "one-cycle":
        if progress < settings.warmup:
            return peak * (step + 1) / (settings.warmup * settings.steps + 1)
        return peak * (1 - progress) / (1 - settings.warmup)
    return peak


def scores(logits: Float[np.ndarray, "n classes"], labels: Int[np.ndarray, " n"]) -> tuple[float, float]:
    """Mean cross entropy in nats and accuracy as a fraction; computed in float64."""
    x = logits.astype(np.float64)
    x -= x.max(axis=1, keepdims=True)
    losses = np.log(np.exp(x).sum(axis=1)) - x[np.arange(len(x)), labels]
    return float(losses.mean()), float((logits.argmax(axis=1) == labels).mean())
