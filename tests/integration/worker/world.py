"""A client as its worker sees it: a definition, an agent that only sends, and a ledger of our own.

The counts that the tests compare with are kept here, from what was sent and what the published
versions say they were trained on; the worker's own counts are not evidence.
"""

import json
import signal
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from rl4sys_stream.broker.audit import audit_client
from rl4sys_stream.broker.connection import AppendConnection, Broker, BrokerAddress, Fields
from rl4sys_stream.broker.head import Head, read_head
from rl4sys_stream.broker.keys import ClientKeys
from rl4sys_stream.broker.metrics import read_metrics
from rl4sys_stream.broker.registry import (
    AgentHeartbeat,
    make_definition,
    register,
    write_heartbeat,
)
from rl4sys_stream.config import load_config
from rl4sys_stream.errors import BrokerError
from rl4sys_stream.testing import eventually
from rl4sys_stream.wire.trajectory import Trajectory
from tests.integration.worker.zygote import ROOT, Zygote
from tests.unit.worker.entries import N_ACTIONS, OBS_DIM, entry_fields, trajectory

STEPS = 8
"""Of an ordinary trajectory."""
ROLLOUT = 4
"""Trajectories that one update trains on."""
KEEP_ALL = 1000


LEARNERS: dict[str, dict[str, object]] = {
    "PPO": {"n_steps": STEPS * ROLLOUT, "batch_size": 16, "n_epochs": 2},
    "DQN": {
        "update_steps": STEPS * ROLLOUT,
        "batch_size": 16,
        "buffer_size": STEPS * ROLLOUT * 4,
        "learning_starts": STEPS * ROLLOUT,
        "target_update_interval": STEPS * ROLLOUT * 3,
        "total_timesteps": STEPS * ROLLOUT * 100,
    },
}
"""Each updates after a rollout of ordinary trajectories; a replay buffer holds four of these."""


def definition(
    client: str,
    *,
    algorithm: str = "PPO",
    parameters: dict[str, object] | None = None,
    **worker: object,
) -> dict[str, object]:
    """A worker's definition, quick in everything. No version is pruned, no lag is too large."""
    return {
        "client_id": client,
        "algorithm": algorithm,
        "observation_space": {"type": "box", "shape": [OBS_DIM]},
        "action_space": {"type": "discrete", "n": N_ACTIONS},
        "network_architecture": {"hidden_sizes": [8]},
        "algorithm_parameters": {**LEARNERS[algorithm], "seed": 7, **(parameters or {})},
        "worker": {
            "lease_s": 0.7,
            "lease_renew_s": 0.2,
            "read_block_s": 0.05,
            "max_policy_lag": 100_000,
            "retain_versions": KEEP_ALL,
            **worker,
        },
    }


@dataclass
class Feeder:
    """An agent that sends what it is told to, in order, until the broker answers."""

    broker: Broker
    keys: ClientKeys
    agent_id: str = "agent"
    sent: list[int] = field(default_factory=list)
    floor: int = 1

    def __post_init__(self) -> None:
        """Connect."""
        self._connection = AppendConnection(self.broker.address, timeout_s=5, name="feeder")
        self._connection.connect()

    def send(self, count: int, make: Callable[[int], Trajectory] | None = None) -> list[int]:
        """New trajectories; their numbers. What is sent is on record before it is sent."""
        first = len(self.sent) + 1
        numbers = list(range(first, first + count))
        self.sent += numbers
        entries = [
            entry_fields(
                self.agent_id,
                seq,
                make(seq) if make else trajectory(STEPS, seed=seq),
                floor=self.floor,
            )
            for seq in numbers
        ]
        self.append(entries)
        self.floor = first + count
        return numbers

    def append(self, entries: Sequence[Fields]) -> None:
        """Until the broker has answered; duplicates are the worker's business."""

        def attempt() -> bool:
            try:
                replies, _ = self._connection.append(self.keys.traj, entries)
                assert not any(isinstance(reply, BrokerError) for reply in replies)
                self.beat()
            except BrokerError:
                with suppress(BrokerError):
                    self._connection.connect()
                return False
            return True

        eventually(attempt, 30, "the broker takes entries")

    def beat(self, *, closed: bool = False, time_ms: int = 0, broker: str = "") -> None:
        """What an agent says of itself."""
        said = AgentHeartbeat(
            agent_id=self.agent_id,
            accepted=len(self.sent),
            issued=len(self.sent),
            floor=self.floor,
            closed=closed,
            time_ms=time_ms,
            broker=broker,
        )
        write_heartbeat(self.broker, self.keys, said)

    def close(self) -> None:
        """Disconnect."""
        self._connection.close()


