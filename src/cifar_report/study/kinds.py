"""The kinds of model: for each, what all others ask of it. A new kind is a module with a `build`, and an entry here."""

import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A kind of model.

    Trainer and builder are dotted names, since they lie above this module and take seconds to import.
    """

    trainer: str  # trains it: Trainer(build, settings, images, labels, classes, seed)
    builder: str  # makes its model: build(settings, shape, classes, seed)
    family: str  # "mlp", "vgg" or a name of your own: kinds of one family are shown beside each other
    backend: str  # "numpy" or "torch": what it computes with
    words: str  # in a recipe
    refuses: tuple[str, ...] = ()  # settings that mean nothing to it
    takes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # of other settings, the values that it has
    smallest_image: int = 1  # pixels a side
    memory_mb: int = 3000  # what a run asks for at first
    minutes: int = 480  # the same

    @property
    def short(self) -> bool:
        """Whether its runs share a job of a cluster, and leave the GPUs there to others."""
        return self.minutes < 60


KINDS = {
    "numpy-mlp": Kind(
        trainer="cifar_report.training.numpy_trainer.Trainer",
        builder="cifar_report.models.numpy_nn.mlp.build",
        family="mlp",
        backend="numpy",
        words="in NumPy",
        refuses=("batch_norm", "dropout", "average_decay", "label_smoothing", "deterministic", "dirac", "bias_rate"),
        takes={"optimiser": ("sgd",), "precision": ("float32", "float64")},
        memory_mb=1000,
        minutes=20,
    ),
    "torch-mlp": Kind(
        trainer="cifar_report.training.torch_trainer.Trainer",
        builder="cifar_report.models.torch_nn.mlp.build",
        family="mlp",
        backend="torch",
        words="in PyTorch",
        refuses=("dirac",),
        memory_mb=2000,
        minutes=20,
    ),
    "torch-vgg": Kind(
        trainer="cifar_report.training.torch_trainer.Trainer",
        builder="cifar_report.models.torch_nn.vgg.build",
        family="vgg",
        backend="torch",
        words="a VGG",
        refuses=("hidden", "slope"),
        takes={"batch_norm": ("none", "torch")},
        smallest_image=17,
    ),
}


def entries(kind: str) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """A kind's trainer and builder; imports what this kind needs and nothing else.

    The one import by name on the training path: `identity.code_digest` of a kind counts it as the kind's two entries.
    """
    return pkgutil.resolve_name(KINDS[kind].trainer), pkgutil.resolve_name(KINDS[kind].builder)
