"""Training of the PyTorch models, on a GPU where there is one."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from cifar_report.base.randomness import Purpose, generator
from cifar_report.models.torch_nn.convolution import Convolution
from cifar_report.training.batches import (
    Images,
    Order,
    draw_augmentation,
    learning_rate,
    statistics,
)

if TYPE_CHECKING:
    from cifar_report.study.settings import Settings

EVALUATION_BATCH = {"cpu": 100, "cuda": 2000}
STEPS_DRAWN = 100  # whose batches are drawn and sent to the device at once
EAGER_STEPS = 3  # before a step is recorded: libraries set themselves up, gradients and moments come to be


class Batch(NamedTuple):
    """What a step takes in, on the device."""

    chosen: Int[Tensor, " batch"]
    rate: Float[Tensor, ""]
    flips: Bool[Tensor, " batch"]
    moves: Int[Tensor, "2 batch"]


class Recorded:
    """A step on a GPU: after a few calls recorded as a CUDA graph and replayed, one launch for hundreds of kernels."""

    def __init__(self, step: Callable[[Batch], None]):
        self.step, self.calls = step, 0

    def __call__(self, batch: Batch) -> None:
        """Runs the step on this batch."""
        self.calls += 1
        if self.calls <= EAGER_STEPS:
            stream = torch.cuda.Stream()
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                self.step(batch)
            torch.cuda.current_stream().wait_stream(stream)
            return
        if self.calls == EAGER_STEPS + 1:
            self.input = Batch(*(tensor.clone() for tensor in batch))
            self.graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self.graph):
                self.step(self.input)
        for mine, tensor in zip(self.input, batch, strict=True):
            mine.copy_(tensor)
        self.graph.replay()


class Trainer:
    """A PyTorch model, its optimiser and its data, at some step. The data stays on the device as uint8.

    Args:
        build: of the model's module.
        settings: of the variant.
        images, labels: the training split, uint8 and int64.
        classes: how many there are.
        seed: of the initial weights, the data order, the augmentation and dropout.
    """

    def __init__(
        self,
        build: Callable[..., nn.Module],
        settings: "Settings",
        images: Images,
        labels: Int[np.ndarray, " n"],
        classes: int,
        seed: int,
    ):
        self.settings, self.seed = settings, seed
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        torch.set_num_threads(settings.threads)
        if settings.threads > 1:
            with denormals_flushed():  # threads keep the state in which they are born
                torch.ones(2**20).add_(1)
        torch.set_float32_matmul_precision("high" if settings.precision == "tf32" else "highest")
        torch.backends.cudnn.allow_tf32 = settings.precision == "tf32"
        torch.backends.cudnn.benchmark = not settings.deterministic
        if settings.deterministic:
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(settings.deterministic)

        self.dtype = torch.float64 if settings.precision == "float64" else torch.float32
        model = build(settings, images.shape[1:], classes, seed)
        # Convolutions run fastest with the channels last; a flattened image must keep its order.
        convolves = any(isinstance(module, nn.Conv2d | Convolution) for module in model.modules())
        self.layout = torch.channels_last if convolves else torch.contiguous_format
        self.model = model.to(self.device, self.dtype)
        self.average = (
            AveragedModel(self.model, multi_avg_fn=get_ema_multi_avg_fn(settings.average_decay), use_buffers=True)
            if settings.average_decay
            else None
        )
        self.optimiser = build_optimiser(settings, self.model, self.device)
        self.order = Order(len(images), settings.batch_size, seed)
        self.images = torch.from_numpy(images).to(self.device)
        self.labels = torch.from_numpy(labels).to(self.device)
        self.subtract, self.divide = (
            torch.from_numpy(a).to(self.device, self.dtype) for a in statistics(images, settings.preprocessing)
        )
        self.run_step = Recorded(self._step) if self.device == "cuda" else self._step
        self.step = 0

    def advance(self, until: int) -> None:
        """Trains up to step `until`, without waiting for the device."""
        self.model.train()
        with denormals_flushed():
            while self.step < until:
                steps = range(self.step, min(self.step + STEPS_DRAWN, until))
                for step, batch in zip(steps, self._drawn(steps), strict=True):
                    if self.settings.dropout:
                        torch.manual_seed(int(generator(self.seed, Purpose.DROPOUT, step).integers(2**63)))
                    self.run_step(batch)
                    if self.average is not None:
                        self.average.update_parameters(self.model)
                self.step = steps.stop

    def _step(self, batch: Batch) -> None:
        settings, optimiser = self.settings, self.optimiser
        x = self._preprocessed(self.images.index_select(0, batch.chosen))
        if settings.flip or settings.shift:
            x = augmented(x, batch.flips, batch.moves, settings.shift)
        labels = self.labels.index_select(0, batch.chosen)
        with torch.autocast(self.device, torch.bfloat16, enabled=settings.precision == "bf16"):
            logits = self.model(x.contiguous(memory_format=self.layout))
            loss = nn.functional.cross_entropy(logits, labels, label_smoothing=settings.label_smoothing)
        optimiser.zero_grad()
        loss.backward()
        for group in optimiser.param_groups:
            if self.device == "cuda":
                group["lr"].copy_(batch.rate * group["factor"])
            else:
                group["lr"] = batch.rate.item() * group["factor"]
        optimiser.step()

    def _drawn(self, steps: range) -> Iterator[Batch]:
        settings = self.settings
        index = np.stack([self.order.batch(step) for step in steps])
        rate = np.array([learning_rate(settings, step) for step in steps])
        if settings.flip or settings.shift:
            drawn = [draw_augmentation(settings, self.seed, step, self.order) for step in steps]
        else:
            drawn = [(np.empty(0, bool), np.empty((2, 0), int))] * len(steps)
        flips, moves = (np.stack(arrays) for arrays in zip(*drawn, strict=True))
        return map(Batch, *(self._sent(array) for array in (index, rate, flips, moves)))

    def _sent(self, array: np.ndarray) -> Tensor:
        tensor = torch.from_numpy(array)
        # From pinned memory the copy goes on while the host draws the next steps.
        return tensor.pin_memory().to("cuda", non_blocking=True) if self.device == "cuda" else tensor

    @torch.no_grad()
    def logits(self, images: Images) -> Float[np.ndarray, "n classes"]:
        """Of any number of images, in evaluation mode and in the weights' dtype."""
        model = self._evaluated().eval()
        size = EVALUATION_BATCH[self.device]
        batches = (torch.from_numpy(images[i : i + size]).to(self.device) for i in range(0, len(images), size))
        bf16 = self.settings.precision == "bf16"
        with denormals_flushed(), torch.autocast(self.device, torch.bfloat16, enabled=bf16):
            logits = torch.cat(
                [model(self._preprocessed(x).contiguous(memory_format=self.layout)).to(self.dtype) for x in batches]
            )
        return logits.cpu().numpy()

    def parameters(self) -> dict[str, np.ndarray]:
        """The trained weights and running statistics by name; the averaged ones where there is an average."""
        model = self.average.module if self.average is not None else self.model
        return {name: tensor.contiguous().cpu().numpy() for name, tensor in model.state_dict().items()}

    def state(self) -> dict[str, np.ndarray]:
        """All that `restore` needs besides the step."""
        state = {f"model.{name}": tensor for name, tensor in self.model.state_dict().items()}
        for index, entry in self.optimiser.state_dict()["state"].items():
            state |= {f"optimiser.{index}.{key}": value for key, value in entry.items() if value is not None}
        if self.average is not None:
            state |= {f"average.{name}": tensor for name, tensor in self.average.state_dict().items()}
        return {name: tensor.contiguous().cpu().numpy() for name, tensor in state.items()}

    def restore(self, state: dict[str, np.ndarray], step: int) -> None:
        """Goes on from a state taken at `step`."""
        parts: dict[str, dict[str, Tensor]] = {"model": {}, "optimiser": {}, "average": {}}
        for name, array in state.items():
            part, _, rest = name.partition(".")
            parts[part][rest] = torch.from_numpy(array)
        self.model.load_state_dict(parts["model"])
        moments: dict[int, dict[str, Tensor]] = {}
        weights = [weight for group in self.optimiser.param_groups for weight in group["params"]]
        for name, tensor in parts["optimiser"].items():
            index, _, key = name.partition(".")
            weight = weights[int(index)]
            # Fused optimisers walk through a weight and its moments in the order of memory, which a model may choose.
            entry = tensor if tensor.shape != weight.shape else torch.empty_like(weight).copy_(tensor)
            moments.setdefault(int(index), {})[key] = entry
        groups = self.optimiser.state_dict()["param_groups"]
        self.optimiser.load_state_dict({"state": moments, "param_groups": groups})
        if self.average is not None:
            self.average.load_state_dict(parts["average"])
        self.step = step

    def count(self) -> dict[str, int]:
        """Trainable parameters, and floating-point operations of one image's forward pass (2 a multiply-add)."""
        flops = 0

        def add(layer: nn.Linear | nn.Conv2d | Convolution, inputs: tuple[Tensor], output: Tensor) -> None:
            nonlocal flops
            flops += 2 * layer.weight.numel() * output[0, 0].numel()

        kinds = nn.Linear | nn.Conv2d | Convolution
        layers = [module for module in self.model.modules() if isinstance(module, kinds)]
        hooks = [layer.register_forward_hook(add) for layer in layers]
        with torch.no_grad():
            self.model.eval()(self._preprocessed(self.images[:1]))
        for hook in hooks:
            hook.remove()
        return {"parameters": sum(p.numel() for p in self.model.parameters()), "forward_flops": flops}

    def peak_memory_mb(self) -> float | None:
        """Of the accelerator, in MB of 10⁶ bytes; None on a CPU."""
        return torch.cuda.max_memory_allocated() / 1e6 if self.device == "cuda" else None

    def _evaluated(self) -> nn.Module:
        return self.model if self.average is None or not self.step else self.average.module

    def _preprocessed(self, images: Tensor) -> Float[Tensor, "n channels height width"]:
        x = images.to(self.dtype).sub_(self.subtract)
        return x.div_(self.divide) if self.settings.preprocessing == "standardise" else x


