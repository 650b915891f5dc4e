"""What stands between linear layers, with its derivative."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["ACTIVATIONS", "Activation"]

LEAKY_SLOPE: Final = 0.01
"""Slope of `leaky_relu` below 0, torch's default."""

# torch's own kernels for its autograd: one pass over the memory, where the formulas spelled out in
# tensors would take several.
_KERNELS: Final = torch.ops.aten


@dataclass(frozen=True, slots=True)
class Activation:
    """A function of each element, and how a gradient passes back through it.

    Attributes:
        apply: From the sums of a layer, float32 [N, width], to its outputs; writes into neither.
        backward: From a gradient by the outputs, and the outputs or the sums, to that by the sums.
        by_sums: Whether `backward` takes the sums: the function is not monotone, so that the
            outputs do not tell its slope.
    """

    apply: Callable[[Tensor], Tensor]
    backward: Callable[[Tensor, Tensor], Tensor]
    by_sums: bool = False


def _tanh_backward(gradient: Tensor, outputs: Tensor) -> Tensor:
    """Slope 1 - y²."""
    result: Tensor = _KERNELS.tanh_backward(gradient, outputs)
    return result


def _relu_backward(gradient: Tensor, outputs: Tensor) -> Tensor:
    """Slope 1 where the unit is active, else 0; 0 at 0, too."""
    result: Tensor = _KERNELS.threshold_backward(gradient, outputs, 0.0)
    return result


def _leaky_relu(sums: Tensor) -> Tensor:
    return functional.leaky_relu(sums, LEAKY_SLOPE)


def _leaky_relu_backward(gradient: Tensor, outputs: Tensor) -> Tensor:
    """Slope 1 where the unit is active, else `LEAKY_SLOPE`."""
    of_outputs = True
    result: Tensor = _KERNELS.leaky_relu_backward(gradient, outputs, LEAKY_SLOPE, of_outputs)
    return result


def _elu_backward(gradient: Tensor, outputs: Tensor) -> Tensor:
    """Slope 1 above 0, else y + 1."""
    of_outputs = True
    result: Tensor = _KERNELS.elu_backward(gradient, 1.0, 1.0, 1.0, of_outputs, outputs)
    return result


def _sigmoid_backward(gradient: Tensor, outputs: Tensor) -> Tensor:
    """Slope y (1 - y)."""
    result: Tensor = _KERNELS.sigmoid_backward(gradient, outputs)
    return result


def _silu_backward(gradient: Tensor, sums: Tensor) -> Tensor:
    """Slope s (1 + x (1 - s)), where s is the sigmoid of x."""
    result: Tensor = _KERNELS.silu_backward(gradient, sums)
    return result


def _gelu(sums: Tensor) -> Tensor:
    return functional.gelu(sums, approximate="tanh")


def _gelu_backward(gradient: Tensor, sums: Tensor) -> Tensor:
    """Slope (1 + t)/2 + x/2 (1 - t²) u', where t = tanh u and u = √(2/π) (x + 0.044715 x³)."""
    result: Tensor = _KERNELS.gelu_backward(gradient, sums, approximate="tanh")
    return result


ACTIVATIONS: Final = {
    "tanh": Activation(torch.tanh, _tanh_backward),
    "relu": Activation(torch.relu, _relu_backward),
    "leaky_relu": Activation(_leaky_relu, _leaky_relu_backward),
    "elu": Activation(functional.elu, _elu_backward),
    "sigmoid": Activation(torch.sigmoid, _sigmoid_backward),
    "silu": Activation(functional.silu, _silu_backward, by_sums=True),
    "gelu": Activation(_gelu, _gelu_backward, by_sums=True),
}
"""By the names of `NetworkSpec.activation`."""
