"""Environments by their ids, with errors in words."""

from collections.abc import Sequence
from typing import Any, Final

import gymnasium
from gymnasium.error import DependencyNotInstalled
from gymnasium.error import Error as GymnasiumError
from gymnasium.vector import VectorEnv

from rl4sys_stream.config.schema import nearest
from rl4sys_stream.errors import ConfigError

__all__ = ["Environment", "Environments", "make_environment"]

Environment = gymnasium.Env[Any, Any]
"""One environment, whatever its spaces."""

Environments = Environment | VectorEnv[Any, Any, Any] | Sequence[Environment] | str
"""What can be played: one, several in one object, several in a list, or one by its id."""

_PACKAGES: Final = {"ALE": "gymnasium[atari]", "MiniGrid": "minigrid", "MinAtar": "minatar"}
"""Namespace -> the package that brings it, where the name does not say it."""


def make_environment(
    name: str, *, render_mode: str | None = None, max_episode_steps: int | None = None
) -> Environment:
    """`gymnasium.make`, without its checker.

    Args:
        name: The environment's id, also as `module:id`.
        render_mode: See Gymnasium; "rgb_array" for a film.
        max_episode_steps: Longer episodes are truncated; None keeps the environment's own limit.

    Raises:
        ConfigError: If there is no such environment, or something that it needs is not installed;
            it names the nearest ids, or what to install.
    """
    # Only where it is wanted: an environment that draws nothing need not take it.
    drawn = {} if render_mode is None else {"render_mode": render_mode}
    try:
        return gymnasium.make(
            name, max_episode_steps=max_episode_steps, disable_env_checker=True, **drawn
        )
    except (DependencyNotInstalled, ImportError) as error:
        raise ConfigError(f"{name} needs what is not installed: {error}") from error
    except GymnasiumError as error:
        raise ConfigError(f"there is no environment {name!r}; {_advice(name)}") from error


def _advice(name: str) -> str:
    ids = sorted(gymnasium.registry)
    namespace, _, rest = name.rpartition("/")
    if namespace and not any(known.startswith(f"{namespace}/") for known in ids):
        package = _PACKAGES.get(namespace, namespace)
        return f"nothing installed is called {namespace!r}: perhaps pip install '{package}'"
    kin = [known for known in ids if _stem(known) == _stem(name)]
    if kin:
        return f"there is {', '.join(kin)}"
    by_stem = {_stem(known): known for known in ids}
    guess = nearest(_stem(name), tuple(by_stem)) or nearest(rest, tuple(ids))
    hint = f"did you mean {by_stem.get(guess, guess)}? " if guess else ""
    return f"{hint}python -c 'import gymnasium; gymnasium.pprint_registry()' lists all"


def _stem(name: str) -> str:
    """The id without its version, for comparison."""
    return name.rpartition("-v")[0].lower() or name.lower()
