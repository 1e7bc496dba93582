"""A trained network from its files, for the analyses that show it further images."""

from typing import Any

from cifar_report.data import datasets
from cifar_report.runs import devices
from cifar_report.runs.record import Run
from cifar_report.study.config import Settings
from cifar_report.training.loop import build_trainer
from cifar_report.training.splits import splits_of


def trained(run: Run, data: datasets.Dataset) -> Any:
    """The run's trainer, with its trained weights in place of the initial ones; its `logits` takes uint8 images."""
    without_state = {"average_decay": 0.0, "momentum": 0.0, "nesterov": False}
    settings = Settings.from_mapping(run.record["settings"] | without_state)
    split = splits_of(settings, data.arrays(test=False))["train"]
    if settings.kind.startswith("torch"):
        devices.require_gpu()
    trainer = build_trainer(settings, split, len(data.class_names), run.seed)
    prefix = "" if settings.kind == "numpy-mlp" else "model."
    trainer.restore({prefix + name: array for name, array in run.weights().items()}, run.record["step"])
    return trainer
