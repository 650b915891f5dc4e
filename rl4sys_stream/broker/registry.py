"""The registry of clients: who exists, with which spec, and which agents act for them.

Registration uses plain commands only, so that an agent in any language can do it.
"""

import secrets
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import cast

import msgspec

from rl4sys_stream.broker.connection import Broker
from rl4sys_stream.broker.keys import CLIENTS_KEY, ClientKeys, is_client_name
from rl4sys_stream.broker.translation import translate
from rl4sys_stream.config import ClientSpec, Hyperparameters, WorkerSettings
from rl4sys_stream.config.algorithms import read_parameters
from rl4sys_stream.config.schema import read_struct
from rl4sys_stream.errors import SpecMismatchError, UnknownClientError, WireFormatError
from rl4sys_stream.wire.json import decode_json

__all__ = [
    "AgentHeartbeat",
    "Definition",
    "Registration",
    "WorkerReport",
    "list_clients",
    "make_definition",
    "overruled",
    "parse_definition",
    "parse_heartbeats",
    "parse_registration",
    "parse_worker_report",
    "read_heartbeats",
    "read_registration",
    "read_worker_report",
    "record_definition",
    "register",
    "require_client",
    "require_registration",
    "write_heartbeat",
    "write_worker_report",
]

Definition = Mapping[str, object]
"""The changeable part of a client's definition (`algorithm_parameters`, `worker`) as JSON."""


class AgentHeartbeat(msgspec.Struct, frozen=True, kw_only=True):
    """What one agent last said of itself; the agent's half of the audit.

    accepted = issued + queued + sealing + dropped + quarantined at every instant.

    Attributes:
        agent_id: One running agent.
        host: Where it runs.
        pid: Its process.
        started_ms: Wall clock of its start.
        time_ms: Wall clock of this report.
        closed: It said goodbye; no later report follows.
        version: Model version that it acts with, 0 before any, and while it is stopped.
        token: Token of that version.
        lineage: Lineage of that version.
        accepted: Trajectories whose end was marked (or that were cut).
        issued: Numbers given so far; the next trajectory gets issued + 1.
        floor: Lowest number that it still offers; all below are delivered for good.
        queued: Sealed and without a number yet.
        sealing: Ended and waiting for rewards.
        dropped: Discarded by its drop policy.
        quarantined: Never sealed within `reward_timeout_s`.
        open: Trajectories that have not ended.
        steps: Environment steps in the accepted ones.
        decisions: Actions requested.
        fallback_decisions: Those answered without a model.
        late_decisions: Those answered by the fallback because the model was beyond `deadline_s`.
        refused: Why the registration was refused, "" if it was not.
        broker: What it thinks of the broker (up, down, …).
        spooled: What is queued and offered is on its disk too, and the next agent there sends it.
        adopted_by: The agent that finishes the books of this dead one, "".
        control: "", "pinned", "promoted" or "stopped"; see `control.Directive`.
        rule: Rule of the client's control that it obeys, "".
        frames_refused: Diffs and notices that were damaged, or did not lead to what was published.
    """

    agent_id: str
    host: str = ""
    pid: int = 0
    started_ms: int = 0
    time_ms: int = 0
    closed: bool = False
    version: int = 0
    token: str = ""
    lineage: str = ""
    accepted: int = 0
    issued: int = 0
    floor: int = 1
    queued: int = 0
    sealing: int = 0
    dropped: int = 0
    quarantined: int = 0
    open: int = 0
    steps: int = 0
    decisions: int = 0
    fallback_decisions: int = 0
    late_decisions: int = 0
    refused: str = ""
    broker: str = ""
    spooled: bool = False
    adopted_by: str = ""
    control: str = ""
    rule: str = ""
    frames_refused: int = 0


