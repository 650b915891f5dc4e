"""One, several or vectorised environments, seen alike: N environments that step together.

Where an environment ends within a step, what its last action led to and what the next action is for
are two observations. The three autoreset modes of Gymnasium (NEXT_STEP, SAME_STEP, DISABLED) hand
them over in three ways; here they are told apart once and for all.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

import gymnasium
import numpy as np
from gymnasium.vector import VectorEnv
from gymnasium.vector.utils import iterate
from numpy.typing import ArrayLike, NDArray

from rl4sys_stream.errors import UsageError
from rl4sys_stream.gymnasium.environments import Environment, Environments, make_environment

__all__ = ["Fleet", "Moment", "in_its_axes", "make_fleet", "mask_of"]

MASK: Final = "action_mask"
"""Where an environment's info says which actions are allowed."""


@dataclass(slots=True, kw_only=True)
class Moment:
    """What one environment shows after a reset or a step.

    Attributes:
        observation: What the next action is chosen on.
        mask: Actions allowed there; None where the environment does not say.
        reward: Of the last action; 0.0 after a reset.
        terminated: As in Gymnasium.
        truncated: Likewise; the episode has ended if one of the two is true.
        final_observation: What the last action of an ended episode led to; None otherwise.
        final_mask: Actions allowed there; None where the environment does not say.
        resets_next: The next step is the environment's own reset: it asks for no action.
    """

    observation: Any
    mask: ArrayLike | None = None
    reward: float = 0.0
    terminated: bool = False
    truncated: bool = False
    final_observation: Any = None
    final_mask: ArrayLike | None = None
    resets_next: bool = False

    @property
    def ended(self) -> bool:
        """Whether the episode is over."""
        return self.terminated or self.truncated


class Fleet(Protocol):
    """Environments that step together; each begins its next episode by itself."""

    def reset(self, seed: int | None) -> list[Moment]:
        """Begin an episode in each; different ones, whatever the seed."""
        ...

    def step(self, actions: Sequence[Any]) -> list[Moment]:
        """One step in each; None stands where an environment resets itself."""
        ...

    def close(self) -> None:
        """Close those that were made here."""
        ...


def make_fleet(environments: Environments) -> Fleet:
    """The fleet of anything that can be played; what the caller made stays the caller's to close.

    Raises:
        ConfigError: If an id names no environment.
        UsageError: If it is nothing that can be played.
    """
    if isinstance(environments, str):
        return _Several([make_environment(environments)], own=True)
    if isinstance(environments, VectorEnv):
        return _Vector(environments)
    if isinstance(environments, gymnasium.Env):
        return _Several((environments,), own=False)
    if _are_environments(environments):
        return _Several(environments, own=False)
    raise UsageError(
        "expected an environment, a vector environment, a list of environments or an id, not "
        f"{environments!r}"
    )


def _are_environments(value: object) -> bool:
    return (
        isinstance(value, Sequence)
        and bool(value)
        and all(isinstance(env, gymnasium.Env) for env in value)
    )


class _Several:
    """Environments one after the other in this thread."""

    def __init__(self, environments: Sequence[Environment], *, own: bool) -> None:
        self._environments = environments
        self._own = own

    def reset(self, seed: int | None) -> list[Moment]:
        """See `Fleet.reset`: seeds are consecutive, as in Gymnasium's vector environments."""
        return [
            self._reset(env, None if seed is None else seed + number)
            for number, env in enumerate(self._environments)
        ]

    def step(self, actions: Sequence[Any]) -> list[Moment]:
        """See `Fleet.step`."""
        return [
            self._step(env, action) for env, action in zip(self._environments, actions, strict=True)
        ]

    def close(self) -> None:
        """See `Fleet.close`."""
        if self._own:
            for env in self._environments:
                env.close()

    @staticmethod
    def _reset(env: Environment, seed: int | None) -> Moment:
        observation, info = env.reset(seed=seed)
        return Moment(observation=observation, mask=mask_of(info))

    def _step(self, env: Environment, action: Any) -> Moment:  # noqa: ANN401 - the environment's
        observation, reward, terminated, truncated, info = env.step(in_its_axes(env, action))
        if not terminated and not truncated:
            return Moment(observation=observation, mask=mask_of(info), reward=float(reward))
        following = self._reset(env, None)
        return Moment(
            observation=following.observation,
            mask=following.mask,
            reward=float(reward),
            terminated=bool(terminated),
            truncated=bool(truncated),
            final_observation=observation,
            final_mask=mask_of(info),
        )


