"""What a worker is to train: the registered spec, with the parameters of whoever owns them."""

import logging
from dataclasses import dataclass

import xxhash

from rl4sys_stream.broker.connection import Broker
from rl4sys_stream.broker.keys import ClientKeys
from rl4sys_stream.broker.registry import (
    Registration,
    make_definition,
    parse_definition,
    read_registration,
    record_definition,
    register,
)
from rl4sys_stream.clock import Clock
from rl4sys_stream.config import (
    ClientConfig,
    ClientSpec,
    Hyperparameters,
    WorkerSettings,
    find_algorithm,
)
from rl4sys_stream.errors import BrokerFullError, SpecMismatchError
from rl4sys_stream.spaces import flat_dim
from rl4sys_stream.telemetry import log_event
from rl4sys_stream.wire.format import WireLimits
from rl4sys_stream.wire.trajectory import TrajectorySpec

__all__ = ["WorkerPlan", "make_plan", "record_plan"]

logger = logging.getLogger("rl4sys_stream.worker")


@dataclass(frozen=True, slots=True)
class WorkerPlan:
    """What a worker is to train.

    Attributes:
        spec: Fixed part.
        parameters: Of the learner.
        settings: Of the worker.
        lineage: Training history to continue or begin.
        lineage_epoch: Models of tokens up to this epoch belong to an older lineage.
    """

    spec: ClientSpec
    parameters: Hyperparameters
    settings: WorkerSettings
    lineage: str
    lineage_epoch: int

    @property
    def seed(self) -> int:
        """Of the initial weights; without a configured one, the lineage's name is the seed."""
        if self.parameters.seed is not None:
            return self.parameters.seed
        return xxhash.xxh3_64_intdigest(self.lineage.encode()) >> 1

    @property
    def on_policy(self) -> bool:
        """Whether only recent behaviour can be trained on."""
        return find_algorithm(self.spec.algorithm).on_policy

    @property
    def trajectory_spec(self) -> TrajectorySpec:
        """What a trajectory of the client looks like."""
        limits = WireLimits(
            max_entry_bytes=self.settings.max_entry_bytes, max_steps=self.settings.max_entry_steps
        )
        return TrajectorySpec(
            flat_dim(self.spec.observation_space),
            self.spec.actions,
            limits,
            priors=find_algorithm(self.spec.algorithm).takes_priors,
        )


def make_plan(
    broker: Broker,
    keys: ClientKeys,
    config: ClientConfig | None,
    *,
    clock: Clock,
    may_register: bool = True,
) -> WorkerPlan | None:
    """The plan for a client, None while it is not registered and no definition can register it.

    Args:
        broker: Where the registry is.
        keys: Of the client.
        config: The worker's definition, None if there is none: then the parameters of the first
            registration hold.
        clock: For the stamps.
        may_register: Whether the definition may register the client.

    Raises:
        SpecMismatchError: If the definition contradicts the registration.
        ConfigError: If the registered definition is not known to this version.
        BrokerError: Safe to retry.
    """
    registration = read_registration(broker, keys)
    if config is None:
        if registration is None:
            return None
        known = parse_definition(registration.spec.algorithm, registration.definition)
        return _plan(registration, *known)
    spaces_known = None not in (config.observation_space, config.action_space)
    if registration is None and not (may_register and spaces_known):
        return None
    spec = config.spec(registration.spec if registration else None)
    if registration is None:
        definition = make_definition(config.parameters, config.worker)
        registration = register(broker, keys, spec, definition, wall_ms=clock.wall_ms())
    if fields := registration.spec.differences(spec):
        raise SpecMismatchError(
            f"the definition of {keys.client!r} contradicts its registration in "
            f"{', '.join(fields)}; change {config.source or 'the definition'}, or delete the "
            f"client with `rl4sys-stream clients delete {keys.client}`",
            fields=fields,
        )
    return _plan(registration, config.parameters, config.worker)


def record_plan(broker: Broker, keys: ClientKeys, plan: WorkerPlan, *, clock: Clock) -> None:
    """Record the parameters that are trained with. Only for the holder of the lease.

    Raises:
        BrokerError: Safe to retry.
    """
    definition = make_definition(plan.parameters, plan.settings)
    try:
        changed = record_definition(broker, keys, definition, wall_ms=clock.wall_ms())
    except BrokerFullError as error:
        # A full broker waits for this worker to empty it; the next one makes the record.
        log_event(logger, logging.WARNING, "worker.definition_not_recorded", error=error)
        return
    if changed:
        log_event(logger, logging.INFO, "worker.definition_changed", client=keys.client)


def _plan(
    registration: Registration, parameters: Hyperparameters, settings: WorkerSettings
) -> WorkerPlan:
    return WorkerPlan(
        registration.spec,
        parameters,
        settings,
        registration.lineage,
        registration.lineage_epoch,
    )