@contextmanager
def denormals_flushed() -> Iterator[None]:
    """Numbers too small for a whole mantissa count as zero inside: a CPU takes many times as long for them.

    The state is the thread's, and other code of the process keeps such numbers.
    """
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


def augmented(
    x: Float[Tensor, "batch channels height width"],
    flips: Bool[Tensor, " batch"],
    moves: Int[Tensor, "2 batch"],
    shift: int,
) -> Float[Tensor, "batch channels height width"]:
    """The same as `batches.augmented`, on any device; no move may be larger than `shift`.

    Each pixel is gathered from the image padded by `shift` zeros on each side.
    """
    _, channels, height, width = x.shape
    rows = torch.arange(height, device=x.device) + shift - moves[0, :, None]
    columns = torch.arange(width, device=x.device)
    columns = torch.where(flips[:, None], width - 1 - columns, columns) + shift - moves[1, :, None]
    padded = nn.functional.pad(x, (shift, shift, shift, shift))
    source = rows[:, :, None] * padded.shape[3] + columns[:, None, :]
    return padded.flatten(2).gather(2, source.flatten(1)[:, None].expand(-1, channels, -1)).view_as(x)


def build_optimiser(settings: "Settings", model: nn.Module, device: str) -> torch.optim.Optimizer:
    """PyTorch's own optimiser of the settings' name, fused: one pass over each parameter.

    The biases of batch norms learn at `bias_rate` times the rate of the rest, their `factor`, and decay as much a step
    as the rest. On a GPU the learning rate and the step count live there, so that a recorded step can read them.
    """
    # Batch norms, ours and PyTorch's, are the modules with running statistics.
    shifts = [module.bias for module in model.modules() if hasattr(module, "running_mean")]
    apart = {id(bias) for bias in shifts} if settings.bias_rate != 1 else set()
    parts = [(1.0, [weight for weight in model.parameters() if id(weight) not in apart])]
    if apart:
        parts.append((settings.bias_rate, [weight for weight in model.parameters() if id(weight) in apart]))
    recorded = device == "cuda"
    groups = []
    for factor, parameters in parts:
        rate = settings.learning_rate * factor
        groups.append(
            {
                "params": parameters,
                "factor": factor,
                "lr": torch.tensor(rate, device=device) if recorded else rate,
                "weight_decay": settings.weight_decay / factor,
            }
        )
    if settings.optimiser == "sgd":
        return torch.optim.SGD(groups, momentum=settings.momentum, nesterov=settings.nesterov, fused=True)
    kinds = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
    return kinds[settings.optimiser](groups, fused=True, capturable=recorded)
