"""The trajectory stream through its group: nothing is hidden, whatever happens to the stream."""

import pytest

from rl4sys_stream.broker.connection import AppendConnection, Broker, BrokerAddress
from rl4sys_stream.broker.keys import GROUP, ClientKeys
from rl4sys_stream.broker.stream import Backlog, TrajectoryStream
from rl4sys_stream.errors import BrokerAuthError, BrokerError, BrokerUnavailableError
from rl4sys_stream.testing import RedisServer

pytestmark = pytest.mark.integration


@pytest.fixture
def keys(client_name):
    """Of a fresh client."""
    return ClientKeys(client_name)


@pytest.fixture
def stream(broker, keys):
    """Without its group."""
    return TrajectoryStream(broker, keys)


def append(broker: Broker, keys: ClientKeys, count: int) -> list[str]:
    """Entries with their ordinal; their ids."""
    return [broker.call("XADD", keys.traj, "*", "n", n).decode() for n in range(count)]


def pages(stream: TrajectoryStream, page: int) -> list[list[str]]:
    """All pending ids."""
    return [[entry.entry_id for entry in entries] for entries in stream.read_pending(page=page)]


def test_a_group_reads_from_the_first_entry_on(broker, keys, stream):
    """Agents may have been there long before the first worker; a second creation is none."""
    ids = append(broker, keys, 3)
    stream.ensure_group()
    stream.ensure_group()
    assert [e.entry_id for e in stream.read_new(count=10, block_ms=10)] == ids
    stream.ensure_group()
    assert stream.read_new(count=10, block_ms=10) == []


def test_pending_entries_come_in_pages_without_end_or_gap(broker, keys, stream):
    """Also when a page is exactly full."""
    ids = append(broker, keys, 6)
    stream.ensure_group()
    assert pages(stream, 2) == []
    stream.read_new(count=10, block_ms=10)
    assert pages(stream, 2) == [ids[:2], ids[2:4], ids[4:]]
    assert pages(stream, 4) == [ids[:4], ids[4:]]


def test_a_pending_entry_that_was_deleted_is_read_without_fields(broker, keys, stream):
    """So that it can be settled."""
    ids = append(broker, keys, 2)
    stream.ensure_group()
    stream.read_new(count=10, block_ms=10)
    broker.call("XDEL", keys.traj, ids[0])
    (page,) = stream.read_pending(page=10)
    assert [(e.entry_id, dict(e.fields)) for e in page] == [(ids[0], {}), (ids[1], {b"n": b"1"})]
    assert page[0].size_bytes == 0


@pytest.mark.parametrize("loss", ["UNLINK", "DESTROY"])
def test_a_stream_or_group_that_vanished_is_made_again(broker, keys, stream, loss):
    """And read from its beginning, since what it holds may be new."""
    stream.ensure_group()
    append(broker, keys, 2)
    stream.read_new(count=10, block_ms=10)
    if loss == "UNLINK":
        broker.unlink(keys.traj)
    else:
        broker.call("XGROUP", "DESTROY", keys.traj, GROUP)
    stream.read_new(count=10, block_ms=10)
    ids = [entry.entry_id for entry in stream.addresses()] + append(broker, keys, 1)
    assert [e.entry_id for e in stream.read_new(count=10, block_ms=10)] == ids


def test_the_backlog_counts_what_waits(broker, keys, stream):
    """Unread, delivered, retained; nothing where there is no stream."""
    assert stream.backlog() == Backlog(0, 0, 0, None)
    assert stream.pending_count() == 0
    ids = append(broker, keys, 5)
    oldest = int(ids[0].split("-")[0])
    assert stream.backlog() == Backlog(5, 0, 5, oldest)
    stream.ensure_group()
    stream.read_new(count=2, block_ms=10)
    assert stream.backlog() == Backlog(5, 2, 3, oldest)
    assert stream.backlog().unsettled() == 5
    broker.call("XACK", keys.traj, GROUP, *ids[:2])
    assert stream.backlog().unsettled(retained=2) == 3
    broker.call("XDEL", keys.traj, ids[3])
    backlog = stream.backlog()
    assert backlog.entries == 4
    assert backlog.unsettled(retained=2) == 2


def test_the_backlog_does_not_trust_an_unknown_lag():
    """Then the length less what is retained is all that is known."""
    assert Backlog(10, 3, None, 0).unsettled(retained=4) == 6
    assert Backlog(10, 3, 2, 0).unsettled() == 5
    assert Backlog(3, 0, 9, 0).unsettled(retained=5) == 0


def test_a_broker_of_another_type_under_the_key_is_an_error(broker, keys, stream):
    """Not an empty stream."""
    broker.call("SET", keys.traj, "x")
    for ask in (stream.ensure_group, stream.backlog, lambda: list(stream.addresses())):
        with pytest.raises(BrokerError):
            ask()


def test_addresses_lists_every_entry_over_many_pages(broker, keys, stream):
    """The audit reads them all."""
    ids = append(broker, keys, 450)
    assert [entry.entry_id for entry in stream.addresses()] == ids


class TestAppendConnection:
    """What the agents' sender relies on."""

    def test_appends_arrive_in_order_with_their_ids(self, broker, broker_address, keys):
        """Binary values, many entries, one round trip."""
        connection = AppendConnection(broker_address, timeout_s=5, name="t")
        connection.connect()
        entries = [((b"n", b"%d" % n), (b"raw", bytes([n % 256, 13, 10, 0]))) for n in range(300)]
        replies, length = connection.append(keys.traj, entries)
        assert length == 300
        stored = broker.redis.xrange(keys.traj)
        assert [entry_id for entry_id, _ in stored] == replies
        assert [fields for _, fields in stored] == [dict(entry) for entry in entries]
        assert connection.append(keys.traj, []) == ([], 300)
        connection.close()

    def test_a_refusal_is_the_reply_of_its_entry_alone(self, broker, broker_address, keys):
        """The connection stays usable, and the other replies belong to the other entries."""
        connection = AppendConnection(broker_address, timeout_s=5, name="t")
        connection.connect()
        good = ((b"n", b"1"),)
        replies, length = connection.append(keys.traj, [good, (), good])
        assert [isinstance(reply, BrokerError) for reply in replies] == [False, True, False]
        assert length == 2
        broker.call("SET", keys.head, "x")
        replies, length = connection.append(keys.head, [good])
        assert [isinstance(reply, BrokerError) for reply in replies] == [True]
        assert length is None
        assert connection.request("PING") == b"PONG"
        connection.close()

    def test_a_broken_connection_is_closed_and_opens_again(self):
        """Whether what was in flight arrived is for the numbers to tell."""
        with RedisServer(aof=None) as server:
            address = BrokerAddress.from_url(server.url)
            connection = AppendConnection(address, timeout_s=1, name="t")
            connection.connect()
            server.kill()
            with pytest.raises(BrokerUnavailableError):
                connection.append("s", [((b"n", b"1"),)])
            with pytest.raises(BrokerUnavailableError):
                connection.connect()
            server.restart()
            connection.connect()
            assert connection.append("s", [((b"n", b"1"),)])[1] == 1
            connection.close()

    def test_a_wrong_password_is_named_as_such(self, redis_server):
        """With what to set; and not repeated in the message."""
        url = f"redis://:wr0ng@127.0.0.1:{redis_server.port}/0"
        connection = AppendConnection(BrokerAddress.from_url(url), timeout_s=5, name="t")
        with pytest.raises(BrokerAuthError, match="RL4SYS_STREAM_REDIS_PASSWORD") as caught:
            connection.connect()
        assert "wr0ng" not in str(caught.value)
