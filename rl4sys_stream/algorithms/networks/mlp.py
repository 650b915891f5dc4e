"""Perceptrons whose parameters lie side by side in one vector, with their own backpropagation.

The vector is what the optimizer steps, what the gradient norm is taken of, what is published and
what a checkpoint holds; the layers are views into it. For networks this small the bookkeeping
costs more than the arithmetic, so both the list of tensors and autograd are done without: a
minibatch of PPO with two networks of 64 x 64 takes a third of the time.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rl4sys_stream.algorithms.networks.activations import ACTIVATIONS
from rl4sys_stream.algorithms.networks.parameters import Parameters

__all__ = ["HIDDEN_GAIN", "MLP", "POLICY_GAIN", "VALUE_GAIN", "Trace", "parameter_count"]

HIDDEN_GAIN: Final = math.sqrt(2.0)
"""Gain of the orthogonal hidden layers, as in OpenAI's baselines and Stable-Baselines3."""

POLICY_GAIN: Final = 0.01
"""Gain of the actor's last layer: small, so that the first policy is near uniform. Andrychowicz
et al. 2021, What Matters for On-Policy Deep Actor-Critic Methods?, §3.2."""

VALUE_GAIN: Final = 1.0
"""Gain of the last layer of what estimates values."""


@dataclass(frozen=True, slots=True, eq=False)
class Trace:
    """What a forward pass leaves for backpropagation; `trace[-1]` are the outputs.

    Attributes:
        layers: The inputs, the outputs of each hidden layer, and the outputs: float32
            [N, sizes[i]].
        sums: What the activation of each hidden layer was applied to; () where its derivative
            does not need them.
        branches: Of the networks that branch off from this one, if its outputs come of them, too.
    """

    layers: Sequence[Tensor]
    sums: Sequence[Tensor] = ()
    branches: "tuple[Trace, ...]" = ()

    def __getitem__(self, index: int) -> Tensor:
        """One of `layers`."""
        return self.layers[index]


