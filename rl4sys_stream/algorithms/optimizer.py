"""Adam over networks whose parameters are one vector each, and their gradient's length."""

from collections.abc import Sequence
from functools import reduce
from typing import Final, Protocol

import torch
from torch import Tensor

__all__ = ["ADAM_EPSILON", "Optimizer", "Vectors"]

ADAM_EPSILON: Final = 1e-5
"""As in OpenAI's baselines and Stable-Baselines3's PPO; torch's own default is 1e-8."""


class Vectors(Protocol):
    """A network, as far as the optimizer looks at it.

    Attributes:
        prefix: Its name in checkpoints.
        vector: float32 [n], its parameters; the tensor's `grad` is `gradient`.
        gradient: float32 [n], in the same order.
    """

    prefix: str
    vector: Tensor
    gradient: Tensor


class Optimizer:
    """One Adam (Kingma et al. 2015, arXiv:1412.6980) with a step size for each network."""

    def __init__(self, networks: Sequence[Vectors]) -> None:
        """Begin without any momentum."""
        self._networks = tuple(networks)
        groups = [{"params": [network.vector]} for network in networks]
        self._adam = torch.optim.Adam(groups, eps=ADAM_EPSILON, fused=True)
        for network in networks:
            # Adam would make these at its first step; made now, every state has the same arrays.
            self._adam.state[network.vector] = {
                "step": torch.tensor(0.0),
                "exp_avg": torch.zeros_like(network.vector),
                "exp_avg_sq": torch.zeros_like(network.vector),
            }

    def set_learning_rates(self, rates: Sequence[float]) -> None:
        """One for each network, in their order."""
        for group, rate in zip(self._adam.param_groups, rates, strict=True):
            group["lr"] = rate

    def step(self, max_grad_norm: float) -> Tensor:
        """Step along the gradients, shrunk together so that their joint 2-norm is in bounds.

        Returns:
            Their norm before that, a scalar.
        """
        norms = [torch.linalg.vector_norm(network.gradient) for network in self._networks]
        norm: Tensor = reduce(torch.hypot, norms)
        shrink = (max_grad_norm / (norm + 1e-6)).clamp(max=1.0)
        for network in self._networks:
            network.gradient.mul_(shrink)
        self._adam.step()
        return norm

    def tensors(self) -> dict[str, Tensor]:
        """Parameters and moments by name: the tensors themselves, for a checkpoint."""
        tensors: dict[str, Tensor] = {}
        for network in self._networks:
            tensors[network.prefix] = network.vector
            for moment, tensor in self._adam.state[network.vector].items():
                tensors[f"{network.prefix}.{moment}"] = tensor
        return tensors
