"""Stochastic gradient descent, plain, with momentum, and Nesterov's."""

import numpy as np
from jaxtyping import Float


class SGD:
    """v ← m v + g and w ← w - η v (eq:momentum-velocity, eq:momentum-step; with m = 0 eq:sgd).

    Nesterov's form steps along g + m v (eq:nesterov). The same recursions as `torch.optim.SGD` (Sutskever et al. 2013),
    where g includes the weight decay λ w (eq:weight-decay).

    Args:
        parameters: arrays by name, updated in place.
        momentum: m; nesterov: whether to look ahead; weight_decay: λ.
    """

    def __init__(
        self,
        parameters: dict[str, Float[np.ndarray, "..."]],
        momentum: float = 0.0,
        nesterov: bool = False,
        weight_decay: float = 0.0,
    ):
        self.parameters = parameters
        self.momentum, self.nesterov, self.weight_decay = momentum, nesterov, weight_decay
        self.velocity = {name: np.zeros_like(w) for name, w in parameters.items()} if momentum else {}

    def step(self, gradients: dict[str, Float[np.ndarray, "..."]], learning_rate: float) -> None:
        """Updates every parameter by its gradient (eq:sgd); the gradients are used up."""
        for name, w in self.parameters.items():
            g = gradients[name]
            if self.weight_decay:
                g += self.weight_decay * w
            if self.momentum:
                v = self.velocity[name]
                v *= self.momentum
                v += g
                g = g + self.momentum * v if self.nesterov else v
            w -= w.dtype.type(learning_rate) * g
