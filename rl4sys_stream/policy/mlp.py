"""The forward pass of a small fully connected net, for one observation at a time.

Tensors are `pi.0.weight [in, out]`, `pi.0.bias [out]`, `pi.1.weight`, … in this order, row-major
for `x @ W`; the last layer has no activation and gives the logits. The learner's `torch.nn.Linear`
holds the transpose.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from rl4sys_stream.config import NetworkSpec
from rl4sys_stream.errors import NonFiniteError, WireFormatError
from rl4sys_stream.policy.extras import BehaviorExtras
from rl4sys_stream.wire.snapshot import TensorLayout, Weights

__all__ = ["MLPPolicy", "actor_layout", "bias_name", "weight_name"]

_ZERO: Final = np.zeros((), np.float32)

_Layer = tuple[NDArray[np.float32], NDArray[np.float32]]


def weight_name(layer: int) -> str:
    """Name of the matrix `[in, out]` of layer `layer`, from 0."""
    return f"pi.{layer}.weight"


def bias_name(layer: int) -> str:
    """Name of the vector `[out]` of layer `layer`, from 0."""
    return f"pi.{layer}.bias"


def actor_layout(obs_dim: int, hidden_sizes: Sequence[int], n_actions: int) -> TensorLayout:
    """The layout of a published actor: what the learner exports and agents expect."""
    widths = (obs_dim, *hidden_sizes, n_actions)
    names: list[str] = []
    shapes: list[tuple[int, ...]] = []
    for layer, (inputs, outputs) in enumerate(pairwise(widths)):
        names += (weight_name(layer), bias_name(layer))
        shapes += ((inputs, outputs), (outputs,))
    return TensorLayout(tuple(names), tuple(shapes))


@dataclass(frozen=True, slots=True, eq=False)
class _Bounds:
    """Normalisation with its clip spelled out as arrays, which numpy compares with fastest."""

    mean: NDArray[np.float32]
    scale: NDArray[np.float32]
    low: NDArray[np.float32]
    high: NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class MLPPolicy:
    """An actor net. Immutable; holds no scratch memory, so threads may share it.

    Attributes:
        obs_dim: Length of an observation.
        n_actions: Length of the logits.
        activation: `tanh` or `relu`, after each layer but the last.
    """

    obs_dim: int
    n_actions: int
    activation: str
    _hidden: tuple[_Layer, ...]
    _head: _Layer
    _bounds: _Bounds | None

    @classmethod
    def from_weights(cls, weights: Weights, network: NetworkSpec, extras: BehaviorExtras) -> Self:
        """The net that `weights` are of.

        Args:
            weights: Tensors as in the module's description.
            network: Hidden sizes and activation.
            extras: Its normalisation becomes part of the net.

        Raises:
            WireFormatError: If names or shapes are not those of `network`, or the normalisation
                is for another number of inputs.
            NonFiniteError: If a weight is NaN or infinite.
        """
        tensors = weights.tensors()
        first, last = weight_name(0), bias_name(len(network.hidden_sizes))
        if first not in tensors or last not in tensors:
            raise WireFormatError(f"the weights lack {first!r} or {last!r}: another network's?")
        # [:1]: a scalar in their place counts as 1, and the layouts differ.
        obs_dim, n_actions = (math.prod(tensors[name].shape[:1]) for name in (first, last))
        expected = actor_layout(obs_dim, network.hidden_sizes, n_actions)
        if weights.layout != expected:
            raise WireFormatError(
                f"the weights have tensors {_words(weights.layout)}, the client's network has "
                f"{_words(expected)}"
            )
        if not np.isfinite(weights.flat).all():
            raise NonFiniteError("a weight of the model is not finite; it must not act")
        layers = tuple(
            (tensors[weight_name(i)], tensors[bias_name(i)])
            for i in range(len(network.hidden_sizes) + 1)
        )
        return cls(
            obs_dim,
            n_actions,
            network.activation,
            layers[:-1],
            layers[-1],
            _bounds(extras, obs_dim),
        )

    # Overflow shows in the logits, where it is refused; an application that turns warnings into
    # errors must not meet numpy's instead. As a decorator it costs half of a `with`.
    @np.errstate(over="ignore", invalid="ignore")
    def forward(self, observations: NDArray[np.float32]) -> NDArray[np.float32]:
        """The logits of one observation or of a batch.

        Args:
            observations: `float32 [obs_dim]` or `float32 [N, obs_dim]`; not written to.

        Returns:
            A fresh `float32 [n_actions]` or `float32 [N, n_actions]`; infinite or NaN only where
            observations are too large for float32.
        """
        x: NDArray[np.float32] = observations
        # `x.dot` and `out=` rather than `@`, `np.clip` and fresh results: half the time per step.
        if (bounds := self._bounds) is not None:
            x = x - bounds.mean
            x *= bounds.scale
            np.maximum(x, bounds.low, out=x)
            np.minimum(x, bounds.high, out=x)
        if self.activation == "tanh":
            for weight, bias in self._hidden:
                x = x.dot(weight)
                x += bias
                np.tanh(x, out=x)
        else:
            for weight, bias in self._hidden:
                x = x.dot(weight)
                x += bias
                np.maximum(x, _ZERO, out=x)
        weight, bias = self._head
        x = x.dot(weight)
        x += bias
        return x


def _bounds(extras: BehaviorExtras, obs_dim: int) -> _Bounds | None:
    norm = extras.normalization
    if norm is None:
        return None
    if norm.mean.shape != (obs_dim,):
        raise WireFormatError(
            f"the model normalises {norm.mean.shape[0]} inputs, its network has {obs_dim}"
        )
    high = np.full(obs_dim, norm.clip, np.float32)
    return _Bounds(norm.mean, norm.scale, -high, high)


def _words(layout: TensorLayout) -> str:
    # A foreign layout may have thousands of tensors.
    names, shapes = layout.names[:12], layout.shapes[:12]
    words = [f"{name[:40]} {list(shape)}" for name, shape in zip(names, shapes, strict=True)]
    return ", ".join(words) + (", …" if len(names) < len(layout.names) else "")
