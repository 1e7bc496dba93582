"""Whether two implementations of one network agree: their losses and gradients, step by step, in float64.

Agreement is a matter of rounding, which float64 makes small enough to tell it from a defect: programs that compute the
same differ by about 1e-15, a wrong gradient by a share of itself. Trained in float32, equal programs part as soon as
rounding moves one pre-activation across the kink of a ReLU, so that their curves show nothing.
"""

import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from cifar_report.analysis import measurements
from cifar_report.data import datasets
from cifar_report.study.kinds import KINDS
from cifar_report.study.settings import Settings
from cifar_report.training.loop import Trainer, build_trainer, place
from cifar_report.training.splits import Split, splits_of

STEPS = 50
NEGLIGIBLE = 1e-12  # share of the whole gradient's norm below which a tensor is rounding error alone, and is skipped


def write(stage: dict[str, Any], dataset: Path, output: Path) -> None:
    """Writes `agreement.csv`, a row a pair and step: see `compared`.

    Args:
        stage: {"pairs": [{"first", "second": names, "seed", "settings": {name: the settings of each}}, …]}.
        dataset: folder of the arrays.
    """
    os.environ["CUDA_VISIBLE_DEVICES"] = ""  # a step that a GPU replays cannot be looked at
    data = datasets.load(dataset)
    arrays = data.arrays(test=False)
    rows = []
    for pair in stage["pairs"]:
        settings = [Settings.from_mapping(pair["settings"][pair[place]]) for place in ("first", "second")]
        split = splits_of(settings[0], arrays)["train"]
        steps = compared(settings[0], settings[1], split, len(data.class_names), pair["seed"])
        rows += [(pair["first"], pair["second"], pair["seed"], *step) for step in steps]
        largest = max(max(step.loss_difference, step.gradient_difference) for step in steps)
        signs, of = sum(step.sign_changes for step in steps), sum(step.pre_activations for step in steps)
        print(f"{pair['first']} and {pair['second']}: they differ by {largest:.1e} at most", end="; ")
        print(f"{signs} of {of} pre-activations have another sign", flush=True)
    measurements.write(output, measurements.AGREEMENT, rows)


class Row(NamedTuple):
    """A step of both implementations, each on its own way from the same initial weights.

    Differences are relative to the larger of the two: of losses, and of a tensor's gradients in Euclidean norm.
    Gradients are taken from identical weights, those that the first has at this step; a tensor is skipped where both of
    its gradients are below NEGLIGIBLE times the whole gradient.
    """

    step: int
    loss_first: float  # nats, of the batch, before the update
    loss_second: float
    loss_difference: float
    gradient_difference: float  # the largest of any tensor
    tensor: str  # that one, by the first's name for it; "" where all are skipped
    tensors: int  # compared
    skipped: int
    sign_changes: int  # pre-activations of the batch that have another sign in the second
    pre_activations: int  # all of them


def compared(first: Settings, second: Settings, split: Split, classes: int, seed: int) -> list[Row]:
    """Trains both for STEPS in float64, on the same batches, and compares them at each step.

    The steps are the trainers' own; what they compute is looked at on the way, and nothing is computed again.

    Args:
        first, second: of two implementations of one network.
        split: the training images; classes: how many there are.
        seed: of the initial weights and the batches.
    """

    def observed(settings: Settings) -> "Observed":
        double = Settings.from_mapping(settings.full() | {"precision": "float64"})
        return Observed(build_trainer(double, split, classes, seed), settings, split)

    one, other, beside = observed(first), observed(second), observed(second)
    rows = []
    for step in range(STEPS):
        beside.place(one.weights(), step)
        for each in (one, other, beside):
            each.trainer.advance(step + 1)
        gaps = differences(one.gradients, beside.gradients)
        tensor = max(gaps, key=lambda name: np.nan_to_num(gaps[name], nan=np.inf), default="")
        rows.append(
            Row(
                step,
                one.loss,
                other.loss,
                abs(one.loss - other.loss) / (max(one.loss, other.loss) or 1),
                gaps.get(tensor, 0.0),
                tensor,
                len(gaps),
                len(one.gradients) - len(gaps),
                int((one.signs() != other.signs()).sum()),
                one.signs().size,
            )
        )
    return rows


