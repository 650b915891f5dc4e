"""Dispatcher and workers as real processes, and what happens when one of them is killed."""

import os
import signal
import threading

import pytest

from rl4sys_stream.broker.admin import delete_client
from rl4sys_stream.broker.connection import Broker, BrokerAddress
from rl4sys_stream.broker.keys import ClientKeys
from rl4sys_stream.broker.registry import read_worker_report
from rl4sys_stream.dispatcher.loop import Dispatcher
from rl4sys_stream.dispatcher.process import worker_spawner
from rl4sys_stream.dispatcher.report import read_dispatchers
from rl4sys_stream.dispatcher.ward import DispatcherSettings
from rl4sys_stream.errors import ExitCode
from rl4sys_stream.testing import RedisServer, eventually
from tests.integration.cli.terminal import Application, command, processes

pytestmark = [pytest.mark.integration, pytest.mark.fault]


@pytest.fixture
def server():
    """A broker of its own: a dispatcher looks after every client that it finds."""
    with RedisServer() as server:
        yield server


@pytest.fixture
def broker(server):
    """A connection to it."""
    broker = Broker(BrokerAddress.from_url(server.url), name="test")
    yield broker
    broker.close()


@pytest.fixture
def env(server, tmp_path):
    """How a process finds the broker."""
    return {
        "RL4SYS_STREAM_REDIS_URL": server.url,
        "RL4SYS_STREAM_STATE_DIR": str(tmp_path / "state"),
    }


@pytest.fixture
def leaves_no_worker():
    """Workers outlive their dispatcher on purpose; a test that failed must not leave any."""
    yield
    for pid in processes("worker --client killed-"):
        os.kill(pid, signal.SIGKILL)


def _workers(client: str) -> set[int]:
    return set(processes(f"worker --client {client}"))


def test_workers_outlive_their_dispatcher_and_not_their_client(
    server, broker, env, tmp_path, leaves_no_worker
):
    """A killed worker is replaced; a killed dispatcher leaves it at work; a deletion ends it."""
    client = f"killed-{os.getpid()}"
    application = Application(server.url, client)
    with command("dispatcher", folder=tmp_path, env=env) as first:
        application.act_until(2)
        (worker,) = _workers(client)
        os.kill(worker, signal.SIGKILL)
        first.prints("dispatcher.worker_ended")
        assert 'how="killed by SIGKILL"' in first.output
        reached = application.version
        application.act_until(reached + 1)
        (successor,) = _workers(client)
        assert successor != worker
        first.kill()

    with command("dispatcher", folder=tmp_path, env=env) as second:
        eventually(lambda: any(r.pid == second.process.pid for r in read_dispatchers(broker)))
        application.act_until(reached + 2)
        assert _workers(client) == {successor}
        assert "worker_started" not in second.output
        os.kill(successor, signal.SIGTERM)
        eventually(lambda: successor not in _workers(client), 20.0)
        application.act_until(reached + 3)
        assert len(_workers(client)) == 1
        delete_client(broker, application.keys, force=False, wall_ms=1)
        eventually(lambda: not _workers(client), 20.0, "the worker of the deleted client gone")
        assert not broker.call("EXISTS", application.keys.spec)
        assert second.terminate() == ExitCode.OK
        assert "Traceback" not in second.output
    application.close()


def test_a_worker_that_cannot_start_is_given_up_and_everybody_is_told_why(
    server, broker, run, tmp_path
):
    """Its definition is broken: five tries, then status and doctor say what to mend."""
    client = f"killed-{os.getpid()}"
    application = Application(server.url, client)
    (tmp_path / "workers").mkdir()
    (tmp_path / "workers" / f"{client}.json").write_text('{"algorithm_parameters": {"gama": 1}}')
    spawn = worker_spawner(
        BrokerAddress.from_url(server.url), arguments=["--workers-dir", str(tmp_path / "workers")]
    )
    settings = DispatcherSettings(tick_s=0.05, backoff_s=0.01)
    loop = Dispatcher(broker, spawn, settings=settings)
    thread = threading.Thread(target=loop.run)
    thread.start()

    def given_up() -> bool:
        report = read_worker_report(broker, ClientKeys(client))
        return report is not None and report.state == "crash_loop"

    try:
        eventually(given_up, 30.0, "given up")
        for shown in (run("status", redis_url=server.url), run("doctor", redis_url=server.url)):
            assert "given up after 5 failures in a row, the last: exit code 78" in shown.out
            assert "algorithm_parameters.gama: unknown key; did you mean 'gamma'?" in shown.out
            assert "-> mend the cause, then restart the dispatcher" in shown.out
        assert run("doctor", redis_url=server.url).code == ExitCode.FAILURE
    finally:
        loop.stop()
        thread.join(timeout=20)
        application.close()


def test_a_worker_waits_for_what_is_not_there_yet_and_says_so(env, tmp_path):
    """First the broker, then the client; and it ends when it is told to."""
    with RedisServer() as late:
        late.stop()
        env = {**env, "RL4SYS_STREAM_REDIS_URL": late.url}
        with command("worker", "--client", "killed-later", folder=tmp_path, env=env) as worker:
            worker.prints("waiting: cannot reach the broker at redis://:***@127.0.0.1")
            late.restart()
            worker.prints("worker.client.not_registered client=killed-later")
            assert worker.terminate() == ExitCode.OK
            assert "Traceback" not in worker.output
            assert late.url.partition("://:")[2].partition("@")[0] not in worker.output
