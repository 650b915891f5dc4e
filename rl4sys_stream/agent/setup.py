"""What an agent is made from: the configuration, completed by the registry where it has gaps."""

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from rl4sys_stream.broker.connection import DEFAULT_URL, Broker, BrokerAddress
from rl4sys_stream.broker.keys import ClientKeys
from rl4sys_stream.broker.registry import Registration, read_registration
from rl4sys_stream.config import ClientConfig, ClientSpec, find_algorithm, load_config
from rl4sys_stream.config.client import steps_that_fit
from rl4sys_stream.errors import BrokerError, ConfigError, WireError
from rl4sys_stream.spaces import Space, flat_dim
from rl4sys_stream.spaces.actions import ActionFormat
from rl4sys_stream.telemetry import log_event

__all__ = ["Setup", "make_setup"]

logger = logging.getLogger("rl4sys_stream.agent")

LOOKUP_TIMEOUT_S: Final = 2.0
"""The construction waits for the registry at most about this long, and only if it has to ask."""


@dataclass(frozen=True, slots=True)
class Setup:
    """Everything that is known before the first decision.

    Attributes:
        config: With both spaces.
        address: Of the broker.
        keys: Of the client.
        observation_space: What the application observes.
        actions: What it can do.
        no_prior: Why its decisions take no prior logits, in words; "" if they do.
    """

    config: ClientConfig
    address: BrokerAddress
    keys: ClientKeys
    observation_space: Space
    actions: ActionFormat
    no_prior: str


def make_setup(
    conf_path: str | os.PathLike[str] | None,
    *,
    client_id: str | None,
    redis_url: str | None,
    observation_space: object,
    action_space: object,
    overrides: Mapping[str, object],
    environ: Mapping[str, str],
) -> Setup:
    """Read the configuration, and ask the registry for the spaces that it lacks.

    Args:
        conf_path: A JSON file, or None.
        client_id: Goes before the configuration, like the next three.
        redis_url: The broker.
        observation_space: Anything that `as_space` takes.
        action_space: Likewise.
        overrides: Other settings by dotted path.
        environ: The environment.

    Raises:
        ConfigError: If a setting is unknown, mistyped, impossible, or missing everywhere.
    """
    config = load_config(
        conf_path,
        environ=environ,
        client_id=client_id,
        redis_url=redis_url,
        observation_space=observation_space,
        action_space=action_space,
        overrides=overrides,
    )
    for notice in config.notices:
        log_event(logger, logging.INFO, "agent.config_notice", notice=notice)
    if config.client_id is None:
        raise ConfigError(
            "nothing says it: put client_id into the configuration, or pass client_id=",
            path="client_id",
        )
    keys = ClientKeys(config.client_id)
    address = BrokerAddress.from_url(config.redis_url or DEFAULT_URL, environ)
    if config.observation_space is None or config.action_space is None:
        registration = _look_up(address, keys, config)
        spec = config.spec(registration.spec if registration else None)
        config = replace(
            config, observation_space=spec.observation_space, action_space=spec.action_space
        )
    else:
        spec = config.spec()
    return Setup(
        config,
        address,
        keys,
        spec.observation_space,
        spec.actions,
        _why_no_prior(spec, config),
    )


def _why_no_prior(spec: ClientSpec, config: ClientConfig) -> str:
    if spec.actions.continuous:
        return "real-valued actions have no logits that a prior could be added to; leave it out"
    if not find_algorithm(spec.algorithm).takes_priors:
        return (
            f"{spec.algorithm} does not train on logits, so it takes no prior; leave it out, or "
            "take PPO"
        )
    limit, steps = config.worker.max_entry_bytes, config.agent.max_trajectory_steps
    fit = steps_that_fit(flat_dim(spec.observation_space), spec.actions, limit, priors=True)
    if steps > fit:
        return (
            f"with a prior in each step an entry of worker.max_entry_bytes ({limit}) carries at "
            f"most {fit} steps: set agent.max_trajectory_steps to no more, which is {steps}"
        )
    return ""


def _look_up(address: BrokerAddress, keys: ClientKeys, config: ClientConfig) -> Registration | None:
    missing = "action_space" if config.observation_space is not None else "observation_space"
    broker = Broker(
        address, timeout_s=min(config.timeout_s, LOOKUP_TIMEOUT_S), name="rl4sys-agent-look-up"
    )
    try:
        return read_registration(broker, keys)
    except (BrokerError, WireError) as error:
        raise ConfigError(
            f"neither the configuration nor an argument says it, and the registry cannot be asked "
            f"({error}); pass {missing}= or start the broker",
            path=missing,
        ) from error
    finally:
        broker.close()