def differences(first: dict[str, np.ndarray], second: dict[str, np.ndarray]) -> dict[str, float]:
    """By how much each tensor differs, relative to the larger of its two norms, without those that are negligible.

    Args:
        first, second: gradients of the same tensors in the same order, by each implementation's names.
    """
    pairs = {name: (a, b) for (name, a), b in zip(first.items(), second.values(), strict=True)}
    norms = {name: max(np.linalg.norm(a), np.linalg.norm(b)) for name, (a, b) in pairs.items()}
    whole = np.sqrt(sum(norm**2 for norm in norms.values()))
    kept = [name for name, norm in norms.items() if not norm < NEGLIGIBLE * whole and norm != 0]
    return {name: float(np.linalg.norm(pairs[name][0] - pairs[name][1]) / norms[name]) for name in kept}


class Observed:
    """A trainer, of which each step leaves the batch's loss, the gradients and the pre-activations' signs here.

    `gradients` are what the optimiser is handed, by the names of the trained tensors in the order of the layers.
    """

    loss: float
    gradients: dict[str, Float[np.ndarray, "..."]]

    def __init__(self, trainer: Trainer, settings: Settings, split: Split):
        self.trainer: Any = trainer
        self.settings, self.split = settings, split
        self._positive: list[np.ndarray] = []
        self.is_torch = KINDS[settings.kind].backend == "torch"
        self._watch_torch() if self.is_torch else self._watch_numpy()

    def weights(self) -> list[Float[np.ndarray, "..."]]:
        """Copies of the trained tensors, in the order of the layers."""
        parameters = self.trainer.parameters()
        return [parameters[name].copy() for name in self._names()]

    def place(self, weights: list[Float[np.ndarray, "..."]], step: int) -> None:
        """Takes over the trained tensors of another implementation at a step."""
        place(self.trainer, dict(zip(self._names(), weights, strict=True)), step)

    def signs(self) -> Bool[np.ndarray, " pre_activations"]:
        """Which pre-activations of the step's batch are positive, from the first layer to the last."""
        return np.concatenate([each.ravel() for each in self._positive] or [np.zeros(0, bool)])

    def _names(self) -> list[str]:
        if not self.is_torch:
            return list(self.trainer.parameters())
        return [name for name, _ in self.trainer.model.named_parameters()]

    def _watch_numpy(self) -> None:
        model, optimiser = self.trainer.model, self.trainer.optimiser
        compute, update = model.loss_and_gradients, optimiser.step

        def loss_and_gradients(x: Float[np.ndarray, "batch in"], targets: Int[np.ndarray, " batch"]) -> float:
            self._positive.clear()
            self.loss = compute(x, targets)
            return self.loss

        def step(gradients: dict[str, np.ndarray], rate: float) -> None:
            self.gradients = {name: array.copy() for name, array in gradients.items()}
            update(gradients, rate)

        model.loss_and_gradients, optimiser.step = loss_and_gradients, step
        for module in model.modules:
            if hasattr(module, "slope"):
                module.forward = self._noting(module.forward)

    def _noting(self, forward: Any) -> Any:
        def noting(x: Float[np.ndarray, "batch units"]) -> Float[np.ndarray, "batch units"]:
            self._positive.append(x > 0)
            return forward(x)

        return noting

    def _watch_torch(self) -> None:
        from torch import Tensor, from_numpy, nn

        model = self.trainer.model

        def at_start(module: Any, inputs: tuple[Tensor]) -> None:
            self._positive.clear()

        def at_end(module: Any, inputs: tuple[Tensor], logits: Tensor) -> None:
            labels = from_numpy(self.split.labels[self.trainer.order.batch(self.trainer.step)])
            smoothing = self.settings.label_smoothing
            self.loss = nn.functional.cross_entropy(logits.detach(), labels, label_smoothing=smoothing).item()

        def note(module: Any, inputs: tuple[Tensor]) -> None:
            self._positive.append((inputs[0] > 0).numpy())

        def before_update(optimiser: Any, *rest: Any) -> None:
            self.gradients = {name: weight.grad.clone().numpy() for name, weight in model.named_parameters()}

        model.register_forward_pre_hook(at_start)
        model.register_forward_hook(at_end)
        for module in model.modules():
            if isinstance(module, nn.LeakyReLU | nn.ReLU):
                module.register_forward_pre_hook(note)
        self.trainer.optimiser.register_step_pre_hook(before_update)
