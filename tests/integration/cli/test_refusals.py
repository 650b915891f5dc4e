"""What bad input gets: one line that names the thing and the next move, and a named exit code."""

import json
import socket
import threading
from contextlib import contextmanager

import pytest

from rl4sys_stream.errors import ExitCode
from rl4sys_stream.testing import RedisServer
from tests.integration.cli.terminal import Application

pytestmark = pytest.mark.integration

SECRET = "hunter2-hunter2"
OLD_INFO = (
    b"redis_version:6.2.14\r\nrole:master\r\nmaxmemory_policy:noeviction\r\naof_enabled:1\r\n"
    b"used_memory:1\r\nmaxmemory:0\r\n"
)


@pytest.fixture
def password(redis_url):
    """Of the shared broker."""
    return redis_url.partition("://:")[2].partition("@")[0]


@pytest.fixture
def bare_url(redis_server):
    """The shared broker without its password."""
    return f"redis://127.0.0.1:{redis_server.port}"


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def _impostor(answer):
    """Something that listens where a broker should; yields its URL.

    Args:
        answer: Command name -> reply, as bytes; None closes the connection.
    """
    listener = socket.create_server(("127.0.0.1", 0))

    def serve(link):
        with link, link.makefile("rb") as requests:
            while line := requests.readline():
                words = []
                for _ in range(int(line[1:]) if line.startswith(b"*") else 0):
                    size = int(requests.readline()[1:])
                    words.append(requests.read(size + 2)[:-2])
                reply = answer(words[0].upper() if words else b"")
                if reply is None:
                    return
                link.sendall(reply)

    def accept():
        while True:
            try:
                link, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(link,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield f"redis://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        # close() alone would leave accept() waiting, and the port open with it.
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


def _old_redis(name):
    return {
        b"HELLO": b"%1\r\n$5\r\nproto\r\n:3\r\n",
        b"INFO": b"$%d\r\n%b\r\n" % (len(OLD_INFO), OLD_INFO),
        b"PING": b"+PONG\r\n",
        b"CLIENT": b"+OK\r\n",
        b"SMEMBERS": b"~0\r\n",
        b"HGETALL": b"%0\r\n",
    }.get(name, b"-ERR unknown command\r\n")


@pytest.mark.parametrize(
    "arguments",
    [
        ("status",),
        ("audit", "--client", "x"),
        ("clients", "list"),
        ("clients", "reset", "x", "--yes"),
        ("models", "list", "--client", "x"),
        ("models", "show", "--client", "x", "1"),
    ],
)
def test_a_broker_that_is_not_there_is_named_with_the_next_move(run, arguments):
    """The address that was tried, and what explains it."""
    url = f"redis://127.0.0.1:{_free_port()}"
    answer = run(*arguments, "--redis-url", url)
    assert answer.code == ExitCode.UNAVAILABLE
    assert url in answer.error
    assert "rl4sys-stream doctor" in answer.error


def test_doctor_says_which_address_it_tried_and_where_it_comes_from(run):
    """A forgotten environment variable is the usual reason."""
    url = f"redis://127.0.0.1:{_free_port()}"
    for answer in (run("doctor", redis_url=url), run("doctor", "--redis-url", url)):
        assert answer.code == ExitCode.FAILURE
        assert "FAULT broker: cannot reach" in answer.out
        assert f"(now {url})" in answer.out
        assert "1 fault" in answer.out
    assert "check RL4SYS_STREAM_REDIS_URL" in run("doctor", redis_url=url).out


@pytest.mark.parametrize("command", [("status",), ("worker", "--client", "x"), ("dispatcher",)])
def test_a_wrong_password_is_refused_and_never_shown(run, bare_url, command):
    """By every kind of command, from the environment and within a URL there."""
    host = bare_url.partition("://")[2]
    for environ in (
        {"redis_url": bare_url, "redis_password": SECRET},
        {"redis_url": f"redis://:{SECRET}@{host}"},
        {"redis_url": f"{bare_url}/0?password={SECRET}"},
    ):
        answer = run(*command, **environ)
        assert answer.code == ExitCode.UNAVAILABLE
        assert "RL4SYS_STREAM_REDIS_PASSWORD" in answer.error
        assert SECRET not in answer.err + answer.out


def test_doctor_tells_a_wrong_password_from_a_wrong_address(run, bare_url):
    """The next move is another one."""
    answer = run("doctor", redis_url=bare_url, redis_password=SECRET)
    assert answer.code == ExitCode.FAILURE
    assert "refused the user or its password" in answer.out
    assert "-> put the right one into RL4SYS_STREAM_REDIS_PASSWORD" in answer.out
    assert SECRET not in answer.out + answer.err


@pytest.mark.parametrize(
    "command", [("status",), ("doctor",), ("worker", "--client", "x"), ("dispatcher",)]
)
def test_a_broker_that_asks_for_a_password_is_told_from_one_that_refuses_it(run, bare_url, command):
    """In words of ours: the broker's own are about HELLO, which no user has ever typed."""
    answer = run(*command, redis_url=bare_url)
    assert answer.code == (ExitCode.FAILURE if command == ("doctor",) else ExitCode.UNAVAILABLE)
    printed = answer.out + answer.err
    assert f"the broker at {bare_url} asks for a password and got none" in printed
    assert "put it into RL4SYS_STREAM_REDIS_PASSWORD, or its file's path into" in printed
    assert "HELLO" not in printed


def test_a_password_in_a_command_line_is_refused(run, redis_url, password):
    """`ps` shows it to everybody on the machine, and the shell's history keeps it."""
    for url in (redis_url, f"redis://h/0?password={password}"):
        answer = run("status", "--redis-url", url)
        assert answer.code == ExitCode.CONFIG
        assert "shows in `ps`" in answer.error
        assert "RL4SYS_STREAM_REDIS_PASSWORD_FILE" in answer.error
        assert password not in answer.err


def test_the_right_password_may_come_from_a_file(run, bare_url, password, tmp_path):
    """As secrets are mounted into containers; a missing file is named."""
    file = tmp_path / "secret"
    file.write_text(f"{password}\n")
    seen = run("doctor", redis_url=bare_url, redis_password_file=str(file))
    assert f"ok    broker: {bare_url} answers" in seen.out
    answer = run("status", redis_url=bare_url, redis_password_file=str(tmp_path / "none"))
    assert answer.code == ExitCode.CONFIG
    assert str(tmp_path / "none") in answer.error


@pytest.mark.parametrize(
    "url", ["http://localhost:1", "localhost:6379", "redis://localhost:port", "::::"]
)
def test_what_is_no_broker_url_is_refused_with_the_form_of_one(run, url):
    """The forms are in the message."""
    answer = run("status", "--redis-url", url)
    assert answer.code == ExitCode.CONFIG
    assert "redis://HOST:PORT/DB" in answer.error


def test_a_database_that_the_broker_does_not_have_is_refused(run, redis_url):
    """By the broker, in its own words."""
    answer = run("status", redis_url=redis_url.removesuffix("/0") + "/99")
    assert answer.code == ExitCode.UNAVAILABLE
    assert "DB index is out of range" in answer.error


def test_a_port_where_something_else_listens_is_no_broker(run):
    """A web server, say, or one that hangs up."""
    for reply in (b"HTTP/1.1 400 Bad Request\r\n\r\n", None):
        with _impostor(lambda _name, reply=reply: reply) as url:
            answer = run("status", "--redis-url", url)
            assert answer.code == ExitCode.UNAVAILABLE
            assert url in answer.error


@pytest.mark.fault
def test_a_broker_that_hangs_is_given_up_on(run):
    """It accepts connections and answers nothing."""
    with RedisServer() as server:
        server.pause()
        answer = run("doctor", redis_url=server.url)
        server.resume()
    assert answer.code == ExitCode.FAILURE
    assert "FAULT broker" in answer.out


@pytest.mark.parametrize("command", [("status",), ("doctor",), ("worker", "--client", "x")])
def test_a_broker_that_does_not_know_the_protocol_is_said_to_be_too_old(run, command):
    """Redis 5 answers the very first word with "unknown command"."""
    with _impostor(lambda name: b"-ERR unknown command `%b`, with args\r\n" % name) as url:
        answer = run(*command, "--redis-url", url)
    assert answer.code != ExitCode.OK
    assert "Redis 7.0 or Valkey 8.0 is needed" in answer.out + answer.err


@pytest.mark.parametrize("command", [("worker", "--client", "x"), ("dispatcher",)])
def test_a_broker_that_is_too_old_is_refused_with_what_is_needed(run, command):
    """Before anything is written to it."""
    with _impostor(_old_redis) as url:
        answer = run(*command, "--redis-url", url)
        assert answer.code == ExitCode.UNAVAILABLE
        assert "redis 6.2.14; redis 7.0 or newer is needed" in answer.error
        seen = run("doctor", "--redis-url", url)
    assert seen.code == ExitCode.FAILURE
    assert "FAULT version: redis 6.2.14" in seen.out
    assert "-> install redis 7.0 or newer" in seen.out


def test_a_broker_that_evicts_or_replicates_is_refused(run, redis_server, password):
    """An evicted stream is lost data; a replica takes no writes."""
    settings = {
        "maxmemory-policy": "allkeys-lru",
        "replicaof": f"127.0.0.1 {redis_server.port}",
        "masterauth": password,
    }
    for name, refusal, finding in (
        ("maxmemory-policy", "CONFIG SET maxmemory-policy noeviction", "FAULT eviction"),
        ("replicaof", "use the primary's URL", "FAULT role: a read-only replica"),
    ):
        chosen = {name: settings[name]}
        if name == "replicaof":
            chosen["masterauth"] = settings["masterauth"]
        with RedisServer(settings=chosen) as server:
            answer = run("worker", "--client", "x", redis_url=server.url)
            assert answer.code == ExitCode.UNAVAILABLE
            assert refusal in answer.error
            seen = run("doctor", redis_url=server.url)
            assert seen.code == ExitCode.FAILURE
            assert finding in seen.out


@pytest.mark.parametrize(
    "arguments",
    [
        ("status", "--client", "nosuch"),
        ("audit", "--client", "nosuch"),
        ("models", "list", "--client", "nosuch"),
        ("models", "show", "--client", "nosuch", "1"),
        ("clients", "reset", "nosuch", "--yes"),
        ("clients", "delete", "nosuch", "--yes"),
    ],
)
def test_an_unknown_client_is_answered_with_those_there_are(run, redis_url, client_name, arguments):
    """Names are misspelt more often than lost."""
    Application(redis_url, client_name).close()
    answer = run(*arguments, redis_url=redis_url)
    assert answer.code == ExitCode.NOT_FOUND
    assert "no client 'nosuch'" in answer.error
    assert client_name in answer.error


def test_a_name_that_no_client_can_have_is_refused(run, redis_url):
    """Before it becomes a key."""
    for arguments in (("status", "--client", "a b"), ("worker", "--client", "{x}")):
        answer = run(*arguments, redis_url=redis_url)
        assert answer.code == ExitCode.CONFIG
        assert answer.error.startswith("--client: expected")
    answer = run("clients", "delete", "../x", "--yes", redis_url=redis_url)
    assert answer.error.startswith("CLIENT: expected")


def test_a_version_that_is_not_there_is_answered_with_those_that_are(run, redis_url, client_name):
    """None, here."""
    Application(redis_url, client_name).close()
    answer = run("models", "show", "--client", client_name, "7", redis_url=redis_url)
    assert answer.code == ExitCode.NOT_FOUND
    assert "7" in answer.error


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"algorithm_parameters": {"learning_rat": 1}}', "did you mean 'learning_rate'?"),
        ('{"algorithm_parameters": {"gamma": "x"}}', "algorithm_parameters.gamma: expected a numb"),
        ('{"algorithm_parameters": {"gamma": 2}}', "algorithm_parameters.gamma: expected a number"),
        ("{", "is not JSON"),
        ('{"algorithm": "A2C"}', "algorithm: unknown algorithm 'A2C'"),
        ('{"client_id": "other"}', "is the definition of 'other'"),
        ('{"communication": {"redis_url": "redis://:pw@h:1"}}', "redis_url"),
    ],
)
def test_a_definition_that_is_wrong_is_refused_with_the_path(
    run, redis_url, client_name, tmp_path, text, expected
):
    """And the reason is left where `status` and `doctor` find it."""
    Application(redis_url, client_name).close()
    file = tmp_path / "definition.json"
    file.write_text(text)
    answer = run("worker", "--client", client_name, "--config", str(file), redis_url=redis_url)
    assert answer.code == ExitCode.CONFIG
    assert expected in answer.error
    assert str(file) in answer.error
    seen = run("status", "--client", client_name, redis_url=redis_url)
    assert f"worker failed: ConfigError: {answer.error}" in seen.out
    assert "FAULT" in run("doctor", redis_url=redis_url).out
    run("clients", "delete", client_name, "--yes", redis_url=redis_url)


