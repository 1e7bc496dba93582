"""3×3 convolution that computes small maps, where libraries for convolutions are slow, as nine products of matrices."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

LARGEST_MAP = 16  # positions; on larger maps a library, which reads them once and not nine times, is faster
TAPS = tuple(
    (u, v) for u in (-1, 0, 1) for v in (-1, 0, 1)
)  # where a weight looks from a position: rows and columns on


class NineProducts(torch.autograd.Function):
    """y[p, q] = b + Σ W[u, v] x[p + u, q + v] over -1 ≤ u, v ≤ 1 (eq:conv), each tap one product of matrices.

    Its rows are the positions of all images from which the tap looks inside the map: the zeros around a map, 56 % of
    what a convolution of 2×2 multiplies, are left out.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Float[Tensor, "batch height width in"],
        weight: Float[Tensor, "out 3 3 in"],
        bias: Float[Tensor, " out"],
    ) -> Float[Tensor, "batch height width out"]:
        """The sum over the taps (eq:conv)."""
        ctx.save_for_backward(x, weight)
        y = bias.repeat(*x.shape[:3], 1)
        for u, v in TAPS:
            here, there = seen(x.shape[1:3], u, v)
            y[here] += x[there] @ weight[:, u + 1, v + 1].T
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Float[Tensor, "batch height width out"]):
        """dL/dx, dL/dW and dL/db from G = dL/dy (eq:conv-grad-input, eq:conv-grad-weight, eq:conv-grad-bias)."""
        x, weight = ctx.saved_tensors
        grad_x, grad_weight = torch.zeros_like(x), torch.empty_like(weight)
        for u, v in TAPS:
            here, there = seen(x.shape[1:3], u, v)
            g = grad[here].flatten(0, 2)
            grad_x[there] += (g @ weight[:, u + 1, v + 1]).view_as(x[there])
            torch.mm(g.T, x[there].flatten(0, 2), out=grad_weight[:, u + 1, v + 1])
        return grad_x, grad_weight, grad.sum((0, 1, 2))


def seen(shape: torch.Size, *tap: int) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """The positions of a map from which a tap looks inside it, and those that it sees there; of all images."""
    here, there = [slice(None)], [slice(None)]
    for offset, size in zip(tap, shape, strict=True):
        here.append(slice(max(-offset, 0), size - max(offset, 0)))
        there.append(slice(max(offset, 0), size + min(offset, 0)))
    return tuple(here), tuple(there)


class Convolution(nn.Module):
    """y[o, p, q] = b[o] + Σ W[o, c, u, v] x[c, p + u, q + v] over c and -1 ≤ u, v ≤ 1 (eq:conv), zero outside the map.

    The weight lies in memory as (out, 3, 3, in), as a convolution with the channels last and the products take it, so
    that neither they nor gradients nor the optimiser copy it. In a state dict it has PyTorch's shape
    (out, in, 3, 3). Parameters are zero until they are drawn or loaded.
    """

    weight: Float[Tensor, "out 3 3 in"]

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(outputs, 3, 3, inputs))
        self.bias = nn.Parameter(torch.zeros(outputs))

    @property
    def kernels(self) -> Float[Tensor, "out in 3 3"]:
        """The weight in PyTorch's shape, of the same memory."""
        return self.weight.permute(0, 3, 1, 2)

    def forward(self, x: Float[Tensor, "batch in height width"]) -> Float[Tensor, "batch out height width"]:
        """As products of matrices on a CPU where maps are small, and else as the library computes it."""
        if not by_products(x):
            return F.conv2d(x, self.kernels, self.bias, padding=1)
        return NineProducts.apply(x.permute(0, 2, 3, 1), self.weight, self.bias).permute(0, 3, 1, 2)

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        name = prefix + "weight"
        destination[name] = destination[name].permute(0, 3, 1, 2)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        name = prefix + "weight"
        if name in state_dict:
            state_dict[name] = state_dict[name].permute(0, 2, 3, 1).contiguous()
        super()._load_from_state_dict(state_dict, prefix, *rest)


def by_products(x: Float[Tensor, "batch channels height width"]) -> bool:
    """The rule, by device, precision and shape alone: in bf16, nine sums would each be rounded."""
    precise = x.dtype in (torch.float32, torch.float64) and not torch.is_autocast_enabled("cpu")
    return x.device.type == "cpu" and precise and x.shape[2] * x.shape[3] <= LARGEST_MAP