class WorkerReport(msgspec.Struct, frozen=True, kw_only=True):
    """What the client's worker, or the dispatcher about it, last said.

    Attributes:
        state: starting, waiting, idle, training, paused, stopped, failed or crash_loop.
        host: Where it runs.
        pid: Its process.
        time_ms: Wall clock of this report.
        token: Its fencing token, "".
        detail: The error or the reason of the state, "".
    """

    state: str
    host: str = ""
    pid: int = 0
    time_ms: int = 0
    token: str = ""
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Registration:
    """A registered client.

    Attributes:
        spec: Fixed by the first registration.
        definition: Parameters of the first registration, or of the worker's definition file.
        lineage: Name of the current training history.
        lineage_epoch: Models whose token has a lower epoch belong to an older lineage.
        created_ms: Wall clock of the first registration.
    """

    spec: ClientSpec
    definition: Definition
    lineage: str
    lineage_epoch: int
    created_ms: int


def make_definition(parameters: Hyperparameters, settings: WorkerSettings) -> Definition:
    """The changeable part of a client's definition, every field present."""
    return {
        "algorithm_parameters": msgspec.to_builtins(parameters),
        "worker": msgspec.to_builtins(settings),
    }


def overruled(stated: Collection[str], mine: Definition, registered: Definition) -> list[str]:
    """Dotted paths that a configuration states and that the registered definition overrules.

    Args:
        stated: Paths that the configuration says rather than takes as defaults.
        mine: What `make_definition` makes of it.
        registered: What the client trains with.
    """
    found = []
    for section, values in mine.items():
        theirs = registered.get(section)
        if not isinstance(values, Mapping) or not isinstance(theirs, Mapping):
            continue
        for name, value in values.items():
            path = f"{section}.{name}"
            if path in stated and name in theirs and theirs[name] != value:
                found.append(path)
    return sorted(found)


def parse_definition(
    algorithm: str, definition: Definition
) -> tuple[Hyperparameters, WorkerSettings]:
    """What `make_definition` was made of; parts that are missing take their defaults.

    Args:
        algorithm: Whose hyperparameters they are.
        definition: As registered.

    Raises:
        ConfigError: If a key or a value is not known to this version.
    """
    parts = {name: definition.get(name) for name in ("algorithm_parameters", "worker")}
    known = {name: part if isinstance(part, Mapping) else {} for name, part in parts.items()}
    return (
        read_parameters(algorithm, known["algorithm_parameters"]),
        read_struct(WorkerSettings, known["worker"], path="worker"),
    )


def register(
    broker: Broker, keys: ClientKeys, spec: ClientSpec, definition: Definition, *, wall_ms: int
) -> Registration:
    """Register the client, or check that it is registered with the same spec. Safe to retry.

    Raises:
        SpecMismatchError: If it is registered with a different spec; names the fields.
        BrokerError: If the broker cannot be asked.
    """
    with translate(broker.where), broker.redis.pipeline(transaction=True) as pipe:
        # First come, first served, field by field: one writer wins each.
        pipe.hsetnx(keys.spec, "spec", msgspec.json.encode(spec.to_json()))
        pipe.hsetnx(keys.spec, "definition", msgspec.json.encode(definition))
        pipe.hsetnx(keys.spec, "lineage", secrets.token_hex(8))
        pipe.hsetnx(keys.spec, "created_ms", wall_ms)
        pipe.execute()
        broker.redis.sadd(CLIENTS_KEY, keys.client)
    registration = require_registration(broker, keys)
    if fields := registration.spec.differences(spec):
        raise SpecMismatchError(
            f"client {keys.client!r} is registered with a different {', '.join(fields)}; "
            "use the same settings, another client_id, or `rl4sys-stream clients delete "
            f"{keys.client}`",
            fields=tuple(fields),
        )
    return registration


def read_registration(broker: Broker, keys: ClientKeys) -> Registration | None:
    """The client's registration, None if there is none.

    Raises:
        WireFormatError: If what is there does not decode.
    """
    return parse_registration(keys.client, broker.hash_all(keys.spec))


