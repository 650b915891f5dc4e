"""Connections to a real server: opened, named and closed as they say."""

import pytest

from rl4sys_stream.broker.connection import Broker, BrokerAddress, Subscription
from rl4sys_stream.testing import eventually

pytestmark = pytest.mark.integration


def connections(broker: Broker, name: str) -> int:
    """How many connections of that name the server has."""
    return sum(f"name={name} " in f"{line} " for line in _clients(broker))


def _clients(broker: Broker) -> list[str]:
    reply = broker.redis.client_list()
    return [" ".join(f"{key}={value}" for key, value in row.items()) for row in reply]


def test_a_closed_broker_has_no_connection_left(broker, broker_address, client_name):
    """Workers open one a session; those of a thousand sessions must not pile up."""
    opened = Broker(broker_address, name=client_name)
    opened.ping()
    assert connections(broker, client_name) == 1
    opened.close()
    eventually(lambda: connections(broker, client_name) == 0)


def test_a_closed_subscription_has_no_connection_left(broker, broker_address, client_name):
    """Nor one that was refused."""
    subscription = Subscription(broker_address, "channel", timeout_s=5, name=client_name)
    assert connections(broker, client_name) == 1
    subscription.close()
    eventually(lambda: connections(broker, client_name) == 0)


def test_a_subscription_misses_nothing_from_its_construction_on(
    broker, broker_address, client_name
):
    """And waits as long as it was told to, not for its own confirmation."""
    subscription = Subscription(broker_address, client_name, timeout_s=5, name="t")
    for number in range(3):
        assert broker.call("PUBLISH", client_name, number) == 1
    assert [subscription.get(5) for _ in range(3)] == [b"0", b"1", b"2"]
    assert subscription.get(0.01) is None
    subscription.close()


def test_a_server_is_reached_by_its_unix_socket(redis_server, broker):
    """With the same password."""
    password = redis_server.url.split("@")[0].rpartition(":")[2]
    url = f"unix://:{password}@{redis_server.unix_socket}"
    opened = Broker(BrokerAddress.from_url(url), name="t")
    opened.ping()
    assert password not in opened.where
    opened.close()
