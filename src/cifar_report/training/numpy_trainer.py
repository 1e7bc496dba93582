"""Training of the NumPy MLP."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Int
from threadpoolctl import threadpool_limits

from cifar_report.models.numpy_nn.mlp import MLP
from cifar_report.models.numpy_nn.sgd import SGD
from cifar_report.training.batches import (
    Images,
    Order,
    augmented,
    draw_augmentation,
    learning_rate,
    statistics,
)

if TYPE_CHECKING:
    from cifar_report.study.settings import Settings

EVALUATION_BATCH = 1000


class Trainer:
    """A NumPy MLP, its optimiser and its data, at some step.

    Args:
        build: of the model's module.
        settings: of the variant.
        images, labels: the training split, uint8 and int64.
        classes: how many there are.
        seed: of the initial weights, the data order and the augmentation.
    """

    device = "cpu"

    def __init__(
        self,
        build: Callable[..., MLP],
        settings: "Settings",
        images: Images,
        labels: Int[np.ndarray, " n"],
        classes: int,
        seed: int,
    ):
        threadpool_limits(settings.threads, user_api="blas")
        self.settings, self.images, self.labels, self.seed = settings, images, labels, seed
        self.dtype = np.dtype(settings.precision)
        self.subtract, self.divide = statistics(images, settings.preprocessing)
        self.order = Order(len(images), settings.batch_size, seed)
        self.model = build(settings, images.shape[1:], classes, seed)
        self.optimiser = SGD(self.model.parameters(), settings.momentum, settings.nesterov, settings.weight_decay)
        self.step = 0

    def advance(self, until: int) -> None:
        """Trains up to step `until`."""
        for step in range(self.step, until):
            index = self.order.batch(step)
            x = self._preprocessed(self.images[index])
            if self.settings.flip or self.settings.shift:
                x = augmented(x, *draw_augmentation(self.settings, self.seed, step, self.order))
            self.model.loss_and_gradients(x.reshape(len(x), -1), self.labels[index])
            self.optimiser.step(self.model.gradients(), learning_rate(self.settings, step))
        self.step = until

    def logits(self, images: Images) -> Float[np.ndarray, "n classes"]:
        """Of any number of images, in the parameters' dtype."""
        batches = (images[i : i + EVALUATION_BATCH] for i in range(0, len(images), EVALUATION_BATCH))
        return np.concatenate([self.model.forward(self._preprocessed(x).reshape(len(x), -1)) for x in batches])

    def parameters(self) -> dict[str, np.ndarray]:
        """The trained weights by name."""
        return self.model.parameters()

    def state(self) -> dict[str, np.ndarray]:
        """All that `restore` needs besides the step."""
        velocity = {f"velocity.{name}": v for name, v in self.optimiser.velocity.items()}
        return self.model.parameters() | velocity

    def restore(self, state: dict[str, np.ndarray], step: int) -> None:
        """Goes on from a state taken at `step`."""
        for name, array in self.state().items():
            array[...] = state[name]
        self.step = step

    def count(self) -> dict[str, int]:
        """Trainable parameters, and floating-point operations of one image's forward pass (2 a multiply-add)."""
        weights = sum(layer.weight.size for layer in self.model.linears)
        return {"parameters": sum(w.size for w in self.model.parameters().values()), "forward_flops": 2 * weights}

    def peak_memory_mb(self) -> float | None:
        """Of the accelerator; there is none."""
        return None

    def _preprocessed(self, images: Images) -> Float[np.ndarray, "n channels height width"]:
        x = images.astype(self.dtype)
        x -= self.subtract
        if self.settings.preprocessing == "standardise":
            x /= self.divide
        return x
