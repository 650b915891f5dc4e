"""`up`: from an empty folder to published versions, and what is left however it ends."""

import os
import re
import signal
import socket

import pytest

from rl4sys_stream.broker.credentials import recall_password
from rl4sys_stream.errors import ExitCode
from rl4sys_stream.testing import eventually
from tests.integration.cli.terminal import Application, Command, command, processes

pytestmark = pytest.mark.integration


@pytest.fixture
def state(tmp_path):
    """The environment of a user whose brokers' passwords are kept in this folder."""
    return {"RL4SYS_STREAM_STATE_DIR": str(tmp_path / "state")}


def _port(up: Command) -> int:
    """Where the broker of `up` listens."""
    text = up.prints("stop        Ctrl-C")
    found = re.search(r"redis_url='redis://localhost:(\d+)'", text)
    assert found, text
    return int(found[1])


def _parts(up: Command, port: int) -> dict[int, str]:
    """The processes of that `up` besides itself: broker, watchdog, workers."""
    return {
        pid: line
        for pid, line in {
            **processes(f"127.0.0.1:{port}"),
            **processes(f"--parent-pid {up.process.pid}"),
        }.items()
        if pid != up.process.pid
    }


@pytest.mark.fault
def test_up_trains_whoever_registers_and_leaves_nothing_behind_but_the_data(tmp_path, state):
    """One run ended by Ctrl-C, and one that goes on with its data and is killed."""
    folder = tmp_path / "data"
    with command("up", "--port", "0", "--data-dir", str(folder), folder=tmp_path, env=state) as up:
        port = _port(up)
        url = f"redis://localhost:{port}"
        password = recall_password("localhost", port, state)
        assert password, "an application of this user finds the password by itself"
        application = Application(url, "lander", state)
        application.act_until(2)
        parts = _parts(up, port)
        assert sum("worker --client lander" in line for line in parts.values()) == 1
        assert not any(password in line for line in processes("").values())
        assert password not in up.output
        reached = application.version
        assert up.interrupt() == ExitCode.OK
        assert f"stopped     data kept in {folder}" in up.output
        assert "Traceback" not in up.output
        assert not _parts(up, port)
        assert recall_password("localhost", port, state) is None
        application.close()

    with command("up", "--port", "0", "--data-dir", str(folder), folder=tmp_path, env=state) as up:
        assert _port(up) == port, "the same folder gets the same port again"
        application = Application(url, "lander", state)
        assert application.version == reached
        eventually(lambda: "worker --client lander" in str(_parts(up, port)), 20.0)
        up.kill()
        eventually(lambda: not _parts(up, port), 30.0, "broker and worker gone with `up`")
        application.close()


def test_a_second_up_is_refused_without_harm_to_the_first(tmp_path, state):
    """On the same folder, or on a port that is taken; the first one's password stays."""
    with command("up", "--port", "0", "--data-dir", "one", folder=tmp_path, env=state) as up:
        port = _port(up)
        for arguments, expected in (
            (("--port", str(port), "--data-dir", "one"), "runs already, at redis://127.0.0.1"),
            (("--port", "0", "--data-dir", "one"), "runs already"),
            (("--port", str(port), "--data-dir", "two"), f"port {port} on 127.0.0.1 is already in"),
        ):
            with command("up", *arguments, folder=tmp_path, env=state) as second:
                assert second.process.wait(timeout=20) == ExitCode.UNAVAILABLE
                errors = [line for line in second.output.splitlines() if "error: " in line]
                assert len(errors) == 1
                assert expected in errors[0]
                assert "Traceback" not in second.output
        assert recall_password("localhost", port, state)
        with command(
            "status", "--redis-url", f"redis://localhost:{port}", folder=tmp_path, env=state
        ) as status:
            assert status.process.wait(timeout=20) == ExitCode.OK
            assert "no clients at" in status.output
        assert up.terminate() == ExitCode.OK


@pytest.mark.fault
def test_up_ends_with_an_error_when_its_broker_dies(tmp_path, state):
    """Rather than wait for ever for what nobody will start again."""
    with command("up", "--port", "0", "--data-dir", "data", folder=tmp_path, env=state) as up:
        port = _port(up)
        (broker,) = (p for p, line in _parts(up, port).items() if "watchdog" not in line)
        os.kill(broker, signal.SIGKILL)
        assert up.process.wait(timeout=20) == ExitCode.UNAVAILABLE
        assert "error: the broker ended by itself" in up.output
        assert "data/server.log says why" in up.output


def test_a_password_that_cannot_be_kept_stops_up_before_anything_runs(run, tmp_path):
    """Applications could not log in; the message says which folder, and what to do."""
    (tmp_path / "file").write_text("")
    answer = run("up", "--port", "0", "--data-dir", "data", state_dir=str(tmp_path / "file"))
    assert answer.code == ExitCode.CONFIG
    last = answer.err.splitlines()[-1]
    assert last.startswith(f"error: cannot keep the broker's password in {tmp_path}/file/brokers")
    assert "RL4SYS_STREAM_STATE_DIR" in last
    assert not processes(str(tmp_path / "data"))


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--port", "70000"), "'--port': 70000 is not in the range"),
        (("--port", "http"), "'--port': 'http' is not a valid integer"),
        (("--maxmemory", "lots"), "write it as 512mb or 2gb"),
        (("--capacity", "0"), "'--capacity': 0 is not in the range"),
        (("--data-dir", __file__), "is a file"),
    ],
)
def test_an_impossible_option_is_refused_before_anything_starts(run, arguments, expected):
    """With the option, in one line."""
    answer = run("up", *arguments)
    assert answer.code == ExitCode.USAGE
    assert expected in answer.error
    assert "(see `rl4sys-stream up --help`)" in answer.error


def test_a_port_that_another_program_listens_on_is_named(run):
    """Nothing of ours is started beside it."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        answer = run("up", "--port", str(port), "--data-dir", "data")
    assert answer.code == ExitCode.UNAVAILABLE
    assert f"port {port} on 127.0.0.1 is already in use" in answer.error
