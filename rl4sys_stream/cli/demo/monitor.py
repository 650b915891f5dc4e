"""What the broker knows of the run: versions, backlog, how much was trained on."""

import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from rl4sys_stream.broker.connection import Broker
from rl4sys_stream.broker.head import read_head
from rl4sys_stream.broker.keys import ClientKeys
from rl4sys_stream.broker.lease import read_lease
from rl4sys_stream.broker.ledger import LedgerRecord, read_ledgers
from rl4sys_stream.broker.metrics import read_metrics
from rl4sys_stream.broker.registry import read_heartbeats, read_worker_report
from rl4sys_stream.broker.stream import TrajectoryStream
from rl4sys_stream.cli.demo.progress import Progress, VersionPoint
from rl4sys_stream.clock import Clock
from rl4sys_stream.errors import BrokerError, WireError
from rl4sys_stream.wire.format import WireLimits
from rl4sys_stream.wire.trajectory import decode_address, read_steps

__all__ = ["Monitor", "RunAudit"]

START: Final = "0-0"
SETTLE_TIMEOUT_S: Final = 30.0
LOOK_S: Final = 0.1
QUIET_S: Final = 0.6
"""The worker says that it idles after 0.2 s without an entry; twice that, and it means it."""
FAILED_STATES: Final = ("failed", "crash_loop")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunAudit:
    """What became of the environment steps of this run's agents.

    Attributes:
        accepted_steps: In trajectories that the agents ended.
        trained_steps: In trajectories that a version was trained on.
        pending_steps: In trajectories that lie in the stream: the begin of the next rollout.
        trajectories: Outcome -> number of trajectories.
    """

    accepted_steps: int
    trained_steps: int
    pending_steps: int
    trajectories: dict[str, int]

    @property
    def trained_share(self) -> float:
        """trained_steps / accepted_steps, 0 … 1."""
        return self.trained_steps / self.accepted_steps if self.accepted_steps else 0.0

    @property
    def other_steps(self) -> int:
        """In trajectories that were dropped, quarantined or lost."""
        return self.accepted_steps - self.trained_steps - self.pending_steps


class Monitor:
    """Looks at one client; the agents of this run apart from all others."""

    def __init__(self, broker: Broker, client: str, *, clock: Clock) -> None:
        """Begin with what is new from now on: the client may have a past.

        Raises:
            BrokerError: If the broker cannot be asked.
        """
        self._broker = broker
        self._keys = ClientKeys(client)
        self._clock = clock
        self._stream = TrajectoryStream(broker, self._keys)
        past = read_metrics(broker, self._keys, count=1)
        self._after = past[-1].entry_id if past else START
        head = read_head(broker, self._keys)
        self._past_steps = head.counts.steps if head else 0
        self.agents: set[str] = set()

    def look(self, progress: Progress) -> None:
        """Bring `progress` up to date; a broker that is away is trouble, not an end."""
        try:
            self._look(progress)
        except (BrokerError, WireError) as error:
            progress.trouble = str(error)

    def _look(self, progress: Progress) -> None:
        head = read_head(self._broker, self._keys)
        progress.version = head.version if head else 0
        progress.backlog = self._stream.backlog().unsettled(head.retained if head else 0)
        ledgers = self._ledgers()
        progress.trained_steps = sum(ledger.steps for ledger in ledgers.values())
        report = read_worker_report(self._broker, self._keys)
        progress.worker = report.state if report else ""
        failed = report is not None and report.state in FAILED_STATES
        progress.trouble = f"worker {report.state}: {report.detail}" if report and failed else ""
        for record in read_metrics(self._broker, self._keys, after=self._after):
            self._after = record.entry_id
            values = dict(record.metrics)
            steps = int(values.get("time/total_timesteps", 0.0)) - self._past_steps
            lag = values.get("policy/lag_mean", 0.0)
            progress.versions.append(VersionPoint(record.version, steps, lag, values))

    def _ledgers(self) -> dict[str, LedgerRecord]:
        found = read_ledgers(self._broker, self._keys)
        return {agent_id: found[agent_id] for agent_id in self.agents & found.keys()}

    def settle(self, progress: Progress) -> bool:
        """Wait until the worker has trained on all that fills a rollout.

        Returns:
            False if it did not, or there is no worker that could.
        """
        deadline = self._clock.monotonic() + SETTLE_TIMEOUT_S
        quiet_since: float | None = None
        version = -1
        while (now := self._clock.monotonic()) < deadline:
            self.look(progress)
            if not read_lease(self._broker, self._keys).holder:
                return False
            backlog = self._stream.backlog()
            quiet = progress.worker == "idle" and not backlog.unread and progress.version == version
            if not quiet:
                quiet_since, version = None, progress.version
            elif quiet_since is None:
                quiet_since = now
            elif now - quiet_since >= QUIET_S:
                return True
            self._clock.wait(threading.Event(), LOOK_S)
        return False

    def audit(self) -> RunAudit:
        """Where this run's steps are; exact once the agents are closed and the worker idles."""
        heartbeats = read_heartbeats(self._broker, self._keys)
        mine = [heartbeats[agent_id] for agent_id in self.agents & heartbeats.keys()]
        ledgers = self._ledgers()
        pending_steps, pending = self._pending(ledgers)
        counts: Counter[str] = Counter(
            accepted=sum(said.accepted for said in mine),
            dropped=sum(said.dropped for said in mine),
            quarantined=sum(said.quarantined for said in mine),
            pending=pending,
        )
        for ledger in ledgers.values():
            for outcome in ("trained", "quarantined", "dropped", "skipped", "duplicate"):
                counts[outcome] += int(getattr(ledger, outcome))
        return RunAudit(
            accepted_steps=sum(said.steps for said in mine),
            trained_steps=sum(ledger.steps for ledger in ledgers.values()),
            pending_steps=pending_steps,
            trajectories=dict(sorted(counts.items())),
        )

    def _pending(self, ledgers: Mapping[str, LedgerRecord]) -> tuple[int, int]:
        """Steps and number of entries that are not settled; a replay buffer's stay, and are."""
        steps = entries = 0
        for entry in self._stream.addresses():
            try:
                address = decode_address(entry.fields)
                ledger = ledgers.get(address.agent_id, LedgerRecord())
                settled = address.seq <= ledger.watermark or address.seq in ledger.above
                if address.agent_id not in self.agents or settled:
                    continue
                steps += read_steps(entry.fields, WireLimits())
            except WireError:
                continue
            entries += 1
        return steps, entries
