"""Algorithms by name. Adding one is one file, one line here, its settings and its tests."""

from collections.abc import Callable
from typing import Final

from rl4sys_stream.algorithms.base import Algorithm
from rl4sys_stream.algorithms.ppo import PPO
from rl4sys_stream.config import ClientSpec, PPOParameters
from rl4sys_stream.errors import ConfigError

__all__ = ["make_algorithm"]

_FACTORIES: Final[dict[str, Callable[[ClientSpec, PPOParameters, int], Algorithm]]] = {
    "PPO": lambda spec, parameters, seed: PPO(spec, parameters, seed=seed),
}


def make_algorithm(spec: ClientSpec, parameters: PPOParameters, *, seed: int) -> Algorithm:
    """A fresh algorithm for a client, its networks drawn from `seed`.

    Args:
        spec: What the client registered: algorithm, spaces, network.
        parameters: Its hyperparameters.
        seed: The same seed, spec and samples give the same weights, bit for bit, on one machine
            with one number of torch threads.

    Raises:
        ConfigError: If no algorithm has that name, or it cannot serve these spaces.
    """
    factory = _FACTORIES.get(spec.algorithm)
    if factory is None:
        raise ConfigError(
            f"unknown algorithm {spec.algorithm!r}; available: {', '.join(sorted(_FACTORIES))}",
            path="algorithm",
        )
    return factory(spec, parameters, seed)
