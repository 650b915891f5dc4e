"""The control: the usual pipeline, which must fail under the same faults.

    python -m benchmarks.chaos.control producer NUMBER LEDGER PACE
    python -m benchmarks.chaos.control trainer

A producer appends with the library's own retries; a trainer reads as a consumer group, publishes
what it "trained", then acknowledges. No numbers, no watermarks, no fence, nothing offered twice.
It is what most systems do, and the harness has to see it lose trajectories, train some twice, or
both; a harness under which it passes proves nothing.
"""

import os
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import redis

from benchmarks.chaos.faults import KINDS
from benchmarks.chaos.processes import find, send, start_module
from benchmarks.chaos.schedule import carry_out_faults
from benchmarks.chaos.settings import ChaosSettings
from benchmarks.chaos.site import Network
from rl4sys_stream.broker.connection import URL_ENV, Broker
from rl4sys_stream.broker.keys import ClientKeys

__all__ = ["ControlResult", "run_control"]

STREAM, GROUP, VERSIONS = "control:traj", "control", "control:versions"
BATCH = 32
UPDATE_S = 0.1
"""How long the trainer computes; about what a small update takes."""
OBJECTS = {"worker", "broker", "network"}
"""What there is to strike; it has neither dispatcher nor spool nor keys of its own."""
SETTLE_S = 20.0
PACE = "20"
"""Trajectories a second, of each producer."""
QUIET_S = 4.0


@dataclass(frozen=True, slots=True)
class ControlResult:
    """What became of the control's trajectories.

    Attributes:
        faults: How many struck.
        kinds: How many kinds have an object here.
        faults_by_kind: Which of them struck how often.
        accepted: Appends that returned.
        trained: Of them, by what was published.
        twice: Of these, in more than one version.
        waiting: Neither trained nor acknowledged.
        lost: None of that.
    """

    faults: int
    kinds: int
    faults_by_kind: dict[str, int]
    accepted: int
    trained: int
    twice: int
    waiting: int
    lost: int

    @property
    def failed(self) -> bool:
        """As it must: something was lost or trained twice."""
        return self.lost + self.twice > 0


