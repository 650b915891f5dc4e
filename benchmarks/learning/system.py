"""What a user of the package starts: `rl4sys-stream up`, with one client's definition."""

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import gymnasium
import numpy as np

from benchmarks.learning.cases import ROOT, Case, Streams
from rl4sys_stream.broker.connection import Broker, BrokerAddress
from rl4sys_stream.broker.head import read_head
from rl4sys_stream.broker.keys import ClientKeys
from rl4sys_stream.broker.metrics import read_metrics
from rl4sys_stream.spaces import as_space, space_to_json

__all__ = ["ONE_THREAD", "LearnerFacts", "System", "open_system", "write_definition"]

CLIENT: Final = "bench"
ONE_THREAD: Final = dict.fromkeys(
    ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1"
)
STOP_TIMEOUT_S: Final = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LearnerFacts:
    """What the learner has committed.

    Attributes:
        versions: Model versions published.
        trained_steps: Environment steps in trajectories that were taken in.
        unused: Trajectories that were dropped, quarantined or skipped.
        lag_mean: Mean policy lag of what updates took in, in versions; None if there was no update.
    """

    versions: int
    trained_steps: int
    unused: int
    lag_mean: float | None


class System:
    """A running `up`.

    Attributes:
        url: Of the broker, without its password: applications of the same user find it.
        definition: The client's file.
        environ: Of every process of this side.
    """

    def __init__(self, *, url: str, definition: Path, environ: dict[str, str]) -> None:
        self.url = url
        self.definition = definition
        self.environ = environ

    def facts(self) -> LearnerFacts:
        """Ask the broker."""
        keys = ClientKeys(CLIENT)
        address = BrokerAddress.from_url(self.url, self.environ)
        with Broker(address, name="benchmark") as broker:
            head = read_head(broker, keys)
            records = read_metrics(broker, keys)
        if head is None:
            raise SystemExit("the learner has committed nothing: see its log")
        lags = [r.metrics["policy/lag_mean"] for r in records if "policy/lag_mean" in r.metrics]
        counts = head.counts
        return LearnerFacts(
            versions=head.version,
            trained_steps=counts.steps,
            unused=counts.dropped + counts.quarantined + counts.skipped,
            lag_mean=float(np.mean(lags)) if lags else None,
        )


@contextmanager
def open_system(case: Case, side: Streams, *, seed: int, log: Path) -> Iterator[System]:
    """Start it in a folder of its own; everything is gone when the context ends."""
    with tempfile.TemporaryDirectory(prefix="rl4sys-learning-") as name:
        folder = Path(name)
        environ = {**os.environ, **ONE_THREAD, "PYTHONPATH": str(ROOT)}
        environ["RL4SYS_STREAM_STATE_DIR"] = str(folder / "state")
        definition = write_definition(folder / "workers", case, side, seed)
        command = [sys.executable, "-m", "rl4sys_stream", "up", "--port", "0"]
        options = ["--data-dir", str(folder / "broker"), "--workers-dir", str(definition.parent)]
        with (
            log.open("wb") as errors,
            subprocess.Popen(
                [*command, *options],
                cwd=ROOT,
                env=environ,
                stdout=subprocess.PIPE,
                stderr=errors,
            ) as up,
        ):
            try:
                url = _read_url(up, log)
                yield System(url=url, definition=definition, environ=environ)
            finally:
                up.terminate()
                up.wait(STOP_TIMEOUT_S)


def write_definition(folder: Path, case: Case, side: Streams, seed: int) -> Path:
    """The client's file for one run, in `folder`, which is made."""
    env = gymnasium.make(case.environment)
    parameters = side.definition["algorithm_parameters"]
    if not isinstance(parameters, dict):
        raise TypeError(parameters)
    definition = {
        **side.definition,
        "client_id": CLIENT,
        "observation_space": space_to_json(as_space(env.observation_space)),
        "action_space": space_to_json(as_space(env.action_space)),
        "algorithm_parameters": {**parameters, "seed": seed},
    }
    env.close()
    folder.mkdir()
    path = folder / f"{CLIENT}.json"
    path.write_text(json.dumps(definition, indent=1), encoding="utf-8")
    return path


def _read_url(up: subprocess.Popen[bytes], log: Path) -> str:
    if up.stdout is None:
        raise TypeError(up)
    for line in up.stdout:
        if found := re.search(rb"redis_url='(.+)'", line):
            return found[1].decode()
    raise SystemExit(f"`rl4sys-stream up` ended:\n{log.read_text(errors='replace')[-3000:]}")
