"""From an algorithm's definition to the algorithm itself: the only place that imports it."""

import importlib
from collections.abc import Callable
from typing import cast

from rl4sys_stream.algorithms.base import Algorithm
from rl4sys_stream.config import ClientSpec, Hyperparameters, find_algorithm
from rl4sys_stream.errors import ConfigError

__all__ = ["make_algorithm"]


def make_algorithm(spec: ClientSpec, parameters: Hyperparameters, *, seed: int) -> Algorithm:
    """A fresh algorithm for a client, its networks drawn from `seed`.

    Args:
        spec: What the client registered: algorithm, spaces, network.
        parameters: Its hyperparameters.
        seed: The same seed, spec and samples give the same weights, bit for bit, on one machine
            with one number of torch threads.

    Raises:
        ConfigError: If no algorithm has that name, it cannot be imported, or it cannot serve these
            spaces or parameters.
    """
    definition = find_algorithm(spec.algorithm)
    if not isinstance(parameters, definition.parameters):
        raise ConfigError(
            f"{spec.algorithm} takes {definition.parameters.__name__}, not "
            f"{type(parameters).__name__}",
            path="algorithm_parameters",
        )
    return _factory(definition.factory)(spec, parameters, seed=seed)


def _factory(place: str) -> Callable[..., Algorithm]:
    module, _, name = place.partition(":")
    try:
        return cast("Callable[..., Algorithm]", getattr(importlib.import_module(module), name))
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"cannot import {place}: {error}", path="algorithm") from error
