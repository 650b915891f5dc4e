"""What people do to a client: reset it, delete it."""

import secrets

import msgspec

from rl4sys_stream.broker.connection import Broker
from rl4sys_stream.broker.control import Control
from rl4sys_stream.broker.control_log import ControlRecord
from rl4sys_stream.broker.head import read_head
from rl4sys_stream.broker.key_types import require_key_types
from rl4sys_stream.broker.keys import CLIENTS_KEY, ClientKeys
from rl4sys_stream.broker.lease import Lease, token_epoch
from rl4sys_stream.broker.registry import read_heartbeats, require_client, require_registration
from rl4sys_stream.broker.scripts import run_script
from rl4sys_stream.broker.steering import Cause, Change, change_control
from rl4sys_stream.errors import UsageError

__all__ = ["delete_client", "reset_client"]

TAKEOVER_TTL_S = 10.0
LIVE_MS = 10_000
"""An agent that reported within this long counts as running."""


def reset_client(broker: Broker, keys: ClientKeys, cause: Cause | None = None) -> str:
    """Begin a new lineage: training starts from fresh weights, versions from 1.

    The stream, the watermarks and the counts of what became of each trajectory stay, so nothing
    is trained twice. The running worker is fenced off and begins anew by itself. Trajectories of
    the old lineage's models that are not settled are dropped, counted, or trained on by an
    algorithm with a replay buffer; what such a buffer had kept is deleted. Pins to versions, a
    promotion and an open rollback end; stopped agents stay stopped.

    Args:
        broker: Where the client is.
        keys: Of the client.
        cause: Who and why, for the log of the control.

    Returns:
        The name of the new lineage.

    Raises:
        UnknownClientError: If the client is not registered.
        KeyTypeError: If something else stands in the place of a key.
        BrokerError: Safe to call again.
    """
    cause = cause or Cause("", 0)
    require_key_types(broker, keys)
    require_registration(broker, keys)
    lease = Lease(broker, keys, ttl_s=TAKEOVER_TTL_S)
    lease.acquire(force=True)
    # From here on no worker commits, so no version can slip in between this and the reset.
    head = read_head(broker, keys)
    lineage = secrets.token_hex(8)
    notice = msgspec.json.encode({"version": 0, "token": "", "lineage": lineage})
    run_script(
        broker,
        "reset",
        [keys.fence, keys.head, keys.spec, keys.lease],
        [lease.token, lineage, token_epoch(lease.token), keys.updates, notice],
    )
    for entry in head.manifest if head else ():
        # The head that named them is gone: nobody finds them any more.
        broker.unlink(
            keys.model(entry.version, entry.token), keys.checkpoint(entry.version, entry.token)
        )
    change_control(broker, keys, lambda control, _: _forget_versions(control, cause))
    return lineage


def _forget_versions(control: Control, cause: Cause) -> Change | None:
    """What named versions has no object any more; stops, and pins to the head, hold on."""
    left = control.without_versions()
    if left == control:
        return None
    gone = tuple(rule.rule_id for rule in control.rules if rule not in left.rules)
    record = ControlRecord(
        what="reset", time_ms=cause.time_ms, by=cause.by, reason=cause.reason, rules=gone
    )
    return Change(left, record)


def delete_client(broker: Broker, keys: ClientKeys, *, force: bool, wall_ms: int) -> int:
    """Remove a client with everything it has; how many keys that were.

    Args:
        broker: Where it is.
        keys: Its keys.
        force: Do it although agents are running; they register it anew.
        wall_ms: Now, to tell which agents are running.

    Raises:
        UnknownClientError: If the client is not registered.
        UsageError: If agents are running and `force` is not given.
        BrokerError: Safe to call again.
    """
    require_client(broker, keys)
    live = [
        agent_id
        for agent_id, said in read_heartbeats(broker, keys).items()
        if not said.closed and wall_ms - said.time_ms < LIVE_MS
    ]
    if live and not force:
        raise UsageError(
            f"client {keys.client!r} has running agents ({', '.join(live)}); stop them, or give "
            "--force to delete what they sent"
        )
    # First no worker can commit any more, then the name goes, then the data.
    Lease(broker, keys, ttl_s=TAKEOVER_TTL_S).acquire(force=True)
    broker.call("SREM", CLIENTS_KEY, keys.client)
    return broker.unlink(*list(broker.scan(keys.pattern)))
