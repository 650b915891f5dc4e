"""The forward pass of a small fully connected net, for one observation at a time.

Tensors are `pi.0.weight [in, out]`, `pi.0.bias [out]`, `pi.1.weight`, … in this order, row-major
for `x @ W`; the last layer has no activation. A Gaussian actor may have log-standard-deviations
beside its net: they follow as `log_std [out]`, and the forward pass does not use them.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from rl4sys_stream.config import NetworkSpec
from rl4sys_stream.errors import NonFiniteError, WireFormatError
from rl4sys_stream.policy.extras import BehaviorExtras
from rl4sys_stream.wire.snapshot import TensorLayout, Weights

__all__ = ["LOG_STD", "MLPPolicy", "actor_layout", "bias_name", "weight_name"]

LOG_STD: Final = "log_std"
"""Name of the vector of log-standard-deviations `[out]`, the last tensor of those that have it."""

# Arrays without axes: numpy takes longer over Python's numbers and its own scalars.
_ZERO: Final = np.zeros((), np.float32)
_ONE: Final = np.ones((), np.float32)
_LEAKY_SLOPE: Final = np.full((), 0.01, np.float32)
_GELU_LINE: Final = np.full((), -2.0 * math.sqrt(2.0 / math.pi), np.float32)
_GELU_CUBE: Final = np.full((), -2.0 * math.sqrt(2.0 / math.pi) * 0.044715, np.float32)

_Layer = tuple[NDArray[np.float32], NDArray[np.float32]]


def weight_name(layer: int) -> str:
    """Name of the matrix `[in, out]` of layer `layer`, from 0."""
    return f"pi.{layer}.weight"


def bias_name(layer: int) -> str:
    """Name of the vector `[out]` of layer `layer`, from 0."""
    return f"pi.{layer}.bias"


def actor_layout(
    obs_dim: int, hidden_sizes: Sequence[int], outputs: int, *, log_std: bool = False
) -> TensorLayout:
    """The layout of a published actor: what the learner exports and agents expect.

    Args:
        obs_dim: Width of the input.
        hidden_sizes: Widths of the hidden layers.
        outputs: Width of the last layer.
        log_std: Whether `log_std [outputs]` follows.
    """
    widths = (obs_dim, *hidden_sizes, outputs)
    names: list[str] = []
    shapes: list[tuple[int, ...]] = []
    for layer, (rows, columns) in enumerate(pairwise(widths)):
        names += (weight_name(layer), bias_name(layer))
        shapes += ((rows, columns), (columns,))
    if log_std:
        names.append(LOG_STD)
        shapes.append((outputs,))
    return TensorLayout(tuple(names), tuple(shapes))


def _leaky_relu(x: NDArray[np.float32]) -> None:
    np.maximum(x, x * _LEAKY_SLOPE, out=x)


def _elu(x: NDArray[np.float32]) -> None:
    # exp(x) - 1 is above x where x < 0, and 0 for what is cut at 0.
    np.maximum(x, np.expm1(np.minimum(x, _ZERO)), out=x)


def _silu(x: NDArray[np.float32]) -> None:
    divisor = np.exp(-x)
    divisor += _ONE
    x /= divisor


def _gelu(x: NDArray[np.float32]) -> None:
    # Hendrycks, Gimpel 2016 (arXiv:1606.08415): x/2 (1 + tanh u), u = √(2/π) (x + 0.044715 x³).
    # That is x / (1 + exp(-2u)), which takes fewer calls.
    divisor = x * x
    divisor *= _GELU_CUBE
    divisor += _GELU_LINE
    divisor *= x
    np.exp(divisor, out=divisor)
    divisor += _ONE
    x /= divisor


def _sigmoid(x: NDArray[np.float32]) -> None:
    np.negative(x, out=x)
    np.exp(x, out=x)
    x += _ONE
    np.reciprocal(x, out=x)


_IN_PLACE: Final[dict[str, Callable[[NDArray[np.float32]], None]]] = {
    "leaky_relu": _leaky_relu,
    "elu": _elu,
    "silu": _silu,
    "gelu": _gelu,
    "sigmoid": _sigmoid,
}


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
        n_outputs: Length of the outputs.
        activation: After each layer but the last; see `NetworkSpec`.
    """

    obs_dim: int
    n_outputs: int
    activation: str
    _hidden: tuple[_Layer, ...]
    _head: _Layer
    _bounds: _Bounds | None

    @classmethod
    def from_weights(
        cls,
        weights: Weights,
        network: NetworkSpec,
        extras: BehaviorExtras,
        *,
        log_std: bool = False,
    ) -> Self:
        """The net that `weights` are of.

        Args:
            weights: Tensors as in the module's description.
            network: Hidden sizes and activation.
            extras: Its normalisation becomes part of the net.
            log_std: Whether `log_std` belongs to them; it is checked, and not kept.

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
        obs_dim, n_outputs = (math.prod(tensors[name].shape[:1]) for name in (first, last))
        expected = actor_layout(obs_dim, network.hidden_sizes, n_outputs, log_std=log_std)
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
            n_outputs,
            network.activation,
            layers[:-1],
            layers[-1],
            _bounds(extras, obs_dim),
        )

    # Overflow shows in the outputs, where it is refused, and underflow does no harm; an application
    # that turns warnings into errors must not meet numpy's instead. As a decorator it costs half of
    # a `with`.
    @np.errstate(over="ignore", under="ignore", invalid="ignore")
    def forward(self, observations: NDArray[np.float32]) -> NDArray[np.float32]:
        """The outputs for one observation or for a batch: logits, values or means.

        Args:
            observations: `float32 [obs_dim]` or `float32 [N, obs_dim]`; not written to.

        Returns:
            A fresh `float32 [n_outputs]` or `float32 [N, n_outputs]`; infinite or NaN only where
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
        elif self.activation == "relu":
            for weight, bias in self._hidden:
                x = x.dot(weight)
                x += bias
                np.maximum(x, _ZERO, out=x)
        else:
            activate = _IN_PLACE[self.activation]
            for weight, bias in self._hidden:
                x = x.dot(weight)
                x += bias
                activate(x)
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
