"""Adam over networks whose parameters are one vector each."""

from collections.abc import Mapping

import torch
from torch import Tensor

__all__ = ["make_adam", "moments"]


def make_adam(
    vectors: Mapping[str, Tensor], *, learning_rate: float, eps: float
) -> torch.optim.Adam:
    """Adam (Kingma et al. 2015, arXiv:1412.6980), with a parameter group for each vector.

    Args:
        vectors: By name, float32 [n]; the `grad` of each is what backpropagation writes.
        learning_rate: Of all groups.
        eps: Added to the root of the second moment.
    """
    groups = [{"params": [vector]} for vector in vectors.values()]
    adam = torch.optim.Adam(groups, lr=learning_rate, eps=eps, fused=True)
    for vector in vectors.values():
        # Adam would make these at its first step; made now, every state has the same arrays.
        adam.state[vector] = {
            "step": torch.tensor(0.0),
            "exp_avg": torch.zeros_like(vector),
            "exp_avg_sq": torch.zeros_like(vector),
        }
    return adam


def moments(adam: torch.optim.Adam, vectors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What Adam remembers of each vector, named as in `pi.exp_avg`: the tensors themselves."""
    return {
        f"{name}.{moment}": tensor
        for name, vector in vectors.items()
        for moment, tensor in adam.state[vector].items()
    }