@dataclass
class WorkerProcess:
    """One worker."""

    zygote: Zygote
    pid: int
    log_file: Path

    @property
    def log(self) -> str:
        """What it wrote to standard error."""
        return self.log_file.read_text(encoding="utf-8", errors="replace")

    def says(self, text: str) -> None:
        """Wait until it has written `text`."""
        eventually(lambda: text in self.log, 20, f"{text!r} in the worker's log")

    def signal(self, number: signal.Signals) -> None:
        """Send a signal, if it still runs."""
        if self.poll() is None:
            import os  # noqa: PLC0415

            os.kill(self.pid, number)

    def poll(self) -> int | None:
        """Its exit code, None while it runs."""
        return self.zygote.poll(self.pid)

    def wait(self, timeout_s: float = 20) -> int:
        """Its exit code, when it has ended."""
        eventually(lambda: self.poll() is not None, timeout_s, "the worker ends")
        code = self.poll()
        assert code is not None
        return code

    def kill(self) -> None:
        """As a crash would."""
        self.signal(signal.SIGKILL)
        assert self.wait() in {-signal.SIGKILL, 0, 71}

    def stop(self) -> int:
        """As an operator would; its exit code."""
        self.signal(signal.SIGTERM)
        return self.wait()


class World:
    """One client on one broker."""

    def __init__(self, url: str, client: str, folder: Path, zygote: Zygote) -> None:
        self.url = url
        self.client = client
        self.keys = ClientKeys(client)
        self.broker = Broker(BrokerAddress.from_url(url), name="world")
        self.folder = folder
        self.config = folder / f"{client}.json"
        self.workers: list[WorkerProcess] = []
        self.feeders: list[Feeder] = []
        self._zygote = zygote

    def define(
        self,
        *,
        algorithm: str = "PPO",
        parameters: dict[str, object] | None = None,
        **worker: object,
    ) -> None:
        """Write the worker's definition."""
        text = json.dumps(
            definition(self.client, algorithm=algorithm, parameters=parameters, **worker)
        )
        self.config.write_text(text, encoding="utf-8")

    def register(self) -> None:
        """As an agent does that knows the definition."""
        config = load_config(self.config, environ={})
        made = make_definition(config.parameters, config.worker)
        register(self.broker, self.keys, config.spec(), made, wall_ms=1)

    def start(
        self,
        *,
        config: bool = True,
        algorithm: str = "",
        environ: Mapping[str, str] | None = None,
        url: str = "",
    ) -> WorkerProcess:
        """Start a worker; `algorithm`, `environ`: see `Zygote.start`; `url`: another way there."""
        log = self.folder / f"{self.client}-{len(self.workers)}.log"
        log.touch()
        nothing = self.folder / "nothing"
        nothing.mkdir(exist_ok=True)
        arguments = ["worker", "--client", self.client, "--workers-dir", str(nothing)]
        if config:
            if not self.config.exists():
                self.define()
            arguments += ["--config", str(self.config)]
        pid = self._zygote.start(
            arguments, url=url or self.url, log=log, algorithm=algorithm, environ=environ
        )
        worker = WorkerProcess(self._zygote, pid, log)
        self.workers.append(worker)
        return worker

    def feeder(self, agent_id: str = "agent") -> Feeder:
        """An agent."""
        self.feeders.append(Feeder(self.broker, self.keys, agent_id))
        return self.feeders[-1]

    def head(self) -> Head | None:
        """What is committed."""
        return read_head(self.broker, self.keys)

    def version(self) -> int:
        """The newest version, 0 while there is none."""
        head = self.head()
        return head.version if head else 0

    def reaches(self, version: int, timeout_s: float = 20) -> Head:
        """Wait for a version."""

        def reached() -> bool:
            if self.workers and self.workers[-1].poll() not in {None, 0, -signal.SIGKILL}:
                raise RuntimeError(self.workers[-1].log)
            return self.version() >= version

        eventually(
            reached, timeout_s, f"version {version} of {self.client}", ignoring=(BrokerError,)
        )
        head = self.head()
        assert head is not None
        return head

    def settles(self, timeout_s: float = 20) -> None:
        """Wait until the stream is empty but for the rest of a rollout."""
        eventually(
            lambda: self.broker.call("XLEN", self.keys.traj) < ROLLOUT,
            timeout_s,
            "the stream is settled",
            ignoring=(BrokerError,),
        )

    def taken(self) -> Counter[tuple[str, int]]:
        """(agent_id, number) -> how many versions of the lineage say they were trained on it."""
        head = self.head()
        found: Counter[tuple[str, int]] = Counter()
        for entry in head.manifest if head else ():
            key = self.keys.model(entry.version, entry.token)
            (data,) = self.broker.hash_get(key, "provenance")
            assert data is not None
            for agent_id, numbers in msgspec.json.decode(data)["agents"].items():
                found.update((agent_id, seq) for seq in numbers)
        return found

    def digests(self) -> list[tuple[bytes | None, ...]]:
        """Of each version's model, checkpoint and statistics, from 1 on."""
        head = self.head()
        assert head is not None
        found = []
        for entry in head.manifest:
            model = self.keys.model(entry.version, entry.token)
            checkpoint = self.keys.checkpoint(entry.version, entry.token)
            found.append(
                (
                    *self.broker.hash_get(model, "digest"),
                    *self.broker.hash_get(checkpoint, "digest", "statistics"),
                )
            )
        return found

    def check_exactly_once(self, *, pending: int = 0) -> None:
        """One lineage without gaps; each number sent is in one version, but for the last ones."""
        head = self.head()
        assert head is not None
        assert [entry.version for entry in head.manifest] == list(range(1, head.version + 1))
        recorded = [record.version for record in read_metrics(self.broker, self.keys)]
        assert recorded == list(range(1, head.version + 1))
        taken = self.taken()
        assert set(taken.values()) <= {1}
        sent = {(one.agent_id, seq) for one in self.feeders for seq in one.sent}
        waiting = sent - set(taken)
        assert len(waiting) == pending
        assert set(taken) <= sent
        assert head.counts.trained == len(taken)
        report = audit_client(self.broker, self.keys)
        assert report.closes, report
        assert report.total("trained") == len(taken)
        assert report.total("pending") == pending
        assert report.total("skipped") == 0

    def close(self) -> None:
        """End the workers and the connections."""
        for worker in self.workers:
            worker.signal(signal.SIGKILL)
        for feeder in self.feeders:
            feeder.close()
        self.broker.close()


def worlds(folder: Path, zygote: Zygote) -> Iterator[Callable[[str, str], World]]:
    """Makes worlds, and ends them: the body of a fixture."""
    made: list[World] = []

    def make(url: str, client: str) -> World:
        made.append(World(url, client, folder, zygote))
        return made[-1]

    yield make
    for world in made:
        world.close()


__all__ = ["ROLLOUT", "ROOT", "STEPS", "Feeder", "WorkerProcess", "World", "definition", "worlds"]
