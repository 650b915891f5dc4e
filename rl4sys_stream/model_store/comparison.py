"""How far two versions lie apart, tensor by tensor."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rl4sys_stream.wire.snapshot import Weights

__all__ = ["TensorChange", "compare"]


@dataclass(frozen=True, slots=True)
class TensorChange:
    """One tensor of two versions, or all of them as one vector.

    Attributes:
        name: Of the tensor.
        norm_before: 2-norm in the first version.
        norm_after: 2-norm in the second.
        largest: Largest change of an element, absolute.
        relative: 2-norm of the change by that of the first; infinite where only that is 0.
        cosine: Of the angle between the two; 0 where one of them is 0, 1 where both are.
    """

    name: str
    norm_before: float
    norm_after: float
    largest: float
    relative: float
    cosine: float


def compare(before: Weights, after: Weights) -> Sequence[TensorChange]:
    """The change of each tensor that both have in the same shape, in the first one's order.

    Where all of them do, the last one is that of all parameters, named "all".
    """
    olds, news = before.tensors(), after.tensors()
    found = [
        _change(name, old, news[name])
        for name, old in olds.items()
        if name in news and news[name].shape == old.shape
    ]
    if before.layout == after.layout:
        found.append(_change("all", before.flat, after.flat))
    return found


def _change(name: str, old: NDArray[np.float32], new: NDArray[np.float32]) -> TensorChange:
    first, second = old.astype(np.float64).ravel(), new.astype(np.float64).ravel()
    norms = float(np.linalg.norm(first)), float(np.linalg.norm(second))
    change = second - first
    distance = float(np.linalg.norm(change))
    both, equal = norms[0] * norms[1], float(norms[0] == norms[1])
    cosine = float(first @ second) / both if both else equal
    return TensorChange(
        name,
        *norms,
        largest=float(np.abs(change).max()),
        relative=distance / norms[0] if norms[0] else (float("inf") if distance else 0.0),
        cosine=cosine,
    )
