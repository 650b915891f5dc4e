"""A state dict for PyTorch: for people who act or go on in it. It is not read back here.

`torch.load(path, weights_only=True)` gives tensors alone. Layers are named and laid out as those of
a `torch.nn.Sequential` under the name `pi`, of `Linear`s with an activation between each two:
`pi.0`, `pi.2`, …, weights [out, in]. Beside them lie `log_std` if there is one, and
`normalization.mean`, `normalization.scale` and `normalization.clip` if observations are normalised.
"""

import io

import numpy as np
import torch
from torch import Tensor

from rl4sys_stream.exchange.package import ModelPackage
from rl4sys_stream.policy.mlp import LOG_STD, bias_name, weight_name

__all__ = ["encode_torch", "state_dict"]


def state_dict(package: ModelPackage) -> dict[str, Tensor]:
    """The tensors by their names in PyTorch, copied."""
    tensors = package.weights.tensors()
    found: dict[str, Tensor] = {}
    for layer in range(len(package.spec.network.hidden_sizes) + 1):
        place = f"pi.{2 * layer}"
        weight = np.ascontiguousarray(tensors[weight_name(layer)].T)  # [in, out] -> [out, in]
        found[f"{place}.weight"] = torch.tensor(weight)
        found[f"{place}.bias"] = torch.tensor(tensors[bias_name(layer)])
    if LOG_STD in tensors:
        found[LOG_STD] = torch.tensor(tensors[LOG_STD])
    if (normalization := package.extras.normalization) is not None:
        found["normalization.mean"] = torch.tensor(normalization.mean)
        found["normalization.scale"] = torch.tensor(normalization.scale)
        found["normalization.clip"] = torch.tensor(normalization.clip)
    return found


def encode_torch(package: ModelPackage) -> bytes:
    """The file as bytes."""
    buffer = io.BytesIO()
    # A dict of tensors, written for others: what reads it with weights_only runs no code, and this
    # package reads none.
    torch.save(state_dict(package), buffer)  # noqa: TID251
    return buffer.getvalue()