def test_a_definition_that_is_not_there_is_refused(run, redis_url):
    """A file or folder that was named must exist."""
    for option in ("--config", "--workers-dir"):
        answer = run("worker", "--client", "x", option, "/no/such", redis_url=redis_url)
        assert answer.code == ExitCode.CONFIG
        assert "/no/such" in answer.error
    answer = run("dispatcher", redis_url=redis_url, workers_dir="/no/such")
    assert answer.code == ExitCode.CONFIG
    assert "RL4SYS_STREAM_WORKERS_DIR names /no/such" in answer.error


def test_a_misspelt_variable_is_refused_by_what_would_have_read_it(run, redis_url):
    """And by doctor, which looks at everything."""
    for command in (("worker", "--client", "x"), ("dispatcher",), ("status",)):
        answer = run(*command, redis_url=redis_url, redis_pass_word="x")
        assert answer.code == ExitCode.CONFIG
        assert "did you mean RL4SYS_STREAM_REDIS_PASSWORD?" in answer.error
    seen = run("doctor", redis_url=redis_url, redis_pass_word="x")
    assert seen.code == ExitCode.FAILURE
    assert "FAULT environment: unknown environment variable" in seen.out


def test_two_definitions_that_contradict_each_other_name_their_fields(
    run, redis_url, client_name, tmp_path
):
    """The second side has to change, or the client has to go."""
    Application(redis_url, client_name).close()
    file = tmp_path / "definition.json"
    file.write_text(
        json.dumps(
            {
                "action_space": {"type": "discrete", "n": 5},
                "network_architecture": {"hidden_sizes": [8]},
            }
        )
    )
    answer = run("worker", "--client", client_name, "--config", str(file), redis_url=redis_url)
    assert answer.code == ExitCode.CONFIG
    assert "action_space.n, network_architecture.hidden_sizes" in answer.err
    assert f"rl4sys-stream clients delete {client_name}" in answer.err
    assert "Traceback" not in answer.err
    seen = run("status", "--client", client_name, "--json", redis_url=redis_url)
    worker = json.loads(seen.out)["clients"][0]["worker"]
    assert worker["state"] == "failed"
    assert "network_architecture.hidden_sizes" in worker["detail"]
    run("clients", "delete", client_name, "--yes", redis_url=redis_url)


def test_a_deletion_without_a_terminal_wants_to_be_told_twice(
    run, redis_url, client_name, monkeypatch
):
    """A script that meant it says --yes; nothing happens otherwise."""
    Application(redis_url, client_name).close()
    for verb in ("reset", "delete"):
        answer = run("clients", verb, client_name, redis_url=redis_url)
        assert answer.code == ExitCode.USAGE
        assert "give --yes" in answer.error
    assert client_name in run("clients", "list", redis_url=redis_url).out
    assert run("clients", "delete", client_name, "--yes", redis_url=redis_url).code == ExitCode.OK
    assert client_name not in run("clients", "list", redis_url=redis_url).out
