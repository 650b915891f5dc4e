"""Starting and ending the application and the worker of a benchmark."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from benchmarks.rig.application import N_ACTIONS, OBS_DIM

ROOT = Path(__file__).resolve().parents[2]
CLIENT = "bench"


def write_definition(
    folder: Path,
    *,
    parameters: Mapping[str, object],
    worker: Mapping[str, object],
    agent: Mapping[str, object],
) -> Path:
    """One file for both sides: 64×64 actor, 8 observations, 4 actions."""
    path = folder / f"{CLIENT}.json"
    definition = {
        "client_id": CLIENT,
        "algorithm": "PPO",
        "observation_space": {"type": "box", "shape": [OBS_DIM]},
        "action_space": {"type": "discrete", "n": N_ACTIONS},
        "network_architecture": {"hidden_sizes": [64, 64]},
        "algorithm_parameters": dict(parameters),
        "worker": dict(worker),
        "agent": dict(agent),
    }
    path.write_text(json.dumps(definition), encoding="utf-8")
    return path


class Process:
    """A child that is gone when the block ends, however it ends."""

    def __init__(self, arguments: list[str], *, url: str, log: Path) -> None:
        with log.open("ab") as output:
            self._popen = subprocess.Popen(
                [sys.executable, "-m", *arguments],
                cwd=ROOT,
                env={
                    **os.environ,
                    "PYTHONPATH": str(ROOT),
                    "OMP_NUM_THREADS": "1",
                    "RL4SYS_STREAM_REDIS_URL": url,
                },
                stdout=output,
                stderr=output,
            )
        self.log = log

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._popen.pid

    def require_alive(self) -> None:
        """End the benchmark, with the end of the log, if it is gone."""
        if self._popen.poll() is not None:
            tail = self.log.read_text(encoding="utf-8", errors="replace")[-3000:]
            sys.exit(f"{self.log.name}: ended with {self._popen.returncode}:\n{tail}")

    def kill(self) -> None:
        """As a crash would."""
        self._popen.send_signal(signal.SIGKILL)
        self._popen.wait()

    def pause(self) -> None:
        """As a debugger would; `resume` ends it."""
        self._popen.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        self._popen.send_signal(signal.SIGCONT)

    def stop(self, timeout_s: float = 60) -> int:
        """As an operator would; its exit code."""
        self._popen.terminate()
        return self._popen.wait(timeout_s)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._popen.poll() is None:
            self.kill()


def start_worker(config: Path, *, url: str, folder: Path) -> Process:
    """The worker of the client."""
    arguments = ["rl4sys_stream", "worker", "--client", CLIENT, "--config", str(config)]
    arguments += ["--workers-dir", str(folder)]
    return Process(arguments, url=url, log=folder / "worker.log")


def start_application(
    config: Path, *, url: str, folder: Path, run: int = 0, options: tuple[str, ...] = ()
) -> Process:
    """The application."""
    arguments = ["benchmarks.rig.application", "--folder", str(folder), "--config", str(config)]
    arguments += ["--run", str(run), *options]
    return Process(arguments, url=url, log=folder / "application.log")
