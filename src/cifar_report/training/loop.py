"""One run from its first step to its last: train, evaluate, checkpoint. No files, no clock but for telling the time."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
from jaxtyping import Float, Int

from cifar_report.randomness import Purpose, generator, stratified_indices
from cifar_report.training.batches import Images, scores

if TYPE_CHECKING:
    from cifar_report.config import Settings

LARGEST_LOSS = 1e6  # nats; beyond it a run counts as diverged: no step leads back from there


class Split(NamedTuple):
    """Images, uint8 (n, channels, height, width), and their labels, int64 (n,)."""

    images: Images
    labels: Int[np.ndarray, " n"]


class Trainer(Protocol):
    """What a loop offers; `numpy_trainer` and `torch_trainer` each have one."""

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
    """What a run has found so far, kept in its checkpoints. Seconds are wall time, summed over all resumptions."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    training_seconds: float = 0.0
    evaluation_seconds: float = 0.0


@dataclass(frozen=True)
class Outcome:
    """The end of a run: `final` holds loss and accuracy of each whole split, in evaluation mode."""

    status: str  # completed or diverged
    step: int
    final: dict[str, dict[str, float]]
    test_logits: Float[np.ndarray, "n classes"] | None


def subset(split: Split, size: int) -> Int[np.ndarray, " size"]:
    """The fixed stratified subset that curves are evaluated on, the same for all runs on this split."""
    return stratified_indices(split.labels, min(size, len(split.labels)), generator(0, Purpose.SUBSET))


def train(
    trainer: Trainer,
    settings: "Settings",
    splits: dict[str, Split],
    history: History,
    checkpoint: Callable[[History], None],
) -> Outcome:
    """Trains to the last step, or until a loss is no number or above `LARGEST_LOSS`.

    Args:
        trainer: fresh, or restored together with `history`.
        splits: those to evaluate on; `train` first.
        history: extended in place: a row a split at every evaluation.
        checkpoint: called after each evaluation and after the last step, with `history` as it then is.
    """
    parts = {}
    for name, split in splits.items():
        index = subset(split, settings.evaluation_images)
        parts[name] = Split(split.images[index], split.labels[index])

    while trainer.step < settings.steps and not _diverged(history):
        if not history.rows or history.rows[-1]["step"] < trainer.step:
            _evaluate(trainer, settings, parts, history)
            checkpoint(history)
            continue
        start = time.perf_counter()
        trainer.advance(
            min(trainer.step - trainer.step % settings.evaluate_every + settings.evaluate_every, settings.steps)
        )
        history.training_seconds += time.perf_counter() - start

    diverged = _diverged(history)
    if not diverged:
        checkpoint(history)
    history.rows = [row for row in history.rows if row["step"] < trainer.step]
    logits = _evaluate(trainer, settings, splits, history)
    final = {row["split"]: {k: row[k] for k in ("loss", "accuracy")} for row in history.rows[-len(splits) :]}
    diverged = diverged or _diverged(history)
    return Outcome("diverged" if diverged else "completed", trainer.step, final, logits.get("test"))


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
