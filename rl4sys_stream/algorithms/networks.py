"""Perceptrons whose parameters lie side by side in one vector.

The vector is what the optimizer steps, what the gradient norm is taken of, what is published and
what a checkpoint holds; the layers are views into it. One Adam step over one vector costs half of
one over a list of tensors, which is a quarter of a whole minibatch for networks this small
(measured for 64 x 64 on one core: 1200 µs a minibatch with a list, 970 µs with a vector).
"""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rl4sys_stream.config import NetworkSpec

__all__ = ["HIDDEN_GAIN", "MLP", "POLICY_GAIN", "VALUE_GAIN", "make_actor", "make_critic"]

HIDDEN_GAIN: Final = math.sqrt(2.0)
"""Gain of the orthogonal hidden layers, as in OpenAI's baselines and Stable-Baselines3."""

POLICY_GAIN: Final = 0.01
"""Gain of the actor's last layer: small, so that the first policy is near uniform. Andrychowicz
et al. 2021, What Matters for On-Policy Deep Actor-Critic Methods?, §3.2."""

VALUE_GAIN: Final = 1.0
"""Gain of the critic's last layer."""

_ACTIVATIONS: Final = {"tanh": torch.tanh, "relu": torch.relu}


class MLP:
    """Linear layers with an activation between them; none after the last.

    Attributes:
        prefix: First part of the tensor names (`pi` gives `pi.0.weight`, `pi.0.bias`, …).
        vector: float32 [n], all parameters; the layers are views into it.
        gradient: float32 [n], into which `backward` adds; zero it before each.
    """

    def __init__(
        self,
        prefix: str,
        sizes: Sequence[int],
        *,
        activation: str,
        output_gain: float,
        generator: torch.Generator,
    ) -> None:
        """Draw orthogonal weights (Saxe et al. 2014, arXiv:1312.6120) and zero biases.

        Args:
            prefix: See the attribute.
            sizes: Widths from the input to the output, at least two.
            activation: `tanh` or `relu`.
            output_gain: Gain of the last layer; the others have `HIDDEN_GAIN`.
            generator: The only source of randomness.
        """
        self.prefix = prefix
        self._activate = _ACTIVATIONS[activation]
        self._layers: list[tuple[Tensor, Tensor]] = []
        count = sum(rows * columns + columns for rows, columns in pairwise(sizes))
        self.vector = torch.zeros(count)
        self.gradient = torch.zeros(count)
        # The optimizer reads the gradient of the vector where autograd writes those of the views.
        self.vector.grad = self.gradient
        start = 0
        for rows, columns in pairwise(sizes):
            weight = self._leaf(start, (rows, columns))
            bias = self._leaf(start + rows * columns, (columns,))
            self._layers.append((weight, bias))
            start += rows * columns + columns
        for index, (weight, _) in enumerate(self._layers):
            last = index == len(self._layers) - 1
            gain = output_gain if last else HIDDEN_GAIN
            torch.nn.init.orthogonal_(weight, gain, generator=generator)

    def _leaf(self, start: int, shape: tuple[int, ...]) -> Tensor:
        """A parameter that shares the vector's memory, and its gradient the gradient's."""
        stop = start + math.prod(shape)
        leaf = self.vector[start:stop].view(shape).detach().requires_grad_()
        leaf.grad = self.gradient[start:stop].view(shape)
        return leaf

    def __call__(self, inputs: Tensor) -> Tensor:
        """Outputs float32 [N, sizes[-1]] of `inputs` float32 [N, sizes[0]]."""
        hidden = inputs
        for weight, bias in self._layers[:-1]:
            hidden = self._activate(torch.addmm(bias, hidden, weight))
        weight, bias = self._layers[-1]
        return torch.addmm(bias, hidden, weight)

    def tensors(self) -> dict[str, NDArray[np.float32]]:
        """Views of the parameters by name, in the vector's order; weights are [in, out]."""
        return {
            f"{self.prefix}.{index}.{name}": tensor.detach().numpy()
            for index, layer in enumerate(self._layers)
            for name, tensor in zip(("weight", "bias"), layer, strict=True)
        }


def make_actor(
    obs_dim: int, n_actions: int, network: NetworkSpec, generator: torch.Generator
) -> MLP:
    """The network from observations float32 [N, obs_dim] to logits float32 [N, n_actions]."""
    sizes = (obs_dim, *network.hidden_sizes, n_actions)
    return MLP(
        "pi",
        sizes,
        activation=network.activation,
        output_gain=POLICY_GAIN,
        generator=generator,
    )


def make_critic(obs_dim: int, network: NetworkSpec, generator: torch.Generator) -> MLP:
    """The network from observations float32 [N, obs_dim] to values float32 [N, 1].

    It shares nothing with the actor, so that only the actor need be published.
    """
    hidden = network.critic_hidden_sizes
    hidden = network.hidden_sizes if hidden is None else hidden
    return MLP(
        "vf",
        (obs_dim, *hidden, 1),
        activation=network.activation,
        output_gain=VALUE_GAIN,
        generator=generator,
    )
