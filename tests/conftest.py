"""Fixtures for every test: a real broker, and a client name of one's own in it."""

import gc
import os
import secrets
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from rl4sys_stream.testing import RedisServer

if TYPE_CHECKING:
    from rl4sys_stream.broker.connection import Broker, BrokerAddress


@pytest.fixture(scope="session", autouse=True)
def _no_settings_from_outside() -> None:
    """Tests see the defaults, not the developer's own broker."""
    for name in [name for name in os.environ if name.startswith("RL4SYS_STREAM_")]:
        if name != "RL4SYS_STREAM_REDIS_SERVER":
            del os.environ[name]


@pytest.fixture(scope="module", autouse=True)
def _what_is_left_open_is_told_where_it_was_opened() -> Iterator[None]:
    """A forgotten socket in a cycle would fail whichever test the collector happens to run in."""
    yield
    gc.collect()


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    """One real server for each pytest process. Tests that kill one start their own instead."""
    with RedisServer() as server:
        yield server


@pytest.fixture
def redis_url(redis_server: RedisServer) -> str:
    """The address of the shared server, with its password."""
    return redis_server.url


@pytest.fixture
def broker_address(redis_url: str) -> "BrokerAddress":
    """The address of the shared server, parsed."""
    from rl4sys_stream.broker.connection import BrokerAddress  # noqa: PLC0415 -- not for units

    return BrokerAddress.from_url(redis_url)


@pytest.fixture
def broker(broker_address: "BrokerAddress") -> Iterator["Broker"]:
    """An open connection to the shared server."""
    from rl4sys_stream.broker.connection import Broker  # noqa: PLC0415 -- not for units

    opened = Broker(broker_address, name="test")
    yield opened
    opened.close()


@pytest.fixture
def client_name() -> str:
    """A client that no other test uses, so that tests share a server without meeting."""
    return f"test_{secrets.token_hex(6)}"
