"""Batch normalisation three times: by automatic differentiation, by a manual backward, and as a module around that.

y = γ x̂ + β with x̂ = (x - μ)/√(σ² + ε), where μ and the biased σ² are those of the batch, feature by feature
(eq:bn-mean, eq:bn-var, eq:bn-normalise, eq:bn-affine; Ioffe and Szegedy 2015). In evaluation, running averages take
their place. All agree with `torch.nn.BatchNorm1d`, its unbiased running variance included.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


def check_shape(x: Tensor, features: int) -> None:
    """Refuses what would broadcast to another shape.

    Raises:
        ValueError: x is not (batch, features).
    """
    if x.ndim != 2 or x.shape[1] != features:
        raise ValueError(f"batch normalisation: expected (batch, {features}), got {tuple(x.shape)}")


class _RunningStatistics(nn.Module):
    """Parameters γ, β, and the running mean and variance, whose share ρ is `momentum`, as in `torch.nn.BatchNorm1d`."""

    running_mean: Float[Tensor, " features"]
    running_var: Float[Tensor, " features"]

    def __init__(self, features: int, eps: float = 1e-5, momentum: float = 0.1):
        super().__init__()
        self.eps, self.momentum = eps, momentum
        self.weight = nn.Parameter(torch.ones(features))
        self.bias = nn.Parameter(torch.zeros(features))
        self.register_buffer("running_mean", torch.zeros(features))
        self.register_buffer("running_var", torch.ones(features))

    @torch.no_grad()
    def update(self, x: Float[Tensor, "batch features"]) -> None:
        """running ← (1 - ρ) running + ρ batch, the variance unbiased (eq:bn-running-mean, eq:bn-running-var).

        Raises:
            ValueError: the batch has a single sample, and so no unbiased variance.
        """
        if len(x) < 2:
            raise ValueError(f"batch normalisation in training needs a batch of 2 or more, got {len(x)}")
        self.running_mean.lerp_(x.mean(dim=0), self.momentum)
        self.running_var.lerp_(x.var(dim=0, unbiased=True), self.momentum)

    def evaluate(self, x: Float[Tensor, "batch features"]) -> Float[Tensor, "batch features"]:
        """γ (x - running mean) / √(running variance + ε) + β (eq:bn-evaluate)."""
        return (x - self.running_mean) * torch.rsqrt(self.running_var + self.eps) * self.weight + self.bias


class AutogradBatchNorm(_RunningStatistics):
    """Batch norm whose backward is PyTorch's automatic differentiation of eq:bn-mean to eq:bn-affine."""

    def forward(self, x: Float[Tensor, "batch features"]) -> Float[Tensor, "batch features"]:
        """γ x̂ + β (eq:bn-affine) of the batch in training, of the running averages in evaluation."""
        check_shape(x, len(self.weight))
        x = x.to(self.weight.dtype)  # from bf16: as PyTorch's own, it normalises in the weights' precision
        if not self.training:
            return self.evaluate(x)
        self.update(x)
        mean = x.mean(dim=0)
        variance = ((x - mean) ** 2).mean(dim=0)
        normalised = (x - mean) / torch.sqrt(variance + self.eps)
        return self.weight * normalised + self.bias


class BatchNormFunction(torch.autograd.Function):
    """Batch norm with the backward of the report, written by hand (eq:bn-backward)."""

    @staticmethod
    def forward(
        ctx,
        x: Float[Tensor, "batch features"],
        weight: Float[Tensor, " features"],
        bias: Float[Tensor, " features"],
        eps: float = 1e-5,
    ) -> Float[Tensor, "batch features"]:
        """y = γ x̂ + β (eq:bn-mean, eq:bn-var, eq:bn-normalise, eq:bn-affine)."""
        if weight.ndim != 1 or weight.shape != bias.shape:
            found = f"{tuple(weight.shape)} and {tuple(bias.shape)}"
            raise ValueError(f"batch normalisation: expected weight and bias of one shape (features,), got {found}")
        check_shape(x, len(weight))
        centred = x - x.mean(dim=0)
        inverse_std = torch.rsqrt((centred * centred).mean(dim=0) + eps)
        normalised = centred * inverse_std
        ctx.save_for_backward(normalised, inverse_std, weight)
        return weight * normalised + bias

    @staticmethod
    @once_differentiable  # the normalised values are saved as numbers, so a second derivative would miss their part
    def backward(ctx, grad: Float[Tensor, "batch features"]):
        """dL/dγ (eq:bn-grad-gamma), dL/dβ (eq:bn-grad-beta) and dL/dx (eq:bn-backward) from dL/dy."""
        normalised, inverse_std, weight = ctx.saved_tensors
        grad_weight = (grad * normalised).sum(dim=0)
        grad_bias = grad.sum(dim=0)
        g = grad * weight
        grad_x = inverse_std * (g - g.mean(dim=0) - normalised * (g * normalised).mean(dim=0))
        return grad_x, grad_weight, grad_bias, None


class ManualBatchNorm(_RunningStatistics):
    """The module around `BatchNormFunction`: parameters and running averages here, the mathematics there."""

    def forward(self, x: Float[Tensor, "batch features"]) -> Float[Tensor, "batch features"]:
        """γ x̂ + β (eq:bn-affine) of the batch in training, of the running averages in evaluation."""
        check_shape(x, len(self.weight))
        x = x.to(self.weight.dtype)  # from bf16: as PyTorch's own, it normalises in the weights' precision
        if not self.training:
            return self.evaluate(x)
        self.update(x)
        return BatchNormFunction.apply(x, self.weight, self.bias, self.eps)
