"""Demos at a broker that runs already."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from rl4sys_stream.broker.connection import URL_ENV, Broker, BrokerAddress
from rl4sys_stream.broker.keys import ClientKeys
from rl4sys_stream.broker.registry import make_definition, register
from rl4sys_stream.config import ClientSpec, PPOParameters, WorkerSettings
from rl4sys_stream.spaces import Box, Discrete
from rl4sys_stream.testing import RedisServer
from tests.integration.demo.runs import ROOT, finish, start_demo

pytestmark = pytest.mark.integration


@pytest.fixture
def dispatched() -> Iterator[RedisServer]:
    """A broker with a dispatcher beside it."""
    with RedisServer() as server:
        dispatcher = subprocess.Popen(
            [sys.executable, "-m", "rl4sys_stream", "dispatcher"],
            cwd=ROOT,
            env={**os.environ, URL_ENV: server.url, "PYTHONPATH": str(ROOT)},
            stderr=subprocess.DEVNULL,
        )
        try:
            yield server
        finally:
            dispatcher.send_signal(signal.SIGTERM)
            dispatcher.wait(30)


def test_two_agents_learn_at_a_running_broker(dispatched: RedisServer, tmp_path: Path) -> None:
    """With --redis-url nothing is started here but the applications, which share the steps."""
    options = ("--redis-url", dispatched.url, "--agents", "2", "--max-steps", "6000", "--no-gif")
    run = finish(start_demo(tmp_path, *options), tmp_path)
    assert run.code == 1, run.output
    assert not (run.folder / "broker").exists()
    assert not run.summary["settings"]["own_broker"]
    assert run.summary["steps_accepted"] == 6000
    assert run.summary["steps_trained"] + run.summary["steps_pending"] == 6000
    assert (run.folder / "application-1.log").exists()


def test_a_broker_that_is_not_there_is_named(tmp_path: Path) -> None:
    """Exit code 69, the address, and what to do; no traceback."""
    process = start_demo(tmp_path, "--redis-url", "redis://127.0.0.1:1/0")
    output, _ = process.communicate(timeout=30)
    assert process.returncode == 69
    assert "redis://127.0.0.1:1/0" in output
    assert "Traceback" not in output


def test_a_client_with_another_spec_is_refused_in_words(tmp_path: Path) -> None:
    """The application's named exit code and the differing field reach the user."""
    spec = ClientSpec(
        observation_space=Box(shape=(3,), low=-1.0, high=1.0), action_space=Discrete(4)
    )
    definition = make_definition(PPOParameters(), WorkerSettings())
    with RedisServer() as server:
        broker = Broker(BrokerAddress.from_url(server.url), name="test")
        register(broker, ClientKeys("lunar_lander"), spec, definition, wall_ms=0)
        broker.close()
        run = finish(start_demo(tmp_path, "--redis-url", server.url), tmp_path, 40)
    assert run.code == 78, run.output
    assert run.summary["exit_reason"] == "application failed"
    assert "observation_space" in run.output
