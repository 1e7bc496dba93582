"""Which images a run trains on and which it is evaluated on, from the arrays that it is handed."""

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Int

from cifar_report.base.randomness import Purpose, generator, stratified_indices
from cifar_report.training.batches import Images

if TYPE_CHECKING:
    from cifar_report.study.settings import Settings


class Split(NamedTuple):
    """Images, uint8 (n, channels, height, width), and their labels, int64 (n,)."""

    images: Images
    labels: Int[np.ndarray, " n"]


def splits_of(settings: "Settings", arrays: dict[str, np.ndarray]) -> dict[str, Split]:
    """The splits that a run trains and is evaluated on, `train` first.

    Trained on train and validation together, a run has no validation split.

    Args:
        arrays: `<split>-images` and `<split>-labels` of train, validation and, but for a search, test.
    """
    splits = {
        name: Split(arrays[f"{name}-images"], arrays[f"{name}-labels"])
        for name in ("train", "validation", "test")
        if f"{name}-images" in arrays and len(arrays[f"{name}-labels"])
    }
    if settings.train_on == "train+validation" and "validation" in splits:
        held_out = splits.pop("validation")
        splits["train"] = Split(*(np.concatenate(pair) for pair in zip(splits["train"], held_out, strict=True)))
    return splits


def subset(split: Split, size: int) -> Int[np.ndarray, " size"]:
    """The fixed stratified subset that curves are evaluated on, the same for all runs on this split."""
    return stratified_indices(split.labels, min(size, len(split.labels)), generator(0, Purpose.SUBSET))
