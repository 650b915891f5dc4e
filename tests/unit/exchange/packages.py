"""Models of every kind that acts, as packages."""

from dataclasses import replace
from itertools import pairwise

import numpy as np

from rl4sys_stream.config import ClientSpec, NetworkSpec
from rl4sys_stream.exchange.package import ModelPackage, Origin
from rl4sys_stream.policy.extras import BehaviorExtras, ObservationNormalization
from rl4sys_stream.spaces import Box, Discrete, Space
from rl4sys_stream.wire.snapshot import Weights

OBS_DIM = 5
ITEMS = 4


def package(
    *,
    action_space: Space | None = None,
    algorithm: str = "PPO",
    activation: str = "tanh",
    hidden: tuple[int, ...] = (8, 6),
    normalized: bool = True,
    seed: int = 0,
) -> ModelPackage:
    """A model with random weights for `OBS_DIM` observations."""
    rng = np.random.default_rng(seed)
    space = action_space or Discrete(3)
    spec = ClientSpec(
        algorithm=algorithm,
        observation_space=Box((OBS_DIM,)),
        action_space=space,
        network=NetworkSpec(hidden_sizes=hidden, activation=activation),  # type: ignore[arg-type]
    )
    width = spec.actions.choices or spec.actions.dim * (2 if algorithm == "SAC" else 1)
    sizes = (OBS_DIM, *hidden, width)
    tensors = {}
    for index, (rows, columns) in enumerate(pairwise(sizes)):
        tensors[f"pi.{index}.weight"] = rng.normal(0, 0.5, (rows, columns)).astype(np.float32)
        tensors[f"pi.{index}.bias"] = rng.normal(0, 0.5, columns).astype(np.float32)
    head = {"DQN": "epsilon_greedy", "SAC": "state_gaussian"}.get(algorithm)
    if head is None:
        head = "gaussian" if spec.actions.continuous else "categorical"
    if head == "gaussian":
        tensors["log_std"] = rng.normal(-1, 0.1, width).astype(np.float32)
    normalization = ObservationNormalization(
        rng.normal(0, 1, OBS_DIM).astype(np.float32),
        rng.uniform(0.5, 2, OBS_DIM).astype(np.float32),
        2.0,
    )
    extras = BehaviorExtras(
        normalization if normalized else None,
        0.1 if head == "epsilon_greedy" else None,
        head,  # type: ignore[arg-type]
    )
    origin = Origin(client="twin", version=7, token="3:ab", lineage="line")
    definition = {"algorithm_parameters": {"gamma": 0.9}}
    return ModelPackage(Weights.from_tensors(tensors), extras, spec, definition, origin)


def per_item_package(*, normalized: bool) -> ModelPackage:
    """A model that gives each of `ITEMS` items of `OBS_DIM` features a logit."""
    model = package(normalized=normalized)
    tensors = dict(model.weights.tensors())
    last = max(int(name.split(".")[1]) for name in tensors)
    tensors[f"pi.{last}.weight"] = tensors[f"pi.{last}.weight"][:, :1].copy()
    tensors[f"pi.{last}.bias"] = tensors[f"pi.{last}.bias"][:1].copy()
    spec = ClientSpec(
        observation_space=Box((ITEMS, OBS_DIM)),
        action_space=Discrete(ITEMS),
        network=NetworkSpec(hidden_sizes=model.spec.network.hidden_sizes, per_item=True),
    )
    return replace(model, weights=Weights.from_tensors(tensors), spec=spec)


def same(left: ModelPackage, right: ModelPackage) -> bool:
    """Whether both hold the same, bit for bit."""
    return (
        left.describe() == right.describe()
        and left.weights.layout == right.weights.layout
        and left.weights.flat.tobytes() == right.weights.flat.tobytes()
    )