class MLP:
    """Linear layers with an activation between them; none after the last.

    Attributes:
        prefix: First part of the tensor names (`pi` gives `pi.0.weight`, `pi.0.bias`, …).
        vector: float32 [n], all parameters; the layers are views into it.
        gradient: float32 [n], what `backpropagate` last wrote, in the order of `vector`.
    """

    def __init__(
        self,
        prefix: str,
        sizes: Sequence[int],
        *,
        activation: str,
        output_gain: float | None,
        generator: torch.Generator,
        parameters: Parameters | None = None,
    ) -> None:
        """Draw the weights.

        Orthogonal ones (Saxe et al. 2014, arXiv:1312.6120) with zero biases, as policy gradients
        like them; or weights and biases uniform within 1/√(width of the layer's input), as
        `torch.nn.Linear` draws them, with which action values begin small.

        Args:
            prefix: See the attribute.
            sizes: Widths from the input to the output, at least two.
            activation: One of those of `NetworkSpec`.
            output_gain: Gain of the last orthogonal layer; the others have `HIDDEN_GAIN`. None:
                uniform.
            generator: The only source of randomness.
            parameters: Where to lie: `parameter_count(sizes)` zeros; None: in memory of its own.
        """
        self.prefix = prefix
        self._activation = ACTIVATIONS[activation]
        parameters = parameters or Parameters.zeros(parameter_count(sizes))
        self.vector, self.gradient = parameters.vector, parameters.gradient
        self._layers = _views(self.vector, sizes)
        self._layer_gradients = _views(self.gradient, sizes)
        for index, (weight, bias) in enumerate(self._layers):
            if output_gain is None:
                bound = 1.0 / math.sqrt(sizes[index])
                for tensor in (weight, bias):
                    tensor.uniform_(-bound, bound, generator=generator)
                continue
            last = index == len(self._layers) - 1
            gain = output_gain if last else HIDDEN_GAIN
            torch.nn.init.orthogonal_(weight, gain, generator=generator)

    def __call__(self, inputs: Tensor) -> Tensor:
        """Outputs float32 [N, sizes[-1]] of `inputs` float32 [N, sizes[0]]."""
        return self.trace(inputs)[-1]

    def hidden(self, inputs: Tensor, layers: int) -> Tensor:
        """Outputs of the hidden layer `layers`, float32 [N, sizes[layers]]; 0: the inputs."""
        for weight, bias in self._layers[:layers]:
            inputs = self._activation.apply(torch.addmm(bias, inputs, weight))
        return inputs

    def trace(self, inputs: Tensor) -> Trace:
        """The forward pass of `inputs` float32 [N, sizes[0]], remembered."""
        outputs, sums = [inputs], []
        apply, by_sums = self._activation.apply, self._activation.by_sums
        for weight, bias in self._layers[:-1]:
            summed = torch.addmm(bias, outputs[-1], weight)
            outputs.append(apply(summed))
            if by_sums:
                sums.append(summed)
        weight, bias = self._layers[-1]
        outputs.append(torch.addmm(bias, outputs[-1], weight))
        return Trace(outputs, sums)

    def backpropagate(
        self,
        trace: Trace,
        output_gradient: Tensor,
        *,
        branch_layer: int = 0,
        branch_gradient: Tensor | None = None,
        to_inputs: bool = False,
    ) -> Tensor | None:
        """Overwrite `gradient` with that of a loss by the parameters.

        Args:
            trace: What `trace` returned for the inputs of the loss.
            output_gradient: float32 [N, sizes[-1]], of the loss by the outputs.
            branch_layer: How many hidden layers feed a branch that the loss depends on as well.
            branch_gradient: float32 [N, sizes[branch_layer]], of the loss by the branch's inputs;
                None: there is no such branch.
            to_inputs: Whether to go on to the inputs.

        Returns:
            The gradient by the inputs, float32 [N, sizes[0]], without a branch's; None unless
            asked for.
        """
        upper = output_gradient
        for index in range(len(self._layers) - 1, 0, -1):
            self._write(index, trace, upper)
            upper = upper.mm(self._layers[index][0].t())
            if branch_gradient is not None and index == branch_layer:
                upper = upper.add_(branch_gradient)
            upper = self._through_activation(index, trace, upper)
        self._write(0, trace, upper)
        return upper.mm(self._layers[0][0].t()) if to_inputs else None

    def input_gradient(self, trace: Trace, output_gradient: Tensor) -> Tensor:
        """The gradient by the inputs, float32 [N, sizes[0]]; `gradient` stays as it is.

        Args:
            trace: As in `backpropagate`.
            output_gradient: As in `backpropagate`.
        """
        upper = output_gradient
        for index in range(len(self._layers) - 1, 0, -1):
            upper = upper.mm(self._layers[index][0].t())
            upper = self._through_activation(index, trace, upper)
        return upper.mm(self._layers[0][0].t())

    def _write(self, index: int, trace: Trace, upper: Tensor) -> None:
        """Gradients of layer `index` from that by its sums."""
        weight_gradient, bias_gradient = self._layer_gradients[index]
        torch.mm(trace.layers[index].t(), upper, out=weight_gradient)
        torch.sum(upper, dim=0, out=bias_gradient)

    def _through_activation(self, index: int, trace: Trace, upper: Tensor) -> Tensor:
        """From the gradient by what layer `index` takes in to that by the sums it was made of."""
        known = trace.sums[index - 1] if self._activation.by_sums else trace.layers[index]
        return self._activation.backward(upper, known)

    def tensors(self) -> dict[str, NDArray[np.float32]]:
        """Views of the parameters by name, in the vector's order; weights are [in, out]."""
        return {
            f"{self.prefix}.{index}.{name}": tensor.numpy()
            for index, layer in enumerate(self._layers)
            for name, tensor in zip(("weight", "bias"), layer, strict=True)
        }


def parameter_count(sizes: Sequence[int]) -> int:
    """Parameters of an MLP of these widths."""
    return sum(rows * columns + columns for rows, columns in pairwise(sizes))


def _views(vector: Tensor, sizes: Sequence[int]) -> list[tuple[Tensor, Tensor]]:
    """Weight [in, out] and bias [out] of each layer, as consecutive views into `vector`."""
    views: list[tuple[Tensor, Tensor]] = []
    start = 0
    for rows, columns in pairwise(sizes):
        middle = start + rows * columns
        stop = middle + columns
        views.append((vector[start:middle].view(rows, columns), vector[middle:stop]))
        start = stop
    return views
