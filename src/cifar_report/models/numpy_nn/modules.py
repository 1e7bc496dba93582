"""The modules of the network: each function is an equation of the report, which its docstring names.

A batch holds one sample a row, so the column vector x of the report is a row of `x` here and x̃ = W x + b reads
X̃ = X Wᵀ + 1 bᵀ. `backward` takes dL/d(output) and returns dL/d(input), both of the shape of a batch. The loss is the
mean over the batch, so the 1/B enters once, in the loss's gradient, and nowhere else.
"""

import numpy as np
from jaxtyping import Float, Int

Batch = Float[np.ndarray, "batch features"]


class Linear:
    """x̃ = W x + b (eq:linear), for a batch X̃ = X Wᵀ + 1 bᵀ (eq:linear-batch).

    Args:
        weight: W, of shape (out, in).
        bias: b, of shape (out,).
    """

    def __init__(self, weight: Float[np.ndarray, "out in"], bias: Float[np.ndarray, " out"]):
        self.weight, self.bias = weight, bias

    def forward(self, x: Float[np.ndarray, "batch in"]) -> Float[np.ndarray, "batch out"]:
        """X Wᵀ + 1 bᵀ (eq:linear-batch)."""
        self.x = x
        out = x @ self.weight.T
        out += self.bias
        return out

    def backward(
        self, grad: Float[np.ndarray, "batch out"], input_gradient: bool = True
    ) -> Float[np.ndarray, "batch in"] | None:
        """dL/dW = Gᵀ X (eq:batch-grad-weight), dL/db = Gᵀ 1 (eq:batch-grad-bias), dL/dX = G W (eq:batch-grad-input).

        The first layer's input is data: without `input_gradient` the last product is not taken.
        """
        self.grad_weight = grad.T @ self.x
        self.grad_bias = grad.sum(axis=0)
        return grad @ self.weight if input_gradient else None


class LeakyReLU:
    """x = max(x̃, 0) + a min(x̃, 0) (eq:leaky-relu); a = 0 is the ReLU."""

    def __init__(self, slope: float):
        self.slope = slope

    def forward(self, x: Batch) -> Batch:
        """x where x > 0, else a x; the factor is kept for `backward` (eq:leaky-relu-factor, eq:jacobian-leaky-relu)."""
        self.derivative = np.where(x > 0, x.dtype.type(1), x.dtype.type(self.slope))
        return x * self.derivative

    def backward(self, grad: Batch) -> Batch:
        """dL/dx̃ = dL/dx ⊙ a^[x̃ ≤ 0] (eq:backprop-leaky-relu, eq:batch-leaky-relu)."""
        return grad * self.derivative


class Softmax:
    """x_i = exp(x̃_i) / Σ_j exp(x̃_j) (eq:softmax), computed as exp(x̃_i - max x̃) / … (eq:softmax-shift)."""

    def forward(self, x: Batch) -> Batch:
        """exp(x̃ - max x̃) / Σ exp(x̃ - max x̃), row by row (eq:softmax-shift)."""
        exponential = np.exp(x - x.max(axis=1, keepdims=True))
        self.probabilities = exponential / exponential.sum(axis=1, keepdims=True)
        return self.probabilities

    def backward(self, grad: Batch) -> Batch:
        """(diag(x) - x xᵀ) dL/dx = x ⊙ (dL/dx - xᵀ dL/dx), row by row (eq:backprop-softmax, eq:batch-softmax)."""
        x = self.probabilities
        return x * (grad - (grad * x).sum(axis=1, keepdims=True))


class CrossEntropy:
    """L = -(1/B) Σ_s Σ_i t_i log x_i (eq:batch-loss), of probabilities x and one-hot targets t."""

    def forward(self, probabilities: Batch, targets: Int[np.ndarray, " batch"]) -> float:
        """The mean over the batch of -log x_t, in nats (eq:cross-entropy, eq:batch-loss).

        Raises:
            FloatingPointError: a target's probability was rounded to 0, so its loss is no number.
        """
        self.probabilities, self.targets = probabilities, targets
        chosen = probabilities[np.arange(len(targets)), targets]
        if not chosen.all():
            raise FloatingPointError(f"row {chosen.argmin()}: log 0; SoftmaxCrossEntropy takes the logits instead")
        return float(-np.log(chosen).mean())

    def backward(self) -> Batch:
        """dL/dx_i = -t_i / (B x_i) (eq:grad-cross-entropy)."""
        rows = np.arange(len(self.targets))
        grad = np.zeros_like(self.probabilities)
        grad[rows, self.targets] = -1 / (len(rows) * self.probabilities[rows, self.targets])
        return grad


class SoftmaxCrossEntropy:
    """Softmax and cross entropy as one module, which needs neither log 0 nor 1/0 (eq:softmax-cross-entropy)."""

    def forward(self, x: Batch, targets: Int[np.ndarray, " batch"]) -> float:
        """The mean over the batch of log Σ_j exp(x̃_j) - x̃_t, in nats, both shifted by max x̃.

        Equations: eq:softmax-cross-entropy, eq:softmax-cross-entropy-shift, eq:batch-loss.
        """
        self.targets = targets
        shifted = x - x.max(axis=1, keepdims=True)
        exponential = np.exp(shifted)
        total = exponential.sum(axis=1, keepdims=True)
        self.probabilities = exponential / total
        return float((np.log(total[:, 0]) - shifted[np.arange(len(targets)), targets]).mean())

    def backward(self) -> Batch:
        """dL/dX̃ = (X - T) / B: x - t for each sample (eq:backprop-joined, eq:batch-grad-logits)."""
        grad = self.probabilities.copy()
        grad[np.arange(len(grad)), self.targets] -= 1
        grad /= len(grad)
        return grad
