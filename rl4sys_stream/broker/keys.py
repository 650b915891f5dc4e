"""Every key the system uses, built in one place.

All keys of one client carry the hash tag `{client}`, so that each script and transaction stays in
one Redis Cluster slot.
"""

from typing import Final

from rl4sys_stream.config import check_client_id
from rl4sys_stream.errors import ConfigError

__all__ = ["CLIENTS_KEY", "DISPATCHERS_KEY", "GROUP", "ClientKeys", "is_client_name"]

PREFIX: Final = "rl4sys"
CLIENTS_KEY: Final = f"{PREFIX}:clients"
"""Set of the known client names."""
DISPATCHERS_KEY: Final = f"{PREFIX}:dispatchers"
"""Hash dispatcher id -> its last report (JSON)."""
GROUP: Final = "workers"
"""Consumer group of every trajectory stream; its one consumer has the same name, so that the next
worker finds the pending entries of the last one without claiming them."""


def is_client_name(name: bytes) -> bool:
    """Whether a member of the registry can be a client's name: anybody may write to a set."""
    try:
        check_client_id(name.decode())
    except (UnicodeDecodeError, ConfigError):
        return False
    return True


class ClientKeys:
    """The keys of one client.

    Attributes:
        traj: Stream of trajectories; consumer group `workers`.
        quarantine: Stream of refused entries with the reason.
        spec: Hash; the client's fixed definition, parameters and lineage.
        head: Hash; the newest committed state.
        seq: Hash agent_id -> watermark and counts of settled numbers.
        lease: String with expiry; the token of the live worker.
        fence: String without expiry; the only token whose commits are accepted.
        epoch: Counter behind the tokens.
        agents: Hash agent_id -> heartbeat.
        past: Hash; the summed books of agents that are long gone.
        worker: Hash; what the worker (or the dispatcher about it) last reported.
        metrics: Stream of training and rollout metrics, trimmed.
        control: Hash; which versions agents act by, whether they act by a model at all, and what
            the worker is asked to do.
        control_log: Stream of the changes of it, trimmed.
        updates: Pub/sub channel of version notices.
    """

    def __init__(self, client: str) -> None:
        """Build the keys of `client`; raises ConfigError if it cannot name one."""
        self.client = check_client_id(client)
        base = f"{PREFIX}:{{{client}}}"
        self._base = base
        self.traj = f"{base}:traj"
        self.quarantine = f"{base}:quarantine"
        self.spec = f"{base}:spec"
        self.head = f"{base}:head"
        self.seq = f"{base}:seq"
        self.lease = f"{base}:lease"
        self.fence = f"{base}:fence"
        self.epoch = f"{base}:epoch"
        self.agents = f"{base}:agents"
        self.past = f"{base}:past"
        self.worker = f"{base}:worker"
        self.metrics = f"{base}:metrics"
        self.control = f"{base}:control"
        self.control_log = f"{base}:control-log"
        self.updates = f"{base}:updates"

    @property
    def pattern(self) -> str:
        """SCAN pattern that matches every key of this client and of no other."""
        return f"{self._base}:*"

    def model(self, version: int, token: str) -> str:
        """Hash of one model version."""
        return f"{self._base}:model:{version}:{token}"

    def checkpoint(self, version: int, token: str) -> str:
        """Hash of the worker's resume state of that version."""
        return f"{self._base}:checkpoint:{version}:{token}"
