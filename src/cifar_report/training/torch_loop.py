"""Training of the PyTorch models, on a GPU where there is one."""

import os
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from cifar_report.randomness import Purpose, generator
from cifar_report.training.batches import (
    Images,
    Order,
    draw_augmentation,
    learning_rate,
    source_pixels,
    statistics,
)

if TYPE_CHECKING:
    from cifar_report.config import Settings

EVALUATION_BATCH = {"cpu": 100, "cuda": 2000}


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
        torch.set_float32_matmul_precision("high" if settings.precision == "tf32" else "highest")
        torch.backends.cudnn.allow_tf32 = settings.precision == "tf32"
        torch.backends.cudnn.benchmark = not settings.deterministic
        if settings.deterministic:
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(settings.deterministic)

        self.dtype = torch.float64 if settings.precision == "float64" else torch.float32
        model = build(settings, images.shape[1:], classes, seed)
        # Convolutions run fastest with the channels last; a flattened image must keep its order.
        convolves = any(isinstance(module, nn.Conv2d) for module in model.modules())
        self.layout = torch.channels_last if convolves else torch.contiguous_format
        self.model = model.to(self.device, self.dtype, memory_format=self.layout)
        self.average = (
            AveragedModel(self.model, multi_avg_fn=get_ema_multi_avg_fn(settings.average_decay), use_buffers=True)
            if settings.average_decay
            else None
        )
        self.optimiser = build_optimiser(settings, self.model)
        self.order = Order(len(images), settings.batch_size, seed)
        self.images = torch.from_numpy(images).to(self.device)
        self.labels = torch.from_numpy(labels).to(self.device)
        self.subtract, self.divide = (
            torch.from_numpy(a).to(self.device, self.dtype) for a in statistics(images, settings.preprocessing)
        )
        self.step = 0

    def advance(self, until: int) -> None:
        """Trains up to step `until`, without waiting for the device."""
        settings, model, optimiser = self.settings, self.model, self.optimiser
        model.train()
        for step in range(self.step, until):
            index = torch.from_numpy(self.order.batch(step)).to(self.device)
            x = self._augmented(self._preprocessed(self.images[index]), step)
            if settings.dropout:
                torch.manual_seed(int(generator(self.seed, Purpose.DROPOUT, step).integers(2**63)))
            with torch.autocast(self.device, torch.bfloat16, enabled=settings.precision == "bf16"):
                loss = nn.functional.cross_entropy(
                    model(x), self.labels[index], label_smoothing=settings.label_smoothing
                )
            optimiser.zero_grad()
            loss.backward()
            for group in optimiser.param_groups:
                group["lr"] = learning_rate(settings, step)
            optimiser.step()
            if self.average is not None:
                self.average.update_parameters(model)
        self.step = until

    @torch.no_grad()
    def logits(self, images: Images) -> Float[np.ndarray, "n classes"]:
        """Of any number of images, in evaluation mode and in the weights' dtype."""
        model = self._evaluated().eval()
        size = EVALUATION_BATCH[self.device]
        batches = (torch.from_numpy(images[i : i + size]).to(self.device) for i in range(0, len(images), size))
        with torch.autocast(self.device, torch.bfloat16, enabled=self.settings.precision == "bf16"):
            logits = torch.cat([model(self._preprocessed(x)).to(self.dtype) for x in batches])
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
        for name, tensor in parts["optimiser"].items():
            index, _, key = name.partition(".")
            moments.setdefault(int(index), {})[key] = tensor
        groups = self.optimiser.state_dict()["param_groups"]
        self.optimiser.load_state_dict({"state": moments, "param_groups": groups})
        if self.average is not None:
            self.average.load_state_dict(parts["average"])
        self.step = step

    def count(self) -> dict[str, int]:
        """Trainable parameters, and floating-point operations of one image's forward pass (2 a multiply-add)."""
        flops = 0

        def add(layer: nn.Linear | nn.Conv2d, inputs: tuple[Tensor], output: Tensor) -> None:
            nonlocal flops
            flops += 2 * layer.weight.numel() * output[0, 0].numel()

        layers = [module for module in self.model.modules() if isinstance(module, nn.Linear | nn.Conv2d)]
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
        x = images.to(self.dtype, memory_format=self.layout).sub_(self.subtract)
        return x.div_(self.divide) if self.settings.preprocessing == "standardise" else x

    def _augmented(self, x: Tensor, step: int) -> Tensor:
        settings, pad = self.settings, self.settings.shift
        if not settings.flip and not settings.shift:
            return x
        flips, moves = draw_augmentation(settings, self.seed, step)
        rows, columns = (torch.from_numpy(i).to(self.device) for i in source_pixels(flips, moves, *x.shape[2:], pad))
        padded = nn.functional.pad(x, (pad, pad, pad, pad))
        batch = torch.arange(len(x), device=self.device)[:, None, None]
        # Advanced indices around a slice put the channels last, in memory as in shape.
        return padded[batch, :, rows, columns].permute(0, 3, 1, 2).contiguous(memory_format=self.layout)


def build_optimiser(settings: "Settings", model: nn.Module) -> torch.optim.Optimizer:
    """PyTorch's own optimiser of the settings' name, fused: one pass over each parameter."""
    if settings.optimiser == "sgd":
        return torch.optim.SGD(
            model.parameters(),
            lr=settings.learning_rate,
            momentum=settings.momentum,
            nesterov=settings.nesterov,
            weight_decay=settings.weight_decay,
            fused=True,
        )
    kinds = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
    return kinds[settings.optimiser](
        model.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay, fused=True
    )
