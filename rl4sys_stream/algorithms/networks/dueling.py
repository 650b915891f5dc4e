"""Networks of action values.

Wang, Schaul, Hessel, van Hasselt, Lanctot, de Freitas: Dueling Network Architectures for Deep
Reinforcement Learning, 2016 (arXiv:1511.06581). Gradients are not rescaled where the streams meet
(its §4.2 does so for Atari).
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rl4sys_stream.algorithms.networks.mlp import MLP, Trace, parameter_count
from rl4sys_stream.algorithms.networks.parameters import Parameters
from rl4sys_stream.config import NetworkSpec

__all__ = ["DuelingMLP", "make_q_network"]


class DuelingMLP:
    """Action values out of a state's value and the actions' advantages, equation 9 of the paper.

    All hidden layers but the last are shared; each of the two streams has one as wide as that, and
    its outputs. The shared layers with the advantages' stream are a plain MLP, whose greedy action
    is the same: it alone need be published.

    Attributes:
        vector: float32 [n], all parameters: the shared layers, the advantages', the value's.
        gradient: float32 [n], what `backpropagate` last wrote, in the order of `vector`.
    """

    def __init__(
        self, obs_dim: int, n_actions: int, network: NetworkSpec, generator: torch.Generator
    ) -> None:
        """Draw the advantages' part, then the value's.

        Args:
            obs_dim: Width of the observations.
            n_actions: Width of the outputs.
            network: Hidden sizes and activation; without hidden layers both streams are linear.
            generator: The only source of randomness.
        """
        hidden = network.hidden_sizes
        self._shared_layers = max(len(hidden) - 1, 0)
        sizes = (obs_dim, *hidden, n_actions)
        value_sizes = (*sizes[self._shared_layers : -1], 1)
        counts = parameter_count(sizes), parameter_count(value_sizes)
        whole = Parameters.zeros(sum(counts))
        self.vector, self.gradient = whole.vector, whole.gradient
        self._advantage, self._value = (
            MLP(
                prefix,
                widths,
                activation=network.activation,
                output_gain=None,
                generator=generator,
                parameters=parameters,
            )
            for prefix, widths, parameters in zip(
                ("pi", "vf"), (sizes, value_sizes), whole.split(*counts), strict=True
            )
        )

    def __call__(self, inputs: Tensor) -> Tensor:
        """Action values float32 [N, n_actions] of observations float32 [N, obs_dim]."""
        return self.trace(inputs)[-1]

    def trace(self, inputs: Tensor) -> Trace:
        """The forward pass of `inputs` float32 [N, obs_dim], remembered."""
        advantage = self._advantage.trace(inputs)
        value = self._value.trace(advantage[self._shared_layers])
        advantages = advantage[-1]
        outputs = advantages + (value[-1] - advantages.mean(dim=1, keepdim=True))
        return Trace((*advantage.layers[:-1], outputs), advantage.sums, (value,))

    def backpropagate(self, trace: Trace, output_gradient: Tensor) -> None:
        """Overwrite `gradient` with that of a loss by the parameters.

        Args:
            trace: What `trace` returned for the inputs of the loss.
            output_gradient: float32 [N, n_actions], of the loss by the action values.
        """
        (value,) = trace.branches
        total = output_gradient.sum(dim=1, keepdim=True)
        shared = self._value.backpropagate(value, total, to_inputs=self._shared_layers > 0)
        self._advantage.backpropagate(
            trace,
            output_gradient - total / output_gradient.shape[1],
            branch_layer=self._shared_layers,
            branch_gradient=shared,
        )

    def tensors(self) -> dict[str, NDArray[np.float32]]:
        """Views of what is published, by name: the shared layers and the advantages' stream."""
        return self._advantage.tensors()


def make_q_network(
    obs_dim: int,
    n_actions: int,
    network: NetworkSpec,
    generator: torch.Generator,
    *,
    dueling: bool,
) -> MLP | DuelingMLP:
    """The network from observations float32 [N, obs_dim] to action values float32 [N, n_actions].

    Args:
        obs_dim: Width of the observations.
        n_actions: Width of the outputs.
        network: Hidden sizes and activation.
        generator: The only source of randomness.
        dueling: Whether it has the two streams of Wang et al.
    """
    if dueling:
        return DuelingMLP(obs_dim, n_actions, network, generator)
    return MLP(
        "pi",
        (obs_dim, *network.hidden_sizes, n_actions),
        activation=network.activation,
        output_gain=None,
        generator=generator,
    )
