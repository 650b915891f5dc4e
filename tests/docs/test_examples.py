"""The examples, run as their README says, with small budgets."""

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from rl4sys_stream.testing import eventually

pytestmark = pytest.mark.integration

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True)
class Up:
    """`rl4sys-stream up` in a folder of its own."""

    port: int
    environ: dict[str, str]

    @property
    def url(self) -> str:
        """As a user writes it: without a password."""
        return f"redis://localhost:{self.port}"

    def run(self, *command: str, timeout_s: float = 60) -> str:
        """Run `python -m` with `command` beside it; its output."""
        done = subprocess.run(
            [sys.executable, "-m", *command],
            cwd=ROOT,
            env=self.environ,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def audit(self, client: str) -> dict[str, Any]:
        """`rl4sys-stream audit --json`."""
        command = ("rl4sys_stream", "audit", "--client", client, "--redis-url", self.url, "--json")
        found: dict[str, Any] = json.loads(self.run(*command))
        return found


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """A broker with its dispatcher, as the README starts it."""
    folder = tmp_path_factory.mktemp("up")
    port = _free_port()
    environ = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "RL4SYS_STREAM_STATE_DIR": str(folder / "state"),
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, "-m", "rl4sys_stream", "up", "--debug", "--port", str(port)]
    with (folder / "up.log").open("wb") as log:
        process = subprocess.Popen(
            [*command, "--data-dir", str(folder / "data")],
            cwd=ROOT,
            env=environ,
            stdout=log,
            stderr=log,
        )
        try:
            eventually(lambda: _accepts(port), 20, "the broker listens")
            yield Up(port, environ)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(40)


def _accepts(port: int) -> bool:
    """Whether something listens on the port."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _free_port() -> int:
    """A port below those for outgoing connections, free a moment ago."""
    for _ in range(100):
        port = 20_000 + secrets.randbelow(10_000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise AssertionError("no free port")


def test_the_lunar_lander_example_runs_as_in_rl4sys(up: Up) -> None:
    """RL4Sys's command line and configuration; every trajectory arrives and is accounted for."""
    output = up.run(
        "examples.lunar.lunar_lander",
        *("--seed", "1", "--number-of-iterations", "30", "--number-of-moves", "50"),
        *("--render", "False", "--client-id", "lunar_lander", "--redis-url", up.url),
    )
    assert "episodes=30 mean_return=" in output
    balance = up.audit("lunar_lander")
    assert balance["closes"]
    # No lander falls in 50 moves, so every episode is truncated, and none is lost.
    assert balance["total"]["accepted"] == 30
    assert balance["steps_accepted"] == 30 * 50
    eventually(lambda: up.audit("lunar_lander")["total"]["pending"] == 30, 20)


def test_a_lunar_lander_run_shorter_than_its_reports_says_how_it_went(up: Up) -> None:
    """Once, at its end."""
    output = up.run(
        "examples.lunar.lunar_lander",
        *("--number-of-iterations", "3", "--number-of-moves", "50"),
        *("--client-id", "short_run", "--redis-url", up.url),
    )
    assert output.count("episodes=3 mean_return=") == len(output.splitlines()) == 1


def test_the_quickstart_runs(up: Up) -> None:
    """The system never waits, and every job's late reward arrives."""
    environ = {**up.environ, "RL4SYS_STREAM_REDIS_URL": up.url}
    output = Up(up.port, environ).run("examples.quickstart", "100")
    assert output.splitlines()[-1].startswith("episode 100: a job takes ")
    balance = up.audit("quickstart")
    assert balance["closes"]
    assert balance["total"]["accepted"] == 100
    assert balance["steps_accepted"] == 100 * 50


def test_the_quickstart_is_short() -> None:
    """What a newcomer reads first fits on a screen."""
    lines = (ROOT / "examples" / "quickstart.py").read_text().splitlines()
    assert len(lines) < 40
