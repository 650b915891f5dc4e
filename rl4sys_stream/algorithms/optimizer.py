"""Stepping several networks at once: a rate for each, and their joint gradient clipped."""

from collections.abc import Sequence
from functools import reduce
from typing import Final, Protocol

import torch
from torch import Tensor

from rl4sys_stream.algorithms.adam import make_adam, moments

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
    """One Adam with a step size for each network."""

    def __init__(self, networks: Sequence[Vectors], *, learning_rate: float) -> None:
        """Begin without any momentum, and with the same step size for all."""
        self._vectors = {network.prefix: network.vector for network in networks}
        self._gradients = [network.gradient for network in networks]
        self._adam = make_adam(self._vectors, learning_rate=learning_rate, eps=ADAM_EPSILON)

    def set_learning_rates(self, rates: Sequence[float]) -> None:
        """One for each network, in their order."""
        for group, rate in zip(self._adam.param_groups, rates, strict=True):
            group["lr"] = rate

    def step(self, max_grad_norm: float) -> Tensor:
        """Step along the gradients, shrunk together so that their joint 2-norm is in bounds.

        Returns:
            Their norm before that, a scalar.
        """
        norms = [torch.linalg.vector_norm(gradient) for gradient in self._gradients]
        norm: Tensor = reduce(torch.hypot, norms)
        shrink = (max_grad_norm / (norm + 1e-6)).clamp(max=1.0)
        for gradient in self._gradients:
            gradient.mul_(shrink)
        self._adam.step()
        return norm

    def tensors(self) -> dict[str, Tensor]:
        """Parameters and moments by name: the tensors themselves, for a checkpoint."""
        return {**self._vectors, **moments(self._adam, self._vectors)}
