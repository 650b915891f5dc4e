"""Addresses and errors: the password is used and never shown."""

import logging
import traceback

import pytest
import redis

from rl4sys_stream.broker.connection import AppendConnection, Broker, BrokerAddress
from rl4sys_stream.broker.credentials import forget_password, recall_password, remember_password
from rl4sys_stream.broker.translation import translate
from rl4sys_stream.errors import (
    BrokerAuthError,
    BrokerError,
    BrokerFullError,
    BrokerUnavailableError,
    BrokerUnsuitableError,
    ConfigError,
)

SECRET = "s3cr3t"


def password_of(address: BrokerAddress) -> object:
    """What the connections will log in with."""
    return address._options.get("password")


@pytest.mark.parametrize(
    ("url", "password"),
    [
        ("redis://:s3cr3t@host:6380/2", "s3cr3t"),
        ("redis://user:s3cr3t@host", "s3cr3t"),
        ("rediss://user:s3cr3t@host:6380", "s3cr3t"),
        ("redis://host?password=s3cr3t", "s3cr3t"),
        ("unix:///run/redis.sock?password=s3cr3t", "s3cr3t"),
        ("unix://user:s3cr3t@/run/redis.sock", "s3cr3t"),
        ("redis://user:p%40s3cr3t@host", "p@s3cr3t"),
        ("redis://user:p@s3cr3t@host", "p@s3cr3t"),
        ("redis://user:a:s3cr3t@host", "a:s3cr3t"),
        ("redis://user:my s3cr3t@host", "my s3cr3t"),
    ],
)
def test_no_form_of_a_url_shows_its_password(url, password):
    """Neither whole nor in part, in repr, str, or the name of the broker in messages."""
    address = BrokerAddress.from_url(url, {})
    assert password_of(address) == password
    assert address.secret_url == url
    shown = [repr(address), str(address), address.public_url, Broker(address, name="t").where]
    for text in shown:
        assert SECRET not in text
        assert "***" in text


@pytest.mark.parametrize(
    "url",
    [
        "redis://user:s3cr3t@host:port",
        "redis://user:s3cr3t/x@host:6379",
        "http://user:s3cr3t@host",
        "redis://user:a s3cr3t/b@host",
    ],
)
def test_a_refused_url_does_not_show_its_password(url):
    """The message says what is wrong with it all the same."""
    with pytest.raises(ConfigError, match="write redis://") as caught:
        BrokerAddress.from_url(url, {})
    assert SECRET not in "".join(traceback.format_exception(caught.value))


def test_an_unreachable_broker_does_not_show_its_password(caplog):
    """Not in the error, its causes, or what redis-py logs."""
    address = BrokerAddress.from_url("redis://user:s3cr3t@127.0.0.1:1/0", {})
    with (
        caplog.at_level(logging.DEBUG),
        pytest.raises(BrokerUnavailableError, match="doctor") as caught,
    ):
        Broker(address, timeout_s=0.5, name="t").ping()
    assert SECRET not in "".join(traceback.format_exception(caught.value))
    connection = AppendConnection(address, timeout_s=0.5, name="t")
    with pytest.raises(BrokerUnavailableError) as again:
        connection.connect()
    assert SECRET not in "".join(traceback.format_exception(again.value))
    assert SECRET not in caplog.text


def test_the_environment_brings_the_password_that_the_url_lacks(tmp_path):
    """Variable before file; the URL's own before both."""
    file = tmp_path / "password"
    file.write_text("from-file\n", encoding="utf-8")
    both = {
        "RL4SYS_STREAM_REDIS_PASSWORD": "from-env",
        "RL4SYS_STREAM_REDIS_PASSWORD_FILE": str(file),
    }
    only_file = {"RL4SYS_STREAM_REDIS_PASSWORD_FILE": str(file)}
    assert password_of(BrokerAddress.from_url("redis://host", both)) == "from-env"
    assert password_of(BrokerAddress.from_url("redis://host", only_file)) == "from-file"
    assert password_of(BrokerAddress.from_url("redis://:own@host", both)) == "own"
    assert "from-" not in repr(BrokerAddress.from_url("redis://host", both))


def test_a_password_file_that_is_missing_is_named(tmp_path):
    """By its variable."""
    environ = {"RL4SYS_STREAM_REDIS_PASSWORD_FILE": str(tmp_path / "none")}
    with pytest.raises(ConfigError, match="RL4SYS_STREAM_REDIS_PASSWORD_FILE"):
        BrokerAddress.from_url("redis://host", environ)


def test_a_broker_that_this_user_started_is_logged_in_to_by_its_port(tmp_path):
    """On loopback alone: the same port elsewhere is somebody else's."""
    environ = {"RL4SYS_STREAM_STATE_DIR": str(tmp_path)}
    path = remember_password(7001, "left-behind", environ)
    assert path.stat().st_mode & 0o077 == 0
    for host in ("localhost", "127.0.0.1", "[::1]"):
        address = BrokerAddress.from_url(f"redis://{host}:7001", environ)
        assert password_of(address) == "left-behind"
        assert "left-behind" not in repr(address)
    for elsewhere in ("redis://example.org:7001", "redis://localhost:7002", "unix:///x.sock"):
        assert password_of(BrokerAddress.from_url(elsewhere, environ)) is None
    forget_password(7001, environ)
    forget_password(7001, environ)
    assert recall_password("localhost", 7001, environ) is None


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (redis.ConnectionError("refused"), BrokerUnavailableError),
        (redis.TimeoutError("timed out"), BrokerUnavailableError),
        (ConnectionResetError("reset"), BrokerUnavailableError),
        (redis.exceptions.BusyLoadingError("loading"), BrokerUnavailableError),
        (redis.ResponseError("LOADING the dataset"), BrokerUnavailableError),
        (redis.ResponseError("BUSY a script runs"), BrokerUnavailableError),
        (redis.AuthenticationError("WRONGPASS"), BrokerAuthError),
        (redis.ResponseError("NOAUTH Authentication required."), BrokerAuthError),
        (redis.exceptions.NoPermissionError("no permissions"), BrokerAuthError),
        (redis.exceptions.OutOfMemoryError("OOM"), BrokerFullError),
        (redis.ResponseError("OOM command not allowed"), BrokerFullError),
        (redis.ReadOnlyError("replica"), BrokerUnsuitableError),
        (redis.ResponseError("MISCONF cannot persist"), BrokerUnsuitableError),
        (redis.ResponseError("NOREPLICAS Not enough"), BrokerUnsuitableError),
        (redis.ResponseError("WRONGTYPE"), BrokerError),
    ],
)
def test_every_error_of_the_library_becomes_one_of_ours(error, expected):
    """The kind says what may be done about it; the cause stays readable."""
    with pytest.raises(BrokerError) as caught, translate("the broker at here"):
        raise error
    assert type(caught.value) is expected
    assert "the broker at here" in str(caught.value)
    assert caught.value.__cause__ is error


def test_errors_that_are_not_the_brokers_pass():
    """A bug must not look like an outage."""
    with pytest.raises(KeyError), translate("the broker at here"):
        raise KeyError("x")
