"""One run as users make it: a broker, a worker process with the definition, and `play`."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final

import msgspec

from benchmarks.standard_environments.reference import Reference
from benchmarks.standard_environments.tasks import ROOT, Task
from rl4sys_stream import StreamAgent
from rl4sys_stream.broker.connection import URL_ENV, Broker, BrokerAddress
from rl4sys_stream.broker.embedded import EmbeddedServer
from rl4sys_stream.broker.head import read_head
from rl4sys_stream.broker.keys import ClientKeys
from rl4sys_stream.config import load_config
from rl4sys_stream.gymnasium import evaluate, make_environment, play
from rl4sys_stream.testing import eventually

__all__ = ["Score", "train"]

ONE_THREAD: Final = dict.fromkeys(
    ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1"
)
EVALUATION_SEED: Final = 1_000_000
"""Far from the seeds of training, so that the episodes are new."""
PATIENCE_S: Final = 60.0


class Score(msgspec.Struct, frozen=True, kw_only=True):
    """What came of one run.

    Attributes:
        task: Its name.
        environment: Gymnasium's id.
        algorithm: That trained.
        seed: Of environment, agent and learner.
        steps: Environment steps of training.
        seconds: That they took.
        version: Model version that was scored.
        training_mean: Mean return of the last 100 training episodes, exploration included.
        played_mean: Of the greedy episodes after training.
        episodes: How many these were.
        expected_return: Of the greedy policy, by the environment's rules; None where only playing
            tells.
        optimum: The highest expected return; None where nobody can compute it.
        goal: Mean return that counts as learned.
    """

    task: str
    environment: str
    algorithm: str
    seed: int
    steps: int
    seconds: float
    version: int
    training_mean: float
    played_mean: float
    episodes: int
    expected_return: float | None
    optimum: float | None
    goal: float

    @property
    def score(self) -> float:
        """What the goal is held against: the expectation where it is known."""
        return self.played_mean if self.expected_return is None else self.expected_return

    @property
    def reached(self) -> bool:
        """Whether the goal is reached."""
        return self.score >= self.goal


def train(task: Task, reference: Reference, seed: int) -> Score:
    """Train through a broker of its own, then score the newest policy."""
    with tempfile.TemporaryDirectory(prefix="rl4sys-standard-") as name:
        folder = Path(name)
        definition = task.write_definition(folder, seed)
        # At a crash of the machine a benchmark loses nothing that anybody would miss: no fsync.
        with (
            EmbeddedServer(folder / "broker", appendfsync="no") as server,
            _worker(task, definition, server.url),
            StreamAgent(definition, redis_url=server.url, seed=seed) as agent,
            Broker(BrokerAddress.from_url(server.url, {}), name="benchmark") as broker,
        ):
            with closing(make_environment(task.environment)) as env:
                played = play(env, agent, steps=task.steps, seed=seed)
            agent.flush(PATIENCE_S)
            _await_newest(agent, broker, ClientKeys(task.name))
            with closing(make_environment(task.environment)) as env:
                greedy = evaluate(env, agent, episodes=task.episodes, seed=EVALUATION_SEED + seed)
            expected = reference.expected_return
            recent = [episode.total for episode in played.episodes[-100:]]
            return Score(
                task=task.name,
                environment=task.environment,
                algorithm=load_config(definition, environ={}).algorithm,
                seed=seed,
                steps=played.steps,
                seconds=round(played.wall_s, 1),
                version=greedy.version,
                training_mean=sum(recent) / len(recent),
                played_mean=greedy.mean,
                episodes=len(greedy.returns),
                expected_return=None if expected is None else expected(agent),
                optimum=reference.optimum,
                goal=reference.goal,
            )


@contextmanager
def _worker(task: Task, definition: Path, url: str) -> Iterator[None]:
    """A worker process; it ends in order with the context."""
    command = [sys.executable, "-m", "rl4sys_stream", "worker", "--client", task.name]
    with (
        (definition.parent / "worker.log").open("wb") as log,
        subprocess.Popen(
            [*command, "--config", str(definition), "--parent-pid", str(os.getpid())],
            env={**os.environ, **ONE_THREAD, "PYTHONPATH": str(ROOT), URL_ENV: url},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        ) as process,
    ):
        try:
            yield
        finally:
            process.terminate()


def _await_newest(agent: StreamAgent, broker: Broker, keys: ClientKeys) -> None:
    """Wait until what acts is what was trained last."""

    def newest() -> bool:
        head = read_head(broker, keys)
        return head is not None and head.version == agent.version

    eventually(newest, PATIENCE_S, "the agent has the newest version")
