"""Agents that are gone for good: their books are added up, so that the broker does not grow.

Each process that embeds an agent has an id of its own, with a report and a ledger at the broker. A
service that restarts daily leaves hundreds of them a year.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from rl4sys_stream.broker.connection import Broker
from rl4sys_stream.broker.keys import ClientKeys

__all__ = ["PastAgents", "parse_past", "read_past"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PastAgents:
    """The balance of all agents whose books were added up.

    accepted == trained + quarantined + dropped + skipped + lost

    Attributes:
        agents: How many there were.
        accepted: Trajectories that they ended.
        trained: Taken in.
        quarantined: Could not be used.
        refused: Those of them that a worker refused; the others never left their agents.
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
    refused: int = 0
    dropped: int = 0
    skipped: int = 0
    lost: int = 0
    duplicates: int = 0
    steps: int = 0
    accepted_steps: int = 0


def read_past(broker: Broker, keys: ClientKeys) -> PastAgents:
    """The balance of the agents that were retired; all zero where there were none."""
    return parse_past(broker.hash_all(keys.past))


def parse_past(fields: Mapping[bytes, bytes]) -> PastAgents:
    """The balance that the fields of `past` hold; what is no number counts as 0."""
    found = {name.decode("utf-8", "replace"): value for name, value in fields.items()}
    known = {
        name: int(value)
        for name, value in found.items()
        if name in PastAgents.__dataclass_fields__ and value.isdigit()
    }
    return PastAgents(**known)
