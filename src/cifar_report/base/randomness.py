"""Every random draw of a run comes from its seed and a named purpose; nothing depends on what was drawn before.

A stream is `numpy.random.SeedSequence(seed, spawn_key=(purpose, index))`. Where the index is the step or the epoch,
a resumed run needs no saved generator state: the step number is the state.
"""

import math
from enum import IntEnum

import numpy as np
from jaxtyping import Float, Int


class Purpose(IntEnum):
    """What a stream is drawn for. The numbers are part of every result: never renumber."""

    INITIAL = 0
    ORDER = 1
    AUGMENT = 2
    DROPOUT = 3
    SUBSET = 4
    VALIDATION = 5
    SHIFT = 6
    FLIPS = 7


def generator(seed: int, purpose: Purpose, index: int = 0) -> np.random.Generator:
    """The stream of `seed` for one purpose, and for one index (a step, an epoch or a layer) of it."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(int(purpose), index)))


def initial_parameters(
    seed: int, layer: int, shape: tuple[int, ...], std: float | None
) -> tuple[Float[np.ndarray, "out ..."], Float[np.ndarray, " out"]]:
    """Initial weight (out, in, ...) and bias (out,) of one layer, float64, the same whatever framework trains them.

    With `std`, W ~ N(0, std²) and b = 0, as the original's NumPy network. With None, PyTorch's default for linear and
    convolutional layers: both uniform on ±1/√fan_in (`torch.nn.Linear.reset_parameters`; LeCun et al. 1998 give the
    idea, He et al. 2015 the parametrisation).
    """
    rng = generator(seed, Purpose.INITIAL, layer)
    if std is not None:
        return rng.normal(0.0, std, shape), np.zeros(shape[0])
    bound = 1 / math.sqrt(math.prod(shape[1:]))
    return rng.uniform(-bound, bound, shape), rng.uniform(-bound, bound, shape[0])


def stratified_indices(labels: Int[np.ndarray, " n"], size: int, rng: np.random.Generator) -> Int[np.ndarray, " size"]:
    """Sorted indices of `size` samples in which each class keeps its share, to within one sample.

    Raises:
        ValueError: if `size` is not between 0 and n.
    """
    if not 0 <= size <= len(labels):
        raise ValueError(f"{size} samples asked of {len(labels)}")
    shuffled = rng.permutation(len(labels))
    # Place in its class, from 0 to 1: taking the smallest places takes the same share of every class.
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    counts = np.bincount(labels)
    counts = counts[counts > 0]
    place = np.concatenate([(np.arange(n) + 0.5) / n for n in counts])
    return np.sort(by_class[np.argsort(place, kind="stable")[:size]])
