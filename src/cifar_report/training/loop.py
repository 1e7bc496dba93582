"""One run from its first step to its last: train, evaluate, checkpoint. No files; the clock is only reported."""

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from jaxtyping import Float

from cifar_report.base.files import array_digest
from cifar_report.study.kinds import entries
from cifar_report.training.batches import Images, scores
from cifar_report.training.splits import Split, splits_of, subset

if TYPE_CHECKING:
    from cifar_report.study.settings import Settings

LARGEST_LOSS = 1e6  # nats; beyond it a run counts as diverged: no step leads back from there


class Trainer(Protocol):
    """What trains a kind of model; `numpy_trainer` and `torch_trainer` each have one."""

    device: str
    step: int

    def advance(self, until: int) -> None: ...
    def logits(self, images: Images) -> Float[np.ndarray, "n classes"]: ...
    def parameters(self) -> dict[str, np.ndarray]: ...
    def state(self) -> dict[str, np.ndarray]: ...
    def restore(self, state: dict[str, np.ndarray], step: int) -> None: ...
    def count(self) -> dict[str, int]: ...
    def peak_memory_mb(self) -> float | None: ...


@dataclass
class History:
    """What a run has measured so far. Seconds are wall time, summed over all resumptions."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    training_seconds: float = 0.0
    evaluation_seconds: float = 0.0


@dataclass(frozen=True)
class Checkpoint:
    """All that a run needs to go on from a step, to the same bits; `digest` tells whether it is what was saved."""

    step: int
    state: dict[str, np.ndarray]
    history: History
    digest: str


def checkpoint_digest(step: int, state: dict[str, np.ndarray], history: History) -> str:
    """SHA-256 of a checkpoint's step, arrays and history."""
    arrays = {name: array_digest(array) for name, array in sorted(state.items())}
    return hashlib.sha256(
        json.dumps(
            [step, arrays, history.rows, history.training_seconds, history.evaluation_seconds], sort_keys=True
        ).encode()
    ).hexdigest()


@dataclass(frozen=True)
class Outcome:
    """The end of a run, with what it was really handed: whoever files it compares that with what was asked for.

    `final` holds loss and accuracy of each whole split, in evaluation mode; `digests` the SHA-256 of each array.
    """

    settings: "Settings"
    seed: int
    digests: dict[str, str]
    status: str  # completed or diverged
    step: int
    history: History
    final: dict[str, dict[str, float]]
    test_logits: Float[np.ndarray, "n classes"] | None
    parameters: dict[str, np.ndarray]
    counts: dict[str, int]
    images: dict[str, tuple[int, int]]  # of each split: evaluated along the curve, and in all
    device: str
    device_memory_mb: float | None


def build_trainer(settings: "Settings", split: Split, classes: int, seed: int) -> Trainer:
    """The trainer of a kind of model before its first step.

    Args:
        split: the training images; classes: how many there are.
        seed: of the initial weights, the data order, the augmentation and dropout.
    """
    trainer, build = entries(settings.kind)
    return trainer(build, settings, split.images, split.labels, classes, seed)


def place(trainer: Trainer, weights: dict[str, np.ndarray], step: int) -> None:
    """Gives the model of a trainer other weights, by their names in it; the rest of its state stays."""
    state = trainer.state()
    names = {name.removeprefix("model."): name for name in state}
    trainer.restore(state | {names[name]: array for name, array in weights.items()}, step)


def train(
    settings: "Settings",
    seed: int,
    arrays: dict[str, np.ndarray],
    checkpoint: Checkpoint | None,
    save: Callable[[Checkpoint], None],
) -> Outcome:
    """Trains to the last step, or until a loss is no number or above `LARGEST_LOSS`.

    Args:
        arrays: as of `splits_of`; each class has images in train or validation.
        checkpoint: where to go on from; None to begin.
        save: called at each evaluation and after the last step.

    Raises:
        ValueError: the checkpoint is not what was saved.
    """
    digests = {name: array_digest(array) for name, array in arrays.items()}
    classes = 1 + max(int(array.max()) for name, array in arrays.items() if name.endswith("-labels") and len(array))
    splits = splits_of(settings, arrays)
    chosen = {name: subset(split, settings.evaluation_images) for name, split in splits.items()}
    parts = {name: Split(*(array[chosen[name]] for array in split)) for name, split in splits.items()}
    trainer, history = build_trainer(settings, splits["train"], classes, seed), History()
    if checkpoint is not None:
        if checkpoint.digest != checkpoint_digest(checkpoint.step, checkpoint.state, checkpoint.history):
            raise ValueError("the checkpoint is not what was saved; what reads it was changed")
        trainer.restore(checkpoint.state, checkpoint.step)
        history = checkpoint.history

    while trainer.step < settings.steps and not _diverged(history):
        if not history.rows or history.rows[-1]["step"] < trainer.step:
            _evaluate(trainer, settings, parts, history)
            save(_checkpoint(trainer, history))
            continue
        start = time.perf_counter()
        trainer.advance(
            min(trainer.step - trainer.step % settings.evaluate_every + settings.evaluate_every, settings.steps)
        )
        history.training_seconds += time.perf_counter() - start

    diverged = _diverged(history)
    if not diverged:
        save(_checkpoint(trainer, history))
    history.rows = [row for row in history.rows if row["step"] < trainer.step]
    logits = _evaluate(trainer, settings, splits, history)
    diverged = diverged or _diverged(history)
    return Outcome(
        settings=settings,
        seed=seed,
        digests=digests,
        status="diverged" if diverged else "completed",
        step=trainer.step,
        history=history,
        final={row["split"]: {k: row[k] for k in ("loss", "accuracy")} for row in history.rows[-len(splits) :]},
        test_logits=logits.get("test"),
        parameters=trainer.parameters(),
        counts=trainer.count(),
        images={name: (len(chosen[name]), len(split.labels)) for name, split in splits.items()},
        device=trainer.device,
        device_memory_mb=trainer.peak_memory_mb(),
    )


def _checkpoint(trainer: Trainer, history: History) -> Checkpoint:
    state = {name: np.asarray(array, order="C") for name, array in trainer.state().items()}
    return Checkpoint(trainer.step, state, history, checkpoint_digest(trainer.step, state, history))


def _evaluate(
    trainer: Trainer, settings: "Settings", splits: dict[str, Split], history: History
) -> dict[str, Float[np.ndarray, "n classes"]]:
    start = time.perf_counter()
    logits = {name: trainer.logits(split.images) for name, split in splits.items()}
    for name, split in splits.items():
        loss, accuracy = scores(logits[name], split.labels)
        history.rows.append(
            {
                "step": trainer.step,
                "samples_seen": trainer.step * settings.batch_size,
                "split": name,
                "loss": loss,
                "accuracy": accuracy,
            }
        )
    history.evaluation_seconds += time.perf_counter() - start
    return logits


def _diverged(history: History) -> bool:
    """Whether a loss of the last evaluation is no number (None, once it went through JSON) or has exploded."""
    return any(
        row["loss"] is None or not row["loss"] <= LARGEST_LOSS
        for row in history.rows
        if row["step"] == history.rows[-1]["step"]
    )
