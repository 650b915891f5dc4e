"""Backoff and the words for an exit code."""

import random
from typing import Any

import pytest

from rl4sys_stream.broker.connection import URL_ENV, BrokerAddress
from rl4sys_stream.dispatcher.process import describe_exit, worker_spawner
from rl4sys_stream.dispatcher.ward import DispatcherSettings, Ward

SETTINGS = DispatcherSettings(backoff_s=0.5, max_backoff_s=30.0)


class NoJitter(random.Random):
    """Always the longest wait."""

    def uniform(self, a: float, b: float) -> float:
        """The upper end."""
        return b


def test_the_wait_doubles_with_each_failure_up_to_a_limit():
    """0.5, 1, 2, … 30, 30: a worker that cannot start must not keep a core busy."""
    ward = Ward()
    waits = [ward.note_failure("x", 100.0, SETTINGS, NoJitter()) for _ in range(9)]
    assert waits == [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0]
    assert ward.not_before == 130.0
    assert ward.failures == 9


def test_jitter_takes_away_half_at_most():
    """So that the workers of many clients do not all start in the same instant."""
    rng = random.Random(7)
    waits = [Ward().note_failure("x", 0.0, SETTINGS, rng) for _ in range(200)]
    assert min(waits) < 0.3
    assert all(0.25 <= wait <= 0.5 for wait in waits)
    assert max(waits) > 0.45


def test_a_thousand_failures_do_not_overflow():
    """2.0 ** 1000 would not fit a wait."""
    ward = Ward(failures=1000)
    assert ward.note_failure("x", 0.0, SETTINGS, NoJitter()) == 30.0


def test_a_success_clears_the_record():
    """Failures, their cause and the giving up are forgotten; a short wait stays."""
    ward = Ward(failures=4, cause="exit code 1", given_up_on="abc")
    ward.note_success(10.0, SETTINGS)
    assert (ward.failures, ward.cause, ward.given_up_on) == (0, "", "")
    assert ward.not_before == 10.5


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (0, "exit code 0 (ok)"),
        (3, "exit code 3"),
        (78, "exit code 78 (config)"),
        (71, "exit code 71 (non finite)"),
        (-9, "killed by SIGKILL"),
        (-250, "killed by signal 250"),
    ],
)
def test_an_exit_is_told_in_words(code, words):
    """Numbers alone send people to a search engine."""
    assert describe_exit(code) == words


def test_a_worker_gets_the_password_in_its_environment_alone(monkeypatch):
    """Arguments are for everybody to read."""
    seen: dict[str, Any] = {}
    monkeypatch.setattr(
        "subprocess.Popen", lambda arguments, **options: seen.update(options, arguments=arguments)
    )
    address = BrokerAddress.from_url("redis://:hunter2@localhost:7000", {})
    worker_spawner(address, arguments=["--debug"], die_with_parent=True)("lander")
    assert "hunter2" not in " ".join(seen["arguments"])
    assert seen["env"][URL_ENV] == "redis://:hunter2@localhost:7000"
    assert seen["start_new_session"]
    assert "--parent-pid" in seen["arguments"]
    assert "--debug" in seen["arguments"]