def produce(number: int, ledger: Path, per_s: float) -> None:
    """Append ids; write each down when the append has returned."""
    client = redis.Redis.from_url(os.environ[URL_ENV])
    written = os.open(ledger, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    ordinal = 0
    while not stop.wait(1 / per_s):
        ordinal += 1
        name = f"{number}-{ordinal}"
        try:
            client.xadd(STREAM, {"id": name})
        except redis.RedisError:
            continue  # the application goes on; this one was not accepted
        os.write(written, f"{name}\n".encode())


def train() -> None:
    """Read, compute, publish, acknowledge; begin again after any error."""
    while True:
        try:
            _train(redis.Redis.from_url(os.environ[URL_ENV]))
        except redis.RedisError:
            time.sleep(0.2)


def _train(client: redis.Redis) -> None:
    try:
        client.xgroup_create(STREAM, GROUP, id="0", mkstream=True)
    except redis.ResponseError as error:
        if "BUSYGROUP" not in str(error):
            raise
    after = "0"  # what a trainer that died has left comes first
    while True:
        reply = client.xreadgroup(GROUP, GROUP, {STREAM: after}, count=BATCH, block=500)
        streams = reply.items() if isinstance(reply, dict) else reply
        batch = [one for _, entries in streams for one in _flat(entries)]
        if not batch:
            after = ">"
            continue
        time.sleep(UPDATE_S)
        names = [fields[b"id"].decode() for _, fields in batch if fields]
        client.rpush(VERSIONS, msgspec.json.encode(names))
        client.xack(STREAM, GROUP, *[entry_id for entry_id, _ in batch])


def _flat(entries: list[Any]) -> list[Any]:
    return entries[0] if entries and isinstance(entries[0], list) else entries


class ControlSite:
    """The control as a site: its supervisor starts a trainer again whenever there is none."""

    def __init__(self, folder: Path, settings: ChaosSettings) -> None:
        """Start the broker, a trainer and the producers."""
        self.settings = settings
        self.stopping = threading.Event()
        self._folder = folder
        (folder / "broker").mkdir(parents=True)
        self.network = Network(folder, settings)
        # A word that only this run's processes bear, so that they are found among all others.
        self._word = f"control-{secrets.token_hex(6)}"
        self._trainers: list[subprocess.Popen[str]] = []
        self._producers = [
            self._start(["producer", str(number), str(folder / f"{number}.ids"), PACE], "producers")
            for number in range(len(settings.clients) * settings.agents)
        ]
        self._lock = threading.Lock()
        self.start_trainer("control")
        self._supervisor = threading.Thread(target=self._supervise, daemon=True)
        self._supervisor.start()

    def _start(self, arguments: list[str], side: str) -> subprocess.Popen[str]:
        network = self.network
        url = network.producers_url if side == "producers" else network.trainers_url
        return start_module(
            "benchmarks.chaos.control",
            [*arguments, self._word],
            url=url,
            log=self._folder / "control.log",
        )

    def clients(self) -> list[str]:
        """Just one."""
        return ["control"]

    def stream(self, _client: str) -> str:
        """Key of the stream."""
        return STREAM

    def group(self) -> str:
        """Name of the consumer group."""
        return GROUP

    def trainers(self, _client: str) -> list[int]:
        """Process ids of the trainers."""
        return find("trainer", self._word)

    def start_trainer(self, _client: str) -> int:
        """One more trainer."""
        with self._lock:
            self._trainers.append(self._start(["trainer"], "trainers"))
            return self._trainers[-1].pid

    def restart_supervisor(self) -> str:
        """There is nothing to kill: the harness supervises."""
        return ""

    def second_supervisor(self, _wait: Callable[[], None], *, older_dies: bool) -> str:
        """There is nothing to double."""
        del older_dies
        return ""

    def restart_producer(self, _client: str, *, in_order: bool = False) -> str:
        """Producers are not killed: they promise nothing about that."""
        del in_order
        return ""

    def ask_producer(self, _client: str, _number: signal.Signals, _answer: str) -> str:
        """Producers listen to nobody."""
        return ""

    def keys(self, client: str) -> ClientKeys:
        """None of these exist here."""
        return ClientKeys(client)

    def lasting_agents(self, _client: str) -> list[str]:
        """Nobody destroys entries here."""
        return []

    def note_destroyed(self, _client: str, _entries: dict[str, tuple[str, int]]) -> None:
        """Nobody destroys entries here."""

    def are_settled(self, _client: str, _entries: dict[str, tuple[str, int]]) -> bool:
        """Nobody destroys entries here."""
        return True

    def _supervise(self) -> None:
        while not self.stopping.wait(0.2):
            if all(process.poll() is not None for process in self._trainers):
                self.start_trainer("control")

    def settle(self) -> None:
        """Stop producing; wait until nothing changes."""
        for process in self._producers:
            process.terminate()
        for process in self._producers:
            process.wait(20)
        last, since = None, time.monotonic()
        deadline = since + SETTLE_S
        while time.monotonic() < min(deadline, since + QUIET_S):
            with self.network.broker.admin() as admin:
                now = admin.call("LLEN", VERSIONS)
            if now != last:
                last, since = now, time.monotonic()
            time.sleep(0.2)

    def count(self, struck: Counter[str], kinds: int) -> ControlResult:
        """Accepted against trained."""
        accepted: set[str] = set()
        for path in self._folder.glob("*.ids"):
            accepted.update(path.read_text(encoding="ascii").split())
        with self.network.broker.admin() as admin:
            versions = admin.call("LRANGE", VERSIONS, 0, -1)
            waiting = _waiting(admin)
        trained = Counter(name for data in versions for name in msgspec.json.decode(data))
        return ControlResult(
            faults=struck.total(),
            kinds=kinds,
            faults_by_kind=dict(struck),
            accepted=len(accepted),
            trained=len(trained),
            twice=sum(count > 1 for count in trained.values()),
            waiting=len((accepted & waiting) - set(trained)),
            lost=len(accepted - set(trained) - waiting),
        )

    def close(self) -> None:
        """End everything."""
        self.stopping.set()
        self._supervisor.join(5)
        for process in [*self._producers, *self._trainers]:
            send(process.pid, signal.SIGCONT)
            process.kill()
            process.wait()
        self.network.close()


def _waiting(admin: Broker) -> set[str]:
    """Names in the stream that no trainer has acknowledged: late, and not lost."""
    found: set[str] = set()
    client: Any = admin.redis  # its types know nothing of the form of its replies
    (group,) = client.xinfo_groups(STREAM)
    for _, fields in client.xrange(STREAM, min=b"(" + group["last-delivered-id"]):
        found.add(fields[b"id"].decode())
    for row in client.xpending_range(STREAM, GROUP, "-", "+", 10_000):
        for _, fields in client.xrange(STREAM, row["message_id"], row["message_id"]):
            found.add(fields[b"id"].decode())
    return found


def run_control(folder: Path, settings: ChaosSettings) -> ControlResult:
    """Run the control in `folder`, which must be empty."""
    kinds = [kind for kind in KINDS if set(kind.needs) <= OBJECTS]
    site = ControlSite(folder, settings)
    try:
        time.sleep(2.0)
        records = carry_out_faults(site, kinds, begun=time.monotonic())
        site.settle()
        struck = Counter(record.kind for record in records if record.counts)
        return site.count(struck, len(kinds))
    finally:
        site.close()


if __name__ == "__main__":
    if sys.argv[1] == "producer":
        produce(int(sys.argv[2]), Path(sys.argv[3]), float(sys.argv[4]))
    else:
        train()
