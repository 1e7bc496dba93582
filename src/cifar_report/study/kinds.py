"""The kinds of model: for each, what all others ask of it. A new kind is a module with a `build`, and an entry here."""

import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A kind of model.

    Trainer and builder are dotted names, since they lie above this module and take seconds to import.
    """

    trainer: str  # trains it: Trainer(build, settings, images, labels, classes, seed)
    builder: str  # makes its model: build(settings, shape, classes, seed)
    refuses: tuple[str, ...] = ()  # settings that mean nothing to it
    smallest_image: int = 1  # pixels a side


KINDS = {
    "numpy-mlp": Kind(
        trainer="cifar_report.training.numpy_trainer.Trainer",
        builder="cifar_report.models.numpy_nn.mlp.build",
        refuses=("batch_norm", "dropout", "average_decay", "label_smoothing", "deterministic", "dirac", "bias_rate"),
    ),
    "torch-mlp": Kind(
        trainer="cifar_report.training.torch_trainer.Trainer",
        builder="cifar_report.models.torch_nn.mlp.build",
        refuses=("dirac",),
    ),
    "torch-vgg": Kind(
        trainer="cifar_report.training.torch_trainer.Trainer",
        builder="cifar_report.models.torch_nn.vgg.build",
        refuses=("hidden", "slope"),
        smallest_image=17,
    ),
}


def entries(kind: str) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """A kind's trainer and builder; imports what this kind needs and nothing else.

    The one import by name on the training path: `identity.code_digest` of a kind counts it as the kind's two entries.
    """
    return pkgutil.resolve_name(KINDS[kind].trainer), pkgutil.resolve_name(KINDS[kind].builder)
