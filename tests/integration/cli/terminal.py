"""A user's terminal and application: commands in processes of their own, and what feeds them."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rl4sys_stream.broker.connection import AppendConnection, Broker, BrokerAddress
from rl4sys_stream.broker.head import read_head
from rl4sys_stream.broker.keys import ClientKeys
from rl4sys_stream.broker.registry import (
    AgentHeartbeat,
    make_definition,
    register,
    write_heartbeat,
)
from rl4sys_stream.config import ClientSpec, PPOParameters, WorkerSettings
from rl4sys_stream.model_store.subscriber import Model, ModelSubscriber
from rl4sys_stream.spaces import Box, Discrete
from rl4sys_stream.testing import eventually
from rl4sys_stream.wire.trajectory import (
    BehaviorRun,
    End,
    EntryAddress,
    Trajectory,
    address_fields,
    encode_trajectory,
)

ROOT = Path(__file__).parents[3]
SPEC = ClientSpec(observation_space=Box((3,)), action_space=Discrete(2))
STEPS = 16
"""Of one trajectory; four of them fill a rollout."""


def environment(extra: Mapping[str, str]) -> dict[str, str]:
    """That of this process, one thread for torch, and `extra`."""
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **extra}


@dataclass
class Command:
    """A command that runs in a process of its own."""

    process: subprocess.Popen[bytes]
    log: Path

    @property
    def output(self) -> str:
        """What it has printed so far, both streams."""
        return self.log.read_text()

    def prints(self, text: str, timeout_s: float = 20.0) -> str:
        """Wait for `text`; everything printed until then."""
        eventually(
            lambda: text in self.output or self.process.poll() is not None,
            timeout_s,
            f"{text!r} printed",
        )
        assert text in self.output, self.output
        return self.output

    def interrupt(self) -> int:
        """Ctrl-C, and the exit code."""
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(timeout=30)

    def terminate(self) -> int:
        """SIGTERM, and the exit code."""
        self.process.terminate()
        return self.process.wait(timeout=30)

    def kill(self) -> None:
        """SIGKILL."""
        self.process.kill()
        self.process.wait(timeout=10)


@contextmanager
def command(
    *arguments: str, folder: Path, env: Mapping[str, str] | None = None
) -> Iterator[Command]:
    """`rl4sys-stream ARGUMENTS` in the background, ended with the context at the latest."""
    log = folder / f"{arguments[0]}-{time.monotonic_ns()}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "rl4sys_stream", *arguments],
            cwd=folder,
            env=environment(env or {}),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield Command(process, log)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait(timeout=10)


def processes(text: str) -> dict[int, str]:
    """Process id -> command line of every running process whose command line holds `text`."""
    listing = subprocess.run(
        ["ps", "-axww", "-o", "pid=,stat=,args="], capture_output=True, text=True, check=True
    )
    rows = (line.split(None, 2) for line in listing.stdout.splitlines())
    return {
        int(row[0]): row[2]
        for row in rows
        if len(row) == 3 and text in row[2] and not row[1].startswith("Z")
    }


class Application:
    """What an application does to the broker: registers, and appends trajectories."""

    def __init__(self, url: str, client: str, environ: Mapping[str, str] | None = None) -> None:
        self.address = BrokerAddress.from_url(url, environ or {})
        self.broker = Broker(self.address, name="application")
        self.keys = ClientKeys(client)
        self.sent = 0
        definition = make_definition(
            PPOParameters(n_steps=4 * STEPS, batch_size=STEPS, n_epochs=1), WorkerSettings()
        )
        register(self.broker, self.keys, SPEC, definition, wall_ms=time.time_ns() // 1_000_000)

    @property
    def version(self) -> int:
        """The committed one, 0 before any."""
        head = read_head(self.broker, self.keys)
        return head.version if head else 0

    def act_until(self, version: int, timeout_s: float = 40.0) -> None:
        """Send trajectories until that version is committed."""
        subscriber = ModelSubscriber(self.broker, self.keys)
        first = eventually(lambda: subscriber.refresh(None), timeout_s, "a first model")
        assert first is not None
        model: Model = first
        rng = np.random.default_rng(0)
        sender = AppendConnection(self.address, timeout_s=5.0, name="application")
        sender.connect()
        while model.version < version:
            sender.append(self.keys.traj, [self._trajectory(model, rng) for _ in range(4)])
            self.report(model)
            model = self._newer(subscriber, model, timeout_s)
        sender.close()

    @staticmethod
    def _newer(subscriber: ModelSubscriber, model: Model, timeout_s: float) -> Model:
        newer = eventually(lambda: subscriber.refresh(model), timeout_s, "a newer model")
        assert newer is not None
        return newer

    def report(self, model: Model, *, closed: bool = True) -> None:
        """The heartbeat that belongs to what was sent."""
        heartbeat = AgentHeartbeat(
            agent_id="app-1",
            time_ms=time.time_ns() // 1_000_000,
            closed=closed,
            version=model.version,
            token=model.token,
            accepted=self.sent,
            issued=self.sent,
            steps=self.sent * STEPS,
        )
        write_heartbeat(self.broker, self.keys, heartbeat)

    def _trajectory(
        self, model: Model, rng: np.random.Generator
    ) -> tuple[tuple[bytes, bytes], ...]:
        self.sent += 1
        trajectory = Trajectory(
            rng.normal(size=(STEPS, 3)).astype("f4"),
            rng.integers(0, 2, STEPS),
            rng.normal(size=STEPS).astype("f4"),
            np.full(STEPS, np.log(0.5), "f4"),
            None,
            None,
            End.TERMINATED,
            (BehaviorRun(model.version, model.token, STEPS),),
            self.sent,
            0,
            0,
        )
        address = EntryAddress("app-1", self.sent, 1)
        return (*address_fields(address), *encode_trajectory(trajectory))

    def close(self) -> None:
        """Close its connections."""
        self.broker.close()
