"""One client's whole configuration, as the agent, the worker and the commands read it."""

import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from rl4sys_stream.config.address import check_redis_url
from rl4sys_stream.config.algorithms import check_actions, find_algorithm
from rl4sys_stream.config.hyperparameters import Hyperparameters, PPOParameters
from rl4sys_stream.config.schema import shown
from rl4sys_stream.config.settings import AgentSettings, WorkerSettings
from rl4sys_stream.config.spec import (
    ClientSpec,
    NetworkSpec,
    action_format,
    check_items,
    check_network,
)
from rl4sys_stream.errors import ConfigError
from rl4sys_stream.spaces import Space, flat_dim
from rl4sys_stream.spaces.actions import ActionFormat

__all__ = [
    "DEFAULT_TIMEOUT_S",
    "ClientConfig",
    "check_client_id",
    "replayed_steps_that_fit",
    "steps_that_fit",
]

DEFAULT_TIMEOUT_S: Final = 5.0
HEADER_RESERVE_BYTES: Final = 4096
"""Room for an entry's header and addressing fields when trajectories are sized against limits."""

_CLIENT_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def check_client_id(name: object, *, path: str = "client_id") -> str:
    """`name`, if a client may be called so: it becomes part of keys and file names.

    Raises:
        ConfigError: If it is no string of 1 to 64 letters, digits, ".", "_" and "-", the first a
            letter or digit.
    """
    if isinstance(name, str) and _CLIENT_ID.fullmatch(name):
        return name
    raise ConfigError(
        f'expected 1 to 64 letters, digits, ".", "_" or "-", the first a letter or digit, '
        f"not {shown(name)}",
        path=path,
    )


def _step_bytes(obs_dim: int, actions: ActionFormat, *, priors: bool = False) -> int:
    """A step: observation, reward, log-probability and prior as float32, action and mask."""
    return 4 * obs_dim + 4 + 4 + actions.step_bytes + 4 * actions.choices * priors