def parse_registration(client: str, fields: Mapping[bytes, bytes]) -> Registration | None:
    """The registration of `client` that `fields` hold, None where they hold none.

    Raises:
        WireFormatError: If they do not decode.
    """
    if b"spec" not in fields or b"lineage" not in fields:
        return None
    try:
        return Registration(
            spec=ClientSpec.from_bytes(fields[b"spec"]),
            definition=decode_json(
                fields.get(b"definition", b"{}"), dict[str, object], "the definition"
            ),
            lineage=fields[b"lineage"].decode(),
            lineage_epoch=int(fields.get(b"lineage_epoch", b"0")),
            created_ms=int(fields.get(b"created_ms", b"0")),
        )
    except ValueError as error:
        raise WireFormatError(f"the spec of {client} does not decode: {error}") from error


def require_registration(broker: Broker, keys: ClientKeys) -> Registration:
    """The client's registration.

    Raises:
        UnknownClientError: If there is none; the message lists the clients that there are.
    """
    registration = read_registration(broker, keys)
    if registration is None:
        known = ", ".join(list_clients(broker)) or "none yet"
        raise UnknownClientError(
            f"no client {keys.client!r} at {broker.address.public_url}; known: {known}"
        )
    return registration


def require_client(broker: Broker, keys: ClientKeys) -> None:
    """Nothing, if there is anything of the client, readable or not.

    Raises:
        UnknownClientError: As `require_registration`.
    """
    if not broker.call("EXISTS", keys.spec) and not broker.call(
        "SISMEMBER", CLIENTS_KEY, keys.client
    ):
        require_registration(broker, keys)


def record_definition(
    broker: Broker, keys: ClientKeys, definition: Definition, *, wall_ms: int
) -> bool:
    """Put the worker's definition in place of the registered one; True if it differed.

    The one before stays readable in the field `definition_before`, with the time of the change.
    """
    old, new = broker.hash_get(keys.spec, "definition")[0], msgspec.json.encode(definition)
    if old is not None and _same_json(old, new):
        return False
    changes: dict[str, bytes | str | int] = {"definition": new, "definition_changed_ms": wall_ms}
    if old is not None:
        changes["definition_before"] = old
    broker.hash_set(keys.spec, changes)
    return True


def _same_json(left: bytes, right: bytes) -> bool:
    try:
        return bool(decode_json(left, object, "") == decode_json(right, object, ""))
    except WireFormatError:  # what nobody can read is not what the worker has
        return False


def list_clients(broker: Broker) -> list[str]:
    """Names of the registered clients, sorted; what is no client's name is passed over."""
    with translate(broker.where):
        names = cast("set[bytes]", broker.redis.smembers(CLIENTS_KEY))
    return sorted(name.decode() for name in names if is_client_name(name))


def write_heartbeat(broker: Broker, keys: ClientKeys, heartbeat: AgentHeartbeat) -> None:
    """Store what an agent says of itself."""
    broker.hash_set(keys.agents, {heartbeat.agent_id: msgspec.json.encode(heartbeat)})


def read_heartbeats(broker: Broker, keys: ClientKeys) -> dict[str, AgentHeartbeat]:
    """agent_id -> last report; reports that do not decode are left out."""
    return parse_heartbeats(broker.hash_all(keys.agents))


def parse_heartbeats(fields: Mapping[bytes, bytes]) -> dict[str, AgentHeartbeat]:
    """agent_id -> report; those of `fields` that do not decode are left out."""
    found: dict[str, AgentHeartbeat] = {}
    for name, data in fields.items():
        try:
            found[name.decode()] = decode_json(data, AgentHeartbeat, "the heartbeat")
        except ValueError:
            continue
    return found


def write_worker_report(broker: Broker, keys: ClientKeys, report: WorkerReport) -> None:
    """Store what the worker says of itself."""
    broker.hash_set(keys.worker, {"report": msgspec.json.encode(report)})


def read_worker_report(broker: Broker, keys: ClientKeys) -> WorkerReport | None:
    """The worker's last report, None if there was never one."""
    data = broker.hash_get(keys.worker, "report")[0]
    return None if data is None else parse_worker_report(data)


def parse_worker_report(data: bytes) -> WorkerReport | None:
    """The report in `data`, None if it does not decode."""
    try:
        return decode_json(data, WorkerReport, "the report")
    except WireFormatError:
        return None
