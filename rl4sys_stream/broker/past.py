"""Agents that are gone for good: their books are added up, so that the broker does not grow.

Each process that embeds an agent has an id of its own, with a report and a ledger at the broker. A
service that restarts daily leaves hundreds of them a year.
"""

from dataclasses import dataclass

from rl4sys_stream.broker.connection import Broker
from rl4sys_stream.broker.keys import ClientKeys

__all__ = ["PastAgents", "read_past"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PastAgents:
    """The balance of all agents whose books were added up; accepted is the sum of the next five.

    Attributes:
        agents: How many there were.
        accepted: Trajectories that they ended.
        trained: Taken in.
        quarantined: Could not be used.
        dropped: Discarded by a policy.
        skipped: Destroyed by a third party.
        lost: Died with their agents, or with the broker's last writes.
        duplicates: Second copies; apart.
        steps: Environment steps in the trained ones.
        accepted_steps: Environment steps in all of them.
    """

    agents: int = 0
    accepted: int = 0
    trained: int = 0
    quarantined: int = 0
    dropped: int = 0
    skipped: int = 0
    lost: int = 0
    duplicates: int = 0
    steps: int = 0
    accepted_steps: int = 0


def read_past(broker: Broker, keys: ClientKeys) -> PastAgents:
    """The balance of the agents that were retired; all zero where there were none."""
    found = {name.decode("utf-8", "replace"): value for name, value in _fields(broker, keys)}
    known = {
        name: int(value)
        for name, value in found.items()
        if name in PastAgents.__dataclass_fields__ and value.isdigit()
    }
    return PastAgents(**known)


def _fields(broker: Broker, keys: ClientKeys) -> list[tuple[bytes, bytes]]:
    return list(broker.hash_all(keys.past).items())