def steps_that_fit(
    obs_dim: int, actions: ActionFormat, max_entry_bytes: int, *, priors: bool = False
) -> int:
    """Most steps of a trajectory, with masks, that an entry of `max_entry_bytes` can carry.

    The final observation and its mask come once.

    Args:
        obs_dim: Length of a flattened observation.
        actions: What an action is.
        max_entry_bytes: Of the entry.
        priors: Whether the steps have prior logits.
    """
    room = max_entry_bytes - HEADER_RESERVE_BYTES - 4 * obs_dim - actions.choices
    return max(0, room // _step_bytes(obs_dim, actions, priors=priors))


def replayed_steps_that_fit(obs_dim: int, actions: ActionFormat, retained_bytes: int) -> int:
    """Most steps of a replay buffer that can stay in the stream within `retained_bytes`."""
    return retained_bytes // _step_bytes(obs_dim, actions)


def _known(space: Space | None, name: str) -> Space:
    if space is None:
        raise ConfigError(
            f"nothing says it, and the client is not registered: put {name} into the "
            f"configuration, or pass {name}=... to the agent",
            path=name,
        )
    return space


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientConfig:
    """What defaults, file, environment and arguments say of one client, checked together.

    Attributes:
        client_id: The client's name; None if nothing said it.
        algorithm: Name of the algorithm.
        observation_space: None if nothing said it; then the registered spec decides.
        action_space: Likewise.
        network: Shape of the networks.
        parameters: The learner's hyperparameters, of the class that the algorithm has.
        agent: The agent's settings.
        worker: The worker's settings.
        redis_url: The broker; None if nothing said it. May hold a password if it came from the
            environment or an argument, so it is left out of the repr.
        timeout_s: Longest wait for a connection to the broker, and for one of its answers.
        notices: In words, what was read under another name, and what has no meaning here and why.
        stated: Dotted paths of what was said rather than defaulted.
        source: The file that was read, if one was.
    """

    client_id: str | None = None
    algorithm: str = "PPO"
    observation_space: Space | None = None
    action_space: Space | None = None
    network: NetworkSpec = field(default_factory=NetworkSpec)
    parameters: Hyperparameters = field(default_factory=PPOParameters)
    agent: AgentSettings = field(default_factory=AgentSettings)
    worker: WorkerSettings = field(default_factory=WorkerSettings)
    redis_url: str | None = field(default=None, repr=False)
    timeout_s: float = DEFAULT_TIMEOUT_S
    notices: tuple[str, ...] = ()
    stated: frozenset[str] = frozenset()
    source: Path | None = None

    def __post_init__(self) -> None:
        """Check what only shows when the parts are seen together.

        Raises:
            ConfigError: With the inequality in words, and the path of one of its sides.
        """
        if self.client_id is not None:
            check_client_id(self.client_id)
        if self.redis_url is not None:
            check_redis_url(self.redis_url, allow_password=True)
        expected = find_algorithm(self.algorithm).parameters
        if not isinstance(self.parameters, expected):
            raise ConfigError(
                f"{self.algorithm} takes {expected.__name__}, not {type(self.parameters).__name__}",
                path="algorithm_parameters",
            )
        self._check_sizes()
        check_network(self.algorithm, self.network)
        if self.action_space is not None:
            check_actions(self.algorithm, self.action_space)
            action_format(self.algorithm, self.action_space, self.network)
        if self.action_space is not None and self.observation_space is not None:
            check_items(self.algorithm, self.observation_space, self.action_space, self.network)
        self._check_entry_fits()

    def spec(self, registered: ClientSpec | None = None) -> ClientSpec:
        """The client's fixed part: what this configuration states, the rest as `registered`.

        Args:
            registered: The spec that the registry holds, if there is one. Where it contradicts
                this configuration, this configuration is returned: `ClientSpec.differences` says
                where.

        Raises:
            ConfigError: If a space is neither stated nor registered.
        """
        observation_space, action_space = self.observation_space, self.action_space
        algorithm, network = self.algorithm, self.network
        if registered is not None:
            observation_space = observation_space or registered.observation_space
            action_space = action_space or registered.action_space
            if "algorithm" not in self.stated:
                algorithm = registered.algorithm
            network = self._network(registered, algorithm, action_space)
        observation_space = _known(observation_space, "observation_space")
        action_space = _known(action_space, "action_space")
        # again, now that the spaces are known: do the longest trajectories fit into an entry?
        replace(self, observation_space=observation_space, action_space=action_space)
        return ClientSpec(
            algorithm=algorithm,
            observation_space=observation_space,
            action_space=action_space,
            network=network,
        )

    def _network(self, registered: ClientSpec, algorithm: str, actions: Space) -> NetworkSpec:
        stated = {
            name: getattr(self.network, name)
            for name in NetworkSpec.__struct_fields__
            if f"network_architecture.{name}" in self.stated
        }
        defaults = {
            name: getattr(registered.network, name) for name in NetworkSpec.__struct_fields__
        }
        try:
            network = NetworkSpec(**{**defaults, **stated})
            check_network(algorithm, network)
            action_format(algorithm, actions, network)
        except ConfigError:  # a contradiction of what is stated with what is registered
            return self.network
        return network

    def _check_sizes(self) -> None:
        entry = self.worker.max_entry_bytes
        for name in ("queue_bytes", "high_water_bytes", "retain_bytes"):
            if getattr(self.agent, name) < entry:
                raise ConfigError(
                    f"the largest permitted entry would never fit: {name} must be >= "
                    f"worker.max_entry_bytes, which is {entry}; not {getattr(self.agent, name)}",
                    path=f"agent.{name}",
                )
        if self.agent.max_trajectory_steps > self.worker.max_entry_steps:
            raise ConfigError(
                f"the worker would quarantine the longest trajectories: max_trajectory_steps must "
                f"be <= worker.max_entry_steps, which is {self.worker.max_entry_steps}; "
                f"not {self.agent.max_trajectory_steps}",
                path="agent.max_trajectory_steps",
            )

    def _check_retained_fits(self) -> None:
        steps = self.parameters.replayed_steps
        if not steps or self.observation_space is None or self.action_space is None:
            return
        actions = action_format(self.algorithm, self.action_space, self.network)
        obs_dim = flat_dim(self.observation_space)
        width = _step_bytes(obs_dim, actions)
        fit = replayed_steps_that_fit(obs_dim, actions, self.worker.retained_bytes)
        if steps > fit:
            raise ConfigError(
                f"the replay buffer's {steps} steps of {width} bytes would not fit into what may "
                f"stay in the stream to fill it again after a restart: buffer_size must be <= "
                f"{fit}, or worker.retained_bytes >= {steps * width}",
                path="algorithm_parameters.buffer_size",
            )

    def _check_entry_fits(self) -> None:
        if self.observation_space is None or self.action_space is None:
            return
        fit = steps_that_fit(
            flat_dim(self.observation_space),
            action_format(self.algorithm, self.action_space, self.network),
            self.worker.max_entry_bytes,
        )
        self._check_retained_fits()
        if self.agent.max_trajectory_steps > fit:
            raise ConfigError(
                f"with these spaces an entry of worker.max_entry_bytes "
                f"({self.worker.max_entry_bytes}) carries at most {fit} steps: "
                f"max_trajectory_steps must be <= {fit}; not {self.agent.max_trajectory_steps}",
                path="agent.max_trajectory_steps",
            )