class _Vector:
    """A vector environment in any of its autoreset modes."""

    def __init__(self, env: VectorEnv[Any, Any, Any]) -> None:
        self._env = env
        mode = env.metadata.get("autoreset_mode", "NextStep")
        self._mode = str(getattr(mode, "value", mode))
        self._idle: list[Any] = []

    def reset(self, seed: int | None) -> list[Moment]:
        """See `Fleet.reset`."""
        observations, infos = self._env.reset(seed=seed)
        masks = _masks(infos, self._env.num_envs)
        return [
            Moment(observation=observation, mask=mask)
            for observation, mask in zip(self._rows(observations), masks, strict=True)
        ]

    def step(self, actions: Sequence[Any]) -> list[Moment]:
        """See `Fleet.step`."""
        if self._idle:
            # Ignored where an environment resets itself, and yet it must be an action.
            pairs = zip(actions, self._idle, strict=True)
            actions = [idle if action is None else action for action, idle in pairs]
        self._idle = list(actions)
        space = self._env.action_space
        batch = np.array(actions, dtype=space.dtype).reshape(space.shape or (-1,))
        observations, rewards, terminated, truncated, infos = self._env.step(batch)
        ended = np.logical_or(terminated, truncated)
        rows = self._rows(observations)
        masks = _masks(infos, self._env.num_envs)
        finals: Sequence[Any] = rows
        final_masks = masks
        if self._mode == "SameStep":
            finals = infos.get("final_obs", rows)
            final_masks = _masks(infos.get("final_info", {}), self._env.num_envs)
        elif self._mode == "Disabled" and ended.any():
            observations, infos = self._env.reset(options={"reset_mask": ended})
            rows = self._rows(observations)
            fresh = _masks(infos, self._env.num_envs)
            masks = [fresh[i] if ended[i] else masks[i] for i in range(self._env.num_envs)]
        return [
            Moment(
                observation=rows[i],
                mask=masks[i],
                reward=float(rewards[i]),
                terminated=bool(terminated[i]),
                truncated=bool(truncated[i]),
                final_observation=finals[i] if ended[i] else None,
                final_mask=final_masks[i] if ended[i] else None,
                resets_next=bool(ended[i]) and self._mode == "NextStep",
            )
            for i in range(self._env.num_envs)
        ]

    def close(self) -> None:
        """See `Fleet.close`: it is the caller's."""

    def _rows(self, observations: Any) -> list[Any]:  # noqa: ANN401 - the environment's
        return list(iterate(self._env.observation_space, observations))


def in_its_axes(env: Environment, action: Any) -> Any:  # noqa: ANN401 - the environment's
    """`action` of an agent as `env` takes it: of choices in several axes agents have one."""
    shape = env.action_space.shape
    return np.reshape(action, shape) if shape and np.shape(action) != shape else action


def mask_of(info: Mapping[str, Any]) -> ArrayLike | None:
    """The actions that one environment's info allows; None where it does not say."""
    return _mask(info.get(MASK))


def _mask(value: Any) -> ArrayLike | None:  # noqa: ANN401 - the environment's
    """One mask; MultiDiscrete's come as one array a factor."""
    if isinstance(value, tuple):
        flat: NDArray[Any] = np.concatenate([np.ravel(part) for part in value])
        return flat
    mask: ArrayLike | None = value
    return mask


def _masks(infos: Mapping[str, Any], count: int) -> list[ArrayLike | None]:
    masks = infos.get(MASK)
    if masks is None:
        return [None] * count
    said = infos.get(f"_{MASK}", np.ones(count, np.bool_))
    return [_mask(masks[i]) if said[i] else None for i in range(count)]
