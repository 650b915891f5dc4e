"""The memory of networks: stretches of one vector, each with the same stretch of its gradient."""

from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Self

import torch
from torch import Tensor

__all__ = ["Parameters"]


@dataclass(frozen=True, slots=True, eq=False)
class Parameters:
    """Some parameters, and the gradient of a loss by them.

    Any of it may be a parameter of a torch optimizer: each `vector` has `gradient` as its `grad`.

    Attributes:
        vector: float32 [n].
        gradient: float32 [n], in the order of `vector`.
    """

    vector: Tensor
    gradient: Tensor

    def __post_init__(self) -> None:
        """Show the optimizer where the gradient is."""
        self.vector.grad = self.gradient

    @classmethod
    def zeros(cls, count: int) -> Self:
        """`count` parameters in memory of their own, all 0."""
        return cls(torch.zeros(count), torch.zeros(count))

    def split(self, *counts: int) -> "tuple[Parameters, ...]":
        """Consecutive views of `counts` parameters, which together are all of these."""
        bounds = pairwise(accumulate(counts, initial=0))
        return tuple(Parameters(self.vector[a:b], self.gradient[a:b]) for a, b in bounds)
